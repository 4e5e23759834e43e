//! What the kernel says about the machine: topology, NUMA nodes and efficiency classes from sysfs.
//!
//! In: /sys below a root that tests replace, and the affinity mask. Anything that cannot be read is
//! taken as absent: no topology means that each thread is a core of its own, no nodes that the
//! machine has one, no classes that all cores are alike.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::cgroup::{self, Quota};
use super::{CoreSet, Error, allowed, disk_node};

/// What the layout depends on. A *core* is a hardware thread here, as in the kernel's numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// The affinity mask: those that the process may run on. None of them is offline.
    pub allowed: CoreSet,
    /// Those that exist.
    pub present: CoreSet,
    /// Those that the kernel uses.
    pub online: CoreSet,
    /// Those that the kernel leaves to who asks for them by number (isolcpus).
    pub isolated: CoreSet,
    /// The hardware threads of each physical core that has several.
    pub groups: Vec<CoreSet>,
    /// The NUMA nodes, ascending, also those without cores; none where the kernel names none.
    pub nodes: Vec<Node>,
    /// Efficiency classes, the fastest first; none where all cores are alike.
    pub classes: Vec<Class>,
    /// What the CPU quota of the cgroups grants.
    pub quota: Option<Quota>,
    /// The cores that the cpuset cgroup grants; all where there is none.
    pub cpuset: Option<CoreSet>,
    /// The NUMA node that the disk of the data directory is attached to, where that is known.
    pub disk_node: Option<usize>,
}

/// A NUMA node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The kernel's number.
    pub number: usize,
    /// Its online cores.
    pub cores: CoreSet,
    /// How far it is to each node, by number, as the firmware says: 10 is near.
    pub distances: BTreeMap<usize, u32>,
}

/// Cores of one efficiency class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// "performance", "efficiency", "low power", or the capacity that the kernel gives them.
    pub name: String,
    /// Its cores.
    pub cores: CoreSet,
}

impl Machine {
    /// The machine that this process runs on; `data_dir` need not exist yet.
    pub fn here(data_dir: &Path) -> Result<Self, Error> {
        let root = Path::new("/");
        let mut machine = Self::read(root, allowed()?);
        machine.disk_node = disk_node::of_directory(root, data_dir);
        Ok(machine)
    }

    /// Reads the machine whose /sys and /proc lie below `root`; `allowed` is the affinity mask.
    pub(super) fn read(root: &Path, allowed: CoreSet) -> Self {
        let cpu = root.join("sys/devices/system/cpu");
        let present = read_set(&cpu.join("present")).unwrap_or_else(|| allowed.clone());
        let online = read_set(&cpu.join("online")).unwrap_or_else(|| present.clone());
        Self {
            isolated: read_set(&cpu.join("isolated")).unwrap_or_default(),
            groups: groups(&cpu, &online),
            nodes: nodes(&root.join("sys/devices/system/node")),
            classes: classes(&root.join("sys/devices"), &online),
            quota: cgroup::quota(root),
            cpuset: cgroup::cpuset(root),
            disk_node: None,
            allowed,
            present,
            online,
        }
    }

    /// The hardware threads of the physical core that `core` belongs to, itself among them.
    pub fn siblings(&self, core: usize) -> CoreSet {
        let group = self.groups.iter().find(|group| group.contains(core));
        group.cloned().unwrap_or_else(|| CoreSet::from_iter([core]))
    }

    /// The node of `core`; none where the kernel names none, and for offline cores.
    pub fn node(&self, core: usize) -> Option<usize> {
        self.nodes.iter().find(|node| node.cores.contains(core)).map(|node| node.number)
    }

    /// The efficiency class of `core`, the fastest being 0.
    pub fn class(&self, core: usize) -> usize {
        self.classes.iter().position(|class| class.cores.contains(core)).unwrap_or(0)
    }

    /// Isolated cores stand in no mask by default, and naming them is how they are meant to be
    /// used; so they may be named although the mask lacks them.
    pub(super) fn isolated_for_the_asking(&self) -> CoreSet {
        let granted = |core: &usize| {
            self.online.contains(*core)
                && !self.allowed.contains(*core)
                && self.cpuset.as_ref().is_none_or(|cpuset| cpuset.contains(*core))
        };
        self.isolated.iter().filter(granted).collect()
    }

    /// Allowed threads, the best for a shard first: one of each physical core before second ones,
    /// fast ones before slow ones, those near the disk before others.
    pub(super) fn by_preference(&self) -> Vec<usize> {
        let order = self.node_order();
        let place = |core: usize| {
            let node = self.node(core);
            order.iter().position(|number| Some(*number) == node).unwrap_or(order.len())
        };
        let mut cores: Vec<usize> = self.allowed.iter().collect();
        cores.sort_by_key(|core| (self.rank(*core), self.class(*core), place(*core), *core));
        cores
    }

