//! Rules that look at the same payloads, with all their paths in one tree: one pass finds what all
//! of them read.

use super::paths::Paths;
use super::plan::Rule;

/// Rules, and the paths of all of them.
#[derive(Debug, Default)]
pub struct Group {
    /// In the order of the plan.
    pub rules: Vec<usize>,
    pub paths: Paths,
    /// For each rule, for each of its paths: the path's slot in the group.
    slots: Vec<Box<[u32]>>,
}

impl Group {
    /// The group of some rules of a plan.
    pub fn new(all: &[Rule], rules: &[usize]) -> Self {
        let mut group = Self::default();
        for &index in rules {
            let slots = all[index].paths.iter().map(|path| group.paths.intern(path) as u32);
            group.slots.push(slots.collect());
            group.rules.push(index);
        }
        group
    }

    /// Each rule with the slots of its paths.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[u32])> {
        self.rules.iter().zip(&self.slots).map(|(rule, slots)| (*rule, &**slots))
    }
}
