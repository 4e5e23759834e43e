//! The files of a data directory on a real file system, through ordinary blocking calls: for the
//! start, before any shard runs, for threads that may block, and for the tools.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::log::Files;

/// A data directory.
#[derive(Debug, Clone)]
pub struct DiskFiles {
    dir: PathBuf,
}

impl DiskFiles {
    /// The directory at `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.dir.clone() } else { self.dir.join(path) }
    }
}

impl Files for DiskFiles {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.at(dir)) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        // Names that are no UTF-8 are none of ours.
        entries
            .filter_map(|entry| entry.map(|e| e.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn size(&self, path: &str) -> io::Result<Option<u64>> {
        match fs::metadata(self.at(path)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    fn read(&self, path: &str, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.at(path))?;
        let there = file.metadata()?.len().saturating_sub(at);
        file.seek(SeekFrom::Start(at))?;
        let mut out = Vec::with_capacity(bytes.min(usize::try_from(there).unwrap_or(usize::MAX)));
        file.take(bytes as u64).read_to_end(&mut out)?;
        Ok(out)
    }

    fn create(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        File::create(self.at(path))?.write_all(bytes)
    }

    fn append(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().append(true).open(self.at(path))?.write_all(bytes)
    }

    fn resize(&self, path: &str, bytes: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.at(path))?.set_len(bytes)
    }

    fn flush(&self, path: &str) -> io::Result<()> {
        File::open(self.at(path))?.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        match fs::remove_file(self.at(path)) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => Err(cause),
            _ => Ok(()),
        }
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        fs::create_dir_all(self.at(dir))
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        match fs::remove_dir(self.at(dir)) {
            Err(cause)
                if !matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) =>
            {
                Err(cause)
            }
            _ => Ok(()),
        }
    }

    fn flush_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.at(dir))?.sync_all()
    }
}
