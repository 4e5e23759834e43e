//! Which cores this process may use, and what runs where.
//!
//! In: what the operator asks for, the affinity mask, the cgroup's CPU quota, the topology in
//! sysfs. Out: one core for each shard, the cores for the control thread, and notes for the start
//! banner. Runs once, on the main thread, before the shards start. Files are read below a root
//! that tests replace by a made-up machine.
//!
//! Absent on purpose: NUMA placement (shards share nothing, and memory is first touched by the
//! shard's own thread, so it comes from the core's own node).
#![allow(unsafe_code)]

mod machine;
mod set;

use std::io;
use std::path::Path;
use std::str::FromStr;

pub use machine::Machine;
pub use set::CoreSet;

/// Which cores the operator wants shards on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CoreRequest {
    /// Every physical core that the process may use, within its CPU quota.
    #[default]
    Auto,
    /// Exactly these.
    Explicit(CoreSet),
}

impl FromStr for CoreRequest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            list => list.parse().map(Self::Explicit),
        }
    }
}

impl std::fmt::Display for CoreRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Explicit(cores) => cores.fmt(f),
        }
    }
}

/// What runs where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The core of each shard, by `ShardId::index`.
    pub shards: Vec<usize>,
    /// The cores of the control thread: off the shards' cores where there is room. Never empty.
    pub control: CoreSet,
    /// Sentences for the start banner: what was left out, and why.
    pub notes: Vec<String>,
}

/// Why no layout can be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum Error {
    #[error(
        "\"{text}\" names no cores: write \"auto\", or core numbers and ranges like \"0,2-5\" ({why})"
    )]
    Syntax { text: String, why: &'static str },
    #[error("this machine has no core {cores}; it has {present}")]
    NoSuchCore { cores: CoreSet, present: CoreSet },
    #[error(
        "core {cores} exists, but this process may only use {allowed} (affinity mask or cpuset): \
         choose among these, or widen the mask (taskset, docker --cpuset-cpus, systemd CPUAffinity=)"
    )]
    NotAllowed { cores: CoreSet, allowed: CoreSet },
    #[error("{asked} shards need {asked} cores, and there are {have} ({cores}): ask for fewer")]
    TooManyShards { asked: u32, have: usize, cores: CoreSet },
    #[error("0 shards cannot take anything in: ask for 1 or more, or leave the number out")]
    NoShards,
    #[error("the kernel does not say which cores this process may use (sched_getaffinity)")]
    NoMask,
    #[error("this thread cannot be moved to core {core}: {source}")]
    Pin { core: CoreSet, source: io::Error },
}

/// Lays out `shards` shards, or as many as the cores asked for hold, on this machine.
pub fn plan(request: &CoreRequest, shards: Option<u32>) -> Result<Layout, Error> {
    lay_out(&Machine::read(Path::new("/"), allowed()?), request, shards)
}

/// The cores in the affinity mask of the calling thread.
pub fn allowed() -> Result<CoreSet, Error> {
    let ids = core_affinity::get_core_ids().ok_or(Error::NoMask)?;
    Ok(ids.into_iter().map(|core| core.id).collect())
}

/// As `plan`, for any machine.
pub fn lay_out(
    machine: &Machine,
    request: &CoreRequest,
    shards: Option<u32>,
) -> Result<Layout, Error> {
    if shards == Some(0) {
        return Err(Error::NoShards);
    }
    let mut notes = Vec::new();
    let chosen = match request {
        CoreRequest::Auto => automatic(machine, shards, &mut notes)?,
        CoreRequest::Explicit(cores) => explicit(machine, cores, shards)?,
    };
    note_what_is_shared(machine, &chosen, &mut notes);
    let control = control(machine, &chosen, &mut notes);
    Ok(Layout { shards: chosen, control, notes })
}

