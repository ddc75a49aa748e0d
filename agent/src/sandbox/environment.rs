//! The environment of a sandbox: the function's variables and AWS Lambda's, and nothing of this service's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use crate::wire::{RuntimeKind, SandboxSpec};

/// Where programs are found.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// OpenStack's region when none is named. Functions may set their own.
const REGION: &str = "RegionOne";

/// What a sandbox is told about where it is.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// The Runtime API.
    pub api: SocketAddr,
    /// The unpacked package.
    pub task_root: &'a Path,
    /// The runtime's files.
    pub runtime: &'a Path,
    /// Its own directory.
    pub home: &'a Path,
    /// Its own directory for temporary files.
    pub temporary: &'a Path,
    /// What it is called, unique among all sandboxes.
    pub sandbox: &'a str,
}

/// All variables of a sandbox. The function may change what is a default; what AWS reserves is ours.
#[must_use]
pub fn environment(spec: &SandboxSpec, places: Places<'_>) -> BTreeMap<String, String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: String| drop(all.insert(name.to_owned(), value));
    set("PATH", PATH.to_owned());
    set("LANG", "C.UTF-8".to_owned());
    set("TZ", ":UTC".to_owned());
    set("HOME", text(places.home));
    set("TMPDIR", text(places.temporary));
    set("AWS_REGION", REGION.to_owned());
    set("AWS_DEFAULT_REGION", REGION.to_owned());
    for (name, value) in &spec.environment {
        // What could not be a variable is not one; the API refuses it already.
        if !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0') {
            set(name, value.clone());
        }
    }
    set("_HANDLER", spec.handler.clone());
    set("AWS_LAMBDA_RUNTIME_API", places.api.to_string());
    set("AWS_LAMBDA_FUNCTION_NAME", spec.function_name.clone());
    set("AWS_LAMBDA_FUNCTION_VERSION", spec.revision.to_string());
    set("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", spec.memory_mib.to_string());
    set("AWS_LAMBDA_FUNCTION_TIMEOUT", spec.timeout_ms.div_ceil(1000).to_string());
    set("AWS_LAMBDA_LOG_GROUP_NAME", format!("/lambda/{}", spec.function_name));
    set("AWS_LAMBDA_LOG_STREAM_NAME", places.sandbox.to_owned());
    set("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned());
    let environment = match spec.runtime {
        RuntimeKind::Python => "AWS_Lambda_python3",
        RuntimeKind::Provided => "AWS_Lambda_provided",
    };
    set("AWS_EXECUTION_ENV", environment.to_owned());
    set("LAMBDA_TASK_ROOT", text(places.task_root));
    set("LAMBDA_RUNTIME_DIR", text(places.runtime));
    set("LAMBDA_SANDBOX_ID", places.sandbox.to_owned());
    all
}

/// The function's name in AWS's notation, for clients that want one.
#[must_use]
pub fn arn(spec: &SandboxSpec) -> String {
    format!("arn:openstack:lambda:{REGION}:{}:function:{}:{}", spec.project, spec.function_name, spec.revision)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn spec() -> SandboxSpec {
        SandboxSpec {
            project: "p".into(),
            function: "f".into(),
            function_name: "thumbnail".into(),
            revision: 3,
            runtime: RuntimeKind::Python,
            handler: "main.handler".into(),
            memory_mib: 128,
            timeout_ms: 2500,
            init_timeout_ms: 10_000,
            environment: BTreeMap::new(),
            package_sha256: "0".repeat(64),
            package_size: 1,
            log_limit_bytes: 1000,
        }
    }

    #[test]
    fn the_function_may_change_defaults_but_not_what_is_reserved() {
        let mut spec = spec();
        for (name, value) in [("TZ", "Europe/Prague"), ("_HANDLER", "evil"), ("COLOUR", "red"), ("A=B", "x")] {
            spec.environment.insert(name.into(), value.into());
        }
        let root = Path::new("/root");
        let places = Places {
            api: ([127, 0, 0, 1], 9).into(),
            task_root: root,
            runtime: root,
            home: root,
            temporary: root,
            sandbox: "i-1",
        };
        let all = environment(&spec, places);
        let get = |name: &str| all.get(name).map(String::as_str);
        assert_eq!(get("TZ"), Some("Europe/Prague"));
        assert_eq!(get("_HANDLER"), Some("main.handler"));
        assert_eq!(get("COLOUR"), Some("red"));
        assert_eq!(get("A=B"), None);
        assert_eq!(get("AWS_LAMBDA_RUNTIME_API"), Some("127.0.0.1:9"));
        assert_eq!(get("AWS_LAMBDA_FUNCTION_TIMEOUT"), Some("3"));
        assert_eq!(arn(&spec), "arn:openstack:lambda:RegionOne:p:function:thumbnail:3");
    }
}
