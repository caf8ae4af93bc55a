#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=8
#SBATCH --job-name=deepercluster-paper-69a67bc4
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output=/runs/deepercluster-paper-69a67bc4/submit/slurm-%j.log
#SBATCH --requeue
#SBATCH --signal=USR2@160
#SBATCH --time=1440

# setup
umask 077
unset "${!SLURM_CPU_BIND@}" "${!SLURM_MEM_BIND@}" SLURM_DISTRIBUTION SLURM_EXACT SLURM_EXCLUSIVE SLURM_EXPORT_ENV SLURM_GPU_BIND SLURM_HINT SLURM_NO_KILL SLURM_OVERLAP SLURM_THREADS_PER_CORE SLURM_WAIT
# cluster.setup: what an item sets stays; one that ends with an error, or ends the shell, ends the start. What stands
# around the items is found with `command -p` whatever they make of PATH.
sslrun_text= sslrun_theirs= sslrun_failed=${1:-}
sslrun_item() {
    [ -z "$sslrun_failed" ] || return
    [ "$sslrun_text" ] || sslrun_first=$1
    sslrun_text+=${sslrun_text:+$'\n'}$2
    (eval "sslrun_whole() { :"$'\n'"$sslrun_text"$'\n}') 2>/dev/null || return
    local replaces='^[[:space:]]*exec[[:space:]]+[^[:space:]0-9<>&{#]' # by a program: nothing here would see its end
    [[ ! $sslrun_text =~ $replaces ]] || sslrun_fail "would take the place of the job's shell" "leave out \`exec\`"
    sslrun_size=$(command -p stat -Lc %s /proc/$$/fd/1 2>/dev/null) || sslrun_size=0
}
sslrun_ended() {
    local code=$?
    [ "$code" != 143 ] || command -p sleep 2 # where Slurm ends the whole job, this shell is told right after
    [ "$code" = 0 ] || sslrun_fail "ended with $code"
    sslrun_text=
    [[ $(trap -p EXIT) = *sslrun_left* ]] || { sslrun_theirs=$(trap -p EXIT); trap sslrun_left EXIT; }
}
sslrun_fail() {
    set +eux
    local item=${sslrun_text%%$'\n'*} said=$2
    [ "$item" = "$sslrun_text" ] || item+=" ..."
    if [ -z "$said" ] && [ -f /proc/$$/fd/1 ]; then # neither blank lines nor those of set -x
        said=$(exec 2>/dev/null; command -p tail -c "+$((sslrun_size + 1))" /proc/$$/fd/1 |
            command -p grep -avE '^\s*$|^[+]+ ' | command -p tail -n 1)
    fi
    said=${said#"$BASH: line "*: } said=${said#"$0: line "*: }
    [ "${#item}" -le 80 ] || item=${item:0:77}...
    said="${SLURMD_NODENAME:-$HOSTNAME}: cluster.setup[$sslrun_first] \`$item\` $1${said:+: ${said:0:300}}"
    echo "sslrun: $said"
    [ -z "${3:-}" ] || (eval "$sslrun_theirs"; exit "$3") # bash does not heed a trap for its end that is set only then
    sslrun_untrap
    sslrun_stop
}
sslrun_left() {
    local code=$?
    [ -z "$sslrun_text" ] || sslrun_fail "left the shell with $code" "" "$code"
}
sslrun_untrap() { # what the items themselves have set stays
    [[ $(trap -p EXIT) != *sslrun_left* ]] || { trap - EXIT; eval "$sslrun_theirs"; }
    [[ $(trap -p TERM) != *"exit 143"* ]] || trap - TERM
}
trap sslrun_left EXIT
trap 'trap - EXIT; exit 143' TERM # that is Slurm, and no item's fault
sslrun_stop() { "$BASH" "$0" "$said"; exit $?; }
if sslrun_item 0 'module load cuda/12.4'; then eval "$sslrun_text"; sslrun_ended; fi
if sslrun_item 1 '. /opt/venv/bin/activate'; then eval "$sslrun_text"; sslrun_ended; fi
[ -z "$sslrun_text" ] || sslrun_fail "is no whole command" "$("$BASH" -n <<<"$sslrun_text" 2>&1 | command -p head -n 1)"
sslrun_untrap
python=/opt/sslrun/bin/python folder=/runs/deepercluster-paper-69a67bc4/submit node=${SLURMD_NODENAME:-$HOSTNAME}
export PYTHONUTF8=1 PYTHONSAFEPATH=1 PYTHONPATH="$folder/code${PYTHONPATH:+:$PYTHONPATH}"
test -x "$python" || { echo "sslrun: $node has no $python; install it there, or name one that is in cluster.python"; exit 3; }
test -O "$folder" || { echo "sslrun: $node has no $folder of yours; choose a folder that all nodes share with runs=PATH"; exit 3; }
if [ "$sslrun_failed" ]; then [ -f "$folder/code/launcher/plan/setup.py" ] || exit 3; export SSLRUN_UNREADY="$sslrun_failed"; else command -p touch "$folder/did-c04c3c3571dc0d96" || :; fi
id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID} id=${id:-$SLURM_JOB_ID}
pickle=$folder/${SLURM_ARRAY_TASK_ID:-0}.pkl submitted=$folder/${id}_submitted.pkl
ln -f "$pickle" "$submitted" 2>/dev/null || cp -f "$pickle" "$submitted" 2>/dev/null ||
    command -p cp -f "$pickle" "$submitted" || exit 3 # whatever cluster.setup has made of PATH

# command
export SUBMITIT_EXECUTOR=slurm
/opt/sslrun/bin/python -u -m submitit.core._submit /runs/deepercluster-paper-69a67bc4/submit
