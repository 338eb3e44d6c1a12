#!/usr/bin/env bash
# Runs the stages prepare, annotate and rois on many machines with Apache Beam:
#
#   launch/beam.sh [--dry-run] local|flink|spark ARGUMENTS-OF-MAIN...
#
#   MASTER   address of the cluster: HOST:8081 for Flink, HOST:7077 for the job server of Spark
#   WORKERS  (8) number of processes for local, number of parallel files for Flink
#   PYTHON   (python) the interpreter of this host
#
# Every task manager or executor needs a worker pool beside it, started from an environment that
# launch/install.sh beam,offline,uss has made:
#
#   python -m apache_beam.runners.worker.worker_pool_main --service_port=50000
#
# All machines must see the data set and --workdir under the same paths. If a machine is lost,
# another one takes over its work. If this command is interrupted, it restarts up to RESTARTS (5)
# times and keeps all finished files. A permanent error (exit status 1) is not retried.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/dry_run.sh
source launch/dry_run.sh
runner=$1 workers=${WORKERS:-8}
shift

worker_pool="--environment_type=EXTERNAL --environment_config=localhost:50000"
case $runner in
  local) beam="--direct_running_mode=multi_processing --direct_num_workers=$workers" ;;
  flink) beam="--runner=FlinkRunner --flink_master=$MASTER --parallelism=$workers $worker_pool" ;;
  spark) beam="--runner=SparkRunner --spark_master_url=spark://$MASTER $worker_pool" ;;
  *) echo "launch/beam.sh: $runner is unknown; expected local, flink or spark" >&2; exit 1 ;;
esac
for ((restarts = ${RESTARTS:-5}; ; restarts--)); do
  status=0
  run "${PYTHON:-python}" -m amuse_jax.main --stages=prepare,annotate,rois --preempted_status=75 \
    "--config.data.beam=$beam" "$@" || status=$?
  ((status > 1 && restarts > 0)) || exit "$status"
  echo "launch/beam.sh: ended with status $status; restarting" >&2
done
