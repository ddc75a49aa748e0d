#!/usr/bin/env bash
# Runs every check of the project, goes on after a failure, and ends with one line: N passed, N failed.
#
#   scripts/test.sh            everything
#   scripts/test.sh NAME…      only these parts: format clippy build agent test devstack examples shell cloud
#
# The tests use a real MongoDB: MONGODB_URI if it is set, else one that is started here and stopped in the end.
# The part cloud uses real OpenStack services on this machine, which needs root: those of LAMBDA_TEST_CLOUD (a directory with
# openrc files) if it is set, else those that run (make cloud-up), else they are started here and ended in the end.
# LAMBDA_TEST_SKIP_CLOUD=1 leaves that part out.
set -uo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$ROOT/scripts/lib.sh"
cd "$ROOT" || exit 1

LOGS=$TARGET/test-logs
mkdir -p "$LOGS"
WANTED=("$@")
PASSED=0
FAILED=0
BAD=()
TIMES=()
OWN_MONGO=
OWN_CLOUD=
INSTALLING=

wanted() {
  [ ${#WANTED[@]} = 0 ] && return
  local name
  for name in "${WANTED[@]}"; do [ "$name" = "$1" ] && return; done
  return 1
}

# part NAME COUNTER COMMAND…: runs a command; COUNTER reads how many checks passed and failed from its output.
part() {
  local name=$1 counter=$2 start=$SECONDS status passed failed
  shift 2
  wanted "$name" || return 0
  heading "$name: $*"
  "$@" 2>&1 | tee "$LOGS/$name.log"
  status=${PIPESTATUS[0]}
  read -r passed failed < <("$counter" "$LOGS/$name.log" "$status")
  # A command that failed without a check that did, as a build that breaks, is a failure of its own.
  if [ "$status" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi
  PASSED=$((PASSED + passed))
  FAILED=$((FAILED + failed))
  if [ "$failed" != 0 ]; then BAD+=("$name ($LOGS/$name.log)"); fi
  TIMES+=("$((SECONDS - start)) $name")
}

# The whole command is one check.
one() { if [ "$2" = 0 ]; then echo 1 0; else echo 0 1; fi; }

# test result: ok. 24 passed; 0 failed; …
cargo_results() {
  awk '/^test result: / { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) passed += $(i - 1); if ($i ~ /^failed/) failed += $(i - 1) } }
       END { print passed + 0, failed + 0 }' "$1"
}

# The same, where to run nothing is no success.
cargo_results_of_some() {
  local passed failed
  read -r passed failed < <(cargo_results "$1")
  if [ $((passed + failed)) = 0 ]; then failed=1; fi
  echo "$passed" "$failed"
}

# Ran 8 tests in 0.028s … FAILED (failures=1, errors=1)
unittest_results() {
  awk '/^Ran [0-9]+ tests? / { ran = $2 }
       /^FAILED \(/ { gsub(/[^0-9]+/, " "); for (i = 1; i <= NF; i++) failed += $i }
       END { print ran - failed, failed + 0 }' "$1"
}

# ok FILE / not ok FILE
shell_results() {
  awk '/^ok / { passed++ } /^not ok / { failed++ } END { print passed + 0, failed + 0 }' "$1"
}

shell_files() {
  git ls-files -co --exclude-standard 2>/dev/null | while read -r file; do
    case $file in
      *.sh | .ci/run | devstack/settings | devstack/lib/*) echo "$file" ;;
      *) if [ -f "$file" ] && head -c 64 "$file" | head -n 1 | grep -qE '^#!.*\b(ba|da)?sh\b'; then echo "$file"; fi ;;
    esac
  done | sort -u
}

shell_checks() {
  local file tools
  tools=$(dirname "$(tests/clients/venv.sh)") || return 1
  while read -r file; do
    if "$tools/shellcheck" -x -P SCRIPTDIR -P "$ROOT" "$file"; then echo "ok $file"; else echo "not ok $file"; fi
    case $file in
      # DevStack's own rules, for what it sources.
      devstack/*)
        if "$tools/bashate" -iE006 -eE005,E042 "$file"; then echo "ok $file (bashate)"; else echo "not ok $file (bashate)"; fi
        ;;
    esac
  done < <(shell_files)
}

prepare_services() {
  if [ -x tests/cloud/mongo.sh ]; then
    if [ -z "${MONGODB_URI:-}" ]; then
      OWN_MONGO=yes
      tests/cloud/mongo.sh up || return 1
      MONGODB_URI=$(tests/cloud/mongo.sh uri) || return 1
      export MONGODB_URI
    fi
  fi
  # Made before the tests, which would each wait for it.
  LAMBDA_TEST_PYTHON=$(tests/clients/venv.sh) || return 1
  export LAMBDA_TEST_PYTHON
}

# What a cloud needs is fetched and unpacked while the compiler works.
install_cloud() {
  if [ -z "${LAMBDA_TEST_CLOUD:-}" ] && [ "$(id -u)" = 0 ]; then
    tests/cloud/cloud.sh install >"$LOGS/cloud-install.log" 2>&1 &
    INSTALLING=$!
  fi
}

prepare_cloud() {
  if [ -n "${LAMBDA_TEST_CLOUD:-}" ]; then return; fi
  # Whatever became of it: up does what is left to do, and says what it cannot.
  if [ -n "$INSTALLING" ]; then wait "$INSTALLING"; fi
  INSTALLING=
  tests/cloud/cloud.sh status >/dev/null || OWN_CLOUD=yes
  tests/cloud/cloud.sh up || return 1
  LAMBDA_TEST_CLOUD=$(tests/cloud/cloud.sh dir) || return 1
  export LAMBDA_TEST_CLOUD
}

# The tests on a real cloud. Where they fail, whether the cloud itself works is worth knowing.
cloud_tests() {
  local status=0
  # Where no other part has brought a MongoDB, the cloud's own serves.
  if [ -z "${MONGODB_URI:-}" ]; then
    # shellcheck source=/dev/null
    MONGODB_URI=$(. "$LAMBDA_TEST_CLOUD/openrc" && echo "$MONGODB_URI") || return 1
    export MONGODB_URI
  fi
  cargo test --quiet --locked --test it -- cloud:: || status=$?
  if [ "$status" != 0 ] && [ -n "$OWN_CLOUD" ]; then tests/cloud/cloud.sh smoke; fi
  return "$status"
}

stop_services() {
  # Not the ones that were given to us.
  if [ -n "$OWN_MONGO" ]; then env -u MONGODB_URI tests/cloud/mongo.sh down; fi
  if [ -n "$INSTALLING" ]; then wait "$INSTALLING"; fi
  if [ -n "$OWN_CLOUD" ]; then tests/cloud/cloud.sh down; fi
}
trap stop_services EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if wanted cloud && [ "${LAMBDA_TEST_SKIP_CLOUD:-}" != 1 ]; then install_cloud; fi
part format one cargo fmt --all --check
part clippy one cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
# The tests run these programs, so they have to be there and to be those of this tree.
part build one cargo build --quiet --locked --workspace --bins
# And the instances of a cloud run this one.
part agent one make --no-print-directory agent
if wanted test || wanted devstack; then
  heading 'services: MongoDB and Python clients'
  start=$SECONDS
  if ! prepare_services; then
    FAILED=$((FAILED + 1))
    BAD+=('services')
  fi
  TIMES+=("$((SECONDS - start)) services")
fi
part test cargo_results cargo test --quiet --locked --workspace --no-fail-fast -- --skip cloud::
part devstack shell_results tests/devstack/run.sh standin
part examples unittest_results python3 -m unittest discover -s examples
part shell shell_results shell_checks
if wanted cloud; then
  if [ "${LAMBDA_TEST_SKIP_CLOUD:-}" = 1 ]; then
    heading 'cloud'
    echo 'SKIPPED: nothing is tested on a real cloud, as LAMBDA_TEST_SKIP_CLOUD=1 says'
  else
    heading 'cloud services: Keystone, Zaqar, Zun, Nova and what they need'
    start=$SECONDS
    if prepare_cloud; then
      TIMES+=("$((SECONDS - start)) cloud services")
      part cloud cargo_results_of_some cloud_tests
    else
      FAILED=$((FAILED + 1))
      BAD+=("cloud services (on a machine without root or Docker: LAMBDA_TEST_SKIP_CLOUD=1; logs: $(tests/cloud/cloud.sh dir)/log)")
    fi
  fi
fi

heading 'times'
for time in "${TIMES[@]}"; do
  if [ "${time%% *}" -ge 1 ]; then printf '%5d s  %s\n' "${time%% *}" "${time#* }"; fi
done
for bad in "${BAD[@]}"; do echo "failed: $bad"; done
echo "$PASSED passed, $FAILED failed" | tee "$LOGS/summary"
[ "$FAILED" = 0 ]
