//! A simulated directory: what is flushed survives, of the rest a crash keeps any sectors it likes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

use tidegate::log::Files;

use crate::random::Random;

/// What a disk writes whole or not at all.
pub const SECTOR: usize = 512;

#[derive(Debug, Clone, Default)]
struct File {
    /// What is surely there after a crash; `None` while the directory entry is not durable.
    durable: Option<Vec<u8>>,
    live: Vec<u8>,
    /// Sectors of `live` that were written since the last flush.
    dirty: BTreeSet<usize>,
}

impl File {
    /// What a crash leaves of the file.
    fn crash(&mut self, random: &mut Random) -> bool {
        let entry_lost = self.durable.is_none() && random.one_in(2);
        let mut left = self.durable.take().unwrap_or_default();
        let sectors = (self.live.len().saturating_sub(left.len())).div_ceil(SECTOR);
        let length = (left.len() + random.below(sectors + 1) * SECTOR).min(self.live.len());
        if length > left.len() {
            left.resize(length, 0);
        }
        // All, none, or each by chance: the extremes are what happens most.
        let mode = random.below(4);
        for &sector in &self.dirty {
            let keep = match mode {
                0 => false,
                1 => true,
                _ => random.one_in(2),
            };
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(left.len()).min(self.live.len());
            if keep && start < end {
                left[start..end].copy_from_slice(&self.live[start..end]);
            }
        }
        self.live.clone_from(&left);
        self.durable = Some(left);
        self.dirty.clear();
        !entry_lost
    }
}

/// A change of a directory that is not durable yet, with what undoes it.
#[derive(Debug, Clone)]
enum Change {
    Removed(String, File),
    Renamed { from: String, to: String, replaced: Option<File> },
}

#[derive(Debug, Clone, Default)]
pub struct Disk {
    files: BTreeMap<String, File>,
    /// Changes of directories that are not durable, oldest first; the journal keeps their order.
    changes: Vec<Change>,
    pub random: Random,
}

impl Disk {
    pub fn new(seed: u64) -> Self {
        Self { random: Random(seed), ..Self::default() }
    }

    /// Makes a file of `bytes` zeros; durable when this returns.
    pub fn make(&mut self, path: &str, bytes: usize) {
        let zeros = || vec![0; bytes];
        let file = File { durable: Some(zeros()), live: zeros(), dirty: BTreeSet::new() };
        self.files.insert(path.to_owned(), file);
        self.flush_dir();
    }

    /// Begins to make a file; not durable.
    pub fn begin_to_make(&mut self, path: &str, bytes: usize) {
        self.files.insert(path.to_owned(), File { live: vec![0; bytes], ..File::default() });
    }

