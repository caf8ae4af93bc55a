srun \
--jobid=7 \
--overlap \
--mem=0 \
--nodes=1 \
--nodelist=n2 \
--ntasks=1 \
--cpus-per-task=1 \
--chdir=/ \
--mpi=none \
--input=none \
kill \
-9 \
4711
