//! What the kernel says about the machine: topology from sysfs, CPU quota from the cgroups.
//!
//! Anything that cannot be read is taken as absent: no topology means that each thread is a core
//! of its own, no cgroup that there is no quota.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::CoreSet;

/// What the layout depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The hardware threads that the process may run on.
    pub(super) allowed: CoreSet,
    /// Those that exist.
    pub(super) present: CoreSet,
    /// The hardware threads of each physical core that has several.
    pub(super) groups: Vec<CoreSet>,
    /// Efficiency cores of a hybrid machine.
    pub(super) slow: CoreSet,
    /// The CPU quota in whole cores, rounded up.
    pub(super) quota: Option<u32>,
}

impl Machine {
    /// Reads the machine whose /sys and /proc lie below `root`; `allowed` is the affinity mask.
    pub fn read(root: &Path, allowed: CoreSet) -> Self {
        let cpu = root.join("sys/devices/system/cpu");
        let read_set = |path: PathBuf| read(&path).and_then(|text| text.parse::<CoreSet>().ok());
        let present = read_set(cpu.join("present")).unwrap_or_else(|| allowed.clone());
        let groups = groups(&cpu, &present);
        let atom = read_set(root.join("sys/devices/cpu_atom/cpus"));
        let slow = atom.unwrap_or_else(|| below_full_capacity(&cpu, &present));
        let quota = quota(root);
        Self { allowed, present, groups, slow, quota }
    }

    /// The hardware threads of the physical core that `core` belongs to, itself among them.
    pub(super) fn siblings(&self, core: usize) -> CoreSet {
        let group = self.groups.iter().find(|group| group.contains(core));
        group.cloned().unwrap_or_else(|| CoreSet::from_iter([core]))
    }

    /// Whether `core` is an efficiency core beside faster ones.
    pub(super) fn is_slow(&self, core: usize) -> bool {
        self.slow.contains(core) && self.slow.len() < self.present.len()
    }

    /// The first allowed thread of each physical core, fast cores first.
    pub(super) fn physical(&self) -> Vec<usize> {
        let first = |core: &usize| {
            self.siblings(*core).iter().find(|sibling| self.allowed.contains(*sibling))
                == Some(*core)
        };
        let mut cores: Vec<usize> = self.allowed.iter().filter(first).collect();
        cores.sort_by_key(|core| (self.is_slow(*core), *core));
        cores
    }
}

/// Threads that share a physical core, by `thread_siblings_list`, or where that is missing by
/// package and core number.
fn groups(cpu: &Path, present: &CoreSet) -> Vec<CoreSet> {
    let mut by_core: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for core in present.iter() {
        let topology = cpu.join(format!("cpu{core}/topology"));
        let siblings = read(&topology.join("thread_siblings_list"))
            .and_then(|text| text.parse::<CoreSet>().ok())
            .map(|siblings| siblings.to_string());
        let numbers = || {
            let package = read(&topology.join("physical_package_id"))?;
            Some(format!("{package}/{}", read(&topology.join("core_id"))?))
        };
        if let Some(key) = siblings.or_else(numbers) {
            by_core.entry(key).or_default().push(core);
        }
    }
    let several = by_core.into_values().filter(|threads| threads.len() > 1);
    several.map(CoreSet::from_iter).collect()
}

/// Arm and RISC-V: cores whose `cpu_capacity` is below the largest.
fn below_full_capacity(cpu: &Path, present: &CoreSet) -> CoreSet {
    let capacity = |core: usize| -> Option<u32> {
        read(&cpu.join(format!("cpu{core}/cpu_capacity")))?.parse().ok()
    };
    let largest = present.iter().filter_map(capacity).max();
    present.iter().filter(|core| capacity(*core).is_some_and(|c| Some(c) < largest)).collect()
}

/// The smallest quota of the process's cgroups and of all above them, in whole cores.
fn quota(root: &Path) -> Option<u32> {
    let mounts = read(&root.join("proc/self/mountinfo"))?;
    let memberships = read(&root.join("proc/self/cgroup"))?;
    let quotas = memberships.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let second = controllers.is_empty();
        if !second && !controllers.split(',').any(|name| name == "cpu") {
            return None;
        }
        let (mount, group) = locate(&mounts, second, path)?;
        smallest_quota(&root.join(mount.trim_start_matches('/')), &group, second)
    });
    quotas.min()
}

/// Where the hierarchy is mounted and what the cgroup is called below that mount.
fn locate(mounts: &str, second: bool, path: &str) -> Option<(String, String)> {
    for line in mounts.lines() {
        // proc(5): id parent major:minor root mount-point options … - type source super-options
        let (left, right) = line.split_once(" - ")?;
        let (left, right): (Vec<&str>, Vec<&str>) =
            (left.split(' ').collect(), right.split(' ').collect());
        let (Some(top), Some(mount), Some(kind)) = (left.get(3), left.get(4), right.first()) else {
            continue;
        };
        let options = right.get(2).copied().unwrap_or_default();
        let matches = match second {
            true => *kind == "cgroup2",
            false => *kind == "cgroup" && options.split(',').any(|option| option == "cpu"),
        };
        if matches {
            // In a container the mount may show a part of the hierarchy only; a path outside of
            // it means that the mount's own top is what we are in.
            let below = path.strip_prefix(top.trim_end_matches('/')).unwrap_or_default();
            return Some(((*mount).to_owned(), below.to_owned()));
        }
    }
    None
}

/// Walks from the cgroup up to the mount: a parent's quota binds too.
fn smallest_quota(mount: &Path, group: &str, second: bool) -> Option<u32> {
    let group = Path::new(group.trim_start_matches('/'));
    let levels = group.ancestors().map(|level| mount.join(level));
    levels.filter_map(|level| if second { quota_v2(&level) } else { quota_v1(&level) }).min()
}

