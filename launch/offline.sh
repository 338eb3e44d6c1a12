#!/usr/bin/env bash
# Runs the stages before training:  launch/offline.sh [--dry-run] PARTS ARGUMENTS-OF-MAIN...
#
#   PARTS  1: all the work on this host. More: Slurm jobs; PARTS of them share prepare, then PARTS
#          share annotate and rois, and after each array one job puts the parts together
#   SBATCH options of every job, such as '--cpus-per-task=8 --gpus=1 --time=12:00:00'
#   VENV   the environment (.venv), from launch/install.sh offline,uss (or cuda,offline,uss)
#
# The log begins with an estimate of the hours. --workdir, the data and VENV must be on a disk that
# all jobs see. What is finished is kept: after a failure run the same command again. Then start
# training (docs/launches.md) with the same settings and the same --workdir.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/dry_run.sh
source launch/dry_run.sh
parts=$1 job='' main=("${VENV:-.venv}/bin/python" -m amuse_jax.main)
shift

submit() { # STAGES ARRAY: submits a job, or an array of them, that waits for the job before it
  local stages=$1 command part='' options=()
  [[ $job ]] && options+=("--dependency=afterok:$job")
  [[ ${2:-} ]] && options+=("--array=1-$2") part="--config.data.part=\$SLURM_ARRAY_TASK_ID/$2"
  command="$(printf '%q ' "${main[@]}" "--stages=$stages" "${arguments[@]}")$part"
  # shellcheck disable=SC2206 # SBATCH holds several options
  options+=(--parsable --job-name=amuse_jax ${SBATCH:-} "--wrap=$command")
  if [[ $DRY_RUN ]]; then run sbatch "${options[@]}" && job=JOB; else job=$(sbatch "${options[@]}"); fi
}

arguments=("$@")
if ((parts == 1)); then
  run "${main[@]}" --stages=prepare,annotate,rois "$@"
  exit
fi
for stages in prepare annotate,rois; do
  submit "$stages" "$parts"
  submit "$stages"
done
echo "launch/offline.sh: the last job is $job" >&2
