#!/usr/bin/env bash
# A TPU pod by gcloud:  launch/tpu_pod.sh [--dry-run] NAME ARGUMENTS-OF-MAIN...
#
#   ZONE             where
#   TYPE, VERSION    of the TPU and of its software: v5litepod-16 and v2-alpha-tpuv5-lite
#   SHARE            an NFS export, HOST:/PATH, mounted at /mnt/amuse: --workdir and data lie there
#
# Creates the pod where there is none, copies this commit to it, installs the extra tpu (no PyTorch),
# runs on all workers, follows their log and deletes the pod. A preempted pod, or a request that failed,
# is made anew and the run goes on where it was. Whatever else fails, a mistake too, is tried three
# times in one pod; then it ends and leaves the pod for a look.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/dry_run.sh
source launch/dry_run.sh
name=$1 archive=/tmp/amuse_jax.tar.gz failures=0
shift
tpus=(gcloud compute tpus)

state() { [[ $DRY_RUN ]] || "${tpus[@]}" queued-resources describe "$name" --zone="$ZONE" \
  --format='value(state.state)' 2> /dev/null || true; }
delete() { run "${tpus[@]}" queued-resources delete "$name" --zone="$ZONE" --force --quiet; }
create() {
  run "${tpus[@]}" queued-resources create "$name" --node-id="$name" --zone="$ZONE" --spot \
    --accelerator-type="${TYPE:-v5litepod-16}" --runtime-version="${VERSION:-v2-alpha-tpuv5-lite}"
}
get_pod() {
  until [[ $(state) == ACTIVE ]]; do
    case $(state) in '') create && failures=0 ;; FAILED | SUSPENDED) delete ;; esac || return
    [[ ! $DRY_RUN ]] || break
    sleep 30
  done
}
everywhere() {
  run "${tpus[@]}" tpu-vm ssh "$name" --zone="$ZONE" --worker=all --batch-size=all --command="$1"
}
install() {
  run git archive --format=tar.gz --output="$archive" HEAD &&
    run "${tpus[@]}" tpu-vm scp "$archive" "$name:amuse_jax.tar.gz" --zone="$ZONE" --worker=all &&
    everywhere "rm -rf amuse_jax && mkdir amuse_jax && tar -xzf amuse_jax.tar.gz -C amuse_jax && \
pip install --user uv && .local/bin/uv venv --allow-existing --python=3.11 .venv && \
.local/bin/uv pip install --python=.venv './amuse_jax[tpu]' && \
sudo apt-get install --yes nfs-common && sudo mkdir -p /mnt/amuse && \
{ mountpoint -q /mnt/amuse || sudo mount -o lookupcache=positive $SHARE /mnt/amuse; }"
}

# A run whose connection broke would hold the TPU.
stop="for signal in TERM KILL; do ! pkill -\$signal -f '[a]muse_jax.main' || sleep 30; done"
main="cd amuse_jax && ../.venv/bin/python -m amuse_jax.main --coordinator=auto \
--preempted_status=75 $(printf '%q ' "$@")"
until get_pod && everywhere "$stop" && install && everywhere "$main"; do
  sleep 60 # a preempted pod may say for a while that it is ACTIVE
  [[ $(state) == @(SUSPEND*|FAILED) ]] || ((++failures < 3)) || exit 1
done
delete
