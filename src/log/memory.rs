//! Files in memory for the unit tests: a crash takes every byte and every name that was not flushed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::cache::FileKey;
use super::files::Files;
use super::segment::SegmentKey;

#[derive(Debug, Clone, Default)]
struct State {
    /// Names as they are, and as they are on disk; each the number of a file.
    live: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    /// Bytes as they are, and as they are on disk.
    files: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, Clone, Default)]
pub struct MemoryFiles {
    state: RefCell<State>,
    /// Changes that are still made, if power is to be lost.
    pub left: Cell<Option<usize>>,
}

impl MemoryFiles {
    /// Durable files of segments of one log and their indexes.
    pub fn of(files: &BTreeMap<FileKey, Vec<u8>>) -> Self {
        let made = Self::default();
        for (key, bytes) in files {
            let path = key.path();
            made.create(&path, bytes).expect("no limit");
            made.flush(&path).expect("no limit");
            made.flush_dir(path.rsplit_once('/').expect("in a directory").0).expect("no limit");
        }
        made
    }

    /// Segments and indexes that are there.
    pub fn segments(&self) -> BTreeMap<FileKey, Vec<u8>> {
        let state = self.state.borrow();
        let files = state
            .live
            .keys()
            .filter_map(|path| key_of(path))
            .flat_map(|key| [FileKey::Segment(key), FileKey::Index(key)]);
        let bytes = |key: FileKey| Some(state.files[*state.live.get(&key.path())?].0.clone());
        files.filter_map(|key| Some((key, bytes(key)?))).collect()
    }

    pub fn names(&self) -> BTreeSet<String> {
        self.state.borrow().live.keys().cloned().collect()
    }

    /// Changes bytes behind everyone's back.
    pub fn harm(&self, path: &str, at: usize) {
        let state = &mut *self.state.borrow_mut();
        state.files[state.live[path]].0[at] ^= 1;
    }

    /// The process ends; with `power`, what is not flushed is gone.
    pub fn crash(&self, power: bool) {
        let state = &mut *self.state.borrow_mut();
        self.left.set(None);
        if power {
            state.live = state.durable.clone();
            state.files.iter_mut().for_each(|(live, durable)| live.clone_from(durable));
        }
    }

    fn step(&self) -> io::Result<()> {
        match self.left.get() {
            Some(0) => Err(io::Error::other("power is lost")),
            left => {
                self.left.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}

/// The segment whose file this is.
fn key_of(path: &str) -> Option<SegmentKey> {
    let (dir, name) = path.rsplit_once('/')?;
    let (generation, log) = dir.strip_prefix('g')?.split_once("/s")?;
    SegmentKey::from_name(generation.parse().ok()?, log.parse().ok()?, name)
}

fn dir_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl Files for MemoryFiles {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let state = self.state.borrow();
        let within = |path: &String| {
            let rest =
                if dir.is_empty() { path } else { path.strip_prefix(dir)?.strip_prefix('/')? };
            rest.split('/').next().map(str::to_owned)
        };
        let names: BTreeSet<_> = state.live.keys().filter_map(within).collect();
        Ok(names.into_iter().collect())
    }

    fn size(&self, path: &str) -> io::Result<Option<u64>> {
        let state = self.state.borrow();
        Ok(state.live.get(path).map(|file| state.files[*file].0.len() as u64))
    }

    fn read(&self, path: &str, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let state = self.state.borrow();
        let file = state.live.get(path).ok_or(io::ErrorKind::NotFound)?;
        let live = &state.files[*file].0;
        let start = (at as usize).min(live.len());
        Ok(live[start..start.saturating_add(bytes).min(live.len())].to_vec())
    }

    fn create(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        let state = &mut *self.state.borrow_mut();
        state.files.push((bytes.to_vec(), Vec::new()));
        state.live.insert(path.to_owned(), state.files.len() - 1);
        Ok(())
    }

    fn append(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        let state = &mut *self.state.borrow_mut();
        let file = *state.live.get(path).ok_or(io::ErrorKind::NotFound)?;
        state.files[file].0.extend_from_slice(bytes);
        Ok(())
    }

    fn resize(&self, path: &str, bytes: u64) -> io::Result<()> {
        self.step()?;
        let state = &mut *self.state.borrow_mut();
        let file = *state.live.get(path).ok_or(io::ErrorKind::NotFound)?;
        state.files[file].0.resize(bytes as usize, 0);
        Ok(())
    }

    fn flush(&self, path: &str) -> io::Result<()> {
        self.step()?;
        let state = &mut *self.state.borrow_mut();
        let file = *state.live.get(path).ok_or(io::ErrorKind::NotFound)?;
        let (live, durable) = &mut state.files[file];
        durable.clone_from(live);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step()?;
        let state = &mut *self.state.borrow_mut();
        let file = state.live.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.live.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.step()?;
        self.state.borrow_mut().live.remove(path);
        Ok(())
    }

    fn make_dir(&self, _: &str) -> io::Result<()> {
        self.step()
    }

    fn remove_dir(&self, _: &str) -> io::Result<()> {
        self.step()
    }

    fn flush_dir(&self, dir: &str) -> io::Result<()> {
        self.step()?;
        let state = &mut *self.state.borrow_mut();
        state.durable.retain(|path, _| dir_of(path) != dir);
        let there = state.live.iter().filter(|(path, _)| dir_of(path) == dir);
        state.durable.extend(there.map(|(path, file)| (path.clone(), *file)));
        Ok(())
    }
}
