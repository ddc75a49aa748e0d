//! Where connections arrive.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use lambda_agent::address::GatewayAddress;
use tokio::net::{TcpListener, UnixListener};

use super::connection::Arrived;

/// Something that listens.
#[derive(Debug)]
pub enum Listener {
    /// On an address.
    Network(TcpListener),
    /// On a socket in the file system.
    Local(UnixListener),
}

impl Listener {
    /// Listens on a socket that only this process's user may connect to. What is at the path is taken for a leftover: the
    /// directory must be this process's alone.
    ///
    /// # Errors
    /// When it cannot be made there; a path of more than a hundred bytes or so is too long.
    pub fn local(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self::Local(listener))
    }

    /// Listens at a path as well, if that can be.
    pub fn also_at(path: &Path, listeners: &mut Vec<Self>) -> Option<GatewayAddress> {
        match Self::local(path) {
            Ok(listener) => {
                listeners.push(listener);
                Some(GatewayAddress::Local(path.to_owned()))
            }
            Err(error) => {
                let path = path.display();
                tracing::warn!(path = %path, error = %error, "the gateway cannot listen at {path}: {error}");
                None
            }
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Arrived> {
        match self {
            Self::Network(listener) => listener.accept().await.map(|(stream, from)| Arrived::Network(stream, from)),
            Self::Local(listener) => listener.accept().await.map(|(stream, _)| Arrived::Local(stream)),
        }
    }
}
