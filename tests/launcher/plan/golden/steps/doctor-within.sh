srun \
--kill-on-bad-exit=0 \
--input=none \
--chdir=/ \
--nodes=4 \
--ntasks=32 \
--ntasks-per-node=8 \
--cpus-per-task=8 \
--mpi=none \
'--container-image=a#b' \
--container-mounts=/data:/data:ro,/runs \
/opt/sslrun/bin/python
