srun \
--kill-on-bad-exit=0 \
--immediate=60 \
--nodes=4 \
--nodelist=n1,n2,n3,n4 \
--ntasks=4 \
--ntasks-per-node=1 \
--chdir=/ \
--mpi=none \
'--container-image=a#b' \
--container-mounts=/data:/data:ro,/runs \
/opt/sslrun/bin/python \
-I \
-S \
-c \
SOURCE
