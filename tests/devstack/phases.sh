#!/usr/bin/env bash
# Runs one mode of the plugin as DevStack does: the helpers and settings first, then plugin.sh once for each phase, all in one
# shell. Called by run.sh, which sets WORK and what else an operator's local.conf would.
#
#   phases.sh standin|real stack|unstack|clean

KIND=$1 MODE=$2
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)

# shellcheck source=tests/devstack/standin.sh
# shellcheck source=tests/devstack/real.sh
. "$HERE/$KIND.sh"
# shellcheck source=devstack/settings
. "$ROOT/devstack/settings"

phase() {
  echo "== $*"
  # shellcheck source=devstack/plugin.sh
  . "$ROOT/devstack/plugin.sh" "$@"
}

case $MODE in
  stack)
    # As stack.sh does.
    set -o errexit
    for name in pre-install install post-config extra test-config; do phase stack "$name"; done
    ;;
  unstack | clean) phase "$MODE" ;;
  *) exit 2 ;;
esac
