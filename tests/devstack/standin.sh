# Stands in for the helpers of DevStack that the plugin calls. Each writes its call to $WORK/calls and keeps what it made, one
# line a thing, in $WORK/made; a helper that is not here is a command that is not found, which fails the phase.
# shellcheck shell=bash disable=SC2034

called() { printf '%s\n' "$*" >>"$WORK/calls"; }
made() { grep -qxF -- "$*" "$WORK/made" 2>/dev/null || printf '%s\n' "$*" >>"$WORK/made"; }
gone() { grep -vF -- "$*" "$WORK/made" >"$WORK/made.new"; mv "$WORK/made.new" "$WORK/made"; }

# What stackrc and local.conf say.
ENABLED_SERVICES=${ENABLED_SERVICES:-key,mysql}
DATA_DIR=$WORK/data
SYSTEMD_DIR=$WORK/systemd
APACHE_CONF_DIR=$WORK/apache
STACK_USER=$(id -un)
HOST_IP=127.0.0.1
SERVICE_HOST=127.0.0.1
SERVICE_LISTEN_ADDRESS=0.0.0.0
SERVICE_PROTOCOL=http
SERVICE_TIMEOUT=60
SERVICE_PASSWORD=secret-of-the-service
SERVICE_PROJECT_NAME=service
SERVICE_DOMAIN_NAME=Default
REGION_NAME=RegionOne
KEYSTONE_SERVICE_URI=http://127.0.0.1/identity
MEMCACHE_SERVERS=localhost:11211
SSL_BUNDLE_FILE=$WORK/bundle.pem
ENABLE_DEBUG_LOG_LEVEL=True

die() { shift; echo "die: $*" >&2; exit 1; }
echo_summary() { called echo_summary; }
sudo() {
  while [[ "$1" == -* ]]; do shift; done
  env "$@"
}
trueorfalse() { local value=${!2:-$1}; case ${value,,} in 1 | true | yes) echo True ;; *) echo False ;; esac; }
is_ubuntu() { true; }
is_fedora() { false; }
define_plugin() { called define_plugin "$@"; }
plugin_requires() { called plugin_requires "$@"; }
enable_service() {
  local name
  for name in "$@"; do [[ ,$ENABLED_SERVICES, == *,$name,* ]] || ENABLED_SERVICES+=,$name; done
}
is_service_enabled() {
  local name
  for name in "$@"; do
    if [[ ,$ENABLED_SERVICES, == *,$name,* ]]; then return 0; fi
    if type "is_${name}_enabled" >/dev/null 2>&1 && "is_${name}_enabled"; then return 0; fi
  done
  return 1
}

install_package() { called install_package "$@"; }
start_service() { called start_service "$@"; }
apt-cache() { [[ " ${CAN_INSTALL:-} " == *" $2 "* ]] && echo '  Candidate: 1.0'; }

# An INI file as DevStack keeps it: no quotes, a new option on top of its section, a known one changed in its place.
iniset() {
  local file=$1 section=$2 option=$3 value=$4
  called iniset "$2" "$3"
  [[ -e $file ]] || { echo "iniset: no $file" >&2; return 1; }
  grep -qxF "[$section]" "$file" || printf '\n[%s]\n' "$section" >>"$file"
  if [[ -n $(iniget "$file" "$section" "$option") ]]; then inidelete "$file" "$section" "$option"; fi
  SECTION=$section LINE="$option = $value" awk '{ print } $0 == "[" ENVIRON["SECTION"] "]" { print ENVIRON["LINE"] }' "$file" >"$file.new"
  cat "$file.new" >"$file"
  rm "$file.new"
}
iniget() {
  SECTION=$2 OPTION=$3 awk '/^\[/ { inside = ($0 == "[" ENVIRON["SECTION"] "]") }
    inside && index($0, ENVIRON["OPTION"] " = ") == 1 { print substr($0, length(ENVIRON["OPTION"]) + 4) }' "$1"
}
inidelete() {
  SECTION=$2 OPTION=$3 awk '/^\[/ { inside = ($0 == "[" ENVIRON["SECTION"] "]") }
    !(inside && index($0, ENVIRON["OPTION"] " = ") == 1)' "$1" >"$1.del"
  cat "$1.del" >"$1"
  rm "$1.del"
}

