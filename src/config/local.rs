//! `[local]`.

use std::collections::BTreeMap;

use super::check::Form;

options! {
    /// The local driver: agents as child processes. It is no security boundary between projects.
    LocalOptions in "local" {
        /// The agent's program; lambda-agent beside this program when unset.
        [form(Form::Path)] agent_path: Option<String> = None;
        /// Directory of the instances; below the data directory when unset.
        [form(Form::Path)] work_dir: Option<String> = None;
        /// The Python that runs python3 functions. Its files must be readable for everybody.
        [form(Form::Path)] python: String = "/usr/bin/python3".to_owned();
        /// Memory of one instance, in MiB; 0: half of the machine's.
        [range(0, 4_194_304)] instance_memory_mib: u32 = 0;
        /// Seconds for which an agent that was started is waited for.
        [range(1, 3600)] boot_timeout: u64 = 30;
        /// Instances that are kept ready before anybody needs them, as runtime/memory_mib:count or
        /// runtime/memory_mib:least-most, for example python3/256:2-8. Up to most are kept when they are taken faster than
        /// they boot. One is given to a project, or a function, that needs it, and is never given to another.
        pools: BTreeMap<String, String> = BTreeMap::new();
        /// Most instances at the same time.
        [range(1, 1000)] max_instances: u32 = 16;
        /// First of the user ids that sandboxes run as, where the service runs as root. Each instance takes 1000.
        [range(1000, 4_000_000_000_u32)] sandbox_uid_base: u32 = 200_000;
    }
}
