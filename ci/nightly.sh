#!/usr/bin/env bash
# What ci/test.sh does, with the slow tests too: every comparison, every copy, real photographs, browsers, kill -9.
set -euo pipefail
exec bash "$(dirname "$0")/test.sh" "${1:-all}" --slow
