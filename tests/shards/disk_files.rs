//! The simulated disk as a start sees it: its calls return when they are done, and the process may be
//! interrupted between any two of them.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};

use tidegate::log::Files;

use crate::disk::{Disk, Inode};

/// The disk as a start sees it, which may be interrupted after so many calls.
pub struct DiskFiles<'a> {
    disk: RefCell<&'a mut Disk>,
    calls_left: Cell<usize>,
}

impl<'a> DiskFiles<'a> {
    pub fn new(disk: &'a mut Disk, calls: usize) -> Self {
        Self { disk: RefCell::new(disk), calls_left: Cell::new(calls) }
    }

    /// Whether a call may have failed: it was interrupted, or the disk fails.
    pub fn may_fail(&self) -> bool {
        self.calls_left.get() == 0 || self.disk.borrow().may_fail()
    }

    fn call<R>(&self, work: impl FnOnce(&mut Disk) -> io::Result<R>) -> io::Result<R> {
        self.calls_left.update(|left| left.saturating_sub(1));
        if self.calls_left.get() == 0 {
            return Err(io::Error::other("interrupted"));
        }
        work(&mut self.disk.borrow_mut())
    }

    fn with<R>(
        &self,
        path: &str,
        work: impl FnOnce(&mut Disk, Inode) -> io::Result<R>,
    ) -> io::Result<R> {
        self.call(|disk| {
            let file = disk.find(path).ok_or(ErrorKind::NotFound)?;
            work(disk, file)
        })
    }
}

impl Files for DiskFiles<'_> {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.call(|disk| Ok(disk.list(dir)))
    }

    fn size(&self, path: &str) -> io::Result<Option<u64>> {
        self.call(|disk| Ok(disk.find(path).map(|file| disk.bytes(file) as u64)))
    }

    fn read(&self, path: &str, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        self.with(path, |disk, file| disk.read(file, at as usize, bytes))
    }

    fn create(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.call(|disk| {
            disk.try_other()?;
            let file = disk.create(path);
            disk.write(file, 0, bytes);
            Ok(())
        })
    }

    fn append(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.with(path, |disk, file| {
            disk.try_other()?;
            let at = disk.bytes(file);
            disk.write(file, at, bytes);
            Ok(())
        })
    }

    fn resize(&self, path: &str, bytes: u64) -> io::Result<()> {
        self.with(path, |disk, file| {
            disk.resize(file, bytes as usize);
            Ok(())
        })
    }

    /// Honest: a manifest that is lost refuses the start, and there is nothing more to see.
    fn flush(&self, path: &str) -> io::Result<()> {
        self.with(path, |disk, file| {
            let lies = std::mem::take(&mut disk.faults.lies);
            let flushed = disk.flush(file);
            disk.faults.lies = lies;
            flushed
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call(|disk| {
            disk.try_other()?;
            disk.rename(from, to)
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.call(|disk| {
            disk.remove(path);
            Ok(())
        })
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.call(|disk| {
            disk.make_dir(dir);
            Ok(())
        })
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.call(|disk| {
            if disk.list(dir).is_empty() {
                disk.remove(dir);
            }
            Ok(())
        })
    }

    fn flush_dir(&self, dir: &str) -> io::Result<()> {
        self.call(|disk| {
            disk.try_other()?;
            disk.flush_dir(dir);
            Ok(())
        })
    }
}
