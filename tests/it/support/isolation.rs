//! A function that tries to get at what is not its own, and what has to come of it. The same function is let loose on
//! every kind of instance.

use std::io::Write as _;

use base64::Engine as _;
use serde_json::{Value, json};

/// The function's program, for the runtime python3.
pub const SPY: &str = include_str!("spy.py");

/// A function of this name that tries; `runtime` is python3 or provided.
pub fn function(name: &str, runtime: &str) -> Value {
    let code = if runtime == "python3" {
        json!({ "source": SPY })
    } else {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
        zip.start_file("bootstrap", options).unwrap();
        zip.write_all(SPY.as_bytes()).unwrap();
        json!({ "zip": base64::engine::general_purpose::STANDARD.encode(zip.finish().unwrap().into_inner()) })
    };
    json!({"name": name, "runtime": runtime, "handler": "main.handler", "timeout": 120, "memory": 256, "code": code})
}

/// A function with something to hide: in its environment, in its package, in its files, in its memory, in its events.
pub fn victim(name: &str, secret: &str) -> Value {
    let source = format!(
        "import os, tempfile\nIN_THE_PACKAGE = '{secret}'\nheld = []\ndef handler(event, context):\n    held.append(event)\n    with open(os.path.join(tempfile.gettempdir(), 'kept'), 'w') as file:\n        os.fchmod(file.fileno(), 0o600)\n        file.write(event['secret'])\n    print('{secret}')\n    return os.environ['SECRET'] == '{secret}'\n"
    );
    json!({"name": name, "runtime": "python3", "handler": "main.handler", "code": {"source": source},
           "environment": {"SECRET": secret}, "memory": 128, "timeout": 30})
}

/// Asserts that nothing was reached that should not be, and that none of the secrets was seen.
pub fn assert_kept(report: &Value, secrets: &[&str]) {
    let reached = report["reached"].as_object().unwrap_or_else(|| panic!("no report: {report}"));
    assert!(reached.is_empty(), "the function reached {}", serde_json::to_string_pretty(reached).unwrap());
    let tried = report["tried"].as_u64().unwrap();
    assert!(tried > 150, "it tried {tried} things only");
    let (told, seen) = (report["told"].to_string(), report["seen"].to_string());
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        let is_hidden = !told.contains(secret) && !seen.contains(secret);
        assert!(is_hidden, "the function saw a secret: {}…", &secret[..secret.len().min(8)]);
    }
    for name in ["LAMBDA_AGENT_TOKEN", "OS_PASSWORD", "OS_AUTH", "application_credential", "caller_secret"] {
        assert!(!told.contains(name), "the function was told something that it should not know: {name}");
    }
}
