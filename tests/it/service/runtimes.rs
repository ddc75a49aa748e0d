//! Runtime clients of AWS Lambda that run here unmodified.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use serde_json::{Value, json};

use super::Service;

/// A zip archive of these files, all executable.
fn archive(files: &[(&str, &[u8])]) -> String {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    for (name, content) in files {
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    base64::engine::general_purpose::STANDARD.encode(zip.finish().unwrap().into_inner())
}

fn provided(name: &str, zip: &str, more: Value) -> Value {
    let mut body = json!({"name": name, "runtime": "provided", "handler": "bootstrap", "code": {"zip": zip},
                          "timeout": 60, "triggers": [{"source": "test", "type": name}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_speaks_the_runtime_api_by_hand_is_a_runtime() {
    let service = Service::start();
    let script = include_bytes!("bootstrap.py");
    let function = provided("by-hand", &archive(&[("bootstrap", script)]), json!({}));
    service.ok("POST", "/v1/functions", Some(&function)).await;
    for n in 0..3 {
        let answer = service.ok("POST", "/v1/functions/by-hand/invocations", Some(&json!({"n": n}))).await;
        assert_eq!(answer["event"]["n"], n);
        assert_eq!(answer["calls"], n + 1, "the same process served all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_without_bootstrap_says_so() {
    let service = Service::start();
    let function = provided("empty", &archive(&[("other", b"x")]), json!({}));
    service.ok("POST", "/v1/functions", Some(&function)).await;
    let (status, body) = service.call("POST", "/v1/functions/empty/invocations", Some(&json!({}))).await;
    assert_eq!(status, 502, "{body}");
    assert!(body.to_string().contains("handler_not_found"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn awslambdaric_from_pypi_runs_unmodified() {
    let python = crate::queue::clients::python().await;
    let service = Service::start();
    // The environment lies in somebody's home, where sandboxes may not look: its packages travel with the function.
    let site = Command::new(&python)
        .args(["-c", "import awslambdaric, os, sys; print(os.path.dirname(os.path.dirname(awslambdaric.__file__)))"])
        .output()
        .unwrap();
    let site = String::from_utf8(site.stdout).unwrap();
    let mut files = Vec::new();
    for part in ["awslambdaric", "simplejson", "snapshot_restore_py"] {
        collect(Path::new(site.trim()), part, &mut files);
    }
    let extension: Vec<_> = std::fs::read_dir(site.trim())
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("runtime_client"))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.extend(extension);
    let bootstrap = b"#!/bin/sh\nexec /usr/bin/python3 -m awslambdaric \"$_HANDLER\"\n".to_vec();
    files.push(("bootstrap".to_owned(), bootstrap));
    let handler = b"def handler(event, context):\n    if event.get('fail'):\n        raise ValueError('asked to')\n    return {'got': event, 'id': context.aws_request_id, 'name': context.function_name}\n";
    files.push(("app.py".to_owned(), handler.to_vec()));
    let files: Vec<_> = files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    let function = provided("ric", &archive(&files), json!({"handler": "app.handler", "memory": 256}));
    service.ok("POST", "/v1/functions", Some(&function)).await;
    for n in 0..3 {
        let answer = service.ok("POST", "/v1/functions/ric/invocations", Some(&json!({"n": n}))).await;
        assert_eq!((&answer["got"]["n"], &answer["name"]), (&json!(n), &json!("ric")), "{answer}");
    }
    let (status, body) = service.call("POST", "/v1/functions/ric/invocations", Some(&json!({"fail": true}))).await;
    assert_eq!(status, 502);
    assert!(body.to_string().contains("ValueError"), "{body}");
}

/// Reads a package of Python files.
fn collect(site: &Path, part: &str, into: &mut Vec<(String, Vec<u8>)>) {
    let Ok(entries) = std::fs::read_dir(site.join(part)) else { return };
    for entry in entries.flatten() {
        let name = format!("{part}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            if !name.ends_with("__pycache__") {
                collect(site, &name, into);
            }
        } else {
            into.push((name, std::fs::read(entry.path()).unwrap()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lambda_runtime_crate_runs_unmodified() {
    let service = Service::start();
    let program = Path::new(env!("CARGO_BIN_EXE_lambda-standalone")).with_file_name("examples/provided-rust");
    let program = std::fs::read(&program).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let function = provided("rust", &archive(&[("bootstrap", &program)]), json!({"memory": 256}));
    service.ok("POST", "/v1/functions", Some(&function)).await;
    for n in 0..3 {
        let answer =
            service.ok("POST", "/v1/functions/rust/invocations", Some(&json!({"text": "one two", "n": n}))).await;
        assert_eq!(answer["words"], 2, "{answer}");
    }
    let (status, body) = service.call("POST", "/v1/functions/rust/invocations", Some(&json!({}))).await;
    assert_eq!(status, 502, "{body}");
    assert!(body.to_string().contains("no text"), "{body}");
}
