//! A disk and its file system, from memory: what is written is torn, lost, misdirected or harmed as
//! the faults of the day allow it.
//!
//! Names change in order, as the journals of ext4 and XFS keep them: a power cut takes back the last
//! changes, however many are not durable. Of what was written to a file and not flushed each sector
//! is there or not, and the size is any between. Flushing a file makes no name durable.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use crate::random::Random;

/// What a power cut leaves whole.
pub const SECTOR: usize = 512;

/// A file, whatever its name is.
pub type Inode = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Dir,
    File(Inode),
}

/// How often what goes wrong: of ten thousand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub read_errors: u32,
    pub write_errors: u32,
    pub flush_errors: u32,
    /// Of everything but a commit: names, indexes, new segments.
    pub other_errors: u32,
    /// A flush that did nothing and says that it did.
    pub lies: u32,
    /// A write that goes elsewhere.
    pub misdirected: u32,
}

impl Faults {
    /// Whether it harms what was durable, so that not all of it can be readable.
    pub fn harm(&self) -> bool {
        self.lies > 0 || self.misdirected > 0
    }
}

#[derive(Debug, Default)]
struct File {
    /// What stands in it; zeros follow up to its size.
    data: Vec<u8>,
    bytes: usize,
    /// Its size after a power cut, at the least.
    durable_bytes: usize,
    /// Sectors that are not flushed, as they were when they were.
    dirty: BTreeMap<usize, Vec<u8>>,
    /// What was cut off, from where on.
    cut: Option<(usize, Vec<u8>)>,
}

/// A change of names that is not durable yet: where, and what was there before.
#[derive(Debug)]
struct Change {
    dirs: [String; 2],
    before: Vec<(String, Option<Name>)>,
}

#[derive(Debug)]
pub struct Disk {
    files: Vec<File>,
    names: BTreeMap<String, Name>,
    changes: Vec<Change>,
    pub faults: Faults,
    /// No faults for now.
    pub calm: bool,
    /// Reads that failed.
    pub failed_reads: u64,
    random: Random,
}

fn failed() -> io::Error {
    io::Error::other("the disk fails")
}

fn dir_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl File {
    fn sector(&self, sector: usize) -> Vec<u8> {
        self.range(sector * SECTOR, SECTOR)
    }

    fn range(&self, at: usize, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        if let Some(there) = self.data.get(at..) {
            let there = &there[..there.len().min(bytes)];
            out[..there.len()].copy_from_slice(there);
        }
        out
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[at..end].copy_from_slice(bytes);
        self.bytes = self.bytes.max(end);
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        for sector in at / SECTOR..(at + bytes.len()).div_ceil(SECTOR) {
            if !self.dirty.contains_key(&sector) {
                self.dirty.insert(sector, self.sector(sector));
            }
        }
        self.put(at, bytes);
    }

    fn set_bytes(&mut self, bytes: usize) {
        self.data.truncate(bytes);
        self.bytes = bytes;
    }

    fn flush(&mut self) {
        self.dirty.clear();
        self.cut = None;
        self.durable_bytes = self.bytes;
    }

    fn cut_power(&mut self, random: &mut Random) {
        if let Some((at, tail)) = self.cut.take()
            && random.below(2) == 0
        {
            self.put(at, &tail);
        }
        // Mostly all or nothing of what one write brought; now and then whatever it likes.
        let share = random.below(5);
        for (sector, before) in std::mem::take(&mut self.dirty) {
            let lost = match share {
                0 => true,
                1 => false,
                _ => random.below(2) == 0,
            };
            if lost && sector * SECTOR < self.bytes {
                let bytes = self.bytes;
                self.put(sector * SECTOR, &before);
                self.set_bytes(bytes);
            }
        }
        if self.bytes > self.durable_bytes {
            let more = (self.bytes - self.durable_bytes).div_ceil(SECTOR);
            let bytes = match random.below(4) {
                0 => self.durable_bytes,
                1 => self.bytes,
                _ => (self.durable_bytes + random.below(more + 1) * SECTOR).min(self.bytes),
            };
            self.set_bytes(bytes);
        }
        self.durable_bytes = self.bytes;
    }
}

