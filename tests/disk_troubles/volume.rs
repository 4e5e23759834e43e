//! What is on a disk and what processes see of it: files and names, and of each what a power cut
//! takes.
//!
//! Comes in: what a file system is asked for. Goes out: answers, and at a cut what survives it. What
//! processes see is kept in memory; what is durable of a file stands in a file of a directory, named
//! by its number. Flushing a file makes its bytes and its size durable, and nothing else; flushing a
//! directory makes its names durable, and with them what happened before to the directories that
//! they came from, as a rename is whole or not at all. So it is harsher than a journalling file
//! system, where a flush takes along what others did before.
//! Deliberately absent: permissions, times, links; and any I/O of its clients (`faulty_disk`).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fuser::Errno;

use crate::random::Random;

/// The number of a file or directory; never used again.
pub type Number = u64;

/// The directory at the top.
pub const TOP: Number = 1;

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

type Names = BTreeMap<OsString, Number>;

#[derive(Debug)]
enum Node {
    File(File),
    Directory { seen: Names, durable: Names },
}

#[derive(Debug)]
struct File {
    /// As processes see it.
    seen: Vec<u8>,
    durable: std::fs::File,
    /// What was done to it since it was flushed, in order.
    unflushed: Vec<Change>,
    /// Whether a flush kept nothing: what is durable is not what would follow from `unflushed`.
    is_behind: bool,
    /// Bytes that have their place on the disk.
    allocated: u64,
}

#[derive(Debug)]
enum Change {
    Write { at: u64, bytes: Vec<u8> },
    Resize(u64),
}

/// A change to names, whole or not at all: in which directory which name stands for what.
type Renaming = Vec<(Number, OsString, Option<Number>)>;

/// All of a disk.
#[derive(Debug)]
pub struct Volume {
    dir: PathBuf,
    nodes: BTreeMap<Number, Node>,
    next: Number,
    /// Changes to names that are not durable, in order.
    renamings: Vec<Renaming>,
}

/// What stat tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub is_directory: bool,
    pub bytes: u64,
}

impl Volume {
    /// An empty disk, whose durable bytes are kept in `dir`.
    pub fn new(dir: &Path) -> Self {
        let top = Node::Directory { seen: Names::new(), durable: Names::new() };
        let nodes = BTreeMap::from([(TOP, top)]);
        Self { dir: dir.to_owned(), nodes, next: TOP + 1, renamings: Vec::new() }
    }

