#!/usr/bin/env bash
# GPU nodes under Slurm:  sbatch --nodes=4 launch/slurm.sh ARGUMENTS-OF-MAIN...
#
# One process per GPU; the environment VENV (.venv) and --workdir lie on a disk that all nodes see.
# Preempted, or a node or a process lost, or at the end of its time, the job is queued again and goes
# on where it was; after a mistake (exit status 1) it is not. Before: launch/slurm.sh --dry-run
# ARGUMENTS-OF-MAIN... prints the command.
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

trap : USR1 # two minutes before the time is over: ends the wait
run srun --kill-on-bad-exit=1 --label "${VENV:-.venv}/bin/python" -m amuse_jax.main \
  --coordinator=auto --preempted_status=75 "$@" &
status=0
wait $! || status=$?
if ((status > 1 && ${SLURM_RESTART_COUNT:-0} < 20)); then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
