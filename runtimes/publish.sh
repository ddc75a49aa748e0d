#!/usr/bin/env bash
# runtimes/publish.sh docker|container|vm DIR [NAME]: brings images of build.sh to where instances are made from them.
#
#   docker      into the Docker of this machine (DOCKER_HOST), for Zun with images that are there: lambda-python3:1
#   container   into Glance as NAME, for Zun with `image_driver = glance`
#   vm          into Glance: NAME-kernel, NAME-initramfs and NAME, which knows the two; NAME is what [nova] image says
#
# Glance is found by the OS_* variables of an openrc (a password, or OS_TOKEN with OS_IMAGE_ENDPOINT). NAME is lambda-python3
# for containers, lambda-python3-vm for servers. What is there with the same content stays; other images of the name are
# removed afterwards. Prints the image's id, or Docker's name for it.
set -euo pipefail

fail() { echo "publish.sh: $*" >&2; exit 1; }
say() { echo "publish.sh: $*" >&2; }
{ [ $# = 2 ] || [ $# = 3 ]; } || fail 'usage: publish.sh docker|container|vm DIR [NAME]'
DIR=$2
# Functions need no screen; the console is where the agent logs. An emulated processor has no good clock source but one.
KERNEL_OPTIONS=${LAMBDA_KERNEL_OPTIONS:-console=ttyS0 quiet loglevel=3 panic=-1 random.trust_bootloader=on cryptomgr.notests}

have() {
  local tool
  for tool; do type -P "$tool" >/dev/null || fail "$tool is missing"; done
}

# Sets TOKEN and GLANCE.
log_in() {
  have curl jq sha256sum
  CURL=(curl --silent --show-error --fail-with-body)
  [ -z "${OS_CACERT:-}" ] || CURL+=(--cacert "$OS_CACERT")
  TOKEN=${OS_TOKEN:-} GLANCE=${OS_IMAGE_ENDPOINT:-}
  if [ -z "$TOKEN" ]; then
    : "${OS_AUTH_URL:?is not set: source an openrc}" "${OS_USERNAME:?}" "${OS_PASSWORD:?}" "${OS_PROJECT_NAME:?}"
    local url=${OS_AUTH_URL%/} answer request
    case $url in */v3) ;; *) url+=/v3 ;; esac
    # The password is no argument of any program: others can read those.
    request=$(jq -n 'def domain(id; name): if id then {id: id} else {name: (name // "Default")} end;
      {auth: {identity: {methods: ["password"], password: {user: {name: env.OS_USERNAME, password: env.OS_PASSWORD,
          domain: domain(env.OS_USER_DOMAIN_ID; env.OS_USER_DOMAIN_NAME)}}},
        scope: {project: {name: env.OS_PROJECT_NAME, domain: domain(env.OS_PROJECT_DOMAIN_ID; env.OS_PROJECT_DOMAIN_NAME)}}}}')
    answer=$("${CURL[@]}" -D - -H 'Content-Type: application/json' --data-binary @- "$url/auth/tokens" <<<"$request")
    TOKEN=$(tr -d '\r' <<<"$answer" | awk 'tolower($1) == "x-subject-token:" { print $2 }')
    [ -n "$GLANCE" ] || GLANCE=$(sed -n '/^{/,$p' <<<"$answer" | jq -r --arg interface "${OS_INTERFACE:-public}" \
      '[.token.catalog[] | select(.type == "image") | .endpoints[]
        | select(.interface == $interface and (env.OS_REGION_NAME == null or .region == env.OS_REGION_NAME)) | .url][0] // empty')
  fi
  [ -n "$TOKEN" ] || fail 'Keystone gave no token'
  [ -n "$GLANCE" ] || fail 'the catalog has no image service; set OS_IMAGE_ENDPOINT'
  GLANCE=${GLANCE%/}
  GLANCE=${GLANCE%/v2}/v2
}

glance() { # METHOD PATH [curl's arguments]
  local method=$1 path=$2
  shift 2
  # From a file descriptor for the same reason.
  "${CURL[@]}" -H @<(echo "X-Auth-Token: $TOKEN") -X "$method" "$GLANCE$path" "$@"
}

# image NAME DISK-FORMAT CONTAINER-FORMAT FILE PROPERTIES: prints its id.
image() {
  local digest known id old
  digest=$({ sha256sum <"$4"; echo "$5"; } | sha256sum | cut -d' ' -f1)
  known=$(glance GET "/images?name=$1&status=active&visibility=all&limit=100")
  id=$(jq -r --arg digest "$digest" '[.images[] | select(.lambda_digest == $digest) | .id][0] // empty' <<<"$known")
  if [ -z "$id" ]; then
    say "uploading $1"
    id=$(jq -nc --arg name "$1" --arg disk "$2" --arg container "$3" --arg digest "$digest" --argjson properties "$5" \
      --arg visibility "${LAMBDA_IMAGE_VISIBILITY:-private}" \
      '{name: $name, disk_format: $disk, container_format: $container, visibility: $visibility, lambda_digest: $digest} + $properties' |
      glance POST /images -H 'Content-Type: application/json' --data-binary @- | jq -r .id)
    glance PUT "/images/$id/file" -H 'Content-Type: application/octet-stream' -T "$4" >/dev/null
  fi
  for old in $(jq -r --arg id "$id" '.images[] | select(.lambda_digest != null and .id != $id) | .id' <<<"$known"); do
    # One that is in use, or another's: it does no harm.
    glance DELETE "/images/$old" >/dev/null 2>&1 || say "the old image $old stays"
  done
  echo "$id"
}

case $1 in
  docker)
    have docker
    [ -s "$DIR/lambda-python3-docker.tar" ] || fail "there is no $DIR/lambda-python3-docker.tar; runtimes/build.sh container $DIR"
    docker load --quiet --input "$DIR/lambda-python3-docker.tar" | sed 's/^Loaded image: //'
    ;;
  container)
    [ -s "$DIR/lambda-python3-docker.tar" ] || fail "there is no $DIR/lambda-python3-docker.tar; runtimes/build.sh container $DIR"
    log_in
    image "${3:-lambda-python3}" raw docker "$DIR/lambda-python3-docker.tar" '{}'
    ;;
  vm)
    [ -s "$DIR/python3.raw" ] || fail "there is no $DIR/python3.raw; runtimes/build.sh vm $DIR"
    log_in
    name=${3:-lambda-python3-vm}
    kernel=$(image "$name-kernel" aki aki "$DIR/vmlinuz" '{}')
    initramfs=$(image "$name-initramfs" ari ari "$DIR/initramfs.gz" '{}')
    image "$name" raw bare "$DIR/python3.raw" "$(jq -nc --arg kernel "$kernel" --arg initramfs "$initramfs" --arg options "$KERNEL_OPTIONS" \
      '{kernel_id: $kernel, ramdisk_id: $initramfs, os_command_line: $options, hw_video_model: "none", hw_rng_model: "virtio"}')"
    ;;
  *) fail 'usage: publish.sh docker|container|vm DIR [NAME]' ;;
esac