/// `cpu.max`: "max 100000" or "150000 100000".
fn quota_v2(group: &Path) -> Option<u32> {
    let text = read(&group.join("cpu.max"))?;
    let (quota, period) = text.split_once(' ')?;
    whole_cores(quota.parse().ok()?, period.parse().ok()?)
}

/// `cpu.cfs_quota_us` (-1 for none) over `cpu.cfs_period_us`.
fn quota_v1(group: &Path) -> Option<u32> {
    let quota: i64 = read(&group.join("cpu.cfs_quota_us"))?.parse().ok()?;
    let period = read(&group.join("cpu.cfs_period_us"))?.parse().ok()?;
    whole_cores(u64::try_from(quota).ok()?, period)
}

fn whole_cores(quota_us: u64, period_us: u64) -> Option<u32> {
    let cores = quota_us.checked_div(period_us)? + u64::from(!quota_us.is_multiple_of(period_us));
    Some(u32::try_from(cores.max(1)).unwrap_or(u32::MAX))
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    const V1: &str = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        root
    }

    fn machine(allowed: &str, files: &[(&str, &str)]) -> Machine {
        Machine::read(tree(files).path(), allowed.parse().unwrap())
    }

    #[test]
    fn quotas_are_found_in_either_hierarchy_and_above() {
        let check = |files: &[(&str, &str)], expected: Option<u32>| {
            assert_eq!(machine("0-7", files).quota, expected, "{files:?}");
        };
        let (mounts, group) = ("proc/self/mountinfo", "proc/self/cgroup");
        let own = "sys/fs/cgroup/a/b/cpu.max";
        check(&[(mounts, V2), (group, "0::/a/b"), (own, "max 100000")], None);
        check(&[(mounts, V2), (group, "0::/a/b"), (own, "150000 100000")], Some(2));
        check(&[(mounts, V2), (group, "0::/a/b"), (own, "5000 100000")], Some(1));
        let above = ("sys/fs/cgroup/a/cpu.max", "300000 100000");
        check(&[(mounts, V2), (group, "0::/a/b"), (own, "800000 100000"), above], Some(3));
        let first = "2:cpu,cpuacct:/x\n1:memory:/m\n0::/";
        let quota = "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us";
        let period = ("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "50000");
        check(&[(mounts, V1), (group, first), (quota, "100001"), period], Some(3));
        check(&[(mounts, V1), (group, first), (quota, "-1"), period], None);
        // A container that sees its own cgroup mounted as the top.
        let bind = V2.replace("0:26 /", "0:26 /docker/c");
        let top = ("sys/fs/cgroup/cpu.max", "200000 100000");
        check(&[(mounts, &bind), (group, "0::/docker/c"), top], Some(2));
        check(&[(mounts, &bind), (group, "0::/../other"), top], Some(2));
        check(&[], None);
    }

    #[test]
    fn siblings_are_found_by_list_or_by_numbers() {
        let present = ("sys/devices/system/cpu/present", "0-3");
        let topology =
            |core: usize, file: &str| format!("sys/devices/system/cpu/cpu{core}/topology/{file}");
        let check = |file: &str, texts: [&str; 4], expected: &[usize]| {
            let paths: Vec<String> = (0..4).map(|core| topology(core, file)).collect();
            let packages: Vec<String> =
                (0..4).map(|core| topology(core, "physical_package_id")).collect();
            let mut files: Vec<(&str, &str)> = vec![present];
            files.extend(paths.iter().map(String::as_str).zip(texts));
            files.extend(packages.iter().map(|path| (path.as_str(), "0")));
            assert_eq!(machine("0-3", &files).physical(), expected, "{texts:?}");
        };
        check("thread_siblings_list", ["0,2", "1,3", "0,2", "1,3"], &[0, 1]);
        check("thread_siblings_list", ["0-1", "0-1", "2-3", "2-3"], &[0, 2]);
        check("core_id", ["0", "0", "1", "1"], &[0, 2]);
        check("core_id", ["0", "1", "2", "3"], &[0, 1, 2, 3]);
        assert_eq!(machine("1,3", &[]).physical(), [1, 3]);
    }

    #[test]
    fn a_physical_core_counts_though_its_first_thread_is_masked() {
        let pair = |core: usize| format!("sys/devices/system/cpu/cpu{core}/topology");
        let lists: Vec<String> =
            (0..4).map(|core| format!("{}/thread_siblings_list", pair(core))).collect();
        let mut files = vec![("sys/devices/system/cpu/present", "0-3")];
        files.extend(lists.iter().map(String::as_str).zip(["0-1", "0-1", "2-3", "2-3"]));
        assert_eq!(machine("1-3", &files).physical(), [1, 2]);
    }

    #[test]
    fn hybrid_machines_are_known_by_name_and_by_capacity() {
        let present = ("sys/devices/system/cpu/present", "0-3");
        let named = machine("0-3", &[present, ("sys/devices/cpu_atom/cpus", "0-1")]);
        assert_eq!(named.physical(), [2, 3, 0, 1]);
        let capacity = [
            present,
            ("sys/devices/system/cpu/cpu0/cpu_capacity", "446"),
            ("sys/devices/system/cpu/cpu1/cpu_capacity", "1024"),
            ("sys/devices/system/cpu/cpu2/cpu_capacity", "446"),
            ("sys/devices/system/cpu/cpu3/cpu_capacity", "1024"),
        ];
        assert_eq!(machine("0-3", &capacity).physical(), [1, 3, 0, 2]);
        assert!(!machine("0-3", &[present]).is_slow(0));
    }
}
