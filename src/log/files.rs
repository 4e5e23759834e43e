//! The files of a data directory, as a start, the cleaner and the tools use them.
//!
//! A trait, so that a simulator can stand in for the file system: everything that decides what
//! survives a crash goes through it. Paths are relative to the data directory, with `/` between
//! their parts. Calls return when they are done; nothing is durable but what says so.
//! Deliberately absent: the commits of a running log, which the driver writes by itself.

use std::io;

use crate::record::StableBytes;

/// A data directory.
pub trait Files {
    /// Names in a directory, `""` being the data directory itself; empty where there is none.
    ///
    /// # Errors
    /// The system's, here and below.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Bytes of a file, `None` where there is none.
    fn size(&self, path: &str) -> io::Result<Option<u64>>;

    /// At most `bytes` bytes from `at` on; fewer where the file ends.
    fn read(&self, path: &str, at: u64, bytes: usize) -> io::Result<Vec<u8>>;

    /// All bytes of a file.
    fn whole<'a>(&'a self, path: &str) -> io::Result<Box<dyn StableBytes + 'a>> {
        Ok(Box::new(self.read(path, 0, usize::MAX)?))
    }

    /// Makes a file with these bytes, in the place of one that is there; not durable.
    fn create(&self, path: &str, bytes: &[u8]) -> io::Result<()>;

    /// Adds bytes at the end of a file; not durable.
    fn append(&self, path: &str, bytes: &[u8]) -> io::Result<()>;

    /// Makes a file `bytes` long: cuts it, or adds zeros; not durable.
    fn resize(&self, path: &str, bytes: u64) -> io::Result<()>;

    /// Makes a file's contents and size durable.
    fn flush(&self, path: &str) -> io::Result<()>;

    /// Renames a file, in the place of one that is there; durable once both directories are.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file that may be gone already.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Makes a directory and its parents, where they are not there.
    fn make_dir(&self, dir: &str) -> io::Result<()>;

    /// Removes a directory; one that is gone already, or not empty, is left as it is.
    fn remove_dir(&self, dir: &str) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn flush_dir(&self, dir: &str) -> io::Result<()>;
}

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path} failed: {cause}")]
pub struct IoError {
    /// What was tried.
    pub what: &'static str,
    /// With which file, relative to the data directory.
    pub path: String,
    /// What the system says.
    pub cause: io::Error,
}

/// Says of a call to [`Files`] what it was for.
pub(super) fn failed<'a>(
    what: &'static str,
    path: &'a str,
) -> impl FnOnce(io::Error) -> IoError + use<'a> {
    move |cause| IoError { what, path: path.to_owned(), cause }
}
