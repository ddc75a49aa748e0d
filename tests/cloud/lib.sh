# Small functions shared by the parts of the cloud. Sourced by cloud.sh, which sets HERE and the shell's options.
#
# All of a running cloud is under $BOX, and what is kept between runs under $CACHE. Outside of them there is only what the
# kernel holds (addresses, bridges, mounts), and Debian's packages with the accounts that libvirt wants.
# shellcheck shell=bash
# shellcheck disable=SC2034  # Many of these names are for the parts.

ROOT=$(cd "$HERE/../.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
case $TARGET in /*) ;; *) TARGET=$PWD/$TARGET ;; esac
BOX=${LAMBDA_CLOUD_DIR:-$TARGET/cloud}
case $BOX in /*) ;; *) BOX=$PWD/$BOX ;; esac
LOCK_HASH=$(sha256sum "$HERE/requirements.txt" | cut -c1-12)
VENV=$CACHE/cloud-venv-$LOCK_HASH
REGION=RegionOne

# What the caller has there must not reach the services.
unset "${!OS_@}" "${!PYTHON@}" VIRTUAL_ENV
PATH=$VENV/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C.UTF-8 PYTHONWARNINGS=ignore
# A proxy would only stand between services of one machine.
export no_proxy='*' NO_PROXY='*'

# Every port, in one place; all on 127.0.0.1.
MYSQL_PORT=13306 AMQP_PORT=13672 AMQP_DIST_PORT=13673 EPMD_PORT=13369 MEMCACHED_PORT=13211 REDIS_PORT=13379
MONGO_PORT=13017 ZAQAR_MONGO_PORT=13018
KEYSTONE_PORT=15000 PLACEMENT_PORT=18778 NEUTRON_PORT=19696 GLANCE_PORT=19292 NOVA_PORT=18774 ZUN_PORT=19517
ZAQAR_MONGODB_API_PORT=18888 ZAQAR_REDIS_API_PORT=18889
OVSDB_PORT=13640 OPENFLOW_PORT=13633
LAMBDA_API_PORT=19070
KEYSTONE=http://127.0.0.1:$KEYSTONE_PORT/v3
PLACEMENT=http://127.0.0.1:$PLACEMENT_PORT
NEUTRON=http://127.0.0.1:$NEUTRON_PORT
GLANCE=http://127.0.0.1:$GLANCE_PORT
NOVA=http://127.0.0.1:$NOVA_PORT/v2.1
ZUN=http://127.0.0.1:$ZUN_PORT/v1
ZAQAR_MONGODB=http://127.0.0.1:$ZAQAR_MONGODB_API_PORT
ZAQAR_REDIS=http://127.0.0.1:$ZAQAR_REDIS_API_PORT
AMQP=rabbit://box:box@127.0.0.1:$AMQP_PORT/

# The two networks and their gateway addresses, which are this machine's own.
CONTAINER_NET=containers CONTAINER_CIDR=10.79.0.0/24 CONTAINER_GATEWAY=10.79.0.1
SERVER_NET=servers SERVER_CIDR=10.193.0.0/24 SERVER_GATEWAY=10.193.0.1
# Differs from Docker's name for this host: Zun and Nova share one Placement.
NOVA_HOST=box-nova

# --- Saying and failing

CLOUD_T0=${CLOUD_T0:-$(date +%s%N)}

say() {
  local ms=$((($(date +%s%N) - CLOUD_T0) / 1000000))
  printf '%4d.%d s  %s\n' $((ms / 1000)) $((ms % 1000 / 100)) "$*" >&2
}

die() { # message [log file]
  say "FAILED: $1"
  if [ -s "${2:-}" ]; then
    printf -- '--- the end of %s\n' "$2" >&2
    tail -n 30 "$2" | cut -c1-400 >&2
  fi
  exit 1
}

# --- What is awaited at the moment: a file for each, which the picture of progress is made from

awaiting() { date +%s >"$BOX/run/awaited/$1"; }
arrived() { rm -f "$BOX/run/awaited/$1"; }

# Every ten seconds, what is awaited and since when; until it is ended.
picture() {
  local file line now
  while sleep 10 >/dev/null 2>&1 9>&-; do
    line=
    now=$(date +%s)
    for file in "$BOX"/run/awaited/*; do
      if [ -e "$file" ]; then line+=", ${file##*/} ($((now - $(cat "$file" 2>/dev/null || echo "$now"))) s)"; fi
    done
    if [ -n "$line" ]; then say "waiting for ${line#, }"; fi
  done
}

# quietly NAME COMMAND…: runs it with its output in a log, and fails with the end of that log.
quietly() {
  local name=$1 log=$BOX/log/$1.log
  shift
  awaiting "$name"
  "$@" >>"$log" 2>&1 </dev/null || die "$name: $*" "$log"
  arrived "$name"
}

