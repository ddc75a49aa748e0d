# Shared by the scripts: sourced, never run. Expects ROOT, the top of the clone.
# shellcheck shell=bash

# cargo may be installed for this user and not be on the path of a service or a bare shell.
if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
  PATH=$HOME/.cargo/bin:$PATH
fi

# Where cargo builds.
# shellcheck disable=SC2034  # Used by those who source this.
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

die() {
  say "$*"
  exit 1
}

# A line above what follows; bold on a terminal.
heading() {
  if [ -t 1 ]; then printf '\n\033[1m== %s\033[0m\n' "$*"; else printf '\n== %s\n' "$*"; fi
}