/// One thread of each physical core first, the fastest first, then their siblings if so many
/// shards were asked for.
fn automatic(
    machine: &Machine,
    shards: Option<u32>,
    notes: &mut Vec<String>,
) -> Result<Vec<usize>, Error> {
    let physical = machine.physical();
    let siblings: CoreSet =
        machine.allowed.iter().filter(|core| !physical.contains(core)).collect();
    let quota = machine.quota.unwrap_or(u32::MAX) as usize;
    let count = match shards {
        None => physical.len().min(quota),
        Some(asked) if asked as usize > machine.allowed.len() => {
            let (have, cores) = (machine.allowed.len(), machine.allowed.clone());
            return Err(Error::TooManyShards { asked, have, cores });
        }
        Some(asked) => asked as usize,
    };
    if shards.is_none() && count < physical.len() {
        notes.push(format!(
            "the cgroup's CPU quota is worth {quota} of {} cores: {count} shard{}",
            physical.len(),
            if count == 1 { "" } else { "s" },
        ));
    }
    let chosen: Vec<usize> = physical.into_iter().chain(siblings.iter()).take(count).collect();
    let left: CoreSet = siblings.iter().filter(|core| !chosen.contains(core)).collect();
    if shards.is_none() && !left.is_empty() {
        notes.push(format!("no shards on the sibling threads {left}: one a physical core"));
    }
    Ok(chosen)
}

fn explicit(machine: &Machine, cores: &CoreSet, shards: Option<u32>) -> Result<Vec<usize>, Error> {
    let missing: CoreSet = cores.iter().filter(|core| !machine.present.contains(*core)).collect();
    if !missing.is_empty() {
        return Err(Error::NoSuchCore { cores: missing, present: machine.present.clone() });
    }
    let denied: CoreSet = cores.iter().filter(|core| !machine.allowed.contains(*core)).collect();
    if !denied.is_empty() {
        return Err(Error::NotAllowed { cores: denied, allowed: machine.allowed.clone() });
    }
    let count = shards.map_or(cores.len(), |asked| asked as usize);
    if count > cores.len() {
        let asked = shards.unwrap_or_default();
        return Err(Error::TooManyShards { asked, have: cores.len(), cores: cores.clone() });
    }
    Ok(cores.iter().take(count).collect())
}

/// Says where shards get less than a core.
fn note_what_is_shared(machine: &Machine, chosen: &[usize], notes: &mut Vec<String>) {
    let paired: CoreSet = chosen
        .iter()
        .copied()
        .filter(|core| machine.siblings(*core).iter().any(|s| s != *core && chosen.contains(&s)))
        .collect();
    if !paired.is_empty() {
        notes.push(format!("the shards on {paired} share physical cores with each other"));
    }
    let slow: CoreSet = chosen.iter().copied().filter(|core| machine.is_slow(*core)).collect();
    if !slow.is_empty() {
        notes.push(format!("{slow} are efficiency cores, slower than the others"));
    }
    if let Some(quota) = machine.quota.filter(|quota| chosen.len() > *quota as usize) {
        notes.push(format!(
            "{} shards on a CPU quota of {quota}: the kernel will stop them all when it is spent; \
             ask for {quota} or raise the quota",
            chosen.len()
        ));
    }
}

/// Cores without a shard, best those whose physical core has none either; else all.
fn control(machine: &Machine, chosen: &[usize], notes: &mut Vec<String>) -> CoreSet {
    let free: CoreSet = machine.allowed.iter().filter(|core| !chosen.contains(core)).collect();
    let apart: CoreSet = free
        .iter()
        .filter(|core| !machine.siblings(*core).iter().any(|s| chosen.contains(&s)))
        .collect();
    if !apart.is_empty() {
        return apart;
    }
    if !free.is_empty() {
        return free;
    }
    notes.push("every core has a shard: the control thread runs beside them".to_owned());
    machine.allowed.clone()
}

/// Moves the calling thread to `core` for good.
pub fn pin(core: usize) -> Result<(), Error> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    Err(Error::Pin { core: CoreSet::from_iter([core]), source })
}

