# Nova, Glance, and libvirt with emulated CPUs: /dev/kvm may be there and not work, and then a guest hangs.
# shellcheck shell=bash

LIBVIRT="qemu:///system?socket=$BOX/run/libvirt/libvirt-sock"
export LIBVIRT_DEFAULT_URI=$LIBVIRT

nova_prepare() {
  ini "$BOX/etc/glance/glance-api.conf" <<END
[DEFAULT]
enabled_backends = file:file
enabled_import_methods = [glance-direct]
bind_host = 127.0.0.1
worker_self_reference_url = $GLANCE
[database]
connection = $(db_url glance)
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = $BOX/data/glance/images
[os_glance_staging_store]
filesystem_store_datadir = $BOX/data/glance/staging
[os_glance_tasks_store]
filesystem_store_datadir = $BOX/data/glance/tasks
$(authtoken glance)
[paste_deploy]
flavor = keystone
config_file = $VENV/etc/glance/glance-api-paste.ini
[oslo_concurrency]
lock_path = $BOX/data/glance/lock
[oslo_messaging_notifications]
driver = noop
END
  local section helper="helper_command = $VENV/bin/privsep-helper --config-file $BOX/etc/nova/nova.conf"
  ini "$BOX/etc/nova/nova.conf" <<END
[DEFAULT]
host = $NOVA_HOST
my_ip = 127.0.0.1
state_path = $BOX/data/nova
transport_url = $AMQP
compute_driver = libvirt.LibvirtDriver
reserved_host_memory_mb = 0
reserved_host_disk_mb = 0
cpu_allocation_ratio = 16.0
ram_allocation_ratio = 1.5
disk_allocation_ratio = 10.0
vif_plugging_is_fatal = true
vif_plugging_timeout = 60
shutdown_timeout = 2
sync_power_state_interval = 60
# By default a host is looked for at any moment of the first minute.
periodic_fuzzy_delay = 0
[api]
auth_strategy = keystone
[api_database]
connection = $(db_url nova_api)
[database]
connection = $(db_url nova)
[conductor]
workers = 1
[scheduler]
workers = 1
discover_hosts_in_cells_interval = 3
[filter_scheduler]
enabled_filters = ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter
[quota]
instances = -1
cores = -1
ram = -1
[service_user]
send_service_user_token = true
$(credentials nova)
[keystone]
$(credentials nova)
[placement]
$(credentials nova)
[glance]
endpoint_override = $GLANCE
[neutron]
$(credentials neutron)
[cinder]
catalog_info = volumev3::publicURL
[libvirt]
virt_type = qemu
cpu_mode = none
connection_uri = $LIBVIRT
images_type = default
inject_partition = -2
num_pcie_ports = 0
[os_vif_ovs]
ovsdb_connection = tcp:127.0.0.1:$OVSDB_PORT
[vnc]
enabled = false
[spice]
enabled = false
[oslo_concurrency]
lock_path = $BOX/data/nova/lock
[oslo_messaging_notifications]
driver = noop
$(for section in nova_sys_admin privsep_osbrick vif_plug_linux_bridge_privileged vif_plug_ovs_privileged; do
    printf '[%s]\n%s\n' $section "$helper"
  done)
[workarounds]
disable_rootwrap = true
$(authtoken nova)
END
  # The only place where it looks.
  cp "$VENV/etc/nova/api-paste.ini" "$BOX/etc/nova/"
  schema glance glance glance-manage --config-file "$BOX/etc/glance/glance-api.conf" db_sync
  schema nova 'nova_api nova nova_cell0' nova_migrate
}

# The cells' addresses are templates, so that a dump of them fits any port.
nova_migrate() {
  local manage=(nova-manage --config-file "$BOX/etc/nova/nova.conf")
  local db='mysql+pymysql://{username}:{password}@{hostname}:{port}'
  "${manage[@]}" api_db sync && "${manage[@]}" cell_v2 map_cell0 --database_connection "$db/nova_cell0" &&
    "${manage[@]}" cell_v2 create_cell --name cell1 --database_connection "$db/nova" \
      --transport-url '{scheme}://{username}:{password}@{hostname}:{port}/' && "${manage[@]}" db sync --local_cell &&
    # The same schema, 20 s faster than to migrate again.
    dump nova | sql nova_cell0
}

