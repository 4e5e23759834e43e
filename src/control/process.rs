//! What the kernel says about this process: processor time, memory, open files.

use std::fs;

/// A reading; what cannot be read is absent.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// User and system time, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open files.
    pub open_fds: Option<u64>,
    /// The soft limit of open files; absent when there is none.
    pub max_fds: Option<u64>,
}

/// proc(5) counts in USER_HZ, which is 100 on every architecture that this builds for.
const TICKS_A_SECOND: f64 = 100.0;

impl Process {
    pub(super) fn read() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).ok();
        let status = read("status").unwrap_or_default();
        let status_number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        Self {
            cpu_seconds: read("stat").and_then(|stat| cpu_seconds(&stat)),
            resident_bytes: status_number("VmRSS:").map(|kilobytes| kilobytes * 1024),
            threads: status_number("Threads:"),
            // Reading the directory opens one more.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as u64 - 1),
            max_fds: read("limits").and_then(|limits| max_fds(&limits)),
        }
    }
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name in parentheses may hold spaces; utime and stime are fields 14 and 15, and the
    // fields after the name begin with number 3.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_A_SECOND)
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_does_not_shift_the_fields() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 12 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
    }

    #[test]
    fn limits_are_read() {
        let check = |soft: &str, expected| {
            let limits = format!("Limit  Soft  Hard  Units\nMax open files  {soft}  9 files\n");
            assert_eq!(max_fds(&limits), expected);
        };
        check("1024", Some(1024));
        check("unlimited", None);
    }

    #[test]
    fn this_process_can_be_read() {
        let process = Process::read();
        assert!(process.cpu_seconds.is_some());
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 1 << 20));
        assert!(process.threads.is_some_and(|threads| threads > 0));
        assert!(process.open_fds.is_some_and(|fds| fds >= 3));
    }
}
