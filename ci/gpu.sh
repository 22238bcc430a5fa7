#!/usr/bin/env bash
# Measures the `full` presets on a GPU, on JAX and PyTorch, in parts of at most $MINUTES (9) each.
#   ci/gpu.sh                          all recipes: compares them with native code, then trains and records them
#   ci/gpu.sh compare cnn_cifar10      one part: an epoch in float32, beside native code, and in mixed_bfloat16
#   ci/gpu.sh train cnn_cifar10 jax    one part: trains until the time is over; called again it goes on, and records the end
# Reports and runs go to $OUT (runs/gpu). PRESET=test tries all of it on a CPU.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-runs/gpu} preset=${PRESET:-full} limit=$((${MINUTES:-9} * 60))
mkdir -p "$out"

compare() {
  local options
  for options in "float32 --native" mixed_bfloat16; do # the native baselines compute in float32
    # SIGTERM leaves a report of what was measured until then.
    timeout $((limit / 2)) recipes compare "$1" --backends jax,torch --repeats 1 --agreement-steps 3 \
      --preset "$preset" --epochs 1 --out "$out/compare-$1-${options%% *}-$(date +%H%M%S)" --precision $options
  done
}

train() {
  local run=$out/$1-$2 resume=()
  [ -f "$run/result.json" ] && return
  [ -d "$run" ] && resume=(--resume)
  # SIGINT saves a checkpoint, from which the next call goes on.
  KERAS_BACKEND=$2 timeout -s INT "$limit" python "recipes/$1.py" --preset "$preset" --out "$run" "${resume[@]}" &&
    [ "$preset" = full ] && recipes record "$run"
}

if [ $# -gt 0 ]; then
  "$@"
  exit
fi
for path in recipes/[a-z]*.py; do
  recipe=$(basename "$path" .py)
  compare "$recipe"
  for backend in jax torch; do train "$recipe" $backend; done
done
