//! Who is at the other end of a loopback connection.

use std::fs;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd as _;

use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

/// The user who owns the socket from `client` to `server`; none when there is no such socket.
#[must_use]
pub fn owner(client: SocketAddrV4, server: SocketAddrV4) -> Option<u32> {
    // The kernel may be built without it, or without what it needs for TCP, which looks as if there were no such socket.
    // The tables have the same in text, after milliseconds.
    match ask_kernel(client, server) {
        Ok(Some(owner)) => Some(owner),
        Ok(None) | Err(_) => look_up(client, server),
    }
}

/// Length of a netlink header, of a request for sockets, and of the identity of a socket in it.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const IDENTITY: usize = 48;
/// Where the user stands in an answer: after the header, four bytes, the identity and three numbers.
const USER: usize = HEADER + 4 + IDENTITY + 12;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// Asks for one socket by its addresses (`sock_diag(7)`): numbers are in the machine's order, addresses and ports in
/// the network's.
fn ask_kernel(client: SocketAddrV4, server: SocketAddrV4) -> io::Result<Option<u32>> {
    let mut request = Vec::with_capacity(HEADER + REQUEST);
    let length = u32::try_from(HEADER + REQUEST).map_err(io::Error::other)?;
    request.extend(length.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([u8::try_from(libc::AF_INET).map_err(io::Error::other)?]);
    request.extend([u8::try_from(libc::IPPROTO_TCP).map_err(io::Error::other)?, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(client.port().to_be_bytes());
    request.extend(server.port().to_be_bytes());
    for address in [client, server] {
        request.extend(address.ip().octets());
        request.extend([0; 12]);
    }
    request.extend([0; 4]);
    request.extend(NO_COOKIE);

    let netlink =
        socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    sendto(netlink.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 512];
    // The answer is there when the request has been sent.
    let read = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    let number = |at: usize| Some(u32::from_ne_bytes(answer.get(..read)?.get(at..at + 4)?.try_into().ok()?));
    let kind = answer.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
    match kind {
        Some(SOCK_DIAG_BY_FAMILY) => Ok(number(USER)),
        Some(NLMSG_ERROR) => match number(HEADER).map(u32::cast_signed) {
            Some(error) if error == -libc::ENOENT => Ok(None),
            Some(error) => Err(io::Error::from_raw_os_error(-error)),
            None => Err(io::ErrorKind::InvalidData.into()),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn look_up(client: SocketAddrV4, server: SocketAddrV4) -> Option<u32> {
    // Addresses are shown as the bytes lie in memory. A client may have an IPv6 socket for an IPv4 address.
    let four = |at: SocketAddrV4| format!("{:08X}:{:04X}", u32::from_ne_bytes(at.ip().octets()), at.port());
    let six = |at: SocketAddrV4| format!("0000000000000000{:08X}{}", u32::from_ne_bytes([0, 0, 0xff, 0xff]), four(at));
    let look = |file: &str, client: String, server: String| {
        let table = fs::read_to_string(file).ok()?;
        table.lines().find_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let is_it = fields.nth(1)? == client && fields.next()? == server;
            is_it.then(|| fields.nth(4)?.parse().ok()).flatten()
        })
    };
    look("/proc/net/tcp", four(client), four(server)).or_else(|| look("/proc/net/tcp6", six(client), six(server)))
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn both_ways_name_the_owner_of_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let v4 = |address| match address {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(_) => panic!("IPv4"),
        };
        let (from, to) = (v4(client.local_addr().unwrap()), v4(server.local_addr().unwrap()));
        let own = nix::unistd::geteuid().as_raw();
        assert_eq!(look_up(from, to), Some(own));
        assert_eq!(owner(from, to), Some(own));
        if let Ok(asked) = ask_kernel(from, to) {
            assert_eq!(asked, Some(own));
            let elsewhere = SocketAddrV4::new(*to.ip(), 1);
            assert_eq!(ask_kernel(from, elsewhere).unwrap(), None);
        }
    }
}
