#!/usr/bin/env bash
# Installs the project with one extra, or several joined by commas, and runs the tests on those backends.
#   ci/test.sh all            what the README says
#   ci/test.sh jax            JAX alone: neither TensorFlow nor PyTorch is installed
#   ci/test.sh all --slow     the tests marked slow, too; any further options are pytest's
# PYTHON names the interpreter, python3 if it is not set.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=${1:-all}

# KerasHub, which some tests compare with, brings TensorFlow along.
references=$([ "$extras" = all ] && echo ,reference || true)

"${PYTHON:-python3}" -m venv --clear .venv
. .venv/bin/activate
pip install --quiet -c constraints.txt -e ".[$extras,test$references]"

# The page of a comparison is tested in a browser, where there is one or can be one.
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v chromium >/dev/null &&
  ! command -v google-chrome >/dev/null; then
  (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium) >/dev/null 2>&1 ||
    echo "Chromium cannot be installed: the tests in a browser will be skipped"
fi

ruff check .
ruff format --check .

# Real data, where this machine has them; without them the tests that need them are skipped, and say so.
if [ -z "${KERAS_RECIPES_DATA:-}" ] && [ -d ../shared/datasets ]; then
  export KERAS_RECIPES_DATA=$PWD/../shared/datasets
fi
# A backend that should be there and is not fails the run.
if [ "$extras" = all ]; then
  export RECIPES_TEST_BACKENDS=jax,torch,tensorflow
else
  export RECIPES_TEST_BACKENDS=$extras
fi
# Else each of the many processes that are tested compiles the project anew.
unset PYTHONDONTWRITEBYTECODE
export CI=true
python -m pytest --durations 30 "${@:2}"
