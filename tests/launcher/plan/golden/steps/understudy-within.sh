srun \
--job-name=understudy \
--overlap \
--mem=0 \
--nodes=1 \
--nodelist=n2 \
--ntasks=1 \
--cpus-per-task=1 \
--chdir=/ \
--mpi=none \
--input=none \
--output=none \
--error=none \
sh \
-c \
'while sleep 10; do
    said=$(scontrol show job -o "$1" 2>&1) || case $said in *"Invalid job id"*) exit;; *) continue;; esac
    case $said in *" Restarts=$3 "*) ;; *) exit;; esac
    case $said in *" JobState=RUNNING "*) ;; *" JobState=SUSPENDED "*) continue;; *) exit;; esac
    nodes=${said##* NodeList=}
    names=$(scontrol show hostnames "${nodes%% *}") && [ -n "$names" ] || continue
    echo "$names" | grep -qxF "$2" && continue
    echo "$2" > "$4"
    scontrol requeue "$1"
done
' \
sslrun \
7 \
n1 \
2 \
/runs/deepercluster/first_node_lost