    pub fn exists(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Writes; not durable before [`Disk::flush`].
    pub fn write(&mut self, path: &str, position: usize, bytes: &[u8]) {
        let file = self.files.entry(path.to_owned()).or_default();
        let end = position + bytes.len();
        if file.live.len() < end {
            file.live.resize(end, 0);
        }
        file.live[position..end].copy_from_slice(bytes);
        file.dirty.extend(position / SECTOR..end.div_ceil(SECTOR));
    }

    /// A log never writes a place twice: whether everything from `position` on is still zero.
    pub fn is_blank(&self, path: &str, position: usize, bytes: usize) -> bool {
        let Some(file) = self.files.get(path) else { return true };
        file.live.iter().skip(position).take(bytes).all(|byte| *byte == 0)
    }

    pub fn flush(&mut self, path: &str) {
        let Some(file) = self.files.get_mut(path) else { return };
        let durable = file.durable.get_or_insert_default();
        durable.resize(file.live.len(), 0);
        for sector in std::mem::take(&mut file.dirty) {
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(file.live.len());
            if start < end {
                durable[start..end].copy_from_slice(&file.live[start..end]);
            }
        }
    }

    /// The journal is written: all changes of directories are durable.
    pub fn flush_dir(&mut self) {
        self.changes.clear();
    }

    /// Up to `bytes` from `position` on; `None` when there is no such file.
    pub fn read(&self, path: &str, position: usize, bytes: usize) -> Option<Vec<u8>> {
        let live = &self.files.get(path)?.live;
        let start = position.min(live.len());
        Some(live[start..position.saturating_add(bytes).min(live.len())].to_vec())
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        let file = self.files.remove(from).expect("there");
        let replaced = self.files.insert(to.to_owned(), file);
        self.changes.push(Change::Renamed { from: from.to_owned(), to: to.to_owned(), replaced });
    }

    /// Writes a file aside and puts it in its place, durably.
    pub fn replace(&mut self, path: &str, bytes: &[u8]) {
        let aside = format!("{path}.new");
        self.files.insert(aside.clone(), File::default());
        self.write(&aside, 0, bytes);
        self.flush(&aside);
        self.rename(&aside, path);
        self.flush_dir();
    }

    pub fn delete(&mut self, path: &str) {
        if let Some(file) = self.files.remove(path) {
            self.changes.push(Change::Removed(path.to_owned(), file));
        }
    }

    /// Changes bytes behind everyone's back.
    pub fn harm(&mut self, path: &str, at: usize, change: impl Fn(&mut [u8])) {
        if let Some(file) = self.files.get_mut(path) {
            change(&mut file.live[at..]);
            if let Some(durable) = &mut file.durable {
                change(&mut durable[at..]);
            }
        }
    }

    /// A file ends earlier than whoever wrote it meant.
    pub fn shorten(&mut self, path: &str, bytes: usize) {
        if let Some(file) = self.files.get_mut(path) {
            file.live.truncate(bytes);
            file.durable.iter_mut().for_each(|durable| durable.truncate(bytes));
        }
    }

    /// Power is lost.
    pub fn crash(&mut self) {
        let Self { files, changes, random } = self;
        let persisted = random.below(changes.len() + 1);
        for change in changes.drain(persisted..).rev() {
            match change {
                Change::Removed(path, file) => drop(files.insert(path, file)),
                Change::Renamed { from, to, replaced } => {
                    let file = files.remove(&to);
                    files.extend(replaced.map(|file| (to, file)));
                    files.extend(file.map(|file| (from, file)));
                }
            }
        }
        changes.clear();
        files.retain(|_, file| file.crash(random));
    }

    /// Files that are not empty, with their bytes.
    pub fn files(&self) -> Vec<(String, usize)> {
        let sizes = self.files.iter().map(|(path, file)| (path.clone(), file.live.len()));
        sizes.filter(|(_, bytes)| *bytes > 0).collect()
    }
}

/// The files as a start uses them, until power is lost.
pub struct Attempt {
    pub disk: RefCell<Disk>,
    /// Changes that are still made, if power is to be lost.
    pub left: Cell<Option<usize>>,
}

impl Attempt {
    /// Power is lost after `left` changes, if at all.
    pub fn new(disk: Disk, left: Option<usize>) -> Self {
        Self { disk: RefCell::new(disk), left: Cell::new(left) }
    }

    fn step(&self) -> io::Result<()> {
        match self.left.get() {
            None => Ok(()),
            Some(0) => Err(io::Error::other("power is lost")),
            Some(left) => {
                self.left.set(Some(left - 1));
                Ok(())
            }
        }
    }
}

impl Files for Attempt {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let disk = self.disk.borrow();
        let below = |path: &String| {
            let rest =
                if dir.is_empty() { path } else { path.strip_prefix(dir)?.strip_prefix('/')? };
            rest.split('/').next().map(str::to_owned)
        };
        let names: BTreeSet<String> = disk.files.keys().filter_map(below).collect();
        Ok(names.into_iter().collect())
    }

    fn size(&self, path: &str) -> io::Result<Option<u64>> {
        Ok(self.disk.borrow().files.get(path).map(|file| file.live.len() as u64))
    }

    fn read(&self, path: &str, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        self.disk.borrow().read(path, at as usize, bytes).ok_or(io::ErrorKind::NotFound.into())
    }

    fn create(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        let mut disk = self.disk.borrow_mut();
        disk.files.insert(path.to_owned(), File::default());
        disk.write(path, 0, bytes);
        Ok(())
    }

    fn append(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        let mut disk = self.disk.borrow_mut();
        let end = disk.files.get(path).map_or(0, |file| file.live.len());
        disk.write(path, end, bytes);
        Ok(())
    }

    fn resize(&self, path: &str, bytes: u64) -> io::Result<()> {
        self.step()?;
        if let Some(file) = self.disk.borrow_mut().files.get_mut(path) {
            // What the journal does at once or later makes no difference to whoever cuts, who flushes next.
            file.live.resize(bytes as usize, 0);
        }
        Ok(())
    }

    fn flush(&self, path: &str) -> io::Result<()> {
        self.step()?;
        self.disk.borrow_mut().flush(path);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step()?;
        self.disk.borrow_mut().rename(from, to);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.step()?;
        self.disk.borrow_mut().delete(path);
        Ok(())
    }

    fn make_dir(&self, _: &str) -> io::Result<()> {
        self.step()
    }

    fn remove_dir(&self, _: &str) -> io::Result<()> {
        self.step()
    }

    fn flush_dir(&self, _: &str) -> io::Result<()> {
        self.step()?;
        self.disk.borrow_mut().flush_dir();
        Ok(())
    }
}
