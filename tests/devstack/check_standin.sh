# What the plugin does on the stand-in. Sourced by run.sh.
# shellcheck shell=bash

# shellcheck disable=SC2329  # Called by the trap.
remove() {
  case ${database:-} in mongodb:*) python3 "$HERE/drop_database.py" "$database" ;; esac
  rm -rf "$WORK"
}
trap remove EXIT

url=http://127.0.0.1/function
# A database of its own for this run; without a MongoDB, a file.
database="sqlite://$WORK/lambda.db"
if [ -n "${MONGODB_URI:-}" ]; then
  database=$(sed -E 's#^(mongodb://[^/?]+)/?(\?|$)#\1/lambda_devstack_'$$'\2#' <<<"$MONGODB_URI")
fi

# Its checks of a real Zaqar and Keystone belong to the other test; everything else of it is real.
mkdir "$WORK/programs"
for program in lambda lambda-api lambda-worker lambda-agent; do ln -s "$(realpath "$PROGRAMS")/$program" "$WORK/programs/"; done
printf '#!/bin/bash\ncase "$*" in *upgrade-check) echo upgrade-check >>%q ;; *) exec %q "$@" ;; esac\n' "$WORK/calls" \
  "$(realpath "$PROGRAMS")/lambda-manage" >"$WORK/programs/lambda-manage"
chmod +x "$WORK/programs/lambda-manage"
PROGRAMS=$WORK/programs

check 'stack' stacks LAMBDA_MONGODB_URI="$database"
cp "$WORK/made" "$WORK/made.first"
cp "$WORK/etc/lambda.conf" "$WORK/conf.first"
cp -r "$WORK/systemd" "$WORK/systemd.first"

for line in "user lambda" "role service lambda" "role member lambda" "service lambda function" \
  "endpoint function RegionOne public $url" "endpoint function RegionOne admin $url" "endpoint function RegionOne internal $url" \
  "queue lambda-events" "queue lambda-dead-letters" "running lambda-api" "running lambda-worker"; do
  check "made: $line" made "$line"
done
check 'made: nothing else' [ "$(wc -l <"$WORK/made")" = 11 ]

check 'packages before programs' called_before 'install_package' 'create_service_user'
check 'accounts before configuration' called_before 'get_or_create_endpoint' 'iniset'
check 'configuration before the start' called_before 'configure_keystone_authtoken_middleware' 'run_process lambda-api'
check 'the queue before the worker' called_before 'curl PUT lambda-events' 'run_process lambda-worker'
check 'waits for what it has started' called_before 'run_process lambda-api' 'wait_for_service http://127.0.0.1:9070/healthcheck'
check 'waits for the worker' called_before 'run_process lambda-worker' 'wait_for_service http://127.0.0.1:9072/healthcheck'
check 'asks in the end whether it can work' called_before 'wait_for_service' 'upgrade-check'
check 'a path of Apache' called_before 'write_local_proxy_http_config function http://127.0.0.1:9070 /function' "curl $url/healthcheck"

check 'database' set_to database connection "$database"
check 'bind' set_to api bind 127.0.0.1:9070
check 'public endpoint' set_to api public_endpoint "$url"
check 'proxy headers' set_to api enable_proxy_headers_parsing True
check 'auth strategy' set_to api auth_strategy keystone
check 'token validation' set_to keystone_authtoken username lambda
check 'service type' set_to keystone_authtoken service_type function
check 'own token' set_to service_auth password secret-of-the-service
check 'own region' set_to service_auth region_name RegionOne
check 'queue' set_to zaqar queue lambda-events
check 'driver' set_to worker drivers local
check 'a secret file' [ "$(stat -c %a "$WORK/etc/lambda.conf")" = 640 ]
check 'a policy directory' [ -d "$WORK/etc/policy.d" ]
check 'an absolute command' grep -qx "ExecStart = $WORK/bin/lambda-worker --config-file $WORK/etc/lambda.conf" "$WORK/systemd/devstack@lambda-worker.service"

