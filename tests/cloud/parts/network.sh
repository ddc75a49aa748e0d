# Placement and Neutron, one of each for Zun and Nova, and Open vSwitch in userspace.
# shellcheck shell=bash
#
# Zun's ports need no agent: it asks Neutron for an address and makes a plain Docker bridge. Nova's ports are bound by the
# Open vSwitch agent on $NOVA_HOST. Zun's provider in Placement is Docker's host name, Nova's is $NOVA_HOST.

export OVS_RUNDIR=$BOX/run/ovs OVS_DBDIR=$BOX/data/ovs OVS_LOGDIR=$BOX/log

network_prepare() {
  ini "$BOX/etc/placement/placement.conf" <<END
[placement_database]
connection = $(db_url placement)
$(authtoken placement)
END
  ini "$BOX/etc/neutron/neutron.conf" <<END
[DEFAULT]
host = $NOVA_HOST
core_plugin = ml2
service_plugins =
transport_url = $AMQP
auth_strategy = keystone
api_paste_config = $VENV/etc/neutron/api-paste.ini
state_path = $BOX/data/neutron
rpc_workers = 1
rpc_state_report_workers = 0
notify_nova_on_port_status_changes = true
notify_nova_on_port_data_changes = true
[agent]
root_helper = env
root_helper_daemon =
report_interval = 10
[database]
connection = $(db_url neutron)
$(authtoken neutron)
[nova]
endpoint_type = internal
$(credentials nova)
[oslo_concurrency]
lock_path = $BOX/data/neutron/lock
[privsep]
helper_command = $VENV/bin/privsep-helper --config-file $BOX/etc/neutron/neutron.conf
[oslo_messaging_notifications]
driver = noop
[quotas]
quota_network = -1
quota_subnet = -1
quota_port = -1
[ml2]
type_drivers = flat,local
tenant_network_types = local
mechanism_drivers = openvswitch
extension_drivers =
[ml2_type_flat]
flat_networks = provider
[securitygroup]
enable_security_group = false
enable_ipset = false
firewall_driver = noop
[ovs]
datapath_type = netdev
integration_bridge = br-int
bridge_mappings = provider:br-servers
ovsdb_connection = tcp:127.0.0.1:$OVSDB_PORT
of_listen_port = $OPENFLOW_PORT
END
  schema placement placement placement-manage --config-file "$BOX/etc/placement/placement.conf" db sync
  schema neutron neutron neutron-db-manage --config-file "$BOX/etc/neutron/neutron.conf" upgrade head
}

network_start() {
  mkdir -p "$BOX/data/neutron/lock"
  wsgi placement "$PLACEMENT_PORT" 1 4 placement.wsgi.api:application OS_PLACEMENT_CONFIG_DIR="$BOX/etc/placement"
  wsgi neutron "$NEUTRON_PORT" 1 8 neutron.wsgi.api:application \
    OS_NEUTRON_CONFIG_DIR="$BOX/etc/neutron" OS_NEUTRON_CONFIG_FILES=neutron.conf
}

network_ready() {
  wait_until placement 60 answers "$PLACEMENT"
  wait_until neutron 120 answers "$NEUTRON"
  # 'local': no agent has to do anything for it. 'flat': the bridge br-servers, whose own port carries the gateway's address.
  network "$CONTAINER_NET" "$CONTAINER_CIDR" "$CONTAINER_GATEWAY" '{"provider:network_type":"local"}' >/dev/null
  network "$SERVER_NET" "$SERVER_CIDR" "$SERVER_GATEWAY" \
    '{"provider:network_type":"flat","provider:physical_network":"provider"}' >/dev/null
  say 'Placement, Neutron'
}

network_id() { rest GET "$NEUTRON/v2.0/networks?name=$1" | jq -r '.networks[0].id // empty'; }

# A shared network without DHCP; prints its id.
network() { # name cidr gateway provider-json
  local id
  id=$(network_id "$1")
  if [ -z "$id" ]; then
    id=$(rest POST "$NEUTRON/v2.0/networks" "$(jq -nc --arg n "$1" --argjson p "$4" '{network: ({name: $n, shared: true} + $p)}')" |
      jq -r .network.id)
    rest POST "$NEUTRON/v2.0/subnets" "$(jq -nc --arg n "$1" --arg id "$id" --arg c "$2" --arg g "$3" \
      '{subnet: {network_id: $id, name: $n, ip_version: 4, enable_dhcp: false, cidr: $c, gateway_ip: $g}}')" >/dev/null
  fi
  echo "$id"
}

# --- For Nova only

ovs_start() {
  mkdir -p "$OVS_RUNDIR" "$OVS_DBDIR"
  [ -e "$OVS_DBDIR/conf.db" ] || ovsdb-tool create "$OVS_DBDIR/conf.db" /usr/share/openvswitch/vswitch.ovsschema
  spawn ovsdb-server ovsdb-server "$OVS_DBDIR/conf.db" --remote="punix:$OVS_RUNDIR/db.sock" \
    --remote="ptcp:$OVSDB_PORT:127.0.0.1" --unixctl="$OVS_RUNDIR/ovsdb-server.ctl"
  wait_until ovsdb-server 10 ovs-vsctl --timeout=2 --no-wait init
  # Without segmentation offload TCP never connects in the userspace datapath.
  ovs-vsctl --no-wait set Open_vSwitch . other_config:userspace-tso-enable=true
  spawn ovs-vswitchd ovs-vswitchd "unix:$OVS_RUNDIR/db.sock" --unixctl="$OVS_RUNDIR/ovs-vswitchd.ctl"
  wait_until ovs-vswitchd 20 ovs-vsctl --timeout=5 --may-exist add-br br-servers -- set bridge br-servers datapath_type=netdev
  ip addr replace "$SERVER_GATEWAY/${SERVER_CIDR#*/}" dev br-servers
  ip link set br-servers up
}

ovs_stop() {
  local bridge
  if alive ovs-vswitchd; then
    for bridge in $(ovs-vsctl --timeout=5 list-br 2>/dev/null); do ovs-vsctl --timeout=10 del-br "$bridge"; done
  fi
}

# Open vSwitch reads and writes a new tap's flags while libvirt puts it up; now and then the tap stays down and the guest mute.
taps_up() {
  local tap
  while sleep 0.3; do
    for tap in $(ip -o link | awk '$2 ~ /^tap/ && $3 !~ /[<,]UP[,>]/ { sub(/@.*|:$/, "", $2); print $2 }'); do
      sleep 0.3
      ip link set "$tap" up && echo "$(date +%T) $tap was down"
    done
  done
}

neutron_agents_start() {
  spawn taps-up bash -c "$(declare -f taps_up); taps_up"
  spawn neutron-rpc neutron-rpc-server --config-file "$BOX/etc/neutron/neutron.conf"
  spawn neutron-agent neutron-openvswitch-agent --config-file "$BOX/etc/neutron/neutron.conf"
}

neutron_agent_alive() { rest GET "$NEUTRON/v2.0/agents" | jq -e '.agents[] | select(.alive)'; }
