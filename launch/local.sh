#!/usr/bin/env bash
# Several processes on this host:  launch/local.sh [--dry-run] PROCESSES ARGUMENTS-OF-MAIN...
#
# When one of them is killed, all are started again, up to RESTARTS times, and go on where they were;
# a mistake (exit status 1) is not tried again. With GPUS=1 process i has GPU i, else all use the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/dry_run.sh
source launch/dry_run.sh
count=$1
shift

start_all() {
  pids=()
  for ((index = 0; index < count; index++)); do
    local command=("${PYTHON:-python}" -m amuse_jax.main "--coordinator=localhost:${PORT:-12355}"
      "--process_id=$index" "--process_count=$count" "$@")
    [[ ${GPUS:-} ]] && command=(env "JAX_LOCAL_DEVICE_IDS=$index" "${command[@]}")
    if [[ $DRY_RUN ]]; then
      run "${command[@]}"
    else
      "${command[@]}" &
      pids+=($!)
    fi
  done
}

wait_for_all() { # the others cannot go on without one that has failed
  for _ in "${pids[@]}"; do
    wait -n || { status=$?; kill -KILL "${pids[@]}"; wait; return; } 2> /dev/null
  done
}

trap 'kill -KILL "${pids[@]}" 2> /dev/null || true' EXIT
for ((restarts = ${RESTARTS:-5}; ; restarts--)); do
  status=0
  start_all "$@"
  wait_for_all
  ((status > 1 && restarts > 0)) || exit "$status"
  echo "launch/local.sh: a process ended with status $status; starting all again" >&2
done
