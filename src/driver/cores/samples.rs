//! Made-up machines for tests, here and of `tidegate cores`.

use std::fs;

use super::cgroup::Quota;
use super::{Class, CoreSet, Machine, Node};

/// A set as the kernel writes it.
pub fn set(text: &str) -> CoreSet {
    CoreSet::parse(text).unwrap()
}

/// A folder with these files.
pub fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }
    root
}

/// One node, all cores alike, one thread each.
pub fn plain(cores: &str) -> Machine {
    let all = set(cores);
    Machine {
        allowed: all.clone(),
        present: all.clone(),
        online: all.clone(),
        nodes: vec![node(0, cores, &[(0, 10)])],
        ..Machine::default()
    }
}

/// As `plain`, `pairs` being the threads of a physical core each.
pub fn with_pairs(cores: &str, pairs: &[&str]) -> Machine {
    Machine { groups: pairs.iter().map(|pair| set(pair)).collect(), ..plain(cores) }
}

/// Two sockets of four physical cores, numbered as most firmware does: first threads, then second.
pub fn two_sockets() -> Machine {
    let pairs = ["0,8", "1,9", "2,10", "3,11", "4,12", "5,13", "6,14", "7,15"];
    let nodes =
        vec![node(0, "0-3,8-11", &[(0, 10), (1, 21)]), node(1, "4-7,12-15", &[(0, 21), (1, 10)])];
    Machine { nodes, ..with_pairs("0-15", &pairs) }
}

/// Two performance cores of two threads, four efficiency cores.
pub fn hybrid() -> Machine {
    let class = |name: &str, cores| Class { name: name.to_owned(), cores: set(cores) };
    let classes = vec![class("performance", "0-3"), class("efficiency", "4-7")];
    Machine { classes, ..with_pairs("0-7", &["0-1", "2-3"]) }
}

/// Four cores and a quota in thousandths of a CPU.
pub fn with_quota(milli: u64) -> Machine {
    Machine { quota: Some(Quota(milli)), ..plain("0-3") }
}

/// A node and how far it is to each.
pub fn node(number: usize, cores: &str, distances: &[(usize, u32)]) -> Node {
    Node { number, cores: set(cores), distances: distances.iter().copied().collect() }
}
