#!/usr/bin/env bash
# Runs several processes on this host:  launch/local.sh [--dry-run] PROCESSES ARGUMENTS-OF-MAIN...
#
# If a process is killed or hangs, all processes are restarted and resume, up to RESTARTS (5) times.
# A permanent error (exit status 1) is not retried. After SIGTERM or Ctrl-C all processes save and
# the script exits with 75. Processes that still run GRACE (30) seconds later are killed, as a cloud
# would do, and the script exits with 137. With GPUS=1 process i uses GPU i; otherwise all use the
# CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/dry_run.sh
source launch/dry_run.sh
count=$1 python=${PYTHON:-python} signalled='' stopping='' pids=() kill_timers=()
shift

start_all() {
  pids=()
  for ((index = 0; index < count; index++)); do
    local command=("$python" -m amuse_jax.main "--coordinator=localhost:${PORT:-12355}"
      "--process_id=$index" "--process_count=$count" --preempted_status=75 "$@")
    [[ ${GPUS:-} ]] && command=(env "JAX_LOCAL_DEVICE_IDS=$index" "${command[@]}")
    if [[ $DRY_RUN ]]; then run "${command[@]}"; else "${command[@]}" & pids+=($!); fi
  done
}

wait_for_all() { # sets `status` to that of the first failure; the others cannot go on without it
  local remaining code
  status=0
  for ((remaining = ${#pids[@]}; remaining > 0; remaining--)); do
    code=0 signalled=''
    wait -n || code=$?
    if [[ $signalled ]]; then ((++remaining)); continue; fi # a signal, not an exit
    ((code == 0 || status)) && continue
    status=$code
    ((code == 75)) || kill -KILL "${pids[@]}" 2> /dev/null || true
  done
}

stop_all() { # the kill is needed: stages that only the first process runs do not react to SIGTERM
  signalled=1 stopping=1
  kill -TERM "${pids[@]}" 2> /dev/null || true
  { sleep "${GRACE:-30}"; kill -KILL "${pids[@]}"; } &> /dev/null & kill_timers+=($!)
  disown # so that `wait` does not wait for the timer
}

trap 'kill -KILL "${pids[@]}" "${kill_timers[@]}" 2> /dev/null || true' EXIT
trap stop_all TERM INT
for ((restarts = ${RESTARTS:-5}; ; restarts--)); do
  start_all "$@"
  wait_for_all
  [[ ! $stopping ]] && ((status > 1 && restarts > 0)) || exit "$status"
  echo "launch/local.sh: a process ended with status $status; restarting all" >&2
done
