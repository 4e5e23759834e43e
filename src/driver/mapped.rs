//! Files of a data directory in memory: mapped read-only, every page brought in first.
//!
//! Comes in: a path in a directory that this process has locked. Goes out: its bytes. For the tools,
//! on the main thread; shards map no log, as a page fault would hold all of their connections up. The
//! invariant: nobody writes a mapped file, for the lock outlives the map.
//! Deliberately absent: writable maps, and maps of a directory that an engine uses.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::path::Path;

use memmap2::{Advice, Mmap, MmapOptions};

use crate::record::StableBytes;

/// A file's bytes, while the lock on its data directory is held.
#[derive(Debug)]
pub struct Mapped<'lock> {
    map: Mmap,
    _lock: PhantomData<&'lock File>,
}

impl<'lock> Mapped<'lock> {
    /// As [`Mapped::open`], but where the device cannot read all of it that is an error now.
    ///
    /// # Errors
    /// The system's, of opening, mapping and reading.
    pub fn read(path: &Path, lock: &'lock File) -> io::Result<Self> {
        let mapped = Self::map(path, lock, false)?;
        mapped.map.advise(Advice::WillNeed)?;
        mapped.map.advise(Advice::PopulateRead)?;
        Ok(mapped)
    }

    /// Maps the whole file at `path`. `lock` is the lock on the data directory that it is in
    /// ([`data_dir::lock`](super::data_dir::lock)).
    ///
    /// # Errors
    /// The system's, of opening and mapping.
    pub fn open(path: &Path, lock: &'lock File) -> io::Result<Self> {
        Self::map(path, lock, true)
    }

    fn map(path: &Path, _lock: &'lock File, populate: bool) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut options = MmapOptions::new();
        if populate {
            options.populate();
        }
        // SAFETY: the bytes behind a shared slice must not change. Only engines write files of a
        // data directory, and only while they hold its lock, which this process has for as long as
        // the map lives ('lock); this process maps read-only and writes none of these files. Who
        // cuts a file behind the lock's back, or a device that fails a read, ends this process with
        // SIGBUS: nothing wrong is read.
        let map = unsafe { options.map(&file)? };
        Ok(Self { map, _lock: PhantomData })
    }
}

impl Deref for Mapped<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl StableBytes for Mapped<'_> {
    fn as_bytes(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_holds_what_the_file_holds() {
        let check = |contents: &[u8]| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            std::fs::write(&path, contents).unwrap();
            let lock = File::create(dir.path().join("lock")).unwrap();
            assert_eq!(&*Mapped::open(&path, &lock).unwrap(), contents);
            assert_eq!(&*Mapped::read(&path, &lock).unwrap(), contents);
        };
        check(b"");
        check(b"x");
        check(&[7; 10_000]);
    }
}
