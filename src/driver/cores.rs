//! Which cores this process may use, and what runs where.
//!
//! In: what the operator asks for, the affinity mask, the cgroup's CPU quota and cpuset, the
//! topology in sysfs. Out: one core for each shard, the cores for the control thread, and notes for
//! people. Runs once, on the main thread, before the shards start; `tidegate cores` prints it. Files
//! are read below a root that tests replace by a made-up machine.
//!
//! `auto` gives each physical core a shard before any core gets a second one, fast cores before slow
//! ones, and *packs* NUMA nodes: the disk's node is filled first where the kernel knows it, else the
//! node with the most cores to use, then what is nearest to it. Packed, because shards talk to all
//! other shards (connections change shards after CONNECT, records after partitioning) and to one
//! disk, while a shard's own memory is on its own node wherever it runs; what spreading would gain,
//! the memory bandwidth of further nodes, is not what ends an ingest shard. Where every core gets a
//! shard the order is all that is left of this.
//!
//! More shards than cores share them in turn (for tests). A quota is rounded down: a shard more than
//! it holds would have the kernel stop all of them, again and again, when the load is highest.
//!
//! Absent on purpose: the node of the network card (a machine has several, and an address names
//! none), caches within a node, and choosing cores that other processes leave idle: who shares a
//! machine says so with a mask, a cpuset or `--cores`.
#![allow(unsafe_code)]

mod cgroup;
mod disk_node;
mod machine;
mod set;

#[cfg(test)]
pub(crate) mod samples;

use std::io;

pub use cgroup::Quota;
pub use machine::{Class, Machine, Node};
pub use set::CoreSet;

/// What the operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Exactly these, in the order of the shards; without them the machine decides (`auto`).
    pub cores: Option<Vec<usize>>,
    /// How many shards; without it as many as there are cores to use.
    pub shards: Option<u32>,
    /// A shard without a partition has nothing to do: at most so many.
    pub partitions: Option<u32>,
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

impl Layout {
    /// The cores in the order of the shards, those that follow one another as a range: "4-7,0".
    pub fn cores(&self) -> String {
        let runs = self.shards.chunk_by(|core, next| core + 1 == *next);
        let shown = runs.map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            other => other.iter().map(usize::to_string).collect(),
        });
        shown.collect::<Vec<_>>().join(",")
    }
}

/// Why no layout can be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum Error {
    #[error("this machine has no core {cores}; it has {present}")]
    NoSuchCore { cores: CoreSet, present: CoreSet },
    #[error(
        "core {cores} is offline: choose among {online}, or switch it on (write 1 to \
         /sys/devices/system/cpu/cpuN/online)"
    )]
    Offline { cores: CoreSet, online: CoreSet },
    #[error(
        "core {cores} exists, but this process may only use {allowed} (affinity mask or cpuset): \
         choose among these, or widen the mask (taskset, docker --cpuset-cpus, systemd CPUAffinity=)"
    )]
    NotAllowed { cores: CoreSet, allowed: CoreSet },
    #[error("0 shards cannot take anything in: ask for 1 or more, or leave the number out")]
    NoShards,
    #[error("the kernel does not say which cores this process may use (sched_getaffinity)")]
    NoMask,
    #[error("this thread cannot be moved to core {core}: {source}")]
    Pin { core: CoreSet, source: io::Error },
}

/// Lays out what is wanted on `machine`.
///
/// # Errors
/// Cores that are not there or not this process's to use, and 0 shards.
pub fn plan(machine: &Machine, wanted: &Wanted) -> Result<Layout, Error> {
    if wanted.shards == Some(0) {
        return Err(Error::NoShards);
    }
    let mut notes = Vec::new();
    let order = match &wanted.cores {
        None => machine.by_preference(),
        Some(cores) => explicit(machine, cores)?,
    };
    let asked = match wanted.shards {
        Some(shards) => shards as usize,
        None if wanted.cores.is_some() => order.len(),
        None => automatic(machine, &mut notes),
    };
    let count = wanted.partitions.map_or(asked, |partitions| asked.min(partitions as usize));
    if count < asked {
        notes.push(format!("{count} partitions: only {count} of {asked} shards are started"));
    }
    let chosen: Vec<usize> = order.iter().copied().cycle().take(count).collect();
    if wanted.cores.is_none() && wanted.shards.is_none() {
        note_what_is_left(machine, &chosen, &mut notes);
    }
    if count > order.len() {
        let (have, s) = (order.len(), plural(order.len()));
        notes.push(format!("{count} shards take turns on {have} core{s}: good for tests only"));
    }
    note_what_is_shared(machine, &chosen, &mut notes);
    let control = control(machine, &chosen, &mut notes);
    Ok(Layout { shards: chosen, control, notes })
}

