srun \
--kill-on-bad-exit=0 \
--immediate=60 \
--overlap \
--mem=0 \
--nodes=4 \
--nodelist=n1,n2,n3,n4 \
--ntasks=4 \
--ntasks-per-node=1 \
--chdir=/ \
/opt/sslrun/bin/python \
-I \
-S \
-c \
SOURCE
