# Keystone, its accounts, its catalog, and the openrc files.
# shellcheck shell=bash

# Keystone's database with all that is made below, for the next start. It is made anew when these files change.
ACCOUNTS=accounts-$(cat "$HERE"/lib.sh "$HERE"/parts/keystone.sh | sha256sum | cut -c1-12)
KEYSTONE_SEED=$CACHE/cloud-seed-$LOCK_HASH/$ACCOUNTS.sql.gz

keystone_prepare() {
  ini "$BOX/etc/keystone/keystone.conf" <<END
[database]
connection = $(db_url keystone)
[token]
provider = fernet
expiration = 86400
[fernet_tokens]
key_repository = $BOX/data/keystone
[fernet_receipts]
key_repository = $BOX/data/keystone
[credential]
key_repository = $BOX/data/keystone
[cache]
# Without a cache a validation takes a second instead of 13 ms.
enabled = true
backend = dogpile.cache.pymemcache
memcache_servers = 127.0.0.1:$MEMCACHED_PORT
[identity]
# Tests log in often.
password_hash_rounds = 4
[oslo_messaging_notifications]
driver = noop
END
  # What fernet_setup and credential_setup would do, without starting Python twice.
  if [ ! -e "$BOX/data/keystone/0" ]; then
    mkdir -p "$BOX/data/keystone"
    chmod 700 "$BOX/data/keystone"
    for key in 0 1; do
      (umask 077 && head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n' >"$BOX/data/keystone/$key")
    done
  fi
  local manage=(keystone-manage --config-file "$BOX/etc/keystone/keystone.conf")
  if [ ! -e "$BOX/data/schema-keystone" ] && [ -s "$KEYSTONE_SEED" ]; then
    sql -e 'CREATE DATABASE IF NOT EXISTS keystone CHARACTER SET utf8mb3'
    gzip -dc "$KEYSTONE_SEED" | sql keystone || die 'loading the dump of the accounts'
    touch "$BOX/data/schema-keystone" "$BOX/data/$ACCOUNTS"
    say 'keystone: schema, accounts, catalog, from the dump'
  fi
  schema keystone keystone "${manage[@]}" db_sync
  if [ "$(sql -e 'SELECT COUNT(*) FROM keystone.endpoint')" -eq 0 ]; then
    quietly keystone-bootstrap "${manage[@]}" bootstrap --bootstrap-username admin --bootstrap-password admin \
      --bootstrap-project-name admin --bootstrap-role-name admin --bootstrap-service-name keystone --bootstrap-region-id "$REGION" \
      --bootstrap-admin-url "$KEYSTONE" --bootstrap-internal-url "$KEYSTONE" --bootstrap-public-url "$KEYSTONE"
  fi
  keystone_start
}

keystone_start() {
  wsgi keystone "$KEYSTONE_PORT" 2 2 keystone.wsgi.api:application OS_KEYSTONE_CONFIG_FILES="$BOX/etc/keystone/keystone.conf"
  wait_until keystone 60 answers "$KEYSTONE"
  if [ ! -e "$BOX/data/$ACCOUNTS" ]; then
    awaiting accounts
    keystone_accounts
    keystone_catalog
    touch "$BOX/data/$ACCOUNTS"
    mkdir -p "$(dirname "$KEYSTONE_SEED")"
    dump keystone | gzip -1 >"$KEYSTONE_SEED.$$"
    mv "$KEYSTONE_SEED.$$" "$KEYSTONE_SEED"
    arrived accounts
  fi
  keystone_openrc
  say 'Keystone, accounts, catalog'
}

# Every password is its user's name.
keystone_accounts() {
  local service
  for service in placement neutron zun zaqar glance nova; do account "$service" service service admin; done
  account lambda service service member
  account demo demo member
  account demo2 demo member
  account reader demo reader
  account other other member
}

keystone_openrc() {
  local file user project
  while read -r file user project; do
    openrc "$user" "$user" "$project" >"$BOX/$file.part"
    mv "$BOX/$file.part" "$BOX/$file"
  done <<END
openrc demo demo
openrc-demo2 demo2 demo
openrc-reader reader demo
openrc-other other other
openrc-service lambda service
openrc-admin admin admin
END
}

# One endpoint of each type; the Zaqar on redis is not in the catalog. All parts at once, whether they run or not: a service
# keeps the catalog that came with its token, and would not find what is added later.
keystone_catalog() {
  endpoint placement placement "$PLACEMENT"
  endpoint neutron network "$NEUTRON"
  endpoint zun container "$ZUN"
  endpoint zaqar messaging "$ZAQAR_MONGODB"
  endpoint glance image "$GLANCE"
  endpoint nova compute "$NOVA"
  endpoint lambda function "$LAMBDA_API"
}

openrc() { # user password project
  cat <<END
export OS_AUTH_TYPE=password OS_IDENTITY_API_VERSION=3 OS_AUTH_URL=$KEYSTONE OS_REGION_NAME=$REGION OS_INTERFACE=public
export OS_USERNAME=$1 OS_PASSWORD=$2 OS_PROJECT_NAME=$3 OS_USER_DOMAIN_NAME=Default OS_PROJECT_DOMAIN_NAME=Default
export OS_USER_DOMAIN_ID=default OS_PROJECT_DOMAIN_ID=default
# Not OpenStack's own, for tests.
export MONGODB_URI='mongodb://127.0.0.1:$MONGO_PORT/?replicaSet=rs0' ZAQAR_REDIS_URL=$ZAQAR_REDIS
export BOX_CONTAINER_NETWORK=$CONTAINER_NET BOX_CONTAINER_GATEWAY=$CONTAINER_GATEWAY
export BOX_SERVER_NETWORK=$SERVER_NET BOX_SERVER_GATEWAY=$SERVER_GATEWAY
END
}
