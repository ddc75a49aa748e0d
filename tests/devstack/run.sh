#!/usr/bin/env bash
# Tests the DevStack plugin: stack twice, unstack twice, clean. Prints a line for each check: ok WHAT or not ok WHAT.
#
#   run.sh standin   on a stand-in for DevStack's helpers (standin.sh), with the real lambda-manage and, where MONGODB_URI is set,
#                    a real MongoDB
#   run.sh real      with the helpers of the DevStack checkout in DEVSTACK_DIR, against the Keystone, Zaqar and MongoDB of the test cloud
#                    (LAMBDA_TEST_CLOUD, by default target/cloud), running the real programs
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
# shellcheck source=scripts/lib.sh
. "$ROOT/scripts/lib.sh"
KIND=${1:-standin}
PROGRAMS=${LAMBDA_TEST_PROGRAMS:-$TARGET/debug}
WORK=$(mktemp -d "${TMPDIR:-/tmp}/lambda-devstack.XXXXXX")
BAD=0
export WORK

check() { # WHAT COMMAND…
  local what=$1
  shift
  if "$@"; then echo "ok $what"; else echo "not ok $what"; BAD=$((BAD + 1)); fi
}

# phases MODE [VAR=value…]: one run of the plugin, in a shell of its own.
phases() {
  local mode=$1
  shift
  env LAMBDA_CONF_DIR="$WORK/etc" LAMBDA_INSTALL_DIR="$WORK/bin" LAMBDA_BIN_DIR="$PROGRAMS" "$@" \
    bash "$HERE/phases.sh" "$KIND" "$mode" >>"$WORK/log.$mode" 2>&1
}
stacks() { phases stack "$@" || { tail -n 20 "$WORK/log.stack" >&2; false; }; }

# dies WITH COMMAND…: it fails and says this.
dies() {
  local with=$1
  shift
  : >"$WORK/log.stack"
  if phases "$@"; then return 1; fi
  grep -qF -- "$with" "$WORK/log.stack" || { tail -n 5 "$WORK/log.stack" >&2; return 1; }
}

setting() { # SECTION OPTION: of the written lambda.conf
  SECTION=$1 OPTION=$2 awk -F ' = ' '/^\[/ { inside = ($0 == "[" ENVIRON["SECTION"] "]") } inside && $1 == ENVIRON["OPTION"] { print $2 }' "$WORK/etc/lambda.conf"
}
set_to() { # SECTION OPTION VALUE
  local found
  found=$(setting "$1" "$2")
  [ "$found" = "$3" ] || { echo "[$1] $2 is \"$found\", not \"$3\"" >&2; false; }
}
called_before() { # EARLIER LATER: both were called in the first run, in this order
  local earlier later
  earlier=$(grep -nm 1 "^$1" "$WORK/calls" | cut -d : -f 1)
  later=$(grep -nm 1 "^$2" "$WORK/calls" | cut -d : -f 1)
  [ -n "$earlier" ] && [ -n "$later" ] && [ "$earlier" -lt "$later" ]
}
made() { grep -qxF -- "$1" "$WORK/made" || { echo "not made: $1" >&2; false; }; }
nothing_left() {
  local left
  left=$(find "$WORK/etc" "$WORK/bin" "$WORK/data" "$WORK/systemd" "$WORK/apache" ! -type d 2>/dev/null; find "$WORK/etc" "$WORK/data/lambda" 2>/dev/null)
  [ -z "$left" ] || { echo "left: ${left//$'\n'/ }" >&2; false; }
}

# shellcheck source=tests/devstack/check_standin.sh
# shellcheck source=tests/devstack/check_real.sh
. "$HERE/check_$KIND.sh"
[ "$BAD" = 0 ]
