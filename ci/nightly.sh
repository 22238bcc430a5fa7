#!/usr/bin/env bash
# What ci/test.sh does, with the slow tests too: every comparison, every copy, real photographs, browsers, kill -9.
set -euo pipefail
export XLA_FLAGS=${XLA_FLAGS-} # XLA optimizes as it does for users, which takes twice the time
exec bash "$(dirname "$0")/test.sh" "${1:-all}" --slow
