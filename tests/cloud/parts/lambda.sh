# Our own service on this cloud: API and worker, in the catalog under function, with both drivers.
# shellcheck shell=bash

# Where the programs are that it runs.
LAMBDA_PROGRAMS=${LAMBDA_BIN_DIR:-$TARGET/debug}
# An address of this machine that containers and guests reach, and nobody else: the worker listens nowhere but there.
LAMBDA_GATEWAY=$CONTAINER_GATEWAY:19071
LAMBDA_API=http://127.0.0.1:$LAMBDA_API_PORT

lambda_prepare() {
  local program
  for program in "$LAMBDA_PROGRAMS"/{lambda-api,lambda-worker} "$TARGET/agent/lambda-agent"; do
    [ -x "$program" ] || die "$program is missing: make build agent"
  done
  (
    flock 8
    quietly runtime-images lambda_runtimes
  ) 8>"$CACHE/cloud.lock"
  (umask 077 && lambda_config | ini "$BOX/etc/lambda/lambda.conf")
}

# What apt knows of may be old, and gone from where it was.
lambda_runtimes() {
  local build=(env LAMBDA_AGENT="$TARGET/agent/lambda-agent" "$ROOT/runtimes/build.sh" all "$TARGET/runtimes")
  "${build[@]}" || { apt_get update && "${build[@]}"; }
}

lambda_config() {
  cat <<END
[database]
connection = mongodb://127.0.0.1:$MONGO_PORT/lambda?replicaSet=rs0
[api]
bind = 127.0.0.1:$LAMBDA_API_PORT
public_endpoint = $LAMBDA_API
auth_strategy = keystone
[keystone_authtoken]
www_authenticate_uri = $KEYSTONE
[service_auth]
$(credentials lambda)
[worker]
drivers = zun, nova
gateway_bind = $LAMBDA_GATEWAY
state_dir = $BOX/data/lambda
[zun]
image = lambda-python3:1
image_driver = docker
image_pull_policy = never
network = $CONTAINER_NET
[nova]
image = lambda-python3-vm
network = $SERVER_NET
# With what a server needs for itself, one of 512 MB: they are emulated on a small machine.
instance_memory_mib = 256
max_instances = 4
END
}

lambda_images() {
  "$ROOT/runtimes/publish.sh" docker "$TARGET/runtimes"
  # shellcheck source=/dev/null
  (. "$BOX/openrc-admin" && LAMBDA_IMAGE_VISIBILITY=public "$ROOT/runtimes/publish.sh" vm "$TARGET/runtimes")
}

lambda_ready() {
  quietly publish lambda_images
  mkdir -p "$BOX/data/lambda"
  local program
  for program in api worker; do
    spawn lambda-$program "$LAMBDA_PROGRAMS/lambda-$program" --config-file "$BOX/etc/lambda/lambda.conf"
  done
  wait_until lambda-api 60 lambda_healthy
  wait_until lambda-worker 60 lambda_has_worker
  say "our API at $LAMBDA_API, our worker"
}

lambda_healthy() { curl -sf -m 10 -o /dev/null "$LAMBDA_API/healthcheck"; }
lambda_has_worker() { rest GET "$LAMBDA_API/v1/workers" | jq -e '.workers[0]'; }