create_service_user() { called create_service_user "$@"; made "user $1"; made "role service $1"; [[ -z ${2:-} ]] || made "role $2 $1"; }
get_or_create_service() { called get_or_create_service "$1" "$2"; made "service $1 $2"; }
get_or_create_endpoint() {
  called get_or_create_endpoint "$@"
  made "endpoint $1 $2 public $3"
  made "endpoint $1 $2 admin $4"
  made "endpoint $1 $2 internal $5"
}
get_endpoint_url() { called get_endpoint_url "$@"; echo http://127.0.0.1/messaging; }
configure_keystoneauth() {
  called configure_keystoneauth "$2" "$3"
  iniset "$1" "$3" auth_type password
  iniset "$1" "$3" interface public
  iniset "$1" "$3" auth_url "$KEYSTONE_SERVICE_URI"
  iniset "$1" "$3" username "$2"
  iniset "$1" "$3" password "$SERVICE_PASSWORD"
  iniset "$1" "$3" user_domain_name "$SERVICE_DOMAIN_NAME"
  iniset "$1" "$3" project_name "$SERVICE_PROJECT_NAME"
  iniset "$1" "$3" project_domain_name "$SERVICE_DOMAIN_NAME"
}
configure_keystone_authtoken_middleware() {
  called configure_keystone_authtoken_middleware "$2" "$3" "$4"
  configure_keystoneauth "$1" "$2" "$3"
  iniset "$1" "$3" www_authenticate_uri "$KEYSTONE_SERVICE_URI"
  iniset "$1" "$3" cafile "$SSL_BUNDLE_FILE"
  iniset "$1" "$3" memcached_servers "$MEMCACHE_SERVERS"
  iniset "$1" "$3" service_type "$4"
}

# The client and curl: only what the plugin asks of Keystone, Zaqar and itself.
openstack() {
  case " $* " in
    *" token issue "*) called openstack token issue; echo a-token ;;
    *" flavor show "*) grep -qxF "flavor ${*: -1}" "$WORK/made" ;;
    *" flavor create "*) called openstack flavor create; made "flavor $LAMBDA_FLAVOR" ;;
    *) echo "unexpected: openstack $*" >&2; return 1 ;;
  esac
}
# The plugin calls it through env, which finds no functions.
env() {
  local words=()
  while [[ $# -gt 0 ]]; do
    case $1 in
      -u) shift 2 ;;
      *=*) words+=("$1"); shift ;;
      *) break ;;
    esac
  done
  case $1 in
    openstack) (export "${words[@]}"; "$@") ;;
    # Images take minutes and other machines; that they are asked for is what is looked at here.
    */runtimes/build.sh | */runtimes/publish.sh) called "${1##*/}" "${@:2}" ;;
    *) command env "${words[@]}" "$@" ;;
  esac
}
curl() {
  local word headers=
  case " $* " in *" -H @- "*) headers=$(cat) ;; esac
  for word in "$@"; do
    case $word in
      */v2/queues/*)
        [[ $headers == *'X-Auth-Token: a-token'* && $headers == *'Client-ID: '* ]] || { echo 401; return 0; }
        called curl PUT "${word##*/}"
        made "queue ${word##*/}"
        echo 201
        ;;
      */healthcheck) called curl "$word" ;;
    esac
  done
}

run_process() {
  local name=$1 command=$2
  is_service_enabled "$name" || return 0
  [[ $command == /* && $command != *sudo* ]] || die 0 "systemd cannot run $command"
  called run_process "$name"
  mkdir -p "$SYSTEMD_DIR"
  printf '[Service]\nExecStart = %s\n' "$command" >"$SYSTEMD_DIR/devstack@$name.service"
  made "running $name"
}
stop_process() {
  is_service_enabled "$1" || return 0
  called stop_process "$1"
  gone "running $1"
}
wait_for_service() { called wait_for_service "$2"; }
write_local_proxy_http_config() {
  called write_local_proxy_http_config "$@"
  mkdir -p "$APACHE_CONF_DIR"
  echo "ProxyPass \"$3\" \"$2\"" >"$APACHE_CONF_DIR/$1.conf"
}
start_tls_proxy() { called start_tls_proxy "$@"; }
apache_site_config_for() { echo "$APACHE_CONF_DIR/$1.conf"; }
disable_apache_site() { called disable_apache_site "$1"; }
