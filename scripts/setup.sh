#!/usr/bin/env bash
# Installs what building, demo and tests need beyond Rust. Again: nothing.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$ROOT/scripts/lib.sh"

PACKAGES=(ca-certificates curl gcc libc6-dev libcurl4 make pkg-config procps python3 python3-pip python3-venv)

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
  missing=()
  for package in "${PACKAGES[@]}"; do
    # Newer releases have it under another name.
    if [ "$package" = libcurl4 ] && is_installed libcurl4t64; then continue; fi
    is_installed "$package" || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    if [ "$(id -u)" != 0 ]; then
      command -v sudo >/dev/null || die "missing: ${missing[*]}. Install them as root, or install sudo."
      as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
      die "could not install ${missing[*]}"
  fi
else
  for program in curl gcc make pkg-config python3; do
    command -v "$program" >/dev/null || die "$program is missing; this is no Debian or Ubuntu, so install it by hand"
  done
fi

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
command -v cargo >/dev/null || die "Rust is missing: install version $wanted or newer, for example with rustup"
found=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
  die "Rust $found is too old: version $wanted or newer is needed (rustup update)"
fi
