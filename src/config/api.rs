//! `[api]`.

use super::check::Form;

options! {
    /// The REST service.
    ApiOptions in "api" {
        /// Address and port to listen on.
        [form(Form::Address)] bind: String = "127.0.0.1:9070".to_owned();
        /// How callers are known: noauth takes the project from X-Project-Id and believes it; keystone asks Keystone about
        /// the token in X-Auth-Token, see [keystone_authtoken].
        [form(Form::OneOf(&["noauth", "keystone"]))] auth_strategy: String = "noauth".to_owned();
        /// Project of a request without X-Project-Id, where auth_strategy is noauth.
        [form(Form::Word)] default_project: String = "demo".to_owned();
        /// Address that links in answers begin with; from the request when unset.
        [form(Form::HttpUrl)] public_endpoint: Option<String> = None;
        /// Believe Forwarded and X-Forwarded-* headers, behind a proxy that sets them.
        enable_proxy_headers_parsing: bool = false;
        /// Most elements on a page of a list.
        [range(1, 1000)] max_limit: usize = 1000;
        /// Elements on a page when none were asked for.
        [range(1, 1000)] default_limit: usize = 100;
        /// Largest package taken, in MiB.
        [range(1, 250)] max_package_mib: u64 = 50;
        /// Largest event of a synchronous or asynchronous invocation, in KiB.
        [range(1, 6144)] max_invocation_kib: u64 = 6144;
        /// Seconds a synchronous invocation waits for a place to run, beyond the function's own timeout.
        [range(0, 900)] invocation_patience_seconds: u64 = 60;
        /// Most sandboxes that one function may have kept started, its provisioned_concurrency. They hold memory that
        /// others then do not get, also when no event comes; 0 offers none.
        [range(0, 10_000)] max_provisioned_concurrency: u32 = 5;
        /// Most sandboxes that all functions of one project together may have kept started.
        [range(0, 100_000)] max_provisioned_concurrency_per_project: u32 = 10;
        /// Seconds a request may take. Uploads get five times as long; invocations and followed logs have their own
        /// limits.
        [range(1, 3600)] request_timeout: u64 = 60;
        /// Most requests under way at the same time; one more is answered with 503 and Retry-After.
        [range(1, 1_000_000)] max_requests: usize = 4096;
        /// MiB of uploaded packages held in memory at the same time; further uploads wait for their turn.
        [range(1, 65_536)] upload_memory_mib: u32 = 256;
        /// Most logs that are followed at the same time.
        [range(0, 100_000)] max_followers: usize = 256;
        /// Seconds of silence after which no invocation is sent to a worker. As long as [worker] dead_after.
        [range(1, 3600)] worker_silence: f64 = 10.0;
        /// While this file exists, /healthcheck answers 503, so that a load balancer takes the node out.
        [form(Form::Path)] healthcheck_disable_file: Option<String> = None;
    }
}
