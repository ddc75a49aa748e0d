//! Who this gateway is: a key and a certificate made at each start, which nobody signs. Those who dial know it by its
//! fingerprint, which they have from the driver or from the store.

use std::io;
use std::sync::Arc;

use lambda_agent::tls::{Fingerprint, Stream};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// The name in the certificate. Nobody looks at it.
const NAME: &str = "lambda-gateway";
/// First byte of a TLS handshake. A frame begins with its length, whose first byte is 0.
const HANDSHAKE: u8 = 0x16;

/// A key and its certificate.
pub struct Identity {
    acceptor: TlsAcceptor,
    fingerprint: Fingerprint,
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// When the machine gives no key.
    pub fn make() -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).map_err(io::Error::other)?;
        let certificate = made.cert.der().clone();
        let fingerprint = Fingerprint::of(&certificate);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
            .map_err(io::Error::other)?;
        // Nobody resumes: a connection lasts as long as an instance.
        config.send_tls13_tickets = 0;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), fingerprint })
    }

    /// The certificate's.
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Takes a connection as its first byte says: with TLS or without.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Stream> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first == [HANDSHAKE] {
            let stream = self.acceptor.accept(stream).await?;
            return Ok(Stream::Tls(Box::new(stream.into())));
        }
        Ok(Stream::Plain(stream))
    }
}
