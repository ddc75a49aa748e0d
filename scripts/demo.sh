#!/usr/bin/env bash
# Starts the service on a temporary directory, runs real events through it, shows what became of them, and stops it.
#
# LAMBDA_DEMO_SKIP_BUILD=yes takes the programs that are there.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$ROOT/scripts/lib.sh"
cd "$ROOT"

PROGRAMS=$TARGET/debug
WORK=
SERVICE=

cleanup() {
  local status=$?
  trap - EXIT INT TERM
  if [ -n "$SERVICE" ] && kill -0 "$SERVICE" 2>/dev/null; then
    kill -TERM "$SERVICE" 2>/dev/null || true
    # It ends by itself within its grace; past that nothing of it may stay.
    for _ in $(seq 150); do kill -0 "$SERVICE" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$SERVICE" 2>/dev/null || true
    wait "$SERVICE" 2>/dev/null || true
  fi
  # Who stops the demo knows why.
  if [ "$status" != 0 ] && [ "$status" -lt 128 ] && [ -s "$WORK/service.log" ]; then
    echo "--- the end of the service's log" >&2
    tail -n 20 "$WORK/service.log" >&2
  fi
  if [ -n "$WORK" ]; then rm -rf "$WORK"; fi
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Shows a command as it could be typed, then runs it.
try() {
  local word line=
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]]; then line+=" $word"; else line+=" '$word'"; fi
  done
  printf '\n$%s\n' "$line"
  "$@"
}

free_ports() {
  python3 -c '
import socket
open_sockets = [socket.socket() for _ in range(2)]
for s in open_sockets: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in open_sockets))'
}

# Waits for the one line that the service prints when it can be used, and reads both addresses from it.
wait_until_ready() {
  local end=$((SECONDS + 60)) line
  until line=$(grep -m 1 '^ready ' "$WORK/ready"); do
    kill -0 "$SERVICE" 2>/dev/null || die 'the service ended before it was ready'
    [ "$SECONDS" -lt "$end" ] || die 'the service was not ready within a minute'
    sleep 0.05
  done
  API=$(sed -n 's/.* api=\([^ ]*\).*/\1/p' <<<"$line ")
  QUEUE=$(sed -n 's/.* queue=\([^ ]*\).*/\1/p' <<<"$line ")
}

# Waits until every execution has ended and there are as many as expected.
wait_for_executions() {
  local end=$((SECONDS + 60)) states
  while :; do
    states=$(lambda execution list -f value -c state)
    if [ "$(grep -cE '^(succeeded|failed|timed_out|expired|cancelled)$' <<<"$states")" -ge "$1" ]; then return; fi
    [ "$SECONDS" -lt "$end" ] || die "there should be $1 ended executions; there are: ${states//$'\n'/ }"
    sleep 0.2
  done
}

# Posts one message body to the queue, as any Zaqar client does, and prints the message's id.
post_to_zaqar() {
  python3 -c 'import json, sys; print(json.dumps({"messages": [{"ttl": 3600, "body": json.load(sys.stdin)}]}))' |
    curl --silent --show-error --fail --noproxy '*' --max-time 30 -X POST "$QUEUE/v2/queues/lambda-events/messages" \
      -H 'Content-Type: application/json' -H 'Client-ID: 3381af92-2b9e-11e3-b191-71861300734c' -H 'X-Project-Id: demo' \
      --data-binary @- | sed 's/.*messages\/\([^"]*\)".*/\1/'
}

if [ "${LAMBDA_DEMO_SKIP_BUILD:-}" != yes ]; then
  heading 'Building (the first time takes some minutes)'
  cargo build --locked --workspace --bins
fi
PATH=$PROGRAMS:$PATH

begun=$SECONDS
heading 'Starting the service: API, worker, queue, store, all in one process'
WORK=$(mktemp -d "${TMPDIR:-/tmp}/lambda-demo.XXXXXX")
# Where the service runs as root, sandboxes run as other users and have to get to their own directories.
chmod 711 "$WORK"
read -r api_port queue_port < <(free_ports)
printf '\n$ lambda-standalone --data-dir %s --api-bind 127.0.0.1:%s --queue-bind 127.0.0.1:%s\n' \
  "$WORK/data" "$api_port" "$queue_port"
