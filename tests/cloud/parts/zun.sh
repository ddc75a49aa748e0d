# Docker and Zun: no registry, no etcd, no kuryr. The network driver is empty, so Docker makes a plain bridge.
# shellcheck shell=bash

# The machine's own Docker if it runs, else one under $BOX that leaves iptables alone.
zun_docker() {
  if [ ! -e "$BOX/etc/docker-host" ]; then
    if docker info >/dev/null 2>&1; then
      echo "${DOCKER_HOST:-unix:///var/run/docker.sock}" >"$BOX/etc/docker-host"
    else
      echo "unix://$BOX/run/docker.sock" >"$BOX/etc/docker-host"
    fi
  fi
  zun_docker_host
  if docker_is_ours; then
    echo '{}' >"$BOX/etc/docker.json"
    spawn dockerd dockerd --config-file "$BOX/etc/docker.json" -H "$DOCKER_HOST" --data-root "$BOX/data/docker" \
      --exec-root "$BOX/run/docker" --pidfile "$BOX/run/dockerd-own" \
      --iptables=false --ip6tables=false --ip-masq=false --ip-forward=false --bridge=none
    wait_until dockerd 60 docker info
  fi
}

zun_docker_host() {
  DOCKER_HOST=$(cat "$BOX/etc/docker-host")
  export DOCKER_HOST
}

docker_is_ours() { [ "${DOCKER_HOST:-}" = "unix://$BOX/run/docker.sock" ]; }

zun_prepare() {
  zun_docker
  local name version
  name=$(docker info -f '{{.Name}}')
  version=$(docker version -f '{{.Server.APIVersion}}')
  ini "$BOX/etc/zun/policy.yaml" <<END
# The default is admin only, and the default pull policy needs a registry.
"container:create:image_pull_policy": ""
END
  # host must be Docker's name for itself, else the inventory never appears in Placement.
  ini "$BOX/etc/zun/zun.conf" <<END
[DEFAULT]
host = $name
my_ip = 127.0.0.1
transport_url = $AMQP
state_path = $BOX/data/zun
image_driver_list = docker
default_image_driver = docker
container_driver = docker
capsule_driver = docker
[api]
host_ip = 127.0.0.1
port = $ZUN_PORT
api_paste_config = $VENV/etc/zun/api-paste.ini
[database]
connection = $(db_url zun)
[keystone_auth]
$(credentials zun)
$(authtoken zun)
[docker]
api_url = $DOCKER_HOST
docker_remote_api_version = $version
docker_data_root = $BOX/data/docker
execute_timeout = 60
[network]
driver_name =
[compute]
reserved_host_memory_mb = 0
[oslo_policy]
policy_file = $BOX/etc/zun/policy.yaml
[quota]
containers = 100000
memory = 100000000
cpu = 1000000
disk = 1000000
[oslo_concurrency]
lock_path = $BOX/data/zun/lock
[oslo_messaging_notifications]
driver = noop
END
  schema zun zun zun-db-manage --config-file "$BOX/etc/zun/zun.conf" upgrade
}

zun_start() {
  mkdir -p "$BOX/data/zun/lock"
  zun_docker
  wsgi zun "$ZUN_PORT" 1 8 zun.wsgi.api:application -- --http-socket "127.0.0.1:$ZUN_PORT" --add-header 'Connection: close' \
    --pyargv "--config-file $BOX/etc/zun/zun.conf"
  spawn zun-compute zun-compute --config-file "$BOX/etc/zun/zun.conf"
}

zun_has_inventory() {
  rest GET "$PLACEMENT/resource_providers?name=$(docker info -f '{{.Name}}')&resources=VCPU:1" '' \
    -H 'OpenStack-API-Version: placement 1.10' | jq -e '.resource_providers[0]'
}

zun_ready() {
  wait_until zun 60 answers "$ZUN"
  wait_until zun-compute 90 zun_has_inventory
  # Docker's network is made here and not by the first container, so that the gateway's address is there before; its name
  # is the id of Neutron's, which is how Zun finds it.
  local id
  id=$(network_id "$CONTAINER_NET")
  echo "$id" >"$BOX/run/docker-network"
  docker network inspect "$id" >/dev/null 2>&1 ||
    quietly docker-network docker network create --subnet "$CONTAINER_CIDR" --gateway "$CONTAINER_GATEWAY" "$id"
  images_for_docker
  say "Zun, on Docker $(docker version -f '{{.Server.Version}}')"
}

# Before the processes end: the containers, the networks, the images that were made here. Of a Docker that is the
# machine's, only what is known to be from here.
zun_stop() {
  [ -e "$BOX/etc/docker-host" ] || return 0
  zun_docker_host
  if docker info >/dev/null 2>&1; then
    if docker_is_ours; then
      docker ps -aq | xargs -r docker rm -f
      docker network ls -q --filter type=custom | xargs -r docker network rm
    else
      docker ps -aq --filter 'name=^/?zun-' | xargs -r docker rm -f
      if [ -s "$BOX/run/docker-network" ]; then docker network rm "$(cat "$BOX/run/docker-network")"; fi
      docker images -q 'box-*' | xargs -r docker rmi -f
    fi
  fi >/dev/null
}
