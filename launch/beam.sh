#!/usr/bin/env bash
# Prepares, annotates and finds regions on many machines by Apache Beam:
#
#   launch/beam.sh [--dry-run] local|flink|spark ARGUMENTS-OF-MAIN...
#
#   MASTER   of the cluster: HOST:8081 of Flink, HOST:7077 of Spark's job server
#   WORKERS  of local: how many processes; of the cluster: how many files are made at once
#
# Beside every task manager or executor runs, from an environment with pip install '.[beam,offline]':
#
#   python -m apache_beam.runners.worker.worker_pool_main --service_port=50000
#
# All machines see the data set and --workdir under the same paths. What a lost machine was making is
# made by another one. When this command itself is stopped, it starts again up to RESTARTS times, and
# no finished file is made again; a mistake (exit status 1) is not tried again.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/dry_run.sh
source launch/dry_run.sh
where=$1 workers=${WORKERS:-8}
shift

workers_there="--environment_type=EXTERNAL --environment_config=localhost:50000"
case $where in
  local) beam="--direct_running_mode=multi_processing --direct_num_workers=$workers" ;;
  flink) beam="--runner=FlinkRunner --flink_master=$MASTER --parallelism=$workers $workers_there" ;;
  spark) beam="--runner=SparkRunner --spark_master_url=spark://$MASTER $workers_there" ;;
  *) echo "launch/beam.sh: $where is unknown; expected local, flink or spark" >&2; exit 1 ;;
esac
for ((restarts = ${RESTARTS:-5}; ; restarts--)); do
  status=0
  run "${PYTHON:-python}" -m amuse_jax.main --stages=prepare,annotate,rois --preempted_status=75 \
    "--config.data.beam=$beam" "$@" || status=$?
  ((status > 1 && restarts > 0)) || exit "$status"
  echo "launch/beam.sh: ended with status $status; starting again" >&2
done