check 'stack again' stacks LAMBDA_MONGODB_URI="$database"
check 'again: nothing more is made' cmp -s "$WORK/made" "$WORK/made.first"
check 'again: the same configuration' cmp -s "$WORK/etc/lambda.conf" "$WORK/conf.first"
check 'again: the same units' diff -r "$WORK/systemd" "$WORK/systemd.first"

: >"$WORK/calls"
check 'unstack' phases unstack LAMBDA_MONGODB_URI="$database"
check 'unstack stops the worker first' called_before 'stop_process lambda-worker' 'stop_process lambda-api'
check 'unstack: nothing runs' [ "$(grep -c '^running' "$WORK/made")" = 0 ]
check 'unstack again' phases unstack LAMBDA_MONGODB_URI="$database"
check 'clean' phases clean LAMBDA_MONGODB_URI="$database"
check 'clean: nothing is left' nothing_left
check 'clean again' phases clean LAMBDA_MONGODB_URI="$database"
check 'stack after clean' stacks LAMBDA_MONGODB_URI="$database"
check 'the same after clean' cmp -s "$WORK/etc/lambda.conf" "$WORK/conf.first"

: >"$WORK/calls"
check 'without Apache: its own port' stacks LAMBDA_MONGODB_URI="$database" LAMBDA_USE_APACHE=False
check 'its own port: bind' set_to api bind 0.0.0.0:9070
check 'its own port: no proxy' [ "$(grep -c 'proxy' "$WORK/calls")" = 0 ]
check 'its own port in the catalog' made 'endpoint function RegionOne public http://127.0.0.1:9070'

check 'with tls-proxy' stacks LAMBDA_MONGODB_URI="$database" LAMBDA_USE_APACHE=False ENABLED_SERVICES=key,tls-proxy
check 'tls-proxy: bind' set_to api bind 127.0.0.1:19070
check 'tls-proxy before it' grep -qx "start_tls_proxy lambda-api \* 9070 127.0.0.1 19070" "$WORK/calls"
check 'tls-proxy in the catalog' made 'endpoint function RegionOne public https://127.0.0.1:9070'
check 'tls-proxy: the bundle' set_to service_auth cafile "$WORK/bundle.pem"

: >"$WORK/calls"
check 'with Zun and Nova' stacks LAMBDA_MONGODB_URI="$database" ENABLED_SERVICES=key,zun-api,zun-compute,n-api,n-cpu
check 'both drivers' set_to worker drivers zun,nova
check 'the image of containers' set_to zun image lambda-python3
check 'the image of servers' set_to nova image lambda-python3-vm
check 'their network' set_to nova network private
check 'a flavor' made 'flavor lambda'
check 'images are built before they are published' called_before 'build.sh vm' 'publish.sh vm'
check 'images are there before the worker' called_before 'publish.sh container' 'run_process lambda-worker'

mkdir -p "$WORK/path"
printf '#!/bin/sh\n' >"$WORK/path/mongod"
chmod +x "$WORK/path/mongod"
: >"$WORK/calls"
cut_short=(PATH="$WORK/path:$PATH" LAMBDA_BIN_DIR="$PROGRAMS")
# The store is not really there: it goes as far as db-sync.
phases stack "${cut_short[@]}" LAMBDA_BUILD_IMAGES=False OS_DATABASE__TIMEOUT=1
check 'a MongoDB that is there is started' grep -qx 'start_service mongod' "$WORK/calls"
check 'and is the store' set_to database connection mongodb://127.0.0.1:27017/lambda
rm "$WORK/path/mongod"
if ! type -P mongod >/dev/null; then
  : >"$WORK/calls"
  check 'no MongoDB anywhere' dies 'set LAMBDA_MONGODB_URI' stack
  check 'a MongoDB that can be installed' dies 'No MongoDB' stack CAN_INSTALL='mongodb-server other'
  check 'is installed' grep -qx 'install_package mongodb-server' "$WORK/calls"
fi
check 'a missing program is named' dies 'lambda is missing' stack LAMBDA_BIN_DIR="$WORK/nowhere"
