//! Whom a session trusts and who it says it is, against a server of our own with certificates of our own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lambda_openstack::openstack::{NoAuth, OpenStackError, Request, Service, Session, SessionOptions, TlsOptions};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::Method;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate in PEM.
    pub pem: String,
    der: CertificateDer<'static>,
}

/// A certificate and its key in PEM, and as rustls takes them.
pub struct Issued {
    pub certificate: String,
    pub key: String,
    chain: Vec<CertificateDer<'static>>,
    private: PrivateKeyDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    pub fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            chain: vec![certificate.der().clone()],
            private: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }
}

/// Answers every request with an empty object, and knows how many callers showed a certificate.
pub struct TlsServer {
    pub address: SocketAddr,
    shown: Arc<Mutex<Vec<bool>>>,
}

impl TlsServer {
    /// With `clients`, only who has a certificate of theirs is served.
    pub fn start(own: Issued, clients: Option<&Authority>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(authority.der.clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let config = Arc::new(builder.with_single_cert(own.chain, own.private).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let notes = shown.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, notes) = (config.clone(), notes.clone());
                std::thread::spawn(move || {
                    let connection = rustls::ServerConnection::new(config).unwrap();
                    let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
                    let mut head = Vec::new();
                    let mut byte = [0];
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read(&mut byte) {
                            Ok(1) => head.push(byte[0]),
                            Ok(_) | Err(_) => return,
                        }
                    }
                    notes.lock().unwrap().push(stream.conn.peer_certificates().is_some());
                    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\
                                  connection: close\r\n\r\n{\"functions\":[]}";
                    let _ = stream.write_all(answer.as_bytes());
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                });
            }
        });
        Self { address, shown }
    }

    pub fn shown(&self) -> Vec<bool> {
        self.shown.lock().unwrap().clone()
    }
}

/// Files of a test.
pub struct Files(tempfile::TempDir);

impl Files {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

async fn call(server: &TlsServer, tls: TlsOptions) -> Result<(), OpenStackError> {
    let address = format!("https://localhost:{}", server.address.port());
    let auth = NoAuth::new("p", [("function", address.as_str())]).unwrap();
    let options = SessionOptions { tls, repeats: 0, timeout: Duration::from_secs(20), ..SessionOptions::default() };
    let request = Request {
        service: Service(&["function"]),
        operation: "test",
        method: Method::GET,
        path: vec!["v1".to_owned()],
        query: Vec::new(),
        headers: reqwest::header::HeaderMap::new(),
        body: None,
        is_idempotent: true,
    };
    Session::new(Arc::new(auth), options).unwrap().send(&request).await.map(|_| ())
}

#[tokio::test]
async fn only_the_authority_that_is_named_is_trusted() {
    let (ours, others, files) = (Authority::new(), Authority::new(), Files::new());
    let server = TlsServer::start(ours.issue("localhost"), None);
    let ca = |name: &str, authority: &Authority| Some(files.write(name, &authority.pem));

    call(&server, TlsOptions { cafile: ca("ours", &ours), ..TlsOptions::default() }).await.unwrap();
    for tls in [TlsOptions { cafile: ca("others", &others), ..TlsOptions::default() }, TlsOptions::default()] {
        let error = call(&server, tls).await.unwrap_err();
        assert!(matches!(error, OpenStackError::Unavailable { .. }), "{error:?}");
        assert!(format!("{error:?}").contains("InvalidCertificate"), "{error:?}");
    }
    call(&server, TlsOptions { insecure: true, ..TlsOptions::default() }).await.unwrap();
    assert_eq!(server.shown(), [false, false], "nothing is sent to whom is not trusted");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (ours, files) = (Authority::new(), Files::new());
    let server = TlsServer::start(ours.issue("elsewhere.example"), None);
    let cafile = Some(files.write("ca", &ours.pem));
    let error = call(&server, TlsOptions { cafile, ..TlsOptions::default() }).await.unwrap_err();
    assert!(matches!(error, OpenStackError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn our_own_certificate_is_shown_to_who_asks_for_one() {
    let (ours, files) = (Authority::new(), Files::new());
    let server = TlsServer::start(ours.issue("localhost"), Some(&ours));
    let cafile = Some(files.write("ca", &ours.pem));
    let us = ours.issue("lambda");
    let (certfile, keyfile) = (Some(files.write("cert", &us.certificate)), Some(files.write("key", &us.key)));
    let both = Some(files.write("both", &format!("{}{}", us.certificate, us.key)));

    let apart = TlsOptions { cafile: cafile.clone(), certfile, keyfile, insecure: false };
    call(&server, apart).await.unwrap();
    call(&server, TlsOptions { cafile: cafile.clone(), certfile: both, ..TlsOptions::default() }).await.unwrap();
    call(&server, TlsOptions { cafile, ..TlsOptions::default() }).await.unwrap_err();
    assert_eq!(server.shown(), [true, true]);
}