impl Disk {
    /// A number below `end`, of the disk's own chance.
    pub fn below(&mut self, end: usize) -> usize {
        self.random.below(end)
    }

    pub fn new(seed: u64) -> Self {
        Self {
            files: Vec::new(),
            names: BTreeMap::new(),
            changes: Vec::new(),
            faults: Faults::default(),
            calm: false,
            failed_reads: 0,
            random: Random(seed ^ 0xd15c),
        }
    }

    /// Of what stands on it and what happened.
    pub fn digest(&self) -> u64 {
        let bytes: usize = self.files.iter().map(|file| file.bytes + file.dirty.len()).sum();
        self.random.0 ^ (bytes as u64) << 20 ^ self.changes.len() as u64
    }

    /// Whether what is no commit may fail.
    pub fn may_fail(&self) -> bool {
        let faults = self.faults;
        !self.calm && faults.read_errors + faults.flush_errors + faults.other_errors > 0
    }

    fn fails(&mut self, of_ten_thousand: u32) -> bool {
        !self.calm && of_ten_thousand > 0 && self.random.below(10_000) < of_ten_thousand as usize
    }

    /// Something that is no commit may fail.
    pub fn try_other(&mut self) -> io::Result<()> {
        if self.fails(self.faults.other_errors) { Err(failed()) } else { Ok(()) }
    }

    fn change(&mut self, entries: &[(&str, Option<Name>)]) {
        let first = dir_of(entries[0].0).to_owned();
        let dirs = [first, dir_of(entries[entries.len() - 1].0).to_owned()];
        let mut before = Vec::with_capacity(entries.len());
        for &(path, name) in entries {
            let there = match name {
                Some(name) => self.names.insert(path.to_owned(), name),
                None => self.names.remove(path),
            };
            before.push((path.to_owned(), there));
        }
        self.changes.push(Change { dirs, before });
    }

    /// The file at a path.
    pub fn find(&self, path: &str) -> Option<Inode> {
        match self.names.get(path) {
            Some(Name::File(inode)) => Some(*inode),
            _ => None,
        }
    }

    pub fn bytes(&self, file: Inode) -> usize {
        self.files[file].bytes
    }

    pub fn list(&self, dir: &str) -> Vec<String> {
        let within = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let names = self.names.range(within.clone()..);
        let names = names.map_while(|(path, _)| path.strip_prefix(&within));
        names.filter(|name| !name.is_empty() && !name.contains('/')).map(str::to_owned).collect()
    }

    /// A new, empty file in the place of whatever is there.
    pub fn create(&mut self, path: &str) -> Inode {
        self.files.push(File::default());
        let inode = self.files.len() - 1;
        self.change(&[(path, Some(Name::File(inode)))]);
        inode
    }

    /// Zeros up to `bytes`.
    pub fn fill(&mut self, file: Inode, bytes: usize) {
        self.files[file].bytes = bytes;
    }

    pub fn write(&mut self, file: Inode, at: usize, bytes: &[u8]) {
        self.files[file].write(at, bytes);
    }

    /// The write of a commit. Where it goes wrong silently it goes to another sector of any segment
    /// or index.
    pub fn write_commit(&mut self, file: Inode, at: usize, bytes: &[u8]) -> io::Result<()> {
        if self.fails(self.faults.write_errors) {
            self.tear(file, at, bytes);
            return Err(failed());
        }
        if self.fails(self.faults.misdirected)
            && let Some((other, sector)) = self.any_sector()
        {
            // It stays within the file, as one to another file of that size would.
            let room = self.files[other].bytes - sector * SECTOR;
            self.write(other, sector * SECTOR, &bytes[..bytes.len().min(room)]);
        } else {
            self.write(file, at, bytes);
        }
        Ok(())
    }

    /// Some sectors of a write that was interrupted.
    pub fn tear(&mut self, file: Inode, at: usize, bytes: &[u8]) {
        let sectors = bytes.len().div_ceil(SECTOR);
        let some = match self.random.below(4) {
            0 => 0..0,
            1 => 0..sectors,
            2 => 0..self.random.below(sectors + 1),
            _ => self.random.below(sectors)..sectors,
        };
        let holes = self.random.below(2) == 0;
        for sector in some {
            if !holes || self.random.below(3) > 0 {
                let end = bytes.len().min((sector + 1) * SECTOR);
                self.write(file, at + sector * SECTOR, &bytes[sector * SECTOR..end]);
            }
        }
    }

