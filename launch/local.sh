#!/usr/bin/env bash
# Several processes on this host:  launch/local.sh [--dry-run] PROCESSES ARGUMENTS-OF-MAIN...
#
# When one of them is killed or stuck, all are started again, up to RESTARTS times, and go on where
# they were; a mistake (exit status 1) is not tried again. After SIGTERM or Ctrl-C all save and this ends
# with 75; what has not ended GRACE (30) seconds later is killed, as by a cloud, and this ends with 137.
# With GPUS=1 process i has GPU i, else all use the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/dry_run.sh
source launch/dry_run.sh
count=$1 python=${PYTHON:-python} woken='' stopping='' pids=() killers=()
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

wait_for_all() { # `status` is that of the first that failed; the others cannot go on without it
  local left code
  status=0
  for ((left = ${#pids[@]}; left > 0; left--)); do
    code=0 woken=''
    wait -n || code=$?
    if [[ $woken ]]; then ((++left)); continue; fi # a signal came, nobody has ended
    ((code == 0 || status)) && continue
    status=$code
    ((code == 75)) || kill -KILL "${pids[@]}" 2> /dev/null || true
  done
}

stop_all() { # only the first process works in some stages; it does not look for signals there
  woken=1 stopping=1
  kill -TERM "${pids[@]}" 2> /dev/null || true
  { sleep "${GRACE:-30}"; kill -KILL "${pids[@]}"; } &> /dev/null & killers+=($!)
  disown # `wait` is for the processes
}

trap 'kill -KILL "${pids[@]}" "${killers[@]}" 2> /dev/null || true' EXIT
trap stop_all TERM INT
for ((restarts = ${RESTARTS:-5}; ; restarts--)); do
  start_all "$@"
  wait_for_all
  [[ ! $stopping ]] && ((status > 1 && restarts > 0)) || exit "$status"
  echo "launch/local.sh: a process ended with status $status; starting all again" >&2
done
