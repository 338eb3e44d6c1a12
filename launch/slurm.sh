#!/usr/bin/env bash
# Trains on GPU nodes under Slurm:  sbatch --nodes=4 launch/slurm.sh ARGUMENTS-OF-MAIN...
#
# Runs pretrain, train and evaluate (or the --stages that are given); launch/offline.sh runs the
# stages before them. Starts one process per GPU. The environment VENV (.venv), which
# launch/install.sh makes, and --workdir must be on a disk that all nodes see. The job is requeued
# and resumes after a preemption, after the loss of a node or a process, and at its time limit.
# After a permanent error (exit status 1) it is not requeued.
# launch/slurm.sh --dry-run ARGUMENTS-OF-MAIN... prints the command without running it.
#SBATCH --job-name=amuse_jax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --output=amuse_jax-%j.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
# shellcheck source=launch/dry_run.sh
source launch/dry_run.sh

trap : USR1 # Slurm sends it two minutes before the time limit; it ends the wait below
run srun --kill-on-bad-exit=1 --label "${VENV:-.venv}/bin/python" -m amuse_jax.main \
  --coordinator=auto --preempted_status=75 --stages=pretrain,train,evaluate "$@" &
status=0
wait $! || status=$?
if ((status > 1 && ${SLURM_RESTART_COUNT:-0} < 20)); then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
