//! What the process's cgroups grant: the CPU quota, and the cores of the cpuset.
//!
//! In: /proc and the mounted hierarchies of version 1 and 2, below a root that tests replace. What
//! cannot be read is absent.

use std::fmt;
use std::path::{Path, PathBuf};

use super::CoreSet;
use super::machine::read;

/// CPU time that the cgroups grant, in thousandths of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quota(pub u64);

impl Quota {
    /// How many shards it lets run all the time; at least one.
    pub fn whole_cores(self) -> usize {
        usize::try_from(self.0 / 1000).unwrap_or(usize::MAX).max(1)
    }

    /// Whether so many busy threads would spend it before the period is over.
    pub fn is_less_than(self, threads: usize) -> bool {
        self.0 < (threads as u64).saturating_mul(1000)
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.0 == 1000 { "CPU" } else { "CPUs" };
        write!(f, "{} {unit}", self.0 as f64 / 1000.0)
    }
}

/// The smallest quota of the process's cgroups and of all above them.
pub(super) fn quota(root: &Path) -> Option<Quota> {
    let groups = own(root, "cpu").into_iter();
    groups.filter_map(|group| group.levels().filter_map(|level| group.quota(&level)).min()).min()
}

/// The cores of the process's cpuset; none where there is no such cgroup, so that all are granted.
pub(super) fn cpuset(root: &Path) -> Option<CoreSet> {
    own(root, "cpuset").into_iter().find_map(|group| {
        let file = if group.second { "cpuset.cpus.effective" } else { "cpuset.effective_cpus" };
        // A level where the controller is not switched on has no file; what holds is above.
        group.levels().find_map(|level| CoreSet::parse(&read(&level.join(file))?))
    })
}

/// A cgroup of the process.
struct Group {
    /// Of the unified hierarchy, version 2.
    second: bool,
    mount: PathBuf,
    /// Below the mount.
    path: String,
}

impl Group {
    /// The directories from the cgroup up to the mount: what a parent limits binds too.
    fn levels(&self) -> impl Iterator<Item = PathBuf> {
        let path = Path::new(self.path.trim_start_matches('/'));
        path.ancestors().map(|level| self.mount.join(level))
    }

    fn quota(&self, level: &Path) -> Option<Quota> {
        if self.second {
            // "max 100000" or "150000 100000".
            let text = read(&level.join("cpu.max"))?;
            let (quota, period) = text.split_once(' ')?;
            return share(quota.parse().ok()?, period.parse().ok()?);
        }
        // -1 for none, which is no u64.
        let quota = read(&level.join("cpu.cfs_quota_us"))?.parse().ok()?;
        share(quota, read(&level.join("cpu.cfs_period_us"))?.parse().ok()?)
    }
}

fn share(quota_us: u64, period_us: u64) -> Option<Quota> {
    quota_us.saturating_mul(1000).checked_div(period_us).map(Quota)
}

/// The cgroups of the process that `controller` may govern: at most one of each version.
fn own(root: &Path, controller: &str) -> Vec<Group> {
    let mounts = read(&root.join("proc/self/mountinfo")).unwrap_or_default();
    let memberships = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    let groups = memberships.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let second = controllers.is_empty();
        if !second && !controllers.split(',').any(|name| name == controller) {
            return None;
        }
        let (mount, path) = locate(&mounts, second, controller, path)?;
        Some(Group { second, mount: root.join(mount.trim_start_matches('/')), path })
    });
    groups.collect()
}

/// Where the hierarchy is mounted and what the cgroup is called below that mount.
fn locate(mounts: &str, second: bool, controller: &str, path: &str) -> Option<(String, String)> {
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
            false => *kind == "cgroup" && options.split(',').any(|option| option == controller),
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

#[cfg(test)]
mod tests {
    use super::super::samples::tree;
    use super::*;

    const MOUNTS: &str = "proc/self/mountinfo";
    const GROUP: &str = "proc/self/cgroup";
    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    const V1: &str = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn quotas_are_found_in_either_hierarchy_and_above() {
        let check = |files: &[(&str, &str)], expected: Option<u64>| {
            assert_eq!(quota(tree(files).path()), expected.map(Quota), "{files:?}");
        };
        let own = "sys/fs/cgroup/a/b/cpu.max";
        check(&[(MOUNTS, V2), (GROUP, "0::/a/b"), (own, "max 100000")], None);
        check(&[(MOUNTS, V2), (GROUP, "0::/a/b"), (own, "150000 100000")], Some(1500));
        check(&[(MOUNTS, V2), (GROUP, "0::/a/b"), (own, "5000 100000")], Some(50));
        let above = ("sys/fs/cgroup/a/cpu.max", "300000 100000");
        check(&[(MOUNTS, V2), (GROUP, "0::/a/b"), (own, "800000 100000"), above], Some(3000));
        let first = "2:cpu,cpuacct:/x\n1:memory:/m\n0::/";
        let quota = "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us";
        let period = ("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "50000");
        check(&[(MOUNTS, V1), (GROUP, first), (quota, "125000"), period], Some(2500));
        check(&[(MOUNTS, V1), (GROUP, first), (quota, "-1"), period], None);
        // A container that sees its own cgroup mounted as the top.
        let bind = V2.replace("0:26 /", "0:26 /docker/c");
        let top = ("sys/fs/cgroup/cpu.max", "200000 100000");
        check(&[(MOUNTS, &bind), (GROUP, "0::/docker/c"), top], Some(2000));
        check(&[(MOUNTS, &bind), (GROUP, "0::/../other"), top], Some(2000));
        check(&[], None);
    }

    #[test]
    fn a_quota_is_worth_the_cores_that_it_never_stops() {
        let check = |milli: u64, whole: usize, shown: &str| {
            assert_eq!(
                (Quota(milli).whole_cores(), Quota(milli).to_string().as_str()),
                (whole, shown)
            );
        };
        check(1500, 1, "1.5 CPUs");
        check(50, 1, "0.05 CPUs");
        check(1000, 1, "1 CPU");
        check(8000, 8, "8 CPUs");
        assert!(Quota(1500).is_less_than(2) && !Quota(1500).is_less_than(1));
        assert!(Quota(500).is_less_than(1) && !Quota(2000).is_less_than(2));
    }

    #[test]
    fn the_cpuset_is_that_of_the_nearest_level_that_has_one() {
        let check = |files: &[(&str, &str)], expected: Option<&str>| {
            let found = cpuset(tree(files).path()).map(|cores| cores.to_string());
            assert_eq!(found.as_deref(), expected, "{files:?}");
        };
        let top = ("sys/fs/cgroup/cpuset.cpus.effective", "0-7");
        let above = ("sys/fs/cgroup/a/cpuset.cpus.effective", "2-3");
        check(&[(MOUNTS, V2), (GROUP, "0::/a/b"), top, above], Some("2-3"));
        check(&[(MOUNTS, V2), (GROUP, "0::/c"), top, above], Some("0-7"));
        let first = ("sys/fs/cgroup/cpuset/x/cpuset.effective_cpus", "4-5");
        check(&[(MOUNTS, V1), (GROUP, "3:cpuset:/x\n0::/"), first], Some("4-5"));
        check(&[(MOUNTS, V2), (GROUP, "0::/a/b")], None);
    }
}