    fn names(&self, directory: Number) -> Result<&Names, Errno> {
        match self.nodes.get(&directory) {
            Some(Node::Directory { seen, .. }) => Ok(seen),
            Some(Node::File(_)) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn file(&mut self, number: Number) -> Result<&mut File, Errno> {
        match self.nodes.get_mut(&number) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory { .. }) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    pub fn lookup(&self, directory: Number, name: &OsStr) -> Result<Number, Errno> {
        self.names(directory)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub fn status(&self, number: Number) -> Result<Status, Errno> {
        match self.nodes.get(&number) {
            Some(Node::File(file)) => {
                Ok(Status { is_directory: false, bytes: file.seen.len() as u64 })
            }
            Some(Node::Directory { .. }) => Ok(Status { is_directory: true, bytes: 0 }),
            None => Err(Errno::ENOENT),
        }
    }

    /// The entries of a directory with numbers above `after`, by number.
    pub fn entries(
        &self,
        directory: Number,
        after: Number,
    ) -> Result<Vec<(Number, OsString, Status)>, Errno> {
        let names = self.names(directory)?.iter().filter(|(_, number)| **number > after);
        let mut entries = names
            .map(|(name, number)| Ok((*number, name.clone(), self.status(*number)?)))
            .collect::<Result<Vec<_>, Errno>>()?;
        entries.sort_by_key(|(number, ..)| *number);
        Ok(entries)
    }

    pub fn make_file(&mut self, directory: Number, name: &OsStr) -> Result<Number, Errno> {
        let durable = std::fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.dir.join(self.next.to_string()))?;
        let (seen, unflushed) = (Vec::new(), Vec::new());
        let file = File { seen, durable, unflushed, is_behind: false, allocated: 0 };
        self.add(directory, name, Node::File(file))
    }

    pub fn make_directory(&mut self, directory: Number, name: &OsStr) -> Result<Number, Errno> {
        self.add(directory, name, Node::Directory { seen: Names::new(), durable: Names::new() })
    }

    fn add(&mut self, directory: Number, name: &OsStr, node: Node) -> Result<Number, Errno> {
        if self.names(directory)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        self.name(vec![(directory, name.to_owned(), Some(number))]);
        Ok(number)
    }

    pub fn remove_file(&mut self, directory: Number, name: &OsStr) -> Result<(), Errno> {
        let number = self.lookup(directory, name)?;
        self.file(number)?;
        self.name(vec![(directory, name.to_owned(), None)]);
        Ok(())
    }

    pub fn remove_directory(&mut self, directory: Number, name: &OsStr) -> Result<(), Errno> {
        if !self.names(self.lookup(directory, name)?)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.name(vec![(directory, name.to_owned(), None)]);
        Ok(())
    }

    /// Renames a file, in the place of one that is there.
    pub fn rename(
        &mut self,
        (from, name): (Number, &OsStr),
        (to, new_name): (Number, &OsStr),
    ) -> Result<(), Errno> {
        let number = self.lookup(from, name)?;
        self.names(to)?;
        let change = vec![(from, name.to_owned(), None), (to, new_name.to_owned(), Some(number))];
        self.name(change);
        Ok(())
    }

    fn name(&mut self, change: Renaming) {
        apply_names(&mut self.nodes, &change, |node| match node {
            Node::Directory { seen, .. } => Some(seen),
            Node::File(_) => None,
        });
        self.renamings.push(change);
    }

    pub fn read(&mut self, number: Number, at: u64, bytes: usize) -> Result<&[u8], Errno> {
        let seen = &self.file(number)?.seen;
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(seen.len());
        Ok(&seen[from..from.saturating_add(bytes).min(seen.len())])
    }

    pub fn write(&mut self, number: Number, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        let file = self.file(number)?;
        file.change(Change::Write { at, bytes: bytes.to_owned() });
        Ok(())
    }

    pub fn resize(&mut self, number: Number, bytes: u64) -> Result<(), Errno> {
        self.file(number)?.change(Change::Resize(bytes));
        Ok(())
    }

    /// Gives the file a place for its bytes below `end`, as fallocate does.
    pub fn allocate(&mut self, number: Number, end: u64, keeps_size: bool) -> Result<(), Errno> {
        let file = self.file(number)?;
        if !keeps_size && end > file.seen.len() as u64 {
            file.change(Change::Resize(end));
        }
        file.allocated = file.allocated.max(end);
        Ok(())
    }

    /// Whether the bytes below `end` have their place.
    pub fn has_place(&mut self, number: Number, end: u64) -> Result<bool, Errno> {
        Ok(self.file(number)?.allocated >= end)
    }

    pub fn flush(&mut self, number: Number) -> Result<(), Errno> {
        let file = self.file(number)?;
        for change in std::mem::take(&mut file.unflushed) {
            change.apply(&file.durable)?;
        }
        Ok(())
    }

    /// What was not flushed will never be, though processes go on seeing it: what a disk does that
    /// lies, and what a page cache does after a flush that failed.
    pub fn forget_unflushed(&mut self, number: Number) -> Result<(), Errno> {
        let file = self.file(number)?;
        file.is_behind |= !file.unflushed.is_empty();
        file.unflushed.clear();
        Ok(())
    }

    pub fn flush_directory(&mut self, number: Number) -> Result<(), Errno> {
        self.names(number)?;
        let mut concerned = BTreeSet::from([number]);
        let (mut now, mut later) = (Vec::new(), Vec::new());
        for change in std::mem::take(&mut self.renamings).into_iter().rev() {
            if change.iter().any(|(directory, ..)| concerned.contains(directory)) {
                concerned.extend(change.iter().map(|(directory, ..)| *directory));
                now.push(change);
            } else {
                later.push(change);
            }
        }
        self.renamings = later.into_iter().rev().collect();
        now.iter().rev().for_each(|change| self.make_durable(change));
        Ok(())
    }

    fn make_durable(&mut self, change: &Renaming) {
        apply_names(&mut self.nodes, change, |node| match node {
            Node::Directory { durable, .. } => Some(durable),
            Node::File(_) => None,
        });
    }

    /// The power is gone, and comes back: what was not flushed is lost, but for a part that `random`
    /// chooses, which the disk had written by then.
    pub fn cut(&mut self, random: &mut Random) -> Result<(), Errno> {
        let renamings = std::mem::take(&mut self.renamings);
        let kept = if random.below(2) == 0 { 0 } else { random.below(renamings.len() as u64 + 1) };
        renamings[..kept as usize].iter().for_each(|change| self.make_durable(change));
        let mut reached = BTreeSet::from([TOP]);
        let mut to_visit = vec![TOP];
        while let Some(number) = to_visit.pop() {
            if let Some(Node::Directory { seen, durable }) = self.nodes.get_mut(&number) {
                seen.clone_from(durable);
                to_visit.extend(durable.values());
                reached.extend(durable.values());
            }
        }
        for (number, node) in &mut self.nodes {
            match node {
                Node::File(file) if reached.contains(number) => file.cut(random)?,
                Node::File(_) => std::fs::remove_file(self.dir.join(number.to_string()))?,
                Node::Directory { .. } => {}
            }
        }
        self.nodes.retain(|number, _| reached.contains(number));
        Ok(())
    }
}

fn apply_names(
    nodes: &mut BTreeMap<Number, Node>,
    change: &Renaming,
    names: impl Fn(&mut Node) -> Option<&mut Names>,
) {
    for (directory, name, number) in change {
        let Some(names) = nodes.get_mut(directory).and_then(&names) else { continue };
        match number {
            Some(number) => drop(names.insert(name.clone(), *number)),
            None => drop(names.remove(name)),
        }
    }
}

impl File {
    fn change(&mut self, change: Change) {
        match &change {
            Change::Write { at, bytes } => {
                let (from, end) = (*at as usize, *at as usize + bytes.len());
                if self.seen.len() < end {
                    self.seen.resize(end, 0);
                }
                self.seen[from..end].copy_from_slice(bytes);
            }
            Change::Resize(bytes) => self.seen.resize(*bytes as usize, 0),
        }
        self.allocated = self.allocated.max(self.seen.len() as u64);
        self.unflushed.push(change);
    }

    fn cut(&mut self, random: &mut Random) -> Result<(), Errno> {
        if self.unflushed.is_empty() && !self.is_behind {
            return Ok(());
        }
        for change in std::mem::take(&mut self.unflushed) {
            if !change.apply_in_part(&self.durable, random)? {
                break;
            }
        }
        self.seen = vec![0; self.durable.metadata()?.len() as usize];
        self.durable.read_exact_at(&mut self.seen, 0)?;
        self.is_behind = false;
        Ok(())
    }
}

impl Change {
    fn apply(&self, file: &std::fs::File) -> std::io::Result<()> {
        match self {
            Self::Write { at, bytes } => file.write_all_at(bytes, *at),
            Self::Resize(bytes) => file.set_len(*bytes),
        }
    }

    /// Applies what `random` leaves of the change. Whether changes after it may stand: what is
    /// written behind a cut that is lost would not be where the file's old bytes are.
    fn apply_in_part(&self, file: &std::fs::File, random: &mut Random) -> std::io::Result<bool> {
        let Self::Write { at, bytes } = self else {
            let kept = random.below(2) == 0;
            if kept {
                self.apply(file)?;
            }
            return Ok(kept);
        };
        let sectors = bytes.len().div_ceil(SECTOR_BYTES) as u64;
        // None of it, all, what comes before a sector, or any sectors.
        let (way, end) = (random.below(4), random.below(sectors + 1));
        for (sector, bytes) in bytes.chunks(SECTOR_BYTES).enumerate() {
            let kept = match way {
                0 => false,
                1 => true,
                2 => (sector as u64) < end,
                _ => random.below(2) == 0,
            };
            if kept {
                file.write_all_at(bytes, at + (sector * SECTOR_BYTES) as u64)?;
            }
        }
        Ok(true)
    }
}

/// The volume keeps what was flushed, and loses what was not.
mod tests {
    use super::*;

    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

    fn volume() -> (Volume, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Volume::new(dir.path()), dir)
    }

    fn file(volume: &mut Volume, name: &str) -> Number {
        volume.make_file(TOP, OsStr::new(name)).unwrap()
    }

    fn find(volume: &Volume, directory: Number, name: &str) -> Option<Number> {
        volume.lookup(directory, OsStr::new(name)).ok()
    }

    #[test]
    fn what_is_flushed_survives_every_cut() {
        let mut random = Random::new(SEED);
        for _ in 0..100 {
            let (mut volume, _dir) = volume();
            let a = file(&mut volume, "a");
            volume.write(a, 0, &[1; 2000]).unwrap();
            volume.flush(a).unwrap();
            volume.flush_directory(TOP).unwrap();
            volume.write(a, 4000, b"beyond").unwrap();
            volume.cut(&mut random).unwrap();
            assert_eq!(volume.read(a, 0, 2000).unwrap(), [1; 2000]);
        }
    }

    #[test]
    fn what_is_not_flushed_is_lost_whole_or_in_sectors() {
        let mut outcomes = BTreeSet::new();
        let mut random = Random::new(SEED);
        for _ in 0..100 {
            let (mut volume, _dir) = volume();
            let a = file(&mut volume, "a");
            volume.write(a, 0, &[1; 1024]).unwrap();
            volume.flush(a).unwrap();
            volume.flush_directory(TOP).unwrap();
            volume.write(a, 0, &[2; 1024]).unwrap();
            assert_eq!(volume.read(a, 0, 9999).unwrap(), [2; 1024]);
            volume.cut(&mut random).unwrap();
            let bytes = volume.read(a, 0, 9999).unwrap();
            for sector in bytes.chunks(SECTOR_BYTES) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "a torn sector");
            }
            outcomes.insert((bytes[0], bytes[SECTOR_BYTES]));
        }
        assert_eq!(outcomes, BTreeSet::from([(1, 1), (1, 2), (2, 1), (2, 2)]));
    }

    #[test]
    fn a_name_is_lost_until_its_directory_is_flushed() {
        let mut found = BTreeSet::new();
        let mut random = Random::new(SEED);
        for _ in 0..100 {
            let (mut volume, _dir) = volume();
            let a = file(&mut volume, "a");
            volume.flush(a).unwrap();
            volume.cut(&mut random).unwrap();
            found.insert(find(&volume, TOP, "a").is_some());
        }
        assert_eq!(found, BTreeSet::from([false, true]));
    }

    #[test]
    fn a_rename_is_whole_when_either_directory_is_flushed() {
        for flushed_first in [true, false] {
            let (mut volume, _dir) = volume();
            let below = volume.make_directory(TOP, OsStr::new("below")).unwrap();
            let a = file(&mut volume, "a");
            volume.flush_directory(TOP).unwrap();
            volume.rename((TOP, OsStr::new("a")), (below, OsStr::new("b"))).unwrap();
            volume.flush_directory(if flushed_first { TOP } else { below }).unwrap();
            volume.cut(&mut Random::new(SEED)).unwrap();
            assert_eq!((find(&volume, TOP, "a"), find(&volume, below, "b")), (None, Some(a)));
        }
    }

    #[test]
    fn a_removed_file_comes_back_when_its_directory_was_not_flushed() {
        let mut found = BTreeSet::new();
        let mut random = Random::new(SEED);
        for _ in 0..100 {
            let (mut volume, _dir) = volume();
            let a = file(&mut volume, "a");
            volume.write(a, 0, b"bytes").unwrap();
            volume.flush(a).unwrap();
            volume.flush_directory(TOP).unwrap();
            volume.remove_file(TOP, OsStr::new("a")).unwrap();
            assert_eq!(find(&volume, TOP, "a"), None);
            volume.cut(&mut random).unwrap();
            let back = find(&volume, TOP, "a");
            assert!(back.is_none() || volume.read(a, 0, 9).unwrap() == b"bytes");
            found.insert(back);
        }
        let first = TOP + 1;
        assert_eq!(found, BTreeSet::from([None, Some(first)]));
    }

    #[test]
    fn what_a_flush_forgot_is_seen_until_the_cut() {
        let (mut volume, _dir) = volume();
        let a = file(&mut volume, "a");
        volume.flush_directory(TOP).unwrap();
        volume.write(a, 0, b"lost").unwrap();
        volume.forget_unflushed(a).unwrap();
        volume.write(a, 4, b"kept").unwrap();
        volume.flush(a).unwrap();
        assert_eq!(volume.read(a, 0, 9).unwrap(), b"lostkept");
        volume.cut(&mut Random::new(SEED)).unwrap();
        assert_eq!(volume.read(a, 0, 9).unwrap(), b"\0\0\0\0kept");
    }
}
