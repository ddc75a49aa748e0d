//! What tests need beside a gateway.

use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lambda_agent::tls::Fingerprint;
use lambda_agent::wire::{RuntimeKind, SandboxSpec};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::gateway::PATIENCE;

/// A key and a certificate of a gateway.
pub fn identity() -> (TlsAcceptor, Fingerprint) {
    let made = rcgen::generate_simple_self_signed(["gateway".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let certificate = made.cert.der().clone();
    let fingerprint = Fingerprint::of(&certificate);
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), fingerprint)
}

pub fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(*name, SimpleFileOptions::default().unix_permissions(0o755)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

pub fn python() -> String {
    // The system's: every user can read it.
    let system = Path::new("/usr/bin/python3");
    if system.exists() { system.display().to_string() } else { "python3".to_owned() }
}

pub fn spec(sha256: String, size: u64) -> SandboxSpec {
    SandboxSpec {
        project: "demo".into(),
        function: "0e0d1a4e-0000-4000-8000-000000000001".into(),
        function_name: "hello".into(),
        revision: 7,
        runtime: RuntimeKind::Python,
        handler: "main.handler".into(),
        memory_mib: 128,
        timeout_ms: 3000,
        init_timeout_ms: 20_000,
        environment: [("COLOUR".to_owned(), "red".to_owned())].into(),
        package_sha256: sha256,
        package_size: size,
        log_limit_bytes: 1 << 20,
    }
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let poll = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(PATIENCE, poll).await.is_ok(), "never happened: {what}");
}

/// Processes whose command line or environment has this text, zombies excluded.
pub fn processes_with(text: &str) -> Vec<String> {
    let has = |path: PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(text)
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| has(entry.path().join("cmdline")) || has(entry.path().join("environ")))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
