srun \
--job-name=unpack1 \
--kill-on-bad-exit=0 \
--immediate=60 \
--nodes=4 \
--nodelist=n1,n2,n3,n4 \
--ntasks=4 \
--ntasks-per-node=1 \
--chdir=/ \
--input=none \
sh \
-c \
'[ -O "$1" ] && [ ! -L "$1" ] && [ -x "$2" ] && "$2" -I -S "$4" "$5" && exit
[ $? != 3 ] || exit 3
exec "$3" -I -S "$4" "$5"
' \
sslrun \
/scratch/sslrun-1000-env \
/scratch/sslrun-1000-env/1a97/env/bin/python \
/opt/sslrun/bin/python \
/runs/deepercluster/code/launcher/start/unpacked.py \
'{"digest": "1a97"}'
