#!/usr/bin/env bash
# Installs pinned versions into VENV (.venv):  launch/install.sh [--dry-run] EXTRAS
#
#   EXTRAS  what the host runs: offline,uss for the stages before training on a host without GPUs;
#           beam,offline,uss for launch/beam.sh; cuda,offline,uss for all stages on NVIDIA GPUs;
#           cuda or tpu for training alone
#
# The environment must be on a disk that all hosts of a launch see.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/dry_run.sh
source launch/dry_run.sh
venv=${VENV:-.venv}

run "${PYTHON:-python3}" -m venv "$venv"
run "$venv/bin/pip" install -c launch/pins.txt -c launch/constraints.txt ".[$1]"
