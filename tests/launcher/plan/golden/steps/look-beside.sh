srun \
--immediate=60 \
--overlap \
--mem=0 \
--nodes=4 \
--nodelist=n1,n2,n3,n4 \
--ntasks=4 \
--ntasks-per-node=1 \
--chdir=/ \
--input=none \
sh \
-c \
'echo "$SLURMD_NODENAME begins"
left=$3
soon() { until test "$@"; do [ "$left" -gt 0 ] || return 1; left=$((left - 1)); sleep 1; done; }
soon -r "$1/spec.json" || { echo "$SLURMD_NODENAME does not see $1"; exit 3; }
soon -w "$1/logs" || { echo "$SLURMD_NODENAME cannot write to $1"; exit 3; }
command -v "$2" >/dev/null || { echo "$SLURMD_NODENAME has no $2"; exit 3; }
echo "$SLURMD_NODENAME is $(uname -n)"
' \
sslrun \
/runs/deepercluster \
/opt/sslrun/bin/python \
60