    /// How many physical cores the process may use.
    pub(super) fn physical_count(&self) -> usize {
        self.allowed.iter().filter(|core| self.rank(*core) == 0).count()
    }

    /// How many allowed threads of the same physical core come before `core`.
    fn rank(&self, core: usize) -> usize {
        let siblings = self.siblings(core);
        siblings.iter().filter(|other| *other < core && self.allowed.contains(*other)).count()
    }

    /// Node numbers in the order in which they are filled: the disk's, or where that is not known
    /// the one with the most cores to use, and then what is nearest to it.
    fn node_order(&self) -> Vec<usize> {
        let usable = |node: &&Node| {
            let cores = node.cores.iter();
            cores.filter(|core| self.allowed.contains(*core) && self.rank(*core) == 0).count()
        };
        let of_disk = self.nodes.iter().find(|node| Some(node.number) == self.disk_node);
        // Of equals the first: max_by_key takes the last.
        let Some(origin) = of_disk.or_else(|| self.nodes.iter().rev().max_by_key(usable)) else {
            return Vec::new();
        };
        let mut order: Vec<usize> = self.nodes.iter().map(|node| node.number).collect();
        let far = |number: usize| (number != origin.number, origin.distances.get(&number).copied());
        order.sort_by_key(|number| (far(*number), *number));
        order
    }
}

/// Threads that share a physical core, by `thread_siblings_list`, or where that is missing by
/// package and core number.
fn groups(cpu: &Path, online: &CoreSet) -> Vec<CoreSet> {
    let mut by_core: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for core in online.iter() {
        let topology = cpu.join(format!("cpu{core}/topology"));
        let siblings = read_set(&topology.join("thread_siblings_list"));
        let numbers = || {
            let package = read(&topology.join("physical_package_id"))?;
            Some(format!("{package}/{}", read(&topology.join("core_id"))?))
        };
        let siblings = siblings.filter(|set| !set.is_empty()).map(|set| set.to_string());
        if let Some(key) = siblings.or_else(numbers) {
            by_core.entry(key).or_default().push(core);
        }
    }
    let several = by_core.into_values().filter(|threads| threads.len() > 1);
    let mut groups: Vec<CoreSet> = several.map(CoreSet::from_iter).collect();
    groups.sort_by_key(|group| group.iter().next());
    groups
}

fn nodes(folder: &Path) -> Vec<Node> {
    let numbers = read_set(&folder.join("online")).unwrap_or_default();
    let node = |number: usize| {
        let folder = folder.join(format!("node{number}"));
        let distances = read(&folder.join("distance")).unwrap_or_default();
        let distances = distances.split_whitespace().map(str::parse);
        Node {
            number,
            cores: read_set(&folder.join("cpulist")).unwrap_or_default(),
            // The kernel lists the online nodes, ascending.
            distances: numbers.iter().zip(distances.filter_map(Result::ok)).collect(),
        }
    };
    numbers.iter().map(node).collect()
}

/// Intel's hybrid processors name their classes; of other machines the kernel gives capacities.
fn classes(devices: &Path, online: &CoreSet) -> Vec<Class> {
    let named =
        [("cpu_core", "performance"), ("cpu_atom", "efficiency"), ("cpu_lowpower", "low power")];
    let named = named.into_iter().filter_map(|(device, name)| {
        let cores = read_set(&devices.join(device).join("cpus"))?;
        Some(Class { name: name.to_owned(), cores })
    });
    let named: Vec<Class> = named.filter(|class| !class.cores.is_empty()).collect();
    let classes = if named.is_empty() { by_capacity(devices, online) } else { named };
    if classes.len() > 1 { classes } else { Vec::new() }
}

/// A class for each `cpu_capacity` (1024 is the fastest core's). Capacities within the margin by
/// which the kernel's scheduler tells them apart (`capacity_greater`, some 5 %) are one class: cores
/// of one kind differ a little in how high their clocks go.
fn by_capacity(devices: &Path, online: &CoreSet) -> Vec<Class> {
    let capacity = |core: usize| -> Option<u64> {
        read(&devices.join(format!("system/cpu/cpu{core}/cpu_capacity")))?.parse().ok()
    };
    let mut capacities: Vec<(u64, usize)> =
        online.iter().filter_map(|core| Some((capacity(core)?, core))).collect();
    capacities.sort_by_key(|(capacity, core)| (std::cmp::Reverse(*capacity), *core));
    let mut classes: Vec<(u64, Vec<usize>)> = Vec::new();
    for (capacity, core) in capacities {
        match classes.last_mut() {
            Some((largest, cores)) if *largest * 1024 <= capacity * 1078 => cores.push(core),
            _ => classes.push((capacity, vec![core])),
        }
    }
    let class = |(capacity, cores): (u64, Vec<usize>)| Class {
        name: format!("capacity {capacity}"),
        cores: cores.into_iter().collect(),
    };
    classes.into_iter().map(class).collect()
}

