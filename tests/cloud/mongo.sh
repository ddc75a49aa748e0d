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
# shellcheck source=tests/cloud/mongod.sh
. "$HERE/mongod.sh"
ROOT=$(cd "$HERE/../.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
case $TARGET in /*) ;; *) TARGET=$PWD/$TARGET ;; esac
STATE=$TARGET/cloud/mongo
PORT=${LAMBDA_TEST_MONGO_PORT:-27117}
PID_FILE=$STATE/mongod.pid

say() { printf 'mongo.sh: %s\n' "$*" >&2; }

die() {
  say "$*"
  if [ -s "$STATE/mongod.log" ]; then tail -n 5 "$STATE/mongod.log" | cut -c1-400 >&2; fi
  exit 1
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

start() {
  if running >/dev/null; then
    say "it runs already on port $PORT"
  else
    if (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; then
      die "port $PORT is taken by another program; choose one with LAMBDA_TEST_MONGO_PORT"
    fi
    type -P python3 >/dev/null || apt_install python3
    local mongod
    mongod=$(mongod_program)
    mkdir -p "$STATE/data"
    rm -f "$PID_FILE"
    "$mongod" --fork --pidfilepath "$PID_FILE" --logpath "$STATE/mongod.log" --dbpath "$STATE/data" --port "$PORT" \
      "${MONGOD_OPTIONS[@]}" "${MONGOD_REPLICA_SET[@]}" >/dev/null || die 'mongod did not start'
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
