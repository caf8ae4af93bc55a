srun \
--kill-on-bad-exit=0 \
--immediate=60 \
--nodes=4 \
--ntasks=4 \
--ntasks-per-node=1 \
--chdir=/ \
/opt/sslrun/bin/python \
-I \
-S \
-c \
SOURCE