    pub fn read(&mut self, file: Inode, at: usize, bytes: usize) -> io::Result<Vec<u8>> {
        if self.fails(self.faults.read_errors) {
            self.failed_reads += 1;
            return Err(failed());
        }
        Ok(self.peek(file, at, bytes))
    }

    /// What stands there, faults apart.
    pub fn peek(&self, file: Inode, at: usize, bytes: usize) -> Vec<u8> {
        let file = &self.files[file];
        file.range(at, bytes.min(file.bytes.saturating_sub(at)))
    }

    pub fn flush(&mut self, file: Inode) -> io::Result<()> {
        if self.fails(self.faults.flush_errors) {
            return Err(failed());
        }
        if !self.fails(self.faults.lies) {
            self.files[file].flush();
        }
        Ok(())
    }

    pub fn resize(&mut self, file: Inode, bytes: usize) {
        let file = &mut self.files[file];
        if bytes < file.bytes {
            let tail = file.range(bytes, file.bytes - bytes);
            file.cut.get_or_insert((bytes, tail));
        }
        file.set_bytes(bytes);
        file.durable_bytes = file.durable_bytes.min(bytes);
    }

    pub fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let name = self.names.get(from).copied().ok_or(ErrorKind::NotFound)?;
        self.change(&[(from, None), (to, Some(name))]);
        Ok(())
    }

    pub fn remove(&mut self, path: &str) {
        if self.names.contains_key(path) {
            self.change(&[(path, None)]);
        }
    }

    pub fn make_dir(&mut self, dir: &str) {
        for (end, _) in dir.match_indices('/').chain([(dir.len(), "")]) {
            if !self.names.contains_key(&dir[..end]) {
                self.change(&[(&dir[..end], Some(Name::Dir))]);
            }
        }
    }

    pub fn flush_dir(&mut self, dir: &str) {
        let last = self.changes.iter().rposition(|change| change.dirs.iter().any(|d| d == dir));
        if let Some(last) = last {
            self.changes.drain(..=last);
        }
    }

    /// What is not durable is there or not. Everything is off.
    pub fn cut_power(&mut self) {
        let kept = match self.random.below(3) {
            0 => 0,
            _ => self.random.below(self.changes.len() + 1),
        };
        for change in self.changes.drain(kept..).rev() {
            for (path, before) in change.before.into_iter().rev() {
                match before {
                    Some(name) => self.names.insert(path, name),
                    None => self.names.remove(&path),
                };
            }
        }
        self.changes.clear();
        for file in &mut self.files {
            file.cut_power(&mut self.random);
        }
    }

    /// Any sector of a segment or an index.
    fn any_sector(&mut self) -> Option<(Inode, usize)> {
        let of_log = |path: &str| path.ends_with(".log") || path.ends_with(".idx");
        let files = self.names.iter().filter_map(|(path, name)| match name {
            Name::File(file) if of_log(path) && self.files[*file].bytes > 0 => Some(*file),
            _ => None,
        });
        let files: Vec<_> = files.collect();
        let file = *files.get(self.random.below(files.len()))?;
        // Where something stands: most of a segment may be empty.
        let sectors = self.files[file].data.len().min(self.files[file].bytes).div_ceil(SECTOR);
        Some((file, self.random.below(sectors.max(1))))
    }

    /// A bit flips, or a sector is gone, and nobody says so. What it was, if there was anything.
    pub fn harm(&mut self) -> Option<(Inode, usize)> {
        let (file, sector) = self.any_sector()?;
        let at = sector * SECTOR;
        let mut bytes = self.files[file].sector(sector);
        match self.random.below(4) {
            0 => bytes.fill(0),
            _ => bytes[self.random.below(SECTOR)] ^= 1 << self.random.below(8),
        }
        bytes.truncate(self.files[file].bytes - at);
        self.files[file].put(at, &bytes);
        Some((file, at))
    }
}
