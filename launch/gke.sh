#!/usr/bin/env bash
# Trains on a TPU slice on GKE with xpk:  launch/gke.sh [--dry-run] NAME ARGUMENTS-OF-MAIN...
#
#   PROJECT, ZONE, CLUSTER  location of the cluster, which xpk cluster create has created
#   TYPE                    type of the slice (v5litepod-16)
#   IMAGE                   name of the image in your registry, REGISTRY/PROJECT/amuse_jax
#
# Runs pretrain, train and evaluate (or the --stages that are given); launch/offline.sh runs the
# stages before them. --workdir and the data must be on storage that all hosts mount (xpk storage
# create --auto-mount=true). The script builds and pushes the image, starts the job, follows its log
# and deletes the job. After a preemption or the loss of a host, the job is restarted up to 20 times
# and resumes. A permanent error (exit status 1) is restarted too, because xpk cannot distinguish
# it; check the log.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/dry_run.sh
source launch/dry_run.sh
name=$1
shift
location=(--project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER")

run docker build -f launch/Containerfile --build-arg EXTRA=tpu -t "$IMAGE" .
run docker push "$IMAGE"
run xpk workload create --workload="$name" "${location[@]}" --tpu-type="${TYPE:-v5litepod-16}" \
  --docker-image="$IMAGE" --max-restarts=20 --restart-on-user-code-failure \
  --command="python -m amuse_jax.main --coordinator=auto --preempted_status=75 \
--stages=pretrain,train,evaluate $(printf '%q ' "$@")"
first_pod="jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0"
status=124 # xpk returns this while the job is unfinished
while ((status == 124)); do
  run kubectl wait pod --for=condition=Ready --timeout=10m --selector="$first_pod" || true
  run kubectl logs --follow --selector="$first_pod" || true
  status=0
  run xpk workload list "${location[@]}" --wait-for-job-completion="$name" --timeout=60 || status=$?
done
run xpk workload delete --workload="$name" "${location[@]}" --force
exit "$status"