# --- Processes

# When a process started, in ticks since the machine did: with it, a pid is never another process's. One that has ended and
# is only kept for its parent does not count.
started() {
  local stat
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  stat=${stat##*) }
  [ "${stat%% *}" != Z ] || return 1
  cut -d' ' -f20 <<<"$stat"
}

# The pid of what spawn started under that name, if it runs.
pid_of() {
  local pid start
  { read -r pid start <"$BOX/run/$1.pid"; } 2>/dev/null || return 1
  [ -n "$start" ] && [ "$(started "$pid")" = "$start" ] && echo "$pid"
}

alive() { pid_of "$1" >/dev/null; }

# spawn NAME COMMAND…: starts it in a session of its own, unless it runs already.
spawn() {
  local name=$1
  shift
  if alive "$name"; then return; fi
  # Whose it is can be read from its environment, and 9 is the lock of this script.
  BOX_ID=$BOX TMPDIR=$BOX/run/tmp setsid "$@" >>"$BOX/log/$name.log" 2>&1 </dev/null 9>&- &
  echo "$! $(started $!)" >"$BOX/run/$name.pid"
}

# wait_until NAME SECONDS COMMAND…: until the command succeeds; fails at once if the process NAME has ended.
wait_until() {
  local name=$1 end=$((SECONDS + $2))
  shift 2
  awaiting "$name"
  until "$@" >/dev/null 2>&1; do
    alive "$name" || die "$name has stopped" "$BOX/log/$name.log"
    [ "$SECONDS" -lt "$end" ] || die "$name: still waiting for: $*" "$BOX/log/$name.log"
    sleep 0.1
  done
  arrived "$name"
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
answers() { curl -s -m 10 -o /dev/null "$1"; }

# wsgi NAME PORT PROCESSES THREADS MODULE [VAR=value…] [-- uwsgi option…]
wsgi() {
  local name=$1 port=$2 processes=$3 threads=$4 module=$5 env=()
  shift 5
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    env+=("$1")
    shift
  done
  # 'Connection: close', since uwsgi's plain HTTP socket closes without saying so, and pooled clients then see resets.
  if [ $# -gt 0 ]; then shift; else set -- --http-socket "127.0.0.1:$port" --add-header 'Connection: close'; fi
  spawn "$name" env "${env[@]}" uwsgi --master --lazy-apps --enable-threads --need-app --die-on-term --no-orphans \
    --disable-logging --virtualenv "$VENV" --buffer-size 65535 --listen 100 \
    --processes "$processes" --threads "$threads" --module "$module" "$@"
}

# The pids of every process that was started from here: those of our sessions, those that left them but have our
# environment, guests, what is in our containers, and all their descendants.
ours() {
  local file pid start container roots=
  for file in "$BOX"/run/*.pid; do
    { read -r pid start <"$file"; } 2>/dev/null || continue
    # A session outlives its leader; the number of a leader that is gone is not given again as long as it lasts.
    if [ ! -e "/proc/$pid" ] || [ "$(started "$pid")" = "$start" ]; then roots+=" $pid"; fi
  done
  # A process that ends meanwhile is no failure.
  {
    ps -eo pid=,ppid=,sid=,stat= | awk '$4 !~ /^Z/ { print "process", $1, $2, $3 }'
    for pid in $roots; do echo "session $pid"; done
    grep -lsz "^BOX_ID=$BOX\$" /proc/[0-9]*/environ | cut -d/ -f3 | sed 's/^/root /' || true
    pgrep -f "^[^ ]*qemu-system-x86_64 .*$BOX/data/nova/" | sed 's/^/root /' || true
    grep -osE '/docker/[0-9a-f]{64}' /proc/[0-9]*/cgroup | sort -u | while IFS=/ read -r _ _ pid _ _ container; do
      if [ -d "$BOX/data/docker/containers/$container" ]; then echo "root $pid"; fi
    done
  } | awk '
    $1 == "process" { parent[$2] = $3; session[$2] = $4 }
    $1 == "session" { of[$2] = 1 }
    $1 == "root" { found[$2] = 1 }
    END {
      for (p in parent) if (session[p] in of) found[p] = 1
      do { more = 0; for (p in parent) if (!(p in found) && (parent[p] in found)) more = found[p] = 1 } while (more)
      for (p in found) if (p in parent) print p
    }' | sort -n
}

# --- Configuration

ini() { # file, from standard input
  mkdir -p "$(dirname "$1")" && cat >"$1"
}

# The options by which a service's user logs in; its password is its name.
credentials() { # user
  cat <<END
auth_url = $KEYSTONE
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = $1
password = $1
region_name = $REGION
END
}

# The section by which a service checks tokens.
authtoken() { # user
  cat <<END
[keystone_authtoken]
www_authenticate_uri = $KEYSTONE
memcached_servers = 127.0.0.1:$MEMCACHED_PORT
service_token_roles_required = true
$(credentials "$1")
END
}

# --- Databases

sql() { mariadb --no-defaults -uroot -S "$BOX/run/mysql.sock" -N -B "$@"; }
db_url() { echo "mysql+pymysql://box:box@127.0.0.1:$MYSQL_PORT/$1"; }
dump() { mariadb-dump --no-defaults -uroot -S "$BOX/run/mysql.sock" --single-transaction "$1"; }

# schema NAME 'DATABASE…' COMMAND…: makes the databases, from the dumps of an earlier run if there are any, else by the
# command, which takes ten times as long.
schema() {
  local name=$1 databases=$2 database seed=$CACHE/cloud-seed-$LOCK_HASH have=yes
  shift 2
  if [ -e "$BOX/data/schema-$name" ]; then return; fi
  for database in $databases; do
    sql -e "DROP DATABASE IF EXISTS $database; CREATE DATABASE $database CHARACTER SET utf8mb3"
    [ -s "$seed/$database.sql.gz" ] || have=no
  done
  if [ $have = yes ]; then
    for database in $databases; do
      gzip -dc "$seed/$database.sql.gz" | sql "$database" || die "loading the dump of $database"
    done
    say "$name: schema, from the dump"
  else
    quietly "$name-schema" "$@"
    mkdir -p "$seed"
    for database in $databases; do
      dump "$database" | gzip -1 >"$seed/$database.$$"
      mv "$seed/$database.$$" "$seed/$database.sql.gz"
    done
    say "$name: schema, by migration"
  fi
  touch "$BOX/data/schema-$name"
}

# --- REST

# Taken once in a while, not with every request.
admin_token() {
  local file=$BOX/run/admin-token new
  if [ -z "$(find "$file" -mmin -600 2>/dev/null)" ]; then
    new=$(token admin admin admin)
    [ -n "$new" ] || return 1
    (umask 077 && echo "$new" >"$file.$BASHPID" && mv "$file.$BASHPID" "$file")
  fi
  cat "$file"
}

token() { # user password project
  curl -sS -m 30 -D - -o /dev/null -H 'Content-Type: application/json' "$KEYSTONE/auth/tokens" -d "$(jq -nc \
    --arg u "$1" --arg p "$2" --arg j "$3" '{auth: {
      identity: {methods: ["password"], password: {user: {name: $u, password: $p, domain: {id: "default"}}}},
      scope: {project: {name: $j, domain: {id: "default"}}}}}')" |
    tr -d '\r' | awk 'tolower($1) == "x-subject-token:" { print $2 }'
}

