srun \
--overlap \
--mem=0 \
--nodes=1 \
--nodelist=n2 \
--ntasks=1 \
--cpus-per-task=1 \
--chdir=/ \
--mpi=none \
--input=none \
sh \
-c \
'n=0
for pid; do
    while kill -0 "$pid" 2>/dev/null; do [ "$n" -lt 5 ] || exit 7; n=$((n + 1)); sleep 1; done
done
' \
sh \
4711
