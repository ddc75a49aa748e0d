//! `[worker]`.

use std::collections::BTreeMap;

use super::check::Form;

options! {
    /// Taking events and running them.
    WorkerOptions in "worker" {
        /// Address and port where agents and the API dial.
        [form(Form::Address)] gateway_bind: String = "127.0.0.1:9071".to_owned();
        /// Address and port by which others reach the gateway; gateway_bind when unset. It must be set
        /// when gateway_bind is 0.0.0.0 or [::].
        [form(Form::Address)] gateway_advertise: Option<String> = None;
        /// Directory of what a worker keeps on this machine: the local driver's instances.
        [form(Form::Path)] state_dir: String = "/var/lib/lambda".to_owned();
        /// Address and port of /metrics; not served when unset. lambda-standalone serves it beside the API.
        [form(Form::Address)] metrics_bind: Option<String> = None;
        /// The drivers that make instances: local (processes on this machine), zun (containers), nova (virtual
        /// machines). A function whose isolation nobody names gets the first. All workers of a service have the same.
        [form(Form::OneOf(&["local", "zun", "nova"]))] drivers: Vec<String> = vec!["local".to_owned()];
        /// The isolation that functions of a project get at least, as project:container or project:vm.
        project_isolation: BTreeMap<String, String> = BTreeMap::new();
        /// The isolation that functions of a runtime get at least, as runtime:container or runtime:vm.
        runtime_isolation: BTreeMap<String, String> = BTreeMap::new();
        /// Most executions running at the same time in this worker.
        [range(1, 10_000)] max_running: u32 = 64;
        /// Executions that may wait in this worker beyond those that run; the rest stays in the queue.
        [range(0, 10_000)] max_waiting: u32 = 128;
        /// Most sandboxes of one function in this worker.
        [range(1, 10_000)] max_sandboxes_per_function: u32 = 32;
        /// Most executions of one project running at the same time in this worker; 0: as many as max_running.
        [range(0, 10_000)] max_running_per_project: u32 = 0;
        /// Most sandboxes that are being started at the same time.
        [range(1, 1000)] max_starting: u32 = 4;
        /// Seconds for which an idle sandbox is kept of whose function too little is known: for how long keeping one costs as
        /// much as a cold start.
        [mutable(), range(0, 86_400)] keep_alive: u64 = 300;
        /// Seconds for which an idle sandbox is kept at least, where a function's own past says how long is worth it; not
        /// more than keep_alive.
        [mutable(), range(0, 86_400)] keep_alive_min: u64 = 60;
        /// Seconds for which an idle sandbox is kept at most, where a function's own past says how long is worth it. With
        /// keep_alive or less nothing is learned: keep_alive holds for all.
        [mutable(), range(0, 86_400)] keep_alive_max: u64 = 1800;
        /// Seconds for which an instance without sandboxes is kept.
        [mutable(), range(0, 86_400)] instance_keep_alive: u64 = 60;
        /// Seconds that starting a runtime and importing the handler may take.
        [mutable(), range(1, 900)] init_timeout: u64 = 10;
        /// KiB of log kept of one attempt.
        [mutable(), range(1, 65_536)] log_limit_kib: u64 = 1024;
        /// Seconds between two signs of life.
        [range(0.1, 60)] heartbeat_interval: f64 = 2.0;
        /// Seconds of silence after which a worker is taken for dead and its executions are adopted. More than twice
        /// heartbeat_interval.
        [range(0.5, 600)] dead_after: f64 = 10.0;
        /// Seconds before the second attempt; it doubles with each further one.
        [range(0.01, 3600)] retry_base: f64 = 1.0;
        /// Most seconds between two attempts.
        [range(0.01, 43_200)] retry_max: f64 = 300.0;
    }
}
