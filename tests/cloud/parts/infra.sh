# MariaDB, RabbitMQ, memcached, redis: each with its data, socket and pid file under $BOX.
# shellcheck shell=bash

infra_start() {
  if [ ! -d "$BOX/data/mysql/mysql" ]; then
    quietly mariadb-install mariadb-install-db --no-defaults --user=root --datadir="$BOX/data/mysql" \
      --auth-root-authentication-method=socket --skip-test-db --skip-name-resolve
  fi
  # Nothing here has to survive a crash: no binary log, no double writes, no waiting for the disk.
  spawn mariadb mariadbd --no-defaults --user=root --datadir="$BOX/data/mysql" --socket="$BOX/run/mysql.sock" \
    --bind-address=127.0.0.1 --port="$MYSQL_PORT" --max-connections=1000 --innodb-buffer-pool-size=192M \
    --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 --innodb-flush-method=nosync --innodb-file-per-table=0 \
    --skip-name-resolve --skip-log-bin --performance-schema=0
  infra_rabbitmq
  spawn memcached memcached -u nobody -l 127.0.0.1 -p "$MEMCACHED_PORT" -m 64
  spawn redis redis-server --bind 127.0.0.1 --port "$REDIS_PORT" --appendonly no --save '' --dir "$BOX/data" --databases 4

  wait_until mariadb 60 sql -e 'SELECT 1'
  sql -e "GRANT ALL ON *.* TO 'box'@'127.0.0.1' IDENTIFIED BY 'box'"
  wait_until memcached 10 port_open "$MEMCACHED_PORT"
  wait_until redis 10 port_open "$REDIS_PORT"
  say 'MariaDB, memcached, redis'
}

infra_rabbitmq() {
  ini "$BOX/etc/rabbitmq.conf" <<END
default_user = box
default_pass = box
listeners.tcp.1 = 127.0.0.1:$AMQP_PORT
log.console = true
log.file = false
END
  echo '[].' >"$BOX/etc/rabbitmq-plugins"
  mkdir -p "$BOX/data/rabbitmq"
  # One scheduler that does not spin while it waits: by default every node burns a core of its own.
  local erlang="+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"
  spawn rabbitmq env HOME="$BOX/data/rabbitmq" RABBITMQ_NODENAME=box@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 \
    RABBITMQ_NODE_PORT="$AMQP_PORT" RABBITMQ_DIST_PORT="$AMQP_DIST_PORT" ERL_EPMD_PORT="$EPMD_PORT" ERL_EPMD_ADDRESS=127.0.0.1 \
    RABBITMQ_CONFIG_FILE="$BOX/etc/rabbitmq.conf" RABBITMQ_CONF_ENV_FILE=/dev/null \
    RABBITMQ_ENABLED_PLUGINS_FILE="$BOX/etc/rabbitmq-plugins" RABBITMQ_MNESIA_BASE="$BOX/data/rabbitmq" \
    RABBITMQ_LOG_BASE="$BOX/log" RABBITMQ_PID_FILE="$BOX/data/rabbitmq/pid" \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="$erlang" /usr/lib/rabbitmq/bin/rabbitmq-server
}

# RabbitMQ is slow, and nobody needs it before the services start.
infra_ready() {
  wait_until rabbitmq 120 port_open "$AMQP_PORT"
  say RabbitMQ
}
