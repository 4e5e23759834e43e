//! What the process under test has used, and what the host took from the machine.
//!
//! In: a process id. Out: CPU time and memory from /proc. Read at the edges of a measurement only.

use std::fs;
use std::io;
use std::path::PathBuf;

/// CPU time and memory of a process at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// On-CPU time of every thread that lives, by thread id.
    threads: Vec<(u64, u64)>,
    /// User and system time of the process, ended threads included, in coarse steps.
    coarse_ns: u64,
    /// Resident memory now.
    pub rss_bytes: u64,
    /// Its peak.
    pub rss_peak_bytes: u64,
}

/// Reads the usage of `pid`.
///
/// # Errors
/// When the process is gone or not ours to look at.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let mut threads = Vec::new();
    for entry in fs::read_dir(folder.join("task"))? {
        let path = entry?.path();
        let id = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok());
        // A thread may end while we look.
        if let (Some(id), Ok(text)) = (id, fs::read_to_string(path.join("schedstat"))) {
            threads.push((id, first_number(&text)));
        }
    }
    threads.sort_unstable();
    let status = fs::read_to_string(folder.join("status"))?;
    Ok(Usage {
        threads,
        coarse_ns: coarse_ns(&fs::read_to_string(folder.join("stat"))?),
        rss_bytes: status_bytes(&status, "VmRSS:"),
        rss_peak_bytes: status_bytes(&status, "VmHWM:"),
    })
}

/// CPU time between two looks: exact (schedstat) while no thread ended, else in steps of 10 ms.
pub fn cpu_ns_between(before: &Usage, after: &Usage) -> u64 {
    let time_in = |usage: &Usage, id: u64| {
        usage.threads.binary_search_by_key(&id, |t| t.0).ok().map(|i| usage.threads[i].1)
    };
    let ended = before.threads.iter().any(|t| time_in(after, t.0).is_none());
    if ended || after.threads.iter().all(|t| t.1 == 0) {
        return after.coarse_ns.saturating_sub(before.coarse_ns);
    }
    let spent = |t: &(u64, u64)| t.1.saturating_sub(time_in(before, t.0).unwrap_or(0));
    after.threads.iter().map(spent).sum()
}

/// Time that the host gave to others while this machine wanted it, all CPUs together.
pub fn steal_ns() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let steal = stat.lines().next().and_then(|line| line.split_whitespace().nth(8));
    steal.and_then(|s| s.parse::<u64>().ok()).unwrap_or(0) * TICK_NS
}

/// CPU time as a share of what all CPUs have in `wall_ns`.
pub fn share_of_cpus(cpu_ns: u64, wall_ns: u64) -> f64 {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let online = fs::read_to_string("/proc/stat").map_or(0, |stat| cpu_lines(&stat));
    // The affinity of the calling thread, which may be pinned, is not the machine.
    cpu_ns as f64 / (wall_ns.max(1) as f64 * cpus.max(online) as f64)
}

fn cpu_lines(stat: &str) -> usize {
    let numbered = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    stat.lines().filter(numbered).count()
}

/// USER_HZ is 100 on every Linux that Rust runs on.
const TICK_NS: u64 = 10_000_000;

/// utime and stime of /proc/PID/stat; the name before them may hold spaces and brackets.
fn coarse_ns(stat: &str) -> u64 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.filter_map(|t| t.parse::<u64>().ok()).sum::<u64>() * TICK_NS
}

fn status_bytes(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    first_number(line) * 1024
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_usage_grows() {
        let before = usage(std::process::id()).unwrap();
        let start = std::time::Instant::now();
        while start.elapsed() < std::time::Duration::from_millis(30) {
            std::hint::spin_loop();
        }
        let after = usage(std::process::id()).unwrap();
        assert!(cpu_ns_between(&before, &after) > 0);
        assert!(after.rss_peak_bytes >= after.rss_bytes && after.rss_bytes > 0);
    }

    #[test]
    fn threads_that_end_make_it_coarse() {
        let at = |threads: &[(u64, u64)], coarse_ns| Usage {
            threads: threads.to_vec(),
            coarse_ns,
            rss_bytes: 0,
            rss_peak_bytes: 0,
        };
        let before = at(&[(1, 100), (2, 50)], 0);
        assert_eq!(cpu_ns_between(&before, &at(&[(1, 150), (2, 51), (3, 7)], 10)), 58);
        assert_eq!(cpu_ns_between(&before, &at(&[(1, 150), (3, 7)], 10_000_000)), 10_000_000);
    }

    #[test]
    fn cpus_are_counted_without_their_sum() {
        assert_eq!(cpu_lines("cpu  9 0 9\ncpu0 4 0 4\ncpu1 5 0 5\nintr 7\n"), 2);
        assert!(share_of_cpus(1, 1) <= 1.0);
    }

    #[test]
    fn names_with_brackets() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 3 4 0 0 20 0 1 0 5";
        assert_eq!(coarse_ns(stat), 70_000_000);
    }
}