/// Lets the calling thread run on `cores` only; unlike `pin`, on any of them.
pub fn confine(cores: &CoreSet) -> Result<(), Error> {
    // SAFETY: cpu_set_t is an array of integers, for which all bits 0 is the empty set.
    let mut mask: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for core in cores.iter().filter(|core| *core < libc::CPU_SETSIZE as usize) {
        // SAFETY: `core` is below CPU_SETSIZE, the number of bits of the set.
        unsafe { libc::CPU_SET(core, &mut mask) };
    }
    // SAFETY: the kernel reads as many bytes as are said, all of them of `mask`, and keeps no
    // reference; thread 0 is the caller.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&mask), &mask) };
    if result == 0 {
        return Ok(());
    }
    Err(Error::Pin { core: cores.clone(), source: io::Error::last_os_error() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CoreSet {
        text.parse().unwrap()
    }

    /// `present` threads, of which `pairs` share physical cores and `slow` are efficiency cores.
    fn machine(allowed: &str, present: &str, pairs: &[&str], slow: &str) -> Machine {
        let groups = pairs.iter().map(|pair| set(pair)).collect();
        let slow = if slow.is_empty() { CoreSet::default() } else { set(slow) };
        Machine { allowed: set(allowed), present: set(present), groups, slow, quota: None }
    }

    fn check(machine: &Machine, request: &str, shards: Option<u32>, expected: &str) {
        let request: CoreRequest = request.parse().unwrap();
        let layout = match lay_out(machine, &request, shards) {
            Ok(layout) => format!(
                "{:?} control {} {}",
                layout.shards,
                layout.control,
                layout.notes.join("; ")
            ),
            Err(error) => error.to_string(),
        };
        assert!(layout.contains(expected), "{layout:?} does not contain {expected:?}");
    }

    #[test]
    fn physical_cores_come_first() {
        let smt = machine("0-7", "0-7", &["0,4", "1,5", "2,6", "3,7"], "");
        check(&smt, "auto", None, "[0, 1, 2, 3] control 4-7 no shards on the sibling threads 4-7");
        check(&smt, "auto", Some(2), "[0, 1] control 2-3,6-7 ");
        check(&smt, "auto", Some(5), "[0, 1, 2, 3, 4] control 5-7");
        check(&smt, "auto", Some(5), "the shards on 0,4 share physical cores");
        check(&smt, "auto", Some(9), "9 shards need 9 cores, and there are 8 (0-7)");
        check(&smt, "auto", Some(0), "0 shards");
    }

    #[test]
    fn the_mask_is_obeyed() {
        let masked = machine("3,5-6", "0-7", &["0,4", "1,5", "2,6", "3,7"], "");
        check(&masked, "auto", None, "[3, 5, 6] control 3,5-6 every core has a shard");
        check(&masked, "5,7", None, "core 7 exists, but this process may only use 3,5-6");
        check(&masked, "5,9-10", None, "this machine has no core 9-10; it has 0-7");
        check(&masked, "3,6", None, "[3, 6] control 5 ");
        check(&masked, "3,6", Some(1), "[3] control 5-6 ");
        check(&masked, "3,6", Some(3), "3 shards need 3 cores, and there are 2 (3,6)");
    }

    #[test]
    fn the_quota_bounds_what_is_automatic_and_is_named_otherwise() {
        let mut small = machine("0-3", "0-3", &[], "");
        small.quota = Some(2);
        check(&small, "auto", None, "[0, 1] control 2-3 the cgroup's CPU quota is worth 2 of 4");
        check(&small, "0-2", None, "3 shards on a CPU quota of 2");
    }

    #[test]
    fn fast_cores_come_before_slow_ones() {
        let hybrid = machine("0-5", "0-5", &["2,3", "4,5"], "0-1");
        check(&hybrid, "auto", Some(2), "[2, 4] control 0-1 ");
        check(&hybrid, "auto", None, "[2, 4, 0, 1] control 3,5");
        check(&hybrid, "auto", None, "0-1 are efficiency cores");
    }

    #[test]
    fn this_machine_has_a_layout_and_threads_can_be_moved() {
        let layout = plan(&CoreRequest::Auto, None).unwrap();
        assert!(!layout.shards.is_empty() && !layout.control.is_empty());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mask = allowed().unwrap();
                pin(layout.shards[0]).unwrap();
                assert_eq!(allowed().unwrap(), CoreSet::from_iter([layout.shards[0]]));
                confine(&mask).unwrap();
                assert_eq!(allowed().unwrap(), mask);
            });
        });
    }
}
