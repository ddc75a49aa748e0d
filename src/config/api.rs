//! `[api]`.

use super::check::Form;

options! {
    /// The REST service.
    ApiOptions in "api" {
        /// Address and port to listen on.
        [form(Form::Address)] bind: String = "127.0.0.1:9070".to_owned();
        /// How callers are known: noauth takes the project from X-Project-Id.
        [form(Form::OneOf(&["noauth"]))] auth_strategy: String = "noauth".to_owned();
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
        /// While this file exists, /healthcheck answers 503, so that a load balancer takes the node out.
        [form(Form::Path)] healthcheck_disable_file: Option<String> = None;
    }
}
