//! `[zun]`.

use std::collections::BTreeMap;

use super::check::Form;

options! {
    /// The driver zun: instances as containers of Zun, made in the project of [service_auth].
    ZunOptions in "zun" {
        /// Base address of the container service; from the catalog when unset.
        [form(Form::HttpUrl)] endpoint_override: Option<String> = None;
        /// Region of the container service; that of [service_auth] when unset.
        [form(Form::Word)] region_name: Option<String> = None;
        /// Which of the container service's endpoints: the first of these that it has; as in [service_auth] when empty.
        [form(Form::OneOf(&["public", "internal", "admin"]))] valid_interfaces: Vec<String> = Vec::new();
        /// Seconds a request may take.
        [range(1, 300)] timeout: u64 = 30;
        /// The image of runtimes that are not named in images: name and tag, or with image_driver = glance the name or
        /// id of an image in Glance.
        [form(Form::Word)] image: String = "lambda-python3:1".to_owned();
        /// Images of single runtimes, as runtime:image, for example python3:registry.example/python3:1.
        images: BTreeMap<String, String> = BTreeMap::new();
        /// Where Zun finds the images; its own default when unset.
        [form(Form::OneOf(&["docker", "glance"]))] image_driver: Option<String> = None;
        /// When Zun pulls an image: always, ifnotpresent or never. By Zun's default policy only administrators may say;
        /// then leave it unset, which means always.
        [form(Form::OneOf(&["always", "ifnotpresent", "never"]))] image_pull_policy: Option<String> = None;
        /// What is run in the container instead of the image's command.
        command: Vec<String> = Vec::new();
        /// The Neutron network of the containers, by id or name. It needs no way out but to gateway_address. Zun chooses
        /// one when unset.
        [form(Form::Word)] network: Option<String> = None;
        /// Security groups of the containers, by id or name. They need no ingress.
        [form(Form::Word)] security_groups: Vec<String> = Vec::new();
        /// The availability zone of the containers; any when unset.
        [form(Form::Word)] availability_zone: Option<String> = None;
        /// Address and port by which agents in containers reach the gateway; [worker] gateway_advertise when unset.
        [form(Form::Address)] gateway_address: Option<String> = None;
        /// What may run in one container: sandboxes of one function, or of any function of one project.
        [form(Form::OneOf(&["function", "project"]))] sharing: String = "function".to_owned();
        /// Memory for the sandboxes of one container, in MiB; more where one sandbox needs more. As many run in it as have
        /// memory. Zun gives at most 8192, the overhead included.
        [range(4, 8192)] instance_memory_mib: u32 = 512;
        /// Memory of a container beside that of its sandboxes, for the agent and the interpreter that sandboxes are forked
        /// from, in MiB.
        [range(0, 4096)] overhead_memory_mib: u32 = 64;
        /// Processors of a container for each GiB of its memory; 0: Zun's default_cpu. It is a weight against others and
        /// no bound. Placement counts whole processors.
        [range(0, 64)] cpu_per_gib: f64 = 0.0;
        /// Containers that are kept ready before anybody needs them, as runtime/memory_mib:count or
        /// runtime/memory_mib:least-most, for example python3/256:2-8. Up to most are kept when they are taken faster than
        /// they boot. One is given to a project, or a function, that needs it, and is never given to another.
        pools: BTreeMap<String, String> = BTreeMap::new();
        /// Most containers of one worker at the same time.
        [range(1, 10_000)] max_instances: u32 = 64;
        /// Most containers of one worker that are being made at the same time.
        [range(1, 1000)] max_booting: u32 = 8;
        /// Seconds that Zun may take to have a container running, pulling its image included. Its agent gets 20 more to
        /// call.
        [range(1, 3600)] boot_timeout: u64 = 90;
        /// Seconds that an agent has to end by itself when its container is removed.
        [range(1, 60)] stop_grace: u64 = 5;
        /// Labels of the containers beside those of the service, as name:value.
        labels: BTreeMap<String, String> = BTreeMap::new();
    }
}
