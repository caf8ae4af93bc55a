#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=8
#SBATCH --job-name=smog-1-evals-segmentation-1
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output=/runs/smog-1/evals/segmentation-1/submit/slurm-%j.log
#SBATCH --requeue
#SBATCH --signal=USR2@60
#SBATCH --time=1440

# setup
umask 077
unset "${!SLURM_CPU_BIND@}" "${!SLURM_MEM_BIND@}" SLURM_DISTRIBUTION SLURM_EXACT SLURM_EXCLUSIVE SLURM_EXPORT_ENV SLURM_GPU_BIND SLURM_HINT SLURM_NO_KILL SLURM_OVERLAP SLURM_THREADS_PER_CORE SLURM_WAIT
python=/opt/sslrun/bin/python folder=/runs/smog-1/evals/segmentation-1/submit node=${SLURMD_NODENAME:-$HOSTNAME}
export PYTHONUTF8=1 PYTHONSAFEPATH=1 PYTHONPATH="$folder/code${PYTHONPATH:+:$PYTHONPATH}"
test -x "$python" || { echo "sslrun: $node has no $python; install it there, or name one that is in cluster.python"; exit 3; }
test -O "$folder" || { echo "sslrun: $node has no $folder of yours; choose a folder that all nodes share with runs=PATH"; exit 3; }
id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID} id=${id:-$SLURM_JOB_ID}
pickle=$folder/${SLURM_ARRAY_TASK_ID:-0}.pkl submitted=$folder/${id}_submitted.pkl
ln -f "$pickle" "$submitted" 2>/dev/null || cp -f "$pickle" "$submitted" 2>/dev/null ||
    command -p cp -f "$pickle" "$submitted" || exit 3 # whatever cluster.setup has made of PATH

# command
export SUBMITIT_EXECUTOR=slurm
/opt/sslrun/bin/python -u -m submitit.core._submit /runs/smog-1/evals/segmentation-1/submit
