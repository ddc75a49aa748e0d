# What the plugin does with DevStack's own helpers on the test cloud: real user, catalog, queue, and the real programs running.
# Sourced by run.sh. Keystone is shared with other tests, so everything has a name of its own and is removed.
# shellcheck shell=bash

[ -r "${DEVSTACK_DIR:-}/functions-common" ] || die "DEVSTACK_DIR must name a checkout of DevStack (it is '${DEVSTACK_DIR:-}')"
CLOUD=${LAMBDA_TEST_CLOUD:-$("$ROOT/tests/cloud/cloud.sh" dir)}
[ -r "$CLOUD/openrc-admin" ] || die "$CLOUD has no openrc-admin: start the cloud with make cloud-up, or set LAMBDA_TEST_CLOUD"
# shellcheck disable=SC1091
. "$CLOUD/openrc-admin"
DEVSTACK_DIR=$(cd "$DEVSTACK_DIR" && pwd)
name=lambda-devstack-$$
TEST_KEYSTONE_URI=${OS_AUTH_URL%/v3}
export DEVSTACK_DIR TEST_KEYSTONE_URI

# The client that DevStack calls, and its two clouds, which are one here.
client=$(dirname "$("$ROOT/tests/clients/venv.sh" "$HERE/client.txt")")
mkdir -p "$WORK/path"
ln -s "$client/openstack" "$WORK/path/openstack"
ln -s "$HERE/systemctl" "$WORK/path/systemctl"
# It runs what it is given, as whoever runs the test.
cat >"$WORK/path/sudo" <<'SUDO'
#!/bin/bash
while [[ "$1" == -* ]]; do shift; done
exec env "$@"
SUDO
chmod +x "$WORK/path/sudo"
cat >"$WORK/clouds.yaml" <<CLOUDS
clouds:
  devstack-system-admin:
    auth: {auth_url: $OS_AUTH_URL, username: $OS_USERNAME, password: $OS_PASSWORD, user_domain_id: default, system_scope: all}
    region_name: $OS_REGION_NAME
  devstack-admin:
    auth: {auth_url: $OS_AUTH_URL, username: $OS_USERNAME, password: $OS_PASSWORD, user_domain_id: default,
      project_name: $OS_PROJECT_NAME, project_domain_id: default}
    region_name: $OS_REGION_NAME
CLOUDS
export OS_CLIENT_CONFIG_FILE=$WORK/clouds.yaml
# DevStack's helpers name the cloud; what an openrc left in the environment would win over it.
region=$OS_REGION_NAME
# shellcheck disable=SC2046
unset $(compgen -e OS_ | grep -v '^OS_CLIENT_CONFIG_FILE$')
admin() { "$client/openstack" --os-cloud devstack-system-admin "$@"; }

read -r port gateway metrics < <(python3 -c '
import socket
open_sockets = [socket.socket() for _ in range(3)]
for s in open_sockets: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in open_sockets))')
database=$(sed -E 's#^(mongodb://[^/?]+)/?(\?|$)#\1/'"${name//-/_}"'\2#' <<<"${MONGODB_URI:?}")
url=http://127.0.0.1:$port
local_conf=(LAMBDA_MONGODB_URI="$database" LAMBDA_SERVICE_USER="$name" LAMBDA_REGION_NAME="$name" REGION_NAME="$region"
  SERVICE_PASSWORD="secret-$name" LAMBDA_USE_APACHE=False LAMBDA_SERVICE_PORT="$port" LAMBDA_GATEWAY_BIND="127.0.0.1:$gateway"
  LAMBDA_WORKER_METRICS_BIND="127.0.0.1:$metrics" LAMBDA_QUEUE="$name" LAMBDA_DEAD_LETTER_QUEUE="$name-dead" LAMBDA_DRIVERS=local)

# shellcheck disable=SC2329  # Called by the trap.
remove() {
  local id unit
  for unit in "$WORK"/run/*.pid; do if [ -e "$unit" ]; then kill "$(cat "$unit")" 2>/dev/null; fi; done
  for id in $(admin endpoint list --region "$name" -f value -c ID); do admin endpoint delete "$id"; done
  admin region delete "$name" 2>/dev/null
  admin user delete "$name" 2>/dev/null
  if [ "${service_was_there:-}" = no ] && [ -z "$(admin endpoint list --service function -f value -c ID)" ]; then
    admin service delete function
  fi
  python3 "$HERE/drop_database.py" "$database"
  rm -rf "$WORK"
}
trap remove EXIT

# The client makes endpoints only in regions that are there.
admin region create "$name" >/dev/null
service_was_there=yes
admin service show function >/dev/null 2>&1 || service_was_there=no

endpoints() { admin endpoint list --region "$name" --service function -f value -c Interface -c URL | sort; }
roles() { admin role assignment list --user "$name" --names -f value -c Role -c Project | sort; }
equal() { [ "$1" = "$2" ] || { printf 'found:\n%s\nwanted:\n%s\n' "$1" "$2" >&2; false; }; }
answers() { # STATUS URL [curl's arguments]
  local found
  found=$(curl --silent --noproxy '*' --max-time 30 -o /dev/null -w '%{http_code}' "${@:3}" "$2")
  [ "$found" = "$1" ] || { echo "$2 answered $found, not $1" >&2; false; }
}

check 'stack' stacks "${local_conf[@]}"
wanted="admin $url
internal $url
public $url"
check 'endpoints' equal "$(endpoints)" "$wanted"
check 'roles' equal "$(roles)" 'member service@Default
service service@Default'
check 'the API answers' answers 200 "$url/healthcheck"
check 'the API finds store, queue and Keystone' answers 200 "$url/healthcheck?detailed=true"
check 'the worker finds store, queue, gateway and driver' answers 200 "http://127.0.0.1:$metrics/healthcheck?detailed=true"
check 'without a token: 401' answers 401 "$url/v1/functions"
# shellcheck disable=SC2016  # For the inner shell.
token=$(env OS_CLIENT_CONFIG_FILE=/dev/null bash -c '. "$1"; exec "$2" token issue -f value -c id' - "$CLOUD/openrc" "$client/openstack")
check 'with a token: 200' answers 200 "$url/v1/functions" -H "X-Auth-Token: $token"
cp "$WORK/etc/lambda.conf" "$WORK/conf.first"
cp -r "$WORK/systemd" "$WORK/systemd.first"

check 'stack again' stacks "${local_conf[@]}"
check 'again: the same endpoints' equal "$(endpoints)" "$wanted"
check 'again: the same configuration' cmp "$WORK/etc/lambda.conf" "$WORK/conf.first"
check 'again: the same units' diff -r "$WORK/systemd" "$WORK/systemd.first"

check 'unstack' phases unstack "${local_conf[@]}"
check 'unstack: nothing runs' [ -z "$(find "$WORK/run" -name '*.pid')" ]
check 'the worker said goodbye' grep -q 'stopped$' "$WORK/log/devstack@lambda-worker.service.log"
check 'unstack again' phases unstack "${local_conf[@]}"
check 'clean' phases clean "${local_conf[@]}"
check 'clean: nothing is left' nothing_left
check 'clean again' phases clean "${local_conf[@]}"
