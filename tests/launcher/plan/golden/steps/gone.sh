srun \
--overlap \
--mem=0 \
--nodes=1 \
--nodelist=n2 \
--ntasks=1 \
--cpus-per-task=1 \
--chdir=/ \
--input=none \
sh \
-c \
'for pid; do ! kill -0 "$pid" 2>/dev/null || exit 7; done' \
sh \
4711 \
4712
