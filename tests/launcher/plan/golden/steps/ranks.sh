srun \
--job-name=start1 \
--kill-on-bad-exit=0 \
--nodes=4 \
--nodelist=n1,n2,n3,n4 \
--ntasks=32 \
--ntasks-per-node=8 \
--cpus-per-task=8 \
--input=none \
--chdir=/runs/deepercluster/logs \
--output=rank%t.log \
--error=rank%t.log \
--open-mode=append \
/opt/sslrun/bin/python \
-P \
-m \
launcher.start.worker \
/runs/deepercluster