/// The cores in the affinity mask of the calling thread.
pub fn allowed() -> Result<CoreSet, Error> {
    let ids = core_affinity::get_core_ids().ok_or(Error::NoMask)?;
    Ok(ids.into_iter().map(|core| core.id).collect())
}

/// As many shards as there are physical cores to use, and as the quota lets run all the time.
fn automatic(machine: &Machine, notes: &mut Vec<String>) -> usize {
    let physical = machine.physical_count();
    let Some(quota) = machine.quota.filter(|quota| quota.whole_cores() < physical) else {
        return physical;
    };
    let count = quota.whole_cores();
    notes.push(format!(
        "the cgroup's CPU quota of {quota} is enough for {count} shard{}, of the {physical} that the \
         cores would carry",
        plural(count)
    ));
    count
}

/// The cores that were named, in that order, once it is known that they can be used.
fn explicit(machine: &Machine, cores: &[usize]) -> Result<Vec<usize>, Error> {
    let outside = |of: &CoreSet| -> CoreSet {
        cores.iter().copied().filter(|core| !of.contains(*core)).collect()
    };
    let missing = outside(&machine.present);
    if !missing.is_empty() {
        return Err(Error::NoSuchCore { cores: missing, present: machine.present.clone() });
    }
    let offline = outside(&machine.online);
    if !offline.is_empty() {
        return Err(Error::Offline { cores: offline, online: machine.online.clone() });
    }
    let isolated = machine.isolated_for_the_asking();
    let denied: CoreSet =
        outside(&machine.allowed).iter().filter(|core| !isolated.contains(*core)).collect();
    if !denied.is_empty() {
        return Err(Error::NotAllowed { cores: denied, allowed: machine.allowed.clone() });
    }
    Ok(cores.to_vec())
}

/// Says which threads `auto` did not take, and how to have them.
fn note_what_is_left(machine: &Machine, chosen: &[usize], notes: &mut Vec<String>) {
    let taken = |core: usize| machine.siblings(core).iter().any(|s| chosen.contains(&s));
    let left: CoreSet =
        machine.allowed.iter().filter(|core| !chosen.contains(core) && taken(*core)).collect();
    // Where a quota or the partitions end the layout before, it is not for siblings' sake.
    if !left.is_empty() && chosen.len() == machine.physical_count() {
        notes.push(format!(
            "no shards on sibling{} {left}, as two on a physical core share its speed; --shards {} \
             takes them too",
            plural(left.len()),
            machine.allowed.len()
        ));
    }
    let isolated = machine.isolated_for_the_asking();
    if !isolated.is_empty() {
        notes.push(format!(
            "isolated and outside of the affinity mask: {isolated}; --cores {isolated} takes them"
        ));
    }
}

