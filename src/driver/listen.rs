//! Listening sockets: one a shard on the shared MQTT port, one a shard on its own Kafka port.
#![allow(unsafe_code)]

use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Listens on `address`. With `shared`, other sockets of this user may listen on it too
/// (SO_REUSEPORT), and the kernel spreads new connections over them.
///
/// # Errors
/// The kernel's, most likely that the port is taken.
pub fn listen(address: SocketAddr, shared: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers.
    let raw = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nothing else.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    set(&socket, libc::SO_REUSEADDR)?;
    if shared {
        set(&socket, libc::SO_REUSEPORT)?;
    }
    match address {
        SocketAddr::V4(address) => bind(&socket, &sockaddr_v4(address))?,
        SocketAddr::V6(address) => bind(&socket, &sockaddr_v6(address))?,
    }
    // SAFETY: no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(socket)
}

fn set(socket: &OwnedFd, option: i32) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = size_of_val(&on) as libc::socklen_t;
    let value = std::ptr::from_ref(&on).cast();
    // SAFETY: pointer and size are those of `on`, which lives during the call.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, size) })
}

fn bind<T>(socket: &OwnedFd, address: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    let pointer = std::ptr::from_ref(address).cast::<libc::sockaddr>();
    // SAFETY: pointer and size are those of a socket address that lives during the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), pointer, size) })
}

fn sockaddr_v4(address: SocketAddrV4) -> libc::sockaddr_in {
    // SAFETY: all bits 0 is a valid sockaddr_in.
    let mut raw: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    raw.sin_family = libc::AF_INET as libc::sa_family_t;
    raw.sin_port = address.port().to_be();
    raw.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
    raw
}

fn sockaddr_v6(address: SocketAddrV6) -> libc::sockaddr_in6 {
    // SAFETY: all bits 0 is a valid sockaddr_in6.
    let mut raw: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
    raw.sin6_port = address.port().to_be();
    raw.sin6_addr.s6_addr = address.ip().octets();
    raw.sin6_scope_id = address.scope_id();
    raw
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn shared_ports_are_shared_and_others_are_not() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let first = listen(free, true).unwrap();
        assert!(listen(free, true).is_ok());
        assert!(listen(free, false).is_err());
        assert!(TcpStream::connect(free).is_ok());
        drop(first);
    }
}
