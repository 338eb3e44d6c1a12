#!/usr/bin/env bash
# Measures what needs an NVIDIA GPU, in at most 8 minutes:  launch/on_a_gpu.sh [--dry-run] [--small]
#
#   OUT     folder of the figures (runs/gpu)
#   PYTHON  an interpreter with JAX for GPUs and PyTorch (python3)
#
# Nothing is installed. The parts are the training step with its trace and its estimate, the
# backends of attention, the benchmark's rows beside PyTorch, and the tests that need a GPU. A part
# writes its figures when it finds them: text to OUT/PART.log, JSON to step.json, attention.json and
# figures.json in OUT. It has a time limit, and the next part runs even if it fails.
# OUT/parts.txt says how each ended, and so does the exit status: 0 if all did their work.
#
# --small runs the same parts with the smallest sizes, also on a CPU, with LIMIT (900) seconds each.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=launch/dry_run.sh
source launch/dry_run.sh
out=${OUT:-runs/gpu} python=${PYTHON:-python3} failed=0 small='' config=configs/v1.py videos=8
[[ ${1:-} == --small ]] && small=1 config=tests/benchmark/tiny.py videos=2
export PYTHONUNBUFFERED=1

part() { # NAME LIMIT COMMAND...
  local name=$1 limit=$2 status=0 start=$SECONDS
  shift 2
  [[ $small ]] && limit=${LIMIT:-900}
  if [[ $DRY_RUN ]]; then run timeout --kill-after=5 "$limit" "$@"; return; fi
  timeout --kill-after=5 "$limit" "$@" 2>&1 | tee "$out/$name.log" || status=$?
  case $status in
    0) status='done' ;;
    124 | 137) status="stopped at its limit of $limit s" ;;
    *) status="failed with status $status" ;;
  esac
  [[ $status == 'done' ]] || failed=1
  echo "$name: $status, $((SECONDS - start)) s" | tee -a "$out/parts.txt"
}

[[ $DRY_RUN ]] || { mkdir -p "$out" && : > "$out/parts.txt"; }
benchmark=("$python" -m amuse_jax.benchmark "--config=$config" "--out=$out")
mapfile -t files < <(grep -rl --include='test_*.py' 'mark\.gpu' tests | sort)
part step 150 "${benchmark[@]}" on-device --rounds=5
part attention 80 "${benchmark[@]}" attention --rounds=5
part rows 170 "${benchmark[@]}" --rows=visual,audio,whole,step "--videos=$videos" \
  --dtypes=bfloat16 --rounds=3
part tests 75 "$python" -m pytest -o addopts= --import-mode=importlib -q -rs -m gpu "${files[@]}"
exit "$failed"