/// Says where shards get less than a core.
fn note_what_is_shared(machine: &Machine, chosen: &[usize], notes: &mut Vec<String>) {
    let cores: CoreSet = chosen.iter().copied().collect();
    let shares =
        |core: &usize| machine.siblings(*core).iter().any(|s| s != *core && cores.contains(s));
    let paired: CoreSet = cores.iter().filter(shares).collect();
    if !paired.is_empty() {
        notes.push(format!("the shards on {paired} share physical cores with each other"));
    }
    let slow: CoreSet = cores.iter().filter(|core| machine.class(*core) > 0).collect();
    if !slow.is_empty() && slow.len() < cores.len() {
        let fast: CoreSet = cores.iter().filter(|core| !slow.contains(*core)).collect();
        notes.push(format!(
            "shards on slower cores: {slow}; every shard gets an equal part of the load, so these \
             set the pace; --cores {fast} leaves them out"
        ));
    }
    if let Some(quota) = machine.quota.filter(|quota| quota.is_less_than(cores.len())) {
        notes.push(format!(
            "busy shards on {} core{} spend more than the CPU quota of {quota}: the kernel then stops \
             them until the quota's next period",
            cores.len(),
            plural(cores.len())
        ));
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Cores without a shard, best those whose physical core has none either; else all. Isolated cores
/// only where there are no others.
fn control(machine: &Machine, chosen: &[usize], notes: &mut Vec<String>) -> CoreSet {
    let free: CoreSet = machine.allowed.iter().filter(|core| !chosen.contains(core)).collect();
    let apart = |core: &usize| !machine.siblings(*core).iter().any(|s| chosen.contains(&s));
    let ordinary = |core: &usize| !machine.isolated.contains(*core);
    let narrowed = |cores: &CoreSet, keep: &dyn Fn(&usize) -> bool| {
        let kept: CoreSet = cores.iter().filter(keep).collect();
        if kept.is_empty() { cores.clone() } else { kept }
    };
    if free.is_empty() {
        notes.push("every core has a shard: the control thread runs beside them".to_owned());
        return narrowed(&machine.allowed, &ordinary);
    }
    narrowed(&narrowed(&free, &ordinary), &apart)
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
    use super::samples::{hybrid, node, plain, set, two_sockets, with_pairs, with_quota};
    use super::*;

    fn auto(shards: Option<u32>) -> Wanted {
        Wanted { shards, ..Wanted::default() }
    }

    fn named(cores: &[usize], shards: Option<u32>) -> Wanted {
        Wanted { cores: Some(cores.to_vec()), shards, partitions: None }
    }

    /// `expected` is the whole layout, notes after it.
    fn check(machine: &Machine, wanted: &Wanted, expected: &str) {
        let found = match plan(machine, wanted) {
            Ok(layout) => {
                let notes: String = layout.notes.iter().map(|note| format!("\n{note}")).collect();
                format!("[{}] control {}{notes}", layout.cores(), layout.control)
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{wanted:?}");
    }

    const BESIDE: &str = "every core has a shard: the control thread runs beside them";

    #[test]
    fn physical_cores_come_first() {
        let smt = with_pairs("0-7", &["0,4", "1,5", "2,6", "3,7"]);
        check(
            &smt,
            &auto(None),
            "[0-3] control 4-7\nno shards on siblings 4-7, as two on a physical \
             core share its speed; --shards 8 takes them too",
        );
        check(&smt, &auto(Some(2)), "[0-1] control 2-3,6-7");
        check(
            &smt,
            &auto(Some(5)),
            "[0-4] control 5-7\n\
             the shards on 0,4 share physical cores with each other",
        );
        check(&smt, &auto(Some(0)), &Error::NoShards.to_string());
    }

    #[test]
    fn more_shards_than_cores_take_turns() {
        let two = plain("0-1");
        let note = "good for tests only";
        check(
            &two,
            &auto(Some(4)),
            &format!("[0-1,0-1] control 0-1\n4 shards take turns on 2 cores: {note}\n{BESIDE}"),
        );
        check(
            &two,
            &named(&[1], Some(3)),
            &format!("[1,1,1] control 0\n3 shards take turns on 1 core: {note}"),
        );
        // Siblings are cores too, before any core gets two shards.
        let smt = with_pairs("0-1", &["0-1"]);
        let shared = "the shards on 0-1 share physical cores with each other";
        check(&smt, &auto(Some(2)), &format!("[0-1] control 0-1\n{shared}\n{BESIDE}"));
    }

    #[test]
    fn no_more_shards_than_partitions_are_started() {
        let wanted = Wanted { partitions: Some(2), ..auto(None) };
        let note = "2 partitions: only 2 of 4 shards are started";
        check(&plain("0-3"), &wanted, &format!("[0-1] control 2-3\n{note}"));
        let wanted = Wanted { partitions: Some(8), ..auto(Some(2)) };
        check(&plain("0-3"), &wanted, "[0-1] control 2-3");
        let smt = with_pairs("0-7", &["0,4", "1,5", "2,6", "3,7"]);
        let wanted = Wanted { partitions: Some(2), ..auto(None) };
        check(&smt, &wanted, &format!("[0-1] control 2-3,6-7\n{note}"));
    }

    #[test]
    fn the_mask_is_obeyed() {
        let pairs = ["0,4", "1,5", "2,6", "3,7"];
        let masked = Machine { allowed: set("3,5-6"), ..with_pairs("0-7", &pairs) };
        check(&masked, &auto(None), &format!("[3,5-6] control 3,5-6\n{BESIDE}"));
        let refused = |cores| {
            let (cores, allowed) = (set(cores), set("3,5-6"));
            Error::NotAllowed { cores, allowed }.to_string()
        };
        check(&masked, &named(&[5, 7], None), &refused("7"));
        check(&masked, &named(&[5, 9, 10], None), "this machine has no core 9-10; it has 0-7");
        check(&masked, &named(&[6, 3], None), "[6,3] control 5");
        check(&masked, &named(&[6, 3], Some(1)), "[6] control 3,5");
        let sleeping = Machine { allowed: set("0-2"), online: set("0-2"), ..plain("0-3") };
        let offline = Error::Offline { cores: set("3"), online: set("0-2") }.to_string();
        check(&sleeping, &named(&[2, 3], None), &offline);
    }

    #[test]
    fn isolated_cores_are_for_who_names_them() {
        let mut machine = Machine { allowed: set("0-1"), isolated: set("2-5"), ..plain("0-5") };
        check(
            &machine,
            &auto(None),
            &format!(
                "[0-1] control 0-1\nisolated and outside of the affinity mask: 2-5; \
                 --cores 2-5 takes them\n{BESIDE}"
            ),
        );
        check(&machine, &named(&[2, 3, 4, 5], None), "[2-5] control 0-1");
        machine.cpuset = Some(set("0-3"));
        let refused = Error::NotAllowed { cores: set("4-5"), allowed: set("0-1") }.to_string();
        check(&machine, &named(&[2, 3, 4, 5], None), &refused);
        // A mask that has them: the control thread keeps off.
        let wide = Machine { isolated: set("2-5"), ..plain("0-5") };
        check(&wide, &named(&[2, 3], None), "[2-3] control 0-1");
    }

    #[test]
    fn the_quota_bounds_what_is_automatic_and_is_named_otherwise() {
        let enough = |quota: &str, shards: &str| {
            format!(
                "the cgroup's CPU quota of {quota} is enough for {shards}, of the 4 that the cores \
                 would carry"
            )
        };
        let spent = |cores: &str, quota: &str| {
            format!(
                "busy shards on {cores} spend more than the CPU quota of {quota}: the kernel then \
                 stops them until the quota's next period"
            )
        };
        let note = enough("2 CPUs", "2 shards");
        check(&with_quota(2000), &auto(None), &format!("[0-1] control 2-3\n{note}"));
        let note = enough("1.5 CPUs", "1 shard");
        check(&with_quota(1500), &auto(None), &format!("[0] control 1-3\n{note}"));
        let notes = format!("{}\n{}", enough("0.5 CPUs", "1 shard"), spent("1 core", "0.5 CPUs"));
        check(&with_quota(500), &auto(None), &format!("[0] control 1-3\n{notes}"));
        let note = spent("3 cores", "2 CPUs");
        check(&with_quota(2000), &named(&[0, 1, 2], None), &format!("[0-2] control 3\n{note}"));
        check(&with_quota(2000), &auto(Some(3)), &format!("[0-2] control 3\n{note}"));
        check(&with_quota(4000), &auto(None), &format!("[0-3] control 0-3\n{BESIDE}"));
    }

    #[test]
    fn fast_cores_come_before_slow_ones() {
        let hybrid = hybrid();
        check(&hybrid, &auto(Some(2)), "[0,2] control 4-7");
        let slower = "shards on slower cores: 4-7; every shard gets an equal part of the load, so these \
                      set the pace; --cores 0,2 leaves them out";
        let left = "no shards on siblings 1,3, as two on a physical core share its speed; \
                    --shards 8 takes them too";
        check(&hybrid, &auto(None), &format!("[0,2,4-7] control 1,3\n{left}\n{slower}"));
        check(&hybrid, &named(&[4, 5], None), "[4-5] control 0-3,6-7");
    }

    #[test]
    fn nodes_are_packed_the_disks_first() {
        let mut sockets = two_sockets();
        check(&sockets, &auto(Some(3)), "[0-2] control 3-7,11-15");
        check(&sockets, &auto(Some(6)), "[0-5] control 6-7,14-15");
        sockets.disk_node = Some(1);
        check(&sockets, &auto(Some(3)), "[4-6] control 0-3,7-11,15");
        check(&sockets, &auto(Some(6)), "[4-7,0-1] control 2-3,10-11");
        // Named cores stay where they were named.
        check(&sockets, &named(&[0, 4], None), "[0,4] control 1-3,5-7,9-11,13-15");
        // The node of which the mask leaves the most.
        sockets.disk_node = None;
        sockets.allowed = set("2-3,5-7");
        check(&sockets, &auto(Some(2)), "[5-6] control 2-3,7");
    }

    #[test]
    fn the_nearest_nodes_are_filled_next() {
        let far = [(0, 10), (1, 32), (2, 12)];
        let mut machine = plain("0-5");
        machine.nodes = vec![node(0, "0-1", &far), node(1, "2-3", &[]), node(2, "4-5", &[])];
        check(&machine, &auto(Some(4)), "[0-1,4-5] control 2-3");
        // The disk's node has no cores, as a mask may leave it: what is nearest to it comes first.
        machine.nodes.push(node(3, "", &[(0, 32), (1, 12), (2, 32), (3, 10)]));
        machine.disk_node = Some(3);
        check(&machine, &auto(Some(2)), "[2-3] control 0-1,4-5");
    }

    #[test]
    fn this_machine_has_a_layout_and_threads_can_be_moved() {
        let machine = Machine::here(std::path::Path::new("tidegate-data")).unwrap();
        let layout = plan(&machine, &Wanted::default()).unwrap();
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
