srun \
--immediate=60 \
--nodes=4 \
--nodelist=n1,n2,n3,n4 \
--ntasks=4 \
--ntasks-per-node=1 \
--chdir=/ \
--input=none \
sh \
-c \
'run=$1 python=$2 left=$3
shift 3
soon() { until test "$@"; do [ "$left" -gt 0 ] || return 1; left=$((left - 1)); sleep 1; done; }
refuse() { echo "$SLURMD_NODENAME $1"; exit 3; }
soon -r "$run/spec.json" || refuse "does not see $run"
soon -w "$run/logs" || refuse "cannot write to $run"
command -v "$python" >/dev/null || refuse "has no $python"
said=$("$@" 2>&1)
code=$? said=$(printf '"'"'%s\n'"'"' "$said" | tail -n 1)
[ "$code" != 3 ] || refuse "$said"
[ "$code" = 0 ] || refuse "cannot start a container with cluster.python: $said"
echo "$SLURMD_NODENAME is $(uname -n)"
' \
sslrun \
/runs/deepercluster \
apptainer \
2 \
apptainer \
exec \
--nv \
--bind \
/runs \
image.sif \
python \
-I \
-S \
-c \
'import os, sys
lacks = [path for path in sys.argv[1:] if not os.access(path, os.R_OK)]
if lacks:
    print("does not see", ", ".join(lacks), "inside the container: the binds of cluster.python")
    sys.exit(3)
' \
/runs/deepercluster \
/runs/.code/0123456789abcdef
