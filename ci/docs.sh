#!/usr/bin/env bash
# Builds the site from README.md, docs/ and results/ to build/site, without a network. Needs the extra docs.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python -m sphinx --fail-on-warning --keep-going --quiet -d build/doctrees -c docs . build/site
