# DevStack's own helpers, from the checkout in DEVSTACK_DIR, on a machine that is no DevStack: systemctl and sudo stand in for
# what needs systemd and root's consent, everything else is DevStack's code against a real Keystone and Zaqar. The checkout is
# only read.
# shellcheck shell=bash disable=SC2034

PATH=$WORK/path:$PATH
TOP_DIR=$DEVSTACK_DIR
FILES=$WORK/files
DEST=$WORK/dest
DATA_DIR=$WORK/data
SYSTEMD_DIR=$WORK/systemd
SYSTEMCTL=$WORK/path/systemctl
KILL_PATH=$(type -P kill)
STACK_USER=$(id -un)
HOST_IP=127.0.0.1
SERVICE_HOST=127.0.0.1
SERVICE_LISTEN_ADDRESS=127.0.0.1
SERVICE_LOCAL_HOST=127.0.0.1
SERVICE_PROTOCOL=http
SERVICE_TIMEOUT=60
SERVICE_PROJECT_NAME=service
SERVICE_DOMAIN_NAME=Default
MEMCACHE_SERVERS=localhost:11211
SSL_BUNDLE_FILE=$WORK/bundle.pem
ENABLE_DEBUG_LOG_LEVEL=True
ENABLED_SERVICES=${ENABLED_SERVICES:-key,mysql}
CURL_GET='curl -g'
GLOBAL_VENV=False
declare -A SYSTEMD_ENV_VARS
mkdir -p "$FILES" "$DEST" "$DATA_DIR" "$SYSTEMD_DIR"

# shellcheck disable=SC1091
{
  . "$TOP_DIR/functions"
  . "$TOP_DIR/lib/apache"
  . "$TOP_DIR/lib/tls"
  . "$TOP_DIR/lib/keystone"
}
KEYSTONE_SERVICE_URI=$TEST_KEYSTONE_URI
# The packages are there, or the tests would not run.
install_package() { echo "install_package $*"; }
