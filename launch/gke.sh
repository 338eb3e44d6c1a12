#!/usr/bin/env bash
# A TPU slice on GKE by xpk:  launch/gke.sh [--dry-run] NAME ARGUMENTS-OF-MAIN...
#
#   PROJECT, ZONE, CLUSTER  where; the cluster was made by xpk cluster create
#   TYPE                    of the slice, v5litepod-16
#   IMAGE                   name of the image in your registry, REGISTRY/PROJECT/amuse_jax
#
# --workdir and data lie on a storage that all hosts mount (xpk storage create --auto-mount=true).
# Builds and pushes the image, starts the job, follows its log and deletes it. A preempted slice, or a
# host lost, is started again up to 20 times and goes on where it was; so is a mistake (exit status 1),
# which xpk does not tell apart: look at the log.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/dry_run.sh
source launch/dry_run.sh
name=$1
shift
where=(--project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER")

run docker build -f launch/Containerfile --build-arg EXTRA=tpu -t "$IMAGE" .
run docker push "$IMAGE"
run xpk workload create --workload="$name" "${where[@]}" --tpu-type="${TYPE:-v5litepod-16}" \
  --docker-image="$IMAGE" --max-restarts=20 --restart-on-user-code-failure \
  --command="python -m amuse_jax.main --coordinator=auto --preempted_status=75 $(printf '%q ' "$@")"
first="jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0"
status=124 # of a job that is not finished
while ((status == 124)); do
  run kubectl wait pod --for=condition=Ready --timeout=10m --selector="$first" || true
  run kubectl logs --follow --selector="$first" || true
  status=0
  run xpk workload list "${where[@]}" --wait-for-job-completion="$name" --timeout=60 || status=$?
done
run xpk workload delete --workload="$name" "${where[@]}" --force
exit "$status"
