srun \
--job-name=understudy \
--overlap \
--mem=0 \
--nodes=1 \
--nodelist=n2 \
--ntasks=1 \
--cpus-per-task=1 \
--chdir=/ \
--input=none \
--output=none \
--error=none \
sh \
-c \
'while sleep 10; do
    said=$(squeue --noheader --jobs="$1" --format="%T %N") && [ "${said%% *}" = RUNNING ] || continue
    names=$(scontrol show hostnames "${said#* }") && [ -n "$names" ] || continue
    echo "$names" | grep -qxF "$2" || scontrol requeue "$1"
done
' \
sslrun \
7 \
n1
