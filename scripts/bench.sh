#!/usr/bin/env bash
# Measures the service beside its peers: everything, or only the measures that are named.
#
#   scripts/bench.sh [MEASURE…]
#
# Everything: what is found is written to bench/results. Some: to a directory in the target directory, which is named in the
# end. The cloud in a box, and a MongoDB if MONGODB_URI names none, are started when a measure needs them and ended if they
# were started here.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$ROOT/scripts/lib.sh"
cd "$ROOT"
case $TARGET in /*) ;; *) TARGET=$PWD/$TARGET ;; esac

RESULTS=$ROOT/bench/results
if [ $# -gt 0 ]; then RESULTS=$TARGET/bench-results; fi

# What runs is left as it is.
CLOUD=${LAMBDA_CLOUD_DIR:-$TARGET/cloud}
OWN_CLOUD=
OWN_MONGO=
tests/cloud/cloud.sh status >/dev/null 2>&1 || OWN_CLOUD=yes
if [ -z "${MONGODB_URI:-}" ] && ! tests/cloud/mongo.sh status >/dev/null 2>&1; then OWN_MONGO=yes; fi

cleanup() {
  local status=$?
  trap - EXIT INT TERM
  if [ -n "$OWN_MONGO" ]; then tests/cloud/mongo.sh down || status=1; fi
  if [ -n "$OWN_CLOUD" ]; then tests/cloud/cloud.sh down || status=1; fi
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

heading 'Peers'
PEERS=$(dirname "$(tests/clients/venv.sh bench/peers.txt)")

heading 'Measures'
"$TARGET/release/lambda-bench" --programs "$TARGET/release" --peers "$PEERS" --cloud "$CLOUD" --results "$RESULTS" "$@"