# In a host name and directories of its own.
nova_libvirt() {
  mkdir -p "$BOX"/run/libvirt "$BOX"/data/libvirt/{lib,cache} "$BOX"/log/libvirt "$BOX"/etc/libvirt/qemu "$OVS_RUNDIR"
  ini "$BOX/etc/libvirt/libvirtd.conf" <<END
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
log_outputs = "2:stderr"
log_filters = "3:util.netlink 3:event"
keepalive_interval = -1
END
  ini "$BOX/etc/libvirt/qemu.conf" <<END
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
security_default_confined = 0
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
clear_emulator_capabilities = 0
seccomp_sandbox = 0
END
  local directory
  for directory in /etc/libvirt /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /run/openvswitch; do
    [ -d $directory ] || { mkdir $directory && echo $directory >>"$BOX/etc/made-directories"; }
  done
  spawn libvirtd unshare --mount --uts bash -c "hostname $NOVA_HOST
    mount --bind '$BOX/etc/libvirt' /etc/libvirt && mount --bind '$BOX/run/libvirt' /run/libvirt &&
    mount --bind '$BOX/data/libvirt/lib' /var/lib/libvirt && mount --bind '$BOX/data/libvirt/cache' /var/cache/libvirt &&
    mount --bind '$BOX/log/libvirt' /var/log/libvirt && mount --bind '$OVS_RUNDIR' /run/openvswitch &&
    exec libvirtd --config /etc/libvirt/libvirtd.conf --pid-file '$BOX/run/libvirt/libvirtd.pid'"
}

nova_start() {
  mkdir -p "$BOX"/data/nova/{instances,lock} "$BOX"/data/glance/{images,staging,tasks,lock}
  nova_libvirt
  ovs_start
  # Glance takes chunked bodies: uwsgi's HTTP router, not its plain socket.
  wsgi glance "$GLANCE_PORT" 1 4 glance.wsgi.api:application OS_GLANCE_CONFIG_DIR="$BOX/etc/glance" -- \
    --http "127.0.0.1:$GLANCE_PORT" --http-chunked-input --http-auto-chunked --http-raw-body --add-header 'Connection: close'
  wsgi nova-api "$NOVA_PORT" 1 8 nova.wsgi.osapi_compute:application OS_NOVA_CONFIG_DIR="$BOX/etc/nova"
  spawn nova-conductor nova-conductor --config-file "$BOX/etc/nova/nova.conf"
  spawn nova-scheduler nova-scheduler --config-file "$BOX/etc/nova/nova.conf"
  neutron_agents_start
  wait_until libvirtd 20 virsh version
  spawn nova-compute nova-compute --config-file "$BOX/etc/nova/nova.conf"
}

nova_host_is_mapped() { [ "$(sql -e 'SELECT COUNT(*) FROM nova_api.host_mappings')" -gt 0 ]; }

nova_has_inventory() {
  rest GET "$PLACEMENT/resource_providers?name=$NOVA_HOST&resources=VCPU:1" '' -H 'OpenStack-API-Version: placement 1.10' |
    jq -e '.resource_providers[0]'
}

nova_ready() {
  wait_until glance 60 answers "$GLANCE"
  wait_until nova-api 90 answers "$NOVA"
  wait_until neutron-agent 90 neutron_agent_alive
  wait_until nova-compute 120 nova_has_inventory
  wait_until nova-scheduler 60 nova_host_is_mapped
  local flavor
  # Disk 0 would be for administrators only, and 1 GB costs nothing, since nothing is written.
  for flavor in 128 256 512; do
    rest GET "$NOVA/flavors/$flavor" >/dev/null 2>&1 || rest POST "$NOVA/flavors" \
      "{\"flavor\":{\"id\":\"$flavor\",\"name\":\"box.$flavor\",\"ram\":$flavor,\"vcpus\":1,\"disk\":1}}" >/dev/null
  done
  images_for_nova
  say 'Nova, Glance'
}

# Before the processes end: the guests, then the bridges.
nova_stop() {
  local domain
  if alive libvirtd; then
    for domain in $(virsh list --all --name 2>/dev/null); do
      virsh destroy "$domain"
      virsh undefine --nvram "$domain"
    done >/dev/null 2>&1
  fi
  ovs_stop
}
