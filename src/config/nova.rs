//! `[nova]`, and how Neutron and Glance are reached, which the driver needs beside it.

use std::collections::BTreeMap;

use super::check::Form;

/// Words for interfaces of a catalog.
const INTERFACES: Form = Form::OneOf(&["public", "internal", "admin"]);

options! {
    /// The Nova driver: instances are servers of the service's own project, made from an image with the agent in it. One
    /// server runs many sandboxes of one project. The service's user needs the role member there.
    NovaOptions in "nova" {
        /// Address of the compute service, with or without /v2.1; that of the catalog when unset.
        [form(Form::HttpUrl)] endpoint_override: Option<String> = None;
        /// Region of the compute service; that of [service_auth] when unset.
        [form(Form::Word)] region_name: Option<String> = None;
        /// Which of the compute service's endpoints: the first of these that it has; as in [service_auth] when empty.
        [form(INTERFACES)] valid_interfaces: Vec<String> = Vec::new();
        /// The image with the agent in it: its id, its name or a tag. Of several with the name or the tag, the newest is
        /// taken within a minute.
        [form(Form::Word)] image: String = "lambda-python3-vm".to_owned();
        /// Id of the project that the image must belong to, where it is given by name or tag; any that we may use when
        /// unset.
        [form(Form::Word)] image_owner: Option<String> = None;
        /// Flavor of the servers, by id or name. When unset, the smallest that has the memory and a disk for the image;
        /// never one with devices, dedicated processors or required traits.
        [form(Form::Word)] flavor: Option<String> = None;
        /// The network that servers are on, by id or name. From it they must reach gateway_address, and nothing else for
        /// our sake.
        [form(Form::Word)] network: Option<String> = None;
        /// Security groups of the servers, by id or name. When empty, one of our own that lets everything out and nothing
        /// in, where Neutron has security groups.
        security_groups: Vec<String> = Vec::new();
        /// Availability zone of the servers; Nova's choice when unset.
        availability_zone: Option<String> = None;
        /// Places the servers apart, in one server group. A group has as many members as the quota allows (10 unless the
        /// operator raised it): with soft-anti-affinity, further servers are placed without it. No group when unset.
        [form(Form::OneOf(&["soft-anti-affinity", "anti-affinity"]))] server_group_policy: Option<String> = None;
        /// Further metadata of each server, for the operator's own tools.
        metadata: BTreeMap<String, String> = BTreeMap::new();
        /// What a server is for: one project with many sandboxes of its functions, or one function.
        [form(Form::OneOf(&["project", "function"]))] sharing: String = "project".to_owned();
        /// Memory of a server for sandboxes, in MiB, where it is for a project. A function that needs more gets a server of
        /// its size.
        [range(64, 4_194_304)] instance_memory_mib: u32 = 1024;
        /// Memory of a server beside that for sandboxes, in MiB: its kernel and its agent. The flavor has both.
        [range(0, 65_536)] overhead_memory_mib: u32 = 128;
        /// Servers that are kept ready before anybody needs them, as runtime/memory_mib:count or
        /// runtime/memory_mib:least-most, for example python3/256:2-8. Up to most are kept when they are taken faster than
        /// they boot. One is given to a project, or a function, that needs it, and is never given to another.
        pools: BTreeMap<String, String> = BTreeMap::new();
        /// Most servers of one worker at the same time.
        [range(1, 10_000)] max_instances: u32 = 10;
        /// Most servers of one worker that are booting at the same time.
        [range(1, 1000)] max_booting: u32 = 4;
        /// Where agents in servers dial: an address of this worker in reach of the network. [worker] gateway_advertise when unset.
        [form(Form::Address)] gateway_address: Option<String> = None;
        /// Seconds until the agent of a server must have called. Then the server is deleted, and another one made.
        [range(10, 3600)] boot_timeout: u64 = 300;
        /// Log the end of the console of a server whose agent does not call. What functions print is not on it.
        console_log: bool = true;
        /// Seconds a request may take.
        [range(1, 300)] timeout: u64 = 60;
    }
}

options! {
    /// The network service, for the Nova driver.
    NeutronOptions in "neutron" {
        /// Address of the network service, without /v2.0; that of the catalog when unset.
        [form(Form::HttpUrl)] endpoint_override: Option<String> = None;
        /// Region of the network service; that of [service_auth] when unset.
        [form(Form::Word)] region_name: Option<String> = None;
        /// Which of the network service's endpoints: the first of these that it has; as in [service_auth] when empty.
        [form(INTERFACES)] valid_interfaces: Vec<String> = Vec::new();
    }
}

options! {
    /// The image service, for the Nova driver.
    GlanceOptions in "glance" {
        /// Address of the image service, without /v2; that of the catalog when unset.
        [form(Form::HttpUrl)] endpoint_override: Option<String> = None;
        /// Region of the image service; that of [service_auth] when unset.
        [form(Form::Word)] region_name: Option<String> = None;
        /// Which of the image service's endpoints: the first of these that it has; as in [service_auth] when empty.
        [form(INTERFACES)] valid_interfaces: Vec<String> = Vec::new();
    }
}
