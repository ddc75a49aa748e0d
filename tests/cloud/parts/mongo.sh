# A replica set of one for our programs ($MONGODB_URI), and a plain mongod for Zaqar: PyMongo 4 breaks its replica set support.
# shellcheck shell=bash

mongo_start() {
  local program
  program=$(mongod_program)
  mkdir -p "$BOX"/data/{mongodb,mongodb-zaqar}
  spawn mongodb "$program" --dbpath "$BOX/data/mongodb" --port "$MONGO_PORT" "${MONGOD_OPTIONS[@]}" "${MONGOD_REPLICA_SET[@]}"
  spawn mongodb-zaqar "$program" --dbpath "$BOX/data/mongodb-zaqar" --port "$ZAQAR_MONGO_PORT" "${MONGOD_OPTIONS[@]}"
  wait_until mongodb 30 port_open "$MONGO_PORT"
  wait_until mongodb-zaqar 30 port_open "$ZAQAR_MONGO_PORT"
  quietly mongodb-initiate python3 "$HERE/mongo_replica_set.py" "$MONGO_PORT"
  say "MongoDB $("$program" --version | head -n 1 | cut -d' ' -f3), replica set rs0"
}
