# Zaqar twice. On mongodb, in the catalog: a claim there is exclusive. On redis, at $ZAQAR_REDIS: a message can be claimed twice.
# shellcheck shell=bash

zaqar_config() { # message-store management-store, its sections from standard input
  ini "$BOX/etc/zaqar-$1/.zaqar/zaqar.conf" <<END
[DEFAULT]
auth_strategy = keystone
unreliable = true
pooling = false
[drivers]
transport = wsgi
message_store = $1
management_store = $2
[transport]
max_messages_post_size = 1048576
[storage]
message_pipeline = zaqar.notification.notifier
[signed_url]
secret_key = box
$(cat)
$(authtoken zaqar)
END
}

zaqar_prepare() {
  zaqar_config mongodb mongodb <<END
[drivers:message_store:mongodb]
uri = mongodb://127.0.0.1:$ZAQAR_MONGO_PORT/
database = zaqar
[drivers:management_store:mongodb]
uri = mongodb://127.0.0.1:$ZAQAR_MONGO_PORT/
database = zaqar_management
END
  zaqar_config redis sqlalchemy <<END
[drivers:message_store:redis]
uri = redis://127.0.0.1:$REDIS_PORT?dbid=1
[drivers:management_store:sqlalchemy]
uri = $(db_url zaqar)
END
  schema zaqar zaqar zaqar-sql-db-manage --config-file "$BOX/etc/zaqar-redis/.zaqar/zaqar.conf" upgrade head
  zaqar_start
}

# Zaqar looks for its configuration in the home directory.
zaqar_start() {
  wsgi zaqar-mongodb "$ZAQAR_MONGODB_API_PORT" 1 8 zaqar.transport.wsgi.app:app HOME="$BOX/etc/zaqar-mongodb"
  wsgi zaqar-redis "$ZAQAR_REDIS_API_PORT" 1 8 zaqar.transport.wsgi.app:app HOME="$BOX/etc/zaqar-redis"
}

zaqar_ready() {
  wait_until zaqar-mongodb 60 answers "$ZAQAR_MONGODB"
  wait_until zaqar-redis 60 answers "$ZAQAR_REDIS"
  say 'Zaqar, on mongodb and on redis'
}
