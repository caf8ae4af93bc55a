#!/bin/sh
# Installs Slurm for these tests, where it is missing and this user may; otherwise says what to do and goes on.
# The services that Debian would start are neither started nor enabled: the tests start daemons of their own.
set -u
PATH="$PATH:/usr/sbin:/usr/local/sbin"
PACKAGES="slurm-wlm munge strace libslurm-dev gcc libc6-dev" # the last three compile containers.c

have() { command -v "$1" >/dev/null 2>&1; }
compiles() { echo '#include <slurm/spank.h>' | gcc -fsyntax-only -xc - 2>/dev/null; }
have slurmctld && have slurmd && have srun && have sbatch && have strace && compiles && exit 0

if [ "$(id -u)" != 0 ] || ! have apt-get; then
    echo "Slurm, strace or its headers are missing, and tests that need them are skipped: apt-get install $PACKAGES (Debian, Ubuntu)"
    exit 0
fi

echo "installing $PACKAGES: the tests run a real Slurm, and see what it asks"
new=""
for service in munge slurmctld slurmd; do
    have "$service" || have "${service}d" || new="$new $service"
done
log=$(mktemp)
policy=/usr/sbin/policy-rc.d # what Debian asks before it starts a service
if [ -e "$policy" ]; then
    trap 'rm -f "$log"' EXIT
else
    trap 'rm -f "$log" "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
trap 'exit 130' INT TERM
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install --yes --no-install-recommends $PACKAGES >"$log" 2>&1; }
install || { apt-get update >"$log" 2>&1 && install; } || {
    tail -n 5 "$log"
    echo "could not install $PACKAGES; the tests that need them are skipped"
    exit 0
}
if [ -n "$new" ] && [ -d /run/systemd/system ]; then
    systemctl disable --quiet $new 2>/dev/null
fi
exit 0
