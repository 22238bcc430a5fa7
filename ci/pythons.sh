#!/usr/bin/env bash
# Does what ci/test.sh does on the oldest and on the newest Python that work, where pyenv or the system has them.
set -euo pipefail
cd "$(dirname "$0")/.."
for version in 3.11 3.13; do
  python=$(command -v "python$version" || ls -d "$HOME/.pyenv/versions/$version".*/bin/python 2>/dev/null | tail -n 1)
  [ -n "$python" ] || { echo "Python $version is not installed" >&2; exit 1; }
  echo "== Python $version"
  PYTHON=$python bash ci/test.sh "${1:-all}" "${@:2}"
done
