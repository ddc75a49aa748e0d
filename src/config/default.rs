//! `[DEFAULT]`.

use super::check::Form;

options! {
    /// Logging, and what all programs share.
    DefaultOptions in "DEFAULT" {
        /// Log at DEBUG instead of INFO.
        [mutable()] debug: bool = false;
        /// Write logs as one JSON object a line instead of oslo.log's line.
        use_json: bool = false;
        /// File to log to; standard error when unset. It is opened anew on SIGHUP, so that it can be rotated.
        [form(Form::Path)] log_file: Option<String> = None;
        /// Directory that log_file is relative to. With no log_file, the file is named after the program.
        [form(Form::Path)] log_dir: Option<String> = None;
        /// Levels of single modules, as module=LEVEL, over the level that debug sets. The modules openstack
        /// and osauth never log below INFO, because they would log whole requests.
        [mutable(), form(Form::ModuleLevel)] default_log_levels: Vec<String> =
            ["openstack=INFO", "osauth=INFO", "hyper=WARN", "mongodb=WARN", "h2=WARN", "reqwest=WARN"]
                .map(str::to_owned).to_vec();
        /// Name of this machine in records and logs; the host name when unset.
        [form(Form::Word)] host: Option<String> = None;
        /// Threads that carry requests and events. 0: one for each processor; in lambda-standalone, which shares the
        /// machine with what it starts, one for each two.
        [range(0, 1024)] threads: usize = 0;
        /// Longest time a program takes to stop after SIGTERM, in seconds. Executions still running then are handed
        /// back. Keep it under the service manager's own limit (DevStack's units: 300).
        [range(0, 3600)] graceful_shutdown_timeout: u64 = 30;
    }
}
