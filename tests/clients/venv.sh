#!/usr/bin/env bash
# venv.sh [REQUIREMENTS]: makes a Python environment with requirements.txt, or what is named, once, and prints the path of its interpreter.
# It is kept in the cache directory under a name that changes with the requirements and the interpreter.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements=${1:-$here/requirements.txt}
cache=${LAMBDA_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/lambda-openstack}

say() { echo "$*" >&2; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# The system's interpreter, because the pins were made for the one of Debian 12.
python=/usr/bin/python3
[ -x "$python" ] || python=$(command -v python3 || echo /usr/bin/python3)

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  say "installing python3-venv"
  as_root apt-get install -y -qq python3 python3-venv >&2 || {
    as_root apt-get update -qq >&2
    as_root apt-get install -y -qq python3 python3-venv >&2
  }
fi

version=$("$python" -c 'import platform; print(platform.python_version())')
name=$( (sha256sum <"$requirements"; echo "$version") | sha256sum | cut -c1-16)
venv=$cache/clients-$name

mkdir -p "$cache"
exec 9>"$cache/clients.lock"
flock 9 # Tests run at the same time; one of them makes it.
if [ ! -e "$venv/complete" ]; then
  say "making the Python environment of the client tests in $venv"
  rm -rf "$venv"
  "$python" -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-input --require-hashes -r "$requirements" >&2
  touch "$venv/complete"
fi
echo "$venv/bin/python"
