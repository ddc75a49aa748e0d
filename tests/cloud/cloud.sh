#!/usr/bin/env bash
# A cloud in a box: real OpenStack services on this machine, for tests. It runs on Debian 12, as root.
#
#   cloud.sh up [part…]        installs what is missing, starts the parts and what they need, waits until they can be used.
#                              Without a part: all. Again: starts what does not run.
#   cloud.sh install [part…]   only installs, as up would: Debian's packages, a Python environment, images
#   cloud.sh status            what runs, and in how much memory
#   cloud.sh dir               prints where it lives
#   cloud.sh smoke             uses every service once, as a user and as the service's user
#   cloud.sh down              ends it all and removes its data; only its logs stay
#
# Parts: infra mongo keystone zaqar network zun nova lambda. The README beside this file says what they are.
# LAMBDA_CLOUD_DIR (target/cloud) is where it lives, LAMBDA_CACHE_DIR where packages, dumps and images are kept between runs.
set -Eeuo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/cloud/mongod.sh
. "$HERE/mongod.sh"
# shellcheck source=tests/cloud/lib.sh
. "$HERE/lib.sh"
# shellcheck source=tests/cloud/install.sh
. "$HERE/install.sh"
for part in infra mongo keystone zaqar network zun nova lambda images; do
  # shellcheck source=/dev/null
  . "$HERE/parts/$part.sh"
done
trap 'say "FAILED: ${BASH_SOURCE[0]##*/}, line $LINENO: $BASH_COMMAND"' ERR

# In the order of starting.
PARTS=(infra mongo keystone zaqar network zun nova lambda)
# Those that this run is about, in the same order.
SELECTED=()

# A part and all that it needs.
needs() {
  case $1 in
    infra | mongo) echo "$1" ;;
    keystone) echo "infra mongo $1" ;;
    zaqar) echo "infra mongo keystone $1" ;;
    network) echo "infra mongo keystone $1" ;;
    zun | nova) echo "infra mongo keystone network $1" ;;
    lambda) echo "infra mongo keystone zaqar network zun nova $1" ;;
    *) die "there is no part $1; there are: ${PARTS[*]}" ;;
  esac
}

# select_parts [part…]: sets SELECTED.
select_parts() {
  local part wanted=
  [ $# -gt 0 ] || set -- "${PARTS[@]}"
  for part in "$@"; do
    wanted+=" $(needs "$part")"
  done
  for part in "${PARTS[@]}"; do
    case " $wanted " in *" $part "*) SELECTED+=("$part") ;; esac
  done
}

selected() {
  case " ${SELECTED[*]} " in *" $1 "*) ;; *) return 1 ;; esac
}

defined() { declare -F "$1" >/dev/null; }

# step NAME PART…: the function for that step of one part after the other, of those that are selected and have one.
step() {
  local name=$1 part
  shift
  for part in "$@"; do
    if selected "$part" && defined "${part}_$name"; then "${part}_$name"; fi
  done
}

# together NAME PART…: the same, all at once; fails when one fails, after all have ended.
together() {
  local name=$1 part pid pids=() failed=
  shift
  for part in "$@"; do
    step "$name" "$part" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || failed=yes; done
  [ -z "$failed" ] || exit 1
}

directories() { mkdir -p "$BOX"/{data,etc,log,run/tmp,run/awaited} "$CACHE"; }

must_be_root() {
  [ "$(id -u)" = 0 ] || die 'the cloud in a box needs root: it makes bridges, mounts, containers'
}

# One at a time; what is started must not inherit the lock.
lock() {
  mkdir -p "$BOX"
  exec 9>"$BOX/lock"
  flock -n 9 || {
    say 'waiting for another cloud.sh'
    flock 9
  }
}

# An address or a port that another program has would only show as something strange, much later.
nothing_in_the_way() {
  local name port
  for name in $(compgen -v | grep '_PORT$'); do
    port=${!name}
    if port_open "$port"; then die "port $port ($name) is taken: is there another cloud in a box?"; fi
  done
  if ip -o addr | grep -qE " ($CONTAINER_GATEWAY|$SERVER_GATEWAY)/"; then
    die "$CONTAINER_GATEWAY or $SERVER_GATEWAY is taken: is there another cloud in a box?"
  fi
}

