//! The paths that the rules of a topic read in a payload, interned: each once, as a tree, so that
//! one pass over the payload finds all of them.

use std::fmt;

/// One step into a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// The member of an object.
    Key(Box<str>),
    /// The element of an array, counted from 0.
    Index(u32),
}

/// A place in the tree of paths. Its children are few; they are searched in their order.
#[derive(Debug, Clone, Default)]
pub struct PathNode {
    keys: Vec<(Box<str>, PathNode)>,
    indices: Vec<(u32, PathNode)>,
    slot: Option<u32>,
}

/// All paths of a plan; each has a slot, which counts from 0.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    root: PathNode,
    paths: Vec<Box<[Step]>>,
}

impl PathNode {
    /// Where the path that ends here puts its value.
    #[inline]
    pub fn slot(&self) -> Option<usize> {
        self.slot.map(|slot| slot as usize)
    }

    /// Whether no path goes further.
    #[inline]
    pub fn is_leaf(&self) -> bool {
        self.keys.is_empty() && self.indices.is_empty()
    }

    #[inline]
    pub fn key(&self, key: &str) -> Option<&PathNode> {
        self.keys.iter().find(|(name, _)| **name == *key).map(|(_, node)| node)
    }

    #[inline]
    pub fn index(&self, index: u32) -> Option<&PathNode> {
        self.indices.iter().find(|(at, _)| *at == index).map(|(_, node)| node)
    }

    /// Whether a path names a member; else objects need not be looked into.
    #[inline]
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whether a path names an element.
    #[inline]
    pub fn has_indices(&self) -> bool {
        !self.indices.is_empty()
    }

    /// Every slot at and below this node.
    pub fn each_slot(&self, each: &mut impl FnMut(usize)) {
        if let Some(slot) = self.slot() {
            each(slot);
        }
        self.keys.iter().for_each(|(_, node)| node.each_slot(each));
        self.indices.iter().for_each(|(_, node)| node.each_slot(each));
    }

    fn enter(&mut self, step: &Step) -> &mut PathNode {
        match step {
            Step::Key(key) => enter(&mut self.keys, key),
            Step::Index(index) => enter(&mut self.indices, index),
        }
    }
}

fn enter<'n, K: Clone + PartialEq>(nodes: &'n mut Vec<(K, PathNode)>, key: &K) -> &'n mut PathNode {
    let known = nodes.iter().position(|(name, _)| name == key);
    let at = known.unwrap_or_else(|| {
        nodes.push((key.clone(), PathNode::default()));
        nodes.len() - 1
    });
    &mut nodes[at].1
}

impl Paths {
    /// The slot of a path; the empty one is the whole payload.
    pub fn intern(&mut self, path: &[Step]) -> usize {
        let node = path.iter().fold(&mut self.root, PathNode::enter);
        let next = self.paths.len() as u32;
        let slot = *node.slot.get_or_insert(next);
        if slot == next {
            self.paths.push(path.into());
        }
        slot as usize
    }

    pub fn root(&self) -> &PathNode {
        &self.root
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// In the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = &[Step]> {
        self.paths.iter().map(|path| &**path)
    }
}

/// A path as one writes it in a rule.
#[derive(Debug)]
pub struct Shown<'a>(pub &'a [Step]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("payload")?;
        for step in self.0 {
            match step {
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_slot_however_often_it_is_named() {
        let key = |name: &str| Step::Key(name.into());
        let mut paths = Paths::default();
        assert_eq!(paths.intern(&[key("a"), key("b")]), 0);
        assert_eq!(paths.intern(&[key("a")]), 1);
        assert_eq!(paths.intern(&[key("a"), Step::Index(3)]), 2);
        assert_eq!(paths.intern(&[key("a"), key("b")]), 0);
        assert_eq!(paths.intern(&[]), 3);
        let a = paths.root().key("a").unwrap();
        assert_eq!((a.slot(), a.key("b").unwrap().slot()), (Some(1), Some(0)));
        assert_eq!(a.index(3).unwrap().slot(), Some(2));
        assert!(a.index(2).is_none() && paths.root().key("b").is_none());
        let mut below = Vec::new();
        a.each_slot(&mut |slot| below.push(slot));
        assert_eq!(below, [1, 0, 2]);
        let shown: Vec<_> = paths.iter().map(|path| Shown(path).to_string()).collect();
        assert_eq!(shown, ["payload.a.b", "payload.a", "payload.a[3]", "payload"]);
    }
}