# rest METHOD URL [JSON] [curl option…]: as admin; prints the body, fails on an HTTP error.
rest() {
  local method=$1 url=$2 body=${3:-}
  shift 2
  [ $# -eq 0 ] || shift
  curl -sS -m 120 --fail-with-body -X "$method" -H "X-Auth-Token: $(admin_token)" \
    ${body:+-H 'Content-Type: application/json' -d "$body"} "$@" "$url"
}

# ensure COLLECTION SINGULAR NAME [JSON]: finds it in Keystone by its name or creates it; prints its id.
ensure() {
  local found extra=${4:-}
  found=$(rest GET "$KEYSTONE/$1?name=$3" | jq -r ".$1[0].id // empty")
  if [ -z "$found" ]; then
    found=$(rest POST "$KEYSTONE/$1" "$(jq -nc --arg k "$2" --arg n "$3" --argjson x "${extra:-null}" \
      '{($k): ({name: $n} + $x)}')" | jq -r ".$2.id")
  fi
  echo "$found"
}

# account USER PROJECT ROLE…: a user whose password is its name.
account() {
  local user=$1 project uid pid role
  project=$2
  shift 2
  pid=$(ensure projects project "$project" '{"domain_id":"default"}')
  uid=$(ensure users user "$user" "{\"domain_id\":\"default\",\"password\":\"$user\"}")
  for role in "$@"; do
    rest PUT "$KEYSTONE/projects/$pid/users/$uid/roles/$(ensure roles role "$role")"
  done
}

# endpoint NAME TYPE URL: one entry of the catalog, with the same address for every interface.
endpoint() {
  local id interface
  id=$(ensure services service "$1" "{\"type\":\"$2\"}")
  if [ "$(rest GET "$KEYSTONE/endpoints?service_id=$id" | jq '.endpoints | length')" -gt 0 ]; then return; fi
  for interface in public internal admin; do
    rest POST "$KEYSTONE/endpoints" "$(jq -nc --arg s "$id" --arg i "$interface" --arg u "$3" --arg r "$REGION" \
      '{endpoint: {service_id: $s, interface: $i, url: $u, region_id: $r}}')" >/dev/null
  done
}
