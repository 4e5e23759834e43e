//! What the machine must grant before a shard can start, asked for once, with the remedy where it
//! does not.
//!
//! In: addresses and limits from the configuration. Out: nothing, a warning for the start banner,
//! or a `Refusal` whose text says what is wrong and what to do. Runs on the main thread before the
//! shards start; afterwards soft limits are raised as far as the hard ones allow.
//!
//! Absent on purpose: a judgement by kernel version. Distributions carry features back and
//! containers take them away, so each feature that the driver needs is tried.
#![allow(unsafe_code)]

mod io_uring;
mod port;

use std::io;
use std::net::SocketAddr;

pub use io_uring::kernel;
pub use port::port;

/// Locked memory that glommio 0.9 wants as the soft limit of each process, whatever its
/// privileges.
const LOCKED_BYTES_MIN: u64 = 512 * 1024;

/// With fewer connections than this an ingest engine is of no use.
const CONNECTIONS_MIN: u64 = 64;

/// Why the engine cannot start on this machine, and the remedy.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum Refusal {
    #[error(
        "io_uring is switched off on this machine (kernel.io_uring_disabled = {value}): \
         `sysctl kernel.io_uring_disabled=0` allows it to everyone, 1 to privileged processes and \
         to the group in kernel.io_uring_group"
    )]
    Disabled { value: u8 },
    #[error(
        "a seccomp filter forbids io_uring, as the default profiles of container runtimes do: \
         start the container with `--security-opt seccomp=unconfined`, or with a profile that \
         allows io_uring_setup, io_uring_enter and io_uring_register"
    )]
    Filtered,
    #[error(
        "the kernel forbids io_uring to this process ({source}): look for a security module \
         (SELinux, AppArmor, Landlock) that denies it in the audit log"
    )]
    Forbidden { source: io::Error },
    #[error(
        "this kernel ({release}) has no io_uring: Linux 6.1 or newer is needed, \
         built with CONFIG_IO_URING (sandboxes like gVisor have none either)"
    )]
    Absent { release: String },
    #[error(
        "this kernel ({release}) is too old: its io_uring lacks {lacks}; \
         Linux 6.1 or newer is needed"
    )]
    Old { release: String, lacks: &'static str },
    #[error("io_uring cannot be set up: {source}")]
    Setup { source: io::Error },
    #[error(
        "the limit of locked memory is {limit} bytes and {needed} are needed: `ulimit -l \
         {kilobytes}`, LimitMEMLOCK={needed} in the systemd unit, \
         `docker run --ulimit memlock={needed}`", kilobytes = needed / 1024
    )]
    LockedMemory { limit: u64, needed: u64 },
    #[error(
        "the limit of open files is {limit}, which leaves no room for {CONNECTIONS_MIN} \
         connections beside {others} files: `ulimit -n {wanted}`, LimitNOFILE={wanted} in the \
         systemd unit, `docker run --ulimit nofile={wanted}`"
    )]
    OpenFiles { limit: u64, others: u64, wanted: u64 },
    #[error("the limits of this process cannot be read: {source}")]
    Limits { source: io::Error },
    #[error("port {} of {address} is taken{holder}: stop what listens there, or choose another address with {option}", address.port())]
    PortTaken { address: SocketAddr, holder: String, option: &'static str },
    #[error(
        "port {} needs a privilege: choose one above 1023 with {option}, or grant \
         CAP_NET_BIND_SERVICE", address.port()
    )]
    PortPrivileged { address: SocketAddr, option: &'static str },
    #[error("{} is no address of this machine: choose one of its own, or 0.0.0.0 for all, with {option}", address.ip())]
    AddressUnknown { address: SocketAddr, option: &'static str },
    #[error("{address} ({option}) cannot be listened on: {source}")]
    Listen { address: SocketAddr, option: &'static str, source: io::Error },
}

/// How many files the process may open after the soft limit was raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFiles {
    /// The soft limit now.
    pub limit: u64,
    /// Connections that fit; at most as many as were asked for.
    pub connections: u64,
    /// What to print where fewer fit than were asked for.
    pub warning: Option<String>,
}

/// Raises the soft limit of locked memory to the hard one and holds it against what the executors
/// want.
pub fn locked_memory() -> Result<(), Refusal> {
    match raise(libc::RLIMIT_MEMLOCK)? {
        limit if limit < LOCKED_BYTES_MIN => {
            Err(Refusal::LockedMemory { limit, needed: LOCKED_BYTES_MIN })
        }
        _ => Ok(()),
    }
}

/// Raises the soft limit of open files to the hard one and says how many of `connections_max` fit
/// beside `others`, the files and sockets that the engine needs for itself.
pub fn open_files(connections_max: u64, others: u64) -> Result<OpenFiles, Refusal> {
    judge_files(raise(libc::RLIMIT_NOFILE)?, connections_max, others)
}

fn judge_files(limit: u64, connections_max: u64, others: u64) -> Result<OpenFiles, Refusal> {
    let wanted = connections_max.saturating_add(others);
    let fit = limit.saturating_sub(others);
    if fit < connections_max.min(CONNECTIONS_MIN) {
        return Err(Refusal::OpenFiles { limit, others, wanted });
    }
    let warning = (fit < connections_max).then(|| {
        format!(
            "the limit of open files is {limit}: {fit} connections fit, not {connections_max}; \
             `ulimit -n {wanted}` (LimitNOFILE= in a systemd unit) makes room"
        )
    });
    Ok(OpenFiles { limit, connections: fit.min(connections_max), warning })
}

/// What to print where an address can be reached from other machines: there is no authentication.
pub fn exposure(listeners: &[(&str, SocketAddr)]) -> Option<String> {
    let open: Vec<String> = listeners
        .iter()
        .filter(|(_, address)| !address.ip().to_canonical().is_loopback())
        .map(|(name, address)| format!("{name} on {address}"))
        .collect();
    (!open.is_empty()).then(|| {
        format!(
            "{}: whoever reaches this address may publish and read everything, for there is no \
             authentication yet; keep it behind a firewall",
            open.join(", ")
        )
    })
}

type Resource = libc::__rlimit_resource_t;

/// Raises the soft limit to the hard one, and says what it is then.
fn raise(resource: Resource) -> Result<u64, Refusal> {
    let failed = || Refusal::Limits { source: io::Error::last_os_error() };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit to a place that is one, and keeps no reference.
    if unsafe { libc::getrlimit(resource, &mut limit) } != 0 {
        return Err(failed());
    }
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
        // SAFETY: the kernel reads one rlimit and keeps no reference.
        if unsafe { libc::setrlimit(resource, &raised) } == 0 {
            limit = raised;
        }
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_limit_is_judged_by_what_fits() {
        let check = |limit: u64, connections: u64, expected: &str| {
            let shown = match judge_files(limit, connections, 100) {
                Ok(files) => format!("{} {}", files.connections, files.warning.unwrap_or_default()),
                Err(refusal) => refusal.to_string(),
            };
            assert!(shown.starts_with(expected), "{shown:?} does not start with {expected:?}");
        };
        check(20_000, 10_000, "10000 ");
        check(1_024, 10_000, "924 the limit of open files is 1024: 924 connections fit, not 10000");
        check(163, 10_000, "the limit of open files is 163, which leaves no room for 64");
        check(90, 10, "the limit of open files is 90");
        check(110, 10, "10 ");
        check(libc::RLIM_INFINITY, 10_000, "10000 ");
    }

    #[test]
    fn limits_are_raised_to_the_hard_ones() {
        let first = raise(libc::RLIMIT_NOFILE).unwrap();
        assert_eq!(raise(libc::RLIMIT_NOFILE).unwrap(), first);
        let files = open_files(10, 10).unwrap();
        assert_eq!((files.connections, files.warning), (10, None));
    }

    #[test]
    fn locked_memory_is_refused_with_the_remedy() {
        let refusal = Refusal::LockedMemory { limit: 65_536, needed: LOCKED_BYTES_MIN };
        assert!(refusal.to_string().contains("`ulimit -l 512`"), "{refusal}");
    }

    #[test]
    fn only_addresses_that_others_reach_are_warned_of() {
        let check = |address: &str, expected: bool| {
            let warning = exposure(&[("MQTT", address.parse().unwrap())]);
            assert_eq!(warning.is_some(), expected, "{address}");
        };
        check("127.0.0.1:1883", false);
        check("127.9.0.1:1883", false);
        check("[::1]:1883", false);
        check("[::ffff:127.0.0.1]:1883", false);
        check("0.0.0.0:1883", true);
        check("[::]:1883", true);
        check("192.168.1.4:1883", true);
    }
}
