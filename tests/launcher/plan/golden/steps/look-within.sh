srun \
--immediate=60 \
--nodes=4 \
--nodelist=n1,n2,n3,n4 \
--ntasks=4 \
--ntasks-per-node=1 \
--chdir=/ \
--input=none \
--mpi=none \
'--container-image=a#b' \
--container-mounts=/data:/data:ro,/runs \
sh \
-c \
'run=$1 python=$2 left=$3 inside=$4 lacks=
shift 4
echo "$SLURMD_NODENAME begins"
soon() { until test "$@"; do [ "$left" -gt 0 ] || return 1; left=$((left - 1)); sleep 1; done; }
refuse() { echo "$SLURMD_NODENAME $1"; exit 3; }
soon -r "$run/spec.json" || lacks=$run
for path; do [ -n "$lacks" ] && [ -z "$inside" ] || soon -r "$path" || lacks="${lacks:+$lacks, }$path"; done
[ -z "$lacks" ] || refuse "does not see $lacks${inside:+ $inside: cluster.srun.container-mounts}"
soon -w "$run/logs" || refuse "cannot write to $run"
command -v "$python" >/dev/null || refuse "has no $python${inside:+ $inside: cluster.python}"
echo "$SLURMD_NODENAME is $(uname -n)"
' \
sslrun \
/runs/deepercluster \
/opt/sslrun/bin/python \
2 \
'inside the container' \
/runs/.code/0123456789abcdef