touch "$WORK/ready"
lambda-standalone --data-dir "$WORK/data" --api-bind "127.0.0.1:$api_port" --queue-bind "127.0.0.1:$queue_port" \
  >"$WORK/ready" 2>"$WORK/service.log" &
SERVICE=$!
wait_until_ready
cat "$WORK/ready"
export OS_AUTH_TYPE=none OS_ENDPOINT=$API OS_PROJECT_ID=demo
unset OS_AUTH_URL OS_CLOUD OS_CACERT

heading 'Uploading functions and binding them to events'
try lambda function create wordcount --code examples/wordcount --source test-service --type file.created -f value -c name
try lambda function create logging --code examples/logging/main.py --source test-service --type file.created -f value -c name
try lambda function create thumbnail --code examples/thumbnail --memory 256 --source test-service --type 'picture.*' \
  -f value -c name
try lambda function create failing --code examples/failing --max-attempts 2 --source vault --type opened -f value -c name
try lambda function create shell --runtime provided --code examples/provided-shell -f value -c name
try lambda function list

heading 'Posting events to the queue through the Zaqar API'
echo
echo 'A file was created, in the shape of the first prototype (two functions want it):'
created='{"user_name": "demo", "event_source": "test-service", "event_data": {"type": "file.created", "name": "hamlet.txt",
  "content": "To be, or not to be, that is the question"}}'
echo "$created"
file_event=$(post_to_zaqar <<<"$created")
echo "message $file_event"
echo
echo 'A picture was created, as a CloudEvent:'
python3 examples/picture.py 320 200 >"$WORK/picture.png"
python3 - "$WORK/picture.png" >"$WORK/picture.json" <<'PYTHON'
import base64, json, sys
content = base64.b64encode(open(sys.argv[1], "rb").read()).decode()
print(json.dumps({"specversion": "1.0", "id": "demo-picture", "source": "test-service", "type": "picture.created",
                  "data": {"name": "picture.png", "content": content}}))
PYTHON
cut -c1-150 "$WORK/picture.json" | sed 's/$/…/'
picture_message=$(post_to_zaqar <"$WORK/picture.json")
echo "message $picture_message"
echo
echo 'And one through the REST API, for the function that fails on purpose:'
try lambda event post --source vault --type opened --id demo-vault -f value -c message_id

heading 'What became of them'
wait_for_executions 4
try lambda execution list

heading 'A result: the words of the file'
execution=$(lambda execution list --event "$file_event" --function wordcount -f value -c id)
try lambda execution show "$execution" -f json -c result

heading 'A log'
execution=$(lambda execution list --event "$file_event" --function logging -f value -c id)
try lambda execution log "$execution"

heading 'A failure and its reason'
execution=$(lambda execution list --event demo-vault -f value -c id)
try lambda execution show "$execution" -c state -c attempts -c component -c phase -c reason -c error_type -c error_message \
  -c error_trace -c dead_letter_queue -c request_id

heading 'The thumbnail'
execution=$(lambda execution list --event demo-picture -f value -c id)
echo
lambda execution show "$execution" -f json -c result -c duration_ms | python3 -c '
import json, sys
record = json.load(sys.stdin)
for what in ("before", "after"):
    print("{:7} {width:4} x {height:<4} {bytes:7} bytes".format(what, **record["result"][what]))
print("made in {} ms".format(record["duration_ms"]))'

heading 'A call that waits for its answer, to a function written in plain sh'
try lambda function invoke shell --data '{"text": "any program can be a function"}'

heading 'The first event again: its sandboxes are warm now'
try lambda event post --source test-service --type file.created --data '{"name": "a.txt", "content": "to be"}' --wait

heading 'Stopping'
kill -TERM "$SERVICE"
status=0
wait "$SERVICE" || status=$?
SERVICE=
[ "$status" = 0 ] || die "the service ended with exit code $status"
if pgrep -f "$WORK/" >/dev/null; then die "processes are left: $(pgrep -f "$WORK/" | xargs)"; fi
echo "The service ended by itself; nothing of it runs any more, $WORK is removed. It all took $((SECONDS - begun)) s."
