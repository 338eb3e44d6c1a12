#!/usr/bin/env bash
# Trains on a TPU pod with gcloud:  launch/tpu_pod.sh [--dry-run] NAME ARGUMENTS-OF-MAIN...
#
#   ZONE             zone of the pod
#   TYPE, VERSION    TPU type and software version (v5litepod-16 and v2-alpha-tpuv5-lite)
#   SHARE            NFS export HOST:/PATH, mounted at /mnt/amuse; --workdir and data must be on it
#
# The script creates the pod if it does not exist, copies this commit to it, installs the extra tpu
# (pinned, no PyTorch), runs pretrain, train and evaluate (or the --stages that are given) on all
# workers, follows their log and deletes the pod. launch/offline.sh runs the stages before them. A
# preempted pod or a failed request is created again, and the run resumes. Any other failure,
# including a permanent error, is tried three times in one pod; then the script exits and keeps the
# pod for inspection.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/dry_run.sh
source launch/dry_run.sh
name=$1 failures=0 tpus=(gcloud compute tpus) where=("$1" --zone="$ZONE")
folder=$(mktemp -d) # of this launch alone; only this user can read it
trap 'rm -rf "$folder"' EXIT
shift

state() { [[ $DRY_RUN ]] || "${tpus[@]}" queued-resources describe "${where[@]}" \
  --format='value(state.state)' 2> /dev/null || true; }
delete() { run "${tpus[@]}" queued-resources delete "${where[@]}" --force --quiet; }
create() {
  run "${tpus[@]}" queued-resources create "$name" --node-id="$name" --zone="$ZONE" --spot \
    --accelerator-type="${TYPE:-v5litepod-16}" --runtime-version="${VERSION:-v2-alpha-tpuv5-lite}"
}
ensure_pod() {
  until [[ $(state) == ACTIVE ]]; do
    case $(state) in '') create && failures=0 ;; FAILED | SUSPENDED) delete ;; esac || return
    [[ ! $DRY_RUN ]] || break
    sleep 30
  done
}
on_workers() { run "${tpus[@]}" tpu-vm ssh "${where[@]}" --worker=all --batch-size=all --command="$1"; }
install() {
  run git archive --format=tar.gz --output="$folder/amuse_jax.tar.gz" HEAD &&
    run "${tpus[@]}" tpu-vm scp "$folder/amuse_jax.tar.gz" "$name:" --zone="$ZONE" --worker=all &&
    on_workers "rm -rf amuse_jax && mkdir amuse_jax && tar -xzf amuse_jax.tar.gz -C amuse_jax && \
pip install --user uv==0.13.9 && .local/bin/uv venv --allow-existing --python=3.11 .venv && \
.local/bin/uv pip install --python=.venv -c amuse_jax/launch/pins.txt \
-c amuse_jax/launch/constraints.txt './amuse_jax[tpu]' && \
sudo apt-get install --yes nfs-common && sudo mkdir -p /mnt/amuse && \
{ mountpoint -q /mnt/amuse || sudo mount -o lookupcache=positive $SHARE /mnt/amuse; }"
}

# If the connection breaks, the old run keeps the TPU, so it is stopped before the next one starts.
stop="for signal in TERM KILL; do ! pkill -\$signal -f '[a]muse_jax.main' || sleep 30; done"
main="cd amuse_jax && ../.venv/bin/python -m amuse_jax.main --coordinator=auto \
--preempted_status=75 --stages=pretrain,train,evaluate $(printf '%q ' "$@")"
until ensure_pod && on_workers "$stop" && install && on_workers "$main"; do
  sleep 60 # a preempted pod may still report ACTIVE for a while
  [[ $(state) == @(SUSPEND*|FAILED) ]] || ((++failures < 3)) || exit 1
done
delete
