#!/usr/bin/env bash
# A TPU pod by gcloud:  launch/tpu_pod.sh [--dry-run] NAME ARGUMENTS-OF-MAIN...
#
#   ZONE             where
#   TYPE, VERSION    of the TPU and of its software: v5litepod-16 and v2-alpha-tpuv5-lite
#   SHARE            an NFS export, HOST:/PATH, mounted at /mnt/amuse: --workdir and data lie there
#
# Creates the pod, copies this commit to it, installs the extra tpu (no PyTorch), runs on all workers,
# follows their log and deletes the pod. A preempted pod is made anew and the run goes on where it was;
# after three failures that were no preemption it ends and leaves the pod for a look.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/dry_run.sh
source launch/dry_run.sh
name=$1 archive=/tmp/amuse_jax.tar.gz failures=0
shift
tpus=(gcloud compute tpus)

state() { [[ $DRY_RUN ]] || "${tpus[@]}" queued-resources describe "$name" --zone="$ZONE" \
  --format='value(state.state)' 2> /dev/null; }
delete() { run "${tpus[@]}" queued-resources delete "$name" --zone="$ZONE" --force --quiet; }
everywhere() {
  run "${tpus[@]}" tpu-vm ssh "$name" --zone="$ZONE" --worker=all --batch-size=all --command="$1"
}
create() {
  run "${tpus[@]}" queued-resources create "$name" --node-id="$name" --zone="$ZONE" --spot \
    --accelerator-type="${TYPE:-v5litepod-16}" --runtime-version="${VERSION:-v2-alpha-tpuv5-lite}"
  until [[ $DRY_RUN || $(state) == ACTIVE ]]; do sleep 30; done
  run git archive --format=tar.gz --output="$archive" HEAD
  run "${tpus[@]}" tpu-vm scp "$archive" "$name:amuse_jax.tar.gz" --zone="$ZONE" --worker=all
  everywhere "mkdir -p amuse_jax && tar -xzf amuse_jax.tar.gz -C amuse_jax && \
pip install --user uv && .local/bin/uv venv --python=3.11 .venv && \
.local/bin/uv pip install --python=.venv './amuse_jax[tpu]' && \
sudo apt-get install --yes nfs-common && sudo mkdir -p /mnt/amuse && sudo mount $SHARE /mnt/amuse"
}
renew() { [[ -z $(state) ]] || delete; create; }

[[ $(state) == ACTIVE ]] || renew
stop="pkill -f '[a]muse_jax.main' || true" # a run whose connection broke would hold the TPU
main="cd amuse_jax && ../.venv/bin/python -m amuse_jax.main --coordinator=auto \
--preempted_status=75 $(printf '%q ' "$@")"
until everywhere "$stop" && everywhere "$main"; do
  if [[ $(state) == ACTIVE ]]; then ((++failures < 3)) || exit 1; else renew; fi
done
delete
