//! Where a gateway is.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// What the path of a socket begins with, where an address is a text.
const UNIX: &str = "unix:";

/// Where a gateway is dialled. No name: an agent resolves none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayAddress {
    /// By TCP.
    Network(SocketAddr),
    /// By a socket in the file system, of the same host. It costs half of what TCP does, at each message, and only those
    /// get there who may write to the file.
    Local(PathBuf),
}

impl From<SocketAddr> for GatewayAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Network(address)
    }
}

impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => write!(f, "{address}"),
            Self::Local(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// A text that is no address of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a gateway has an address and a port, or unix: and an absolute path")]
pub struct NoGatewayAddress;

impl FromStr for GatewayAddress {
    type Err = NoGatewayAddress;

    fn from_str(text: &str) -> Result<Self, NoGatewayAddress> {
        match text.strip_prefix(UNIX) {
            Some(path) if path.starts_with('/') => Ok(Self::Local(path.into())),
            Some(_) => Err(NoGatewayAddress),
            None => text.parse().map(Self::Network).map_err(|_| NoGatewayAddress),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_it_was_written_as() {
        for text in ["127.0.0.1:9071", "[::1]:9071", "unix:/var/lib/lambda/gateway.sock"] {
            assert_eq!(text.parse::<GatewayAddress>().unwrap().to_string(), text);
        }
        for bad in ["", "unix:", "unix:gateway.sock", "/gateway.sock", "host:9071", "127.0.0.1"] {
            assert_eq!(bad.parse::<GatewayAddress>(), Err(NoGatewayAddress), "{bad}");
        }
    }
}