up() {
  must_be_root
  # A socket's path must be shorter than 108 bytes.
  [ ${#BOX} -le 64 ] || die "$BOX is too long a path; choose a shorter one with LAMBDA_CLOUD_DIR"
  select_parts "$@"
  lock
  if [ -d "$BOX/run" ] && [ -z "$(running_programs)" ]; then
    say 'clearing away what an earlier cloud has left'
    clear_away
  fi
  [ -n "$(running_programs)" ] || nothing_in_the_way
  directories
  rm -f "$BOX"/run/awaited/*
  # Memory, not disk: nothing here has to outlive the run, and a slow disk makes everything slow.
  mountpoint -q "$BOX/data" || mount -t tmpfs -o size=8g,mode=755 box "$BOX/data"
  picture &
  # shellcheck disable=SC2064  # It is this process that is meant.
  trap "kill $! 2>/dev/null" EXIT
  install
  say "starting: ${SELECTED[*]}"
  together start infra mongo
  # Keystone and Zaqar start in here, while the others still make their schemas.
  together prepare "${SELECTED[@]}"
  step ready infra
  step start network zun nova
  step ready zaqar network zun nova lambda
  say "ready: ${SELECTED[*]} (. $BOX/openrc)"
}

# The names of what runs.
running_programs() {
  local file name
  for file in "$BOX"/run/*.pid; do
    name=$(basename "$file" .pid)
    if alive "$name"; then echo "$name"; fi
  done
}

down() {
  if [ -d "$BOX/run" ]; then
    must_be_root
    lock
    clear_away
    rm -f "$BOX/lock"
  fi
  say 'down: nothing is left but the logs'
}

# Ends and removes everything, whatever fails on the way; what is left is looked for in the end.
clear_away() {
  local name pid left directory
  set +e
  trap - ERR
  # What would make something new ends first.
  for name in lambda-api lambda-worker nova-compute zun-compute neutron-agent; do
    if pid=$(pid_of $name); then kill "$pid"; fi
  done
  zun_stop
  nova_stop
  say 'containers, guests, bridges are gone'
  # Their data go anyway: nobody has to be given time to write.
  end_all TERM 5
  end_all KILL 10
  # A Docker that was killed leaves its bridge, and Open vSwitch its taps.
  for name in $(ip -o -4 addr | awk -v g="$CONTAINER_GATEWAY/" 'index($4, g) == 1 { print $2 }'); do ip link del "$name"; done
  awk -v box="$BOX/" 'index($2, box) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l
  # Docker leaves a control group of its own in every hierarchy, empty.
  if docker_is_ours; then rmdir /sys/fs/cgroup/docker /sys/fs/cgroup/*/docker 2>/dev/null; fi
  if [ -s "$BOX/etc/made-directories" ]; then
    while read -r directory; do rmdir --ignore-fail-on-non-empty "$directory"; done <"$BOX/etc/made-directories"
  fi
  left="$(ours)$(ip -br addr | awk -v c=" $CONTAINER_GATEWAY/" -v s=" $SERVER_GATEWAY/" \
    '/^(br-servers|br-int|ovs-netdev) / || index($0, c) || index($0, s) { print $1 }')$(grep -F " $BOX/" /proc/mounts)"
  [ -z "$left" ] || die "left: ${left//$'\n'/ }"
  rm -rf --one-file-system "${BOX:?}"/{data,etc,run} "$BOX"/openrc*
  set -e
  trap 'say "FAILED: ${BASH_SOURCE[0]##*/}, line $LINENO: $BASH_COMMAND"' ERR
}

# end_all SIGNAL SECONDS: signals what is ours and waits until it has ended. A process whose parent ended meanwhile is
# remembered.
end_all() {
  local end=$((SECONDS + $2)) pid known=() signalled=
  while :; do
    mapfile -t known < <({
      ours
      for pid in "${known[@]}"; do if [ -n "$(started "$pid")" ]; then echo "$pid"; fi; done
    } | sort -un)
    [ ${#known[@]} -gt 0 ] || return 0
    [ "$SECONDS" -lt "$end" ] || break
    [ -n "$signalled" ] || kill -"$1" "${known[@]}" 2>/dev/null
    signalled=yes
    sleep 0.2
  done
  if [ "$1" = KILL ]; then say "still there: $(ps -o args= -p "${known[*]}" | cut -c1-70 | tr '\n' ';')"; fi
}

# The proportional set size of processes, in MB.
memory() {
  local pid sum=0 pss
  for pid in "$@"; do
    pss=$(awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup" 2>/dev/null) || continue
    sum=$((sum + ${pss:-0}))
  done
  echo $((sum / 1024))
}

status() {
  local file name pid pids size total=0 seen=
  for file in "$BOX"/run/*.pid; do
    [ -e "$file" ] || {
      echo 'down'
      exit 3
    }
    name=$(basename "$file" .pid)
    if pid=$(pid_of "$name"); then
      pids=$(ps -eo pid=,sid= | awk -v s="$pid" '$2 == s { print $1 }')
      seen+=" $pids"
      # shellcheck disable=SC2086
      size=$(memory $pids)
      total=$((total + size))
      printf '%-16s running  %7s %6s MB\n' "$name" "$pid" "$size"
    else
      printf '%-16s STOPPED\n' "$name"
    fi
  done
  # Containers, guests and the like.
  pids=$(ours | grep -vxF "$(tr ' ' '\n' <<<"$seen")" || true)
  # shellcheck disable=SC2086
  size=$(memory $pids)
  printf '%-16s %23s MB\n%-16s %23s MB\n' others "$size" total $((total + size))
}

smoke() {
  local user
  for user in openrc openrc-service; do
    # shellcheck source=/dev/null
    (. "$BOX/$user" && exec /usr/bin/python3 "$HERE/smoke.py" "$@") || die "smoke test with $user"
  done
  say 'the smoke test passed'
}

main() {
  local command=${1:-}
  [ $# = 0 ] || shift
  case $command in
    up) up "$@" ;;
    install)
      must_be_root
      select_parts "$@"
      directories
      install
      ;;
    down) down ;;
    status) status ;;
    dir) echo "$BOX" ;;
    smoke) smoke "$@" ;;
    *)
      sed -n '2,13p' "${BASH_SOURCE[0]}" | cut -c3- >&2
      exit 2
      ;;
  esac
}

# Read to its end before anything runs: it may be edited meanwhile.
main "$@"
exit
