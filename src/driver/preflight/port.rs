//! Whether a port is free, and who holds it where it is not.
//!
//! Shards listen with SO_REUSEPORT, so a second engine of the same user could join the first on
//! its port and take half of its devices. The probe therefore binds without SO_REUSEPORT, which
//! fails beside any listener. It sets SO_REUSEADDR (as the standard library does), with which
//! connections in TIME_WAIT from the run before do not count: Linux lets them share with
//! everything but a listener.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::Refusal;

/// How long a port that no process holds is waited for: after SIGKILL the kernel closes a ring, and
/// with it the sockets that it holds, a moment after the process is gone.
const CLOSING_MAX: Duration = Duration::from_secs(3);

/// Refuses an address that cannot be listened on; `option` is the flag that chooses another.
///
/// The port is free again when this returns. A port of 0 is never taken.
pub fn port(address: SocketAddr, option: &'static str) -> Result<(), Refusal> {
    let deadline = Instant::now() + CLOSING_MAX;
    loop {
        let Err(error) = TcpListener::bind(address) else { return Ok(()) };
        let closing = error.kind() == ErrorKind::AddrInUse && holder(address.port()).is_none();
        if !closing || Instant::now() >= deadline {
            return Err(refused(address, option, error));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn refused(address: SocketAddr, option: &'static str, source: io::Error) -> Refusal {
    match source.kind() {
        ErrorKind::AddrInUse => {
            let holder = holder(address.port()).map(|name| format!(" by {name}"));
            Refusal::PortTaken { address, holder: holder.unwrap_or_default(), option }
        }
        ErrorKind::PermissionDenied => Refusal::PortPrivileged { address, option },
        ErrorKind::AddrNotAvailable => Refusal::AddressUnknown { address, option },
        _ => Refusal::Listen { address, option, source },
    }
}

/// The process that listens on `port`, as far as this user may see it.
fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            let inodes = listeners(&table, port).map(|inode| format!("socket:[{inode}]"));
            inodes.collect::<Vec<_>>()
        })
        .collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let id = process.file_name();
        let Some(id) = id.to_str().filter(|id| id.bytes().all(|b| b.is_ascii_digit())) else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let mut targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        if targets.any(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str())) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {id})", name.trim()));
        }
    }
    None
}

/// The inodes of the sockets in `table` (/proc/net/tcp) that listen on `port`.
fn listeners(table: &str, port: u16) -> impl Iterator<Item = &str> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        (local.ends_with(&suffix) && state == LISTEN).then(|| fields.nth(5)).flatten()
    })
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use std::io::Read;
    use std::net::TcpStream;
    use std::os::fd::{AsRawFd, FromRawFd};

    use super::*;

    const OPTION: &str = "--mqtt-listen";

    fn check(address: SocketAddr, expected: &str) {
        let shown =
            port(address, OPTION).map_or_else(|refusal| refusal.to_string(), |()| "".into());
        assert_eq!(shown.is_empty(), expected.is_empty(), "{address}: {shown}");
        assert!(shown.contains(expected), "{shown:?} does not contain {expected:?}");
    }

    /// A listener that shares its port, as the shards' do.
    fn sharing() -> TcpListener {
        // SAFETY: plain socket calls on a descriptor that nobody else has; the option's value is
        // an int that outlives the call; the descriptor is given to the listener, which closes it.
        let listener = unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0);
            let listener = TcpListener::from_raw_fd(fd);
            for option in [libc::SO_REUSEPORT, libc::SO_REUSEADDR] {
                let on = 1i32;
                let value = (&raw const on).cast();
                assert_eq!(libc::setsockopt(fd, libc::SOL_SOCKET, option, value, 4), 0);
            }
            let mut address: libc::sockaddr_in = std::mem::zeroed();
            address.sin_family = libc::AF_INET as u16;
            address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
            let bytes = size_of_val(&address) as u32;
            assert_eq!(libc::bind(fd, (&raw const address).cast(), bytes), 0);
            listener
        };
        // SAFETY: the descriptor is open and bound.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 16) }, 0);
        listener
    }

    #[test]
    fn a_listener_takes_its_port_and_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let holder = format!("(process {}): stop", std::process::id());
        check(address, &holder);
        check(address, "choose another address with --mqtt-listen");
        check(SocketAddr::new("0.0.0.0".parse().unwrap(), address.port()), "is taken");
        drop(listener);
        check(address, "");
    }

    #[test]
    fn a_listener_that_shares_takes_its_port_all_the_same() {
        let listener = sharing();
        check(listener.local_addr().unwrap(), "is taken by");
    }

    #[test]
    fn connections_in_time_wait_do_not_count() {
        let listener = sharing();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        // The side that closes first waits: the server's, on the listener's port.
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop(client);
        drop(listener);
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let waiting = format!("0100007F:{:04X} ", address.port());
        let waits = |line: &str| line.contains(&waiting) && line.contains(" 06 ");
        assert!(table.lines().any(waits), "no connection waits on {address}");
        check(address, "");
    }

    #[test]
    fn addresses_of_others_are_refused() {
        check("192.0.2.1:1883".parse().unwrap(), "192.0.2.1 is no address of this machine");
    }

    #[test]
    fn listeners_are_found_in_the_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n\
            0: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1588 1\n\
            1: 0100007F:07E8 0100007F:9999 01 00000000:00000000 00:00000000 00000000 0 0 1600 1\n";
        assert_eq!(listeners(table, 2024).collect::<Vec<_>>(), ["1588"]);
        assert_eq!(listeners(table, 2025).count(), 0);
    }
}
