//! The HTTP clients under every session: bounded in time, with the operator's certificates, and without a proxy for
//! services on this host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder, Identity, Url};

use super::OpenStackError;

/// Shorter than the keep-alive of the web servers in front of OpenStack services (5 s), so that a connection is not
/// used at the moment when the other end closes it.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// Whom to trust, and who we are, where connections are encrypted. The files are PEM and read once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Certificates of the authorities to trust instead of the built-in ones.
    pub cafile: Option<PathBuf>,
    /// Our own certificate, for services that ask for one, with its chain.
    pub certfile: Option<PathBuf>,
    /// Its private key; none: it is in `certfile`.
    pub keyfile: Option<PathBuf>,
    /// Anybody who answers is believed. For tests only: whoever is in between sees tokens and passwords.
    pub insecure: bool,
}

impl TlsOptions {
    /// Makes a client keep to them.
    ///
    /// # Errors
    /// [`OpenStackError::Invalid`] when a file does not do.
    pub fn apply(&self, builder: ClientBuilder) -> Result<ClientBuilder, OpenStackError> {
        let mut builder = builder.use_rustls_tls().danger_accept_invalid_certs(self.insecure);
        if let Some(cafile) = &self.cafile {
            builder = builder.tls_built_in_root_certs(false);
            builder = certificates(cafile)?.into_iter().fold(builder, ClientBuilder::add_root_certificate);
        }
        if let Some(certfile) = &self.certfile {
            builder = builder.identity(identity(certfile, self.keyfile.as_deref())?);
        }
        Ok(builder)
    }
}

/// One client for services on this host, which a proxy named in the environment would not find, and one for all others.
/// Clones share connections.
#[derive(Clone, Debug)]
pub(super) struct Http {
    direct: Client,
    proxied: Client,
}

impl Http {
    /// # Errors
    /// [`OpenStackError::Invalid`] when a file of `tls` does not do.
    pub(super) fn new(timeout: Duration, connect_timeout: Duration, tls: &TlsOptions) -> Result<Self, OpenStackError> {
        let client = |builder: ClientBuilder| {
            let builder = builder
                .timeout(timeout)
                .connect_timeout(connect_timeout)
                .pool_idle_timeout(IDLE_MAX)
                .tcp_nodelay(true)
                // A service that sends us elsewhere is misconfigured; a token must not follow.
                .redirect(reqwest::redirect::Policy::none())
                .user_agent(concat!("lambda-openstack/", env!("CARGO_PKG_VERSION")));
            tls.apply(builder)?
                .build()
                .map_err(|error| OpenStackError::Invalid(format!("the HTTP client cannot be set up: {error}")))
        };
        Ok(Self { direct: client(Client::builder().no_proxy())?, proxied: client(Client::builder())? })
    }

    /// A client for whoever wants one and does not use it.
    pub(super) const fn any(&self) -> &Client {
        &self.proxied
    }

    /// The client for an address.
    pub(super) fn of(&self, url: &Url) -> &Client {
        if is_loopback(url) { &self.direct } else { &self.proxied }
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, OpenStackError> {
    let certificates = Certificate::from_pem_bundle(&contents("cafile", path)?).unwrap_or_default();
    if certificates.is_empty() {
        return Err(OpenStackError::Invalid(format!("the cafile {} holds no certificate in PEM", path.display())));
    }
    Ok(certificates)
}

fn identity(certfile: &Path, keyfile: Option<&Path>) -> Result<Identity, OpenStackError> {
    let mut pem = contents("certfile", certfile)?;
    if let Some(keyfile) = keyfile {
        pem.push(b'\n');
        pem.extend(contents("keyfile", keyfile)?);
    }
    Identity::from_pem(&pem).map_err(|_| {
        let key = keyfile.map(|path| format!(" with {}", path.display())).unwrap_or_default();
        OpenStackError::Invalid(format!("{}{key} is no certificate with its private key in PEM", certfile.display()))
    })
}

fn contents(option: &str, path: &Path) -> Result<Vec<u8>, OpenStackError> {
    std::fs::read(path)
        .map_err(|error| OpenStackError::Invalid(format!("the {option} {} cannot be read: {error}", path.display())))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_is_asked_for_this_host() {
        for (url, loopback) in [
            ("http://127.0.0.1:1", true),
            ("http://127.8.8.8", true),
            ("http://[::1]:1/x", true),
            ("http://localhost", true),
            ("http://10.0.0.1", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), loopback, "{url}");
        }
    }

    #[test]
    fn a_file_that_does_not_do_is_named() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let some = |path: &Path| Some(path.to_owned());
        let missing = Path::new("/nowhere/at/all.pem");
        let second = Duration::from_secs(1);
        for (tls, part) in [
            (TlsOptions { cafile: some(missing), ..TlsOptions::default() }, "the cafile /nowhere/at/all.pem cannot be"),
            (TlsOptions { cafile: some(empty.path()), ..TlsOptions::default() }, "holds no certificate"),
            (TlsOptions { certfile: some(missing), ..TlsOptions::default() }, "the certfile /nowhere"),
            (TlsOptions { certfile: some(empty.path()), ..TlsOptions::default() }, "is no certificate with its"),
            (
                TlsOptions { certfile: some(empty.path()), keyfile: some(missing), ..TlsOptions::default() },
                "the keyfile /nowhere",
            ),
        ] {
            let error = Http::new(second, second, &tls).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