fn read_set(path: &Path) -> Option<CoreSet> {
    CoreSet::parse(&read(path)?)
}

/// The text of a small file, without white space around it.
pub(super) fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{set, tree};
    use super::*;

    fn machine(allowed: &str, files: &[(&str, &str)]) -> Machine {
        Machine::read(tree(files).path(), set(allowed))
    }

    /// The files `cpuN/FILE` with these texts.
    fn of_cores(file: &str, texts: &[&str]) -> Vec<(String, String)> {
        let path = |core: usize| format!("sys/devices/system/cpu/cpu{core}/{file}");
        texts.iter().enumerate().map(|(core, text)| (path(core), (*text).to_owned())).collect()
    }

    fn borrowed(files: &[(String, String)]) -> Vec<(&str, &str)> {
        files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect()
    }

    #[test]
    fn siblings_are_found_by_list_or_by_numbers() {
        let check = |file: &str, texts: [&str; 4], expected: &[&str]| {
            let mut files = of_cores(&format!("topology/{file}"), &texts);
            files.extend(of_cores("topology/physical_package_id", &["0"; 4]));
            let groups = machine("0-3", &borrowed(&files)).groups;
            assert_eq!(
                groups,
                expected.iter().map(|text| set(text)).collect::<Vec<_>>(),
                "{texts:?}"
            );
        };
        check("thread_siblings_list", ["0,2", "1,3", "0,2", "1,3"], &["0,2", "1,3"]);
        check("thread_siblings_list", ["0-1", "0-1", "2-3", "2-3"], &["0-1", "2-3"]);
        check("core_id", ["0", "0", "1", "1"], &["0-1", "2-3"]);
        check("core_id", ["0", "1", "2", "3"], &[]);
        assert_eq!(machine("1,3", &[]).by_preference(), [1, 3]);
    }

    #[test]
    fn a_physical_core_counts_though_its_first_thread_is_masked() {
        let files = of_cores("topology/thread_siblings_list", &["0-1", "0-1", "2-3", "2-3"]);
        let masked = machine("1-3", &[&borrowed(&files)[..], &[(PRESENT, "0-3")]].concat());
        assert_eq!((masked.by_preference(), masked.physical_count()), (vec![1, 2, 3], 2));
    }

    const PRESENT: &str = "sys/devices/system/cpu/present";

    #[test]
    fn hybrid_machines_are_known_by_name_and_by_capacity() {
        let check = |files: &[(&str, &str)], expected: &str| {
            let classes = machine("0-3", files).classes;
            let shown = classes.iter().map(|class| format!("{} {}", class.name, class.cores));
            assert_eq!(shown.collect::<Vec<_>>().join("; "), expected);
        };
        let atom = ("sys/devices/cpu_atom/cpus", "2-3");
        check(&[("sys/devices/cpu_core/cpus", "0-1"), atom], "performance 0-1; efficiency 2-3");
        let capacities = |texts: [&str; 4]| of_cores("cpu_capacity", &texts);
        let arm = capacities(["446", "446", "871", "1024"]);
        check(&borrowed(&arm), "capacity 1024 3; capacity 871 2; capacity 446 0-1");
        // Favoured cores of one kind.
        check(&borrowed(&capacities(["1009", "1024", "1009", "1000"])), "");
        check(&borrowed(&capacities(["1024"; 4])), "");
        check(&[atom], "");
        check(&[], "");
    }

    #[test]
    fn nodes_offline_and_isolated_cores_are_read() {
        let found = machine(
            "0-1,4",
            &[
                (PRESENT, "0-5"),
                ("sys/devices/system/cpu/online", "0-4"),
                ("sys/devices/system/cpu/isolated", "2-3"),
                ("sys/devices/system/node/online", "0,2"),
                ("sys/devices/system/node/node0/cpulist", "0-1"),
                ("sys/devices/system/node/node0/distance", "10 21"),
                ("sys/devices/system/node/node2/cpulist", "2-4"),
                ("sys/devices/system/node/node2/distance", "21 10"),
            ],
        );
        assert_eq!((found.node(1), found.node(4), found.node(5)), (Some(0), Some(2), None));
        assert_eq!(found.nodes[1].distances, BTreeMap::from([(0, 21), (2, 10)]));
        assert_eq!((found.online.len(), found.present.len()), (5, 6));
        assert_eq!(found.isolated_for_the_asking(), set("2-3"));
        assert!(machine("0-3", &[]).nodes.is_empty());
    }
}
