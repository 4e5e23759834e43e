//! Files of a data directory, whole ones read ahead of who needs them, for tools that read everything.
//!
//! Comes in: the paths of the files that will be asked for, in order. Goes out: their bytes, while a
//! thread already reads the next one, so that the disk never waits for who checks. They are mapped,
//! as copying them would cost more than checking them. What the disk cannot read is zeros, and named.
//! The invariant: at most three whole files are mapped. Nothing is ever written; who tries gets an
//! error.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use super::disk_files::DiskFiles;
use super::mapped::Mapped;
use crate::log::Files;
use crate::record::StableBytes;

/// Bytes that are zeros where the disk cannot read one of them.
const PIECE_BYTES: usize = 4 << 10;

/// Bytes that the disk could not read.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// Of which file, relative to the data directory.
    pub path: String,
    /// From which byte on.
    pub at: u64,
    /// What the system says.
    pub cause: String,
}

struct Arrived<'a> {
    path: String,
    bytes: io::Result<Whole<'a>>,
    unreadable: Vec<Unreadable>,
}

type Whole<'a> = Box<dyn StableBytes + Send + 'a>;

/// A data directory whose files are read ahead.
pub struct ReadAhead<'a> {
    files: &'a DiskFiles,
    arriving: Receiver<Arrived<'a>>,
    unreadable: RefCell<Vec<Unreadable>>,
}

impl<'a> ReadAhead<'a> {
    /// Reads `paths` one after the other on a thread of `scope`; `progress` gets the bytes of each.
    /// `lock` is the lock on the data directory.
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        (files, lock): (&'a DiskFiles, &'a File),
        paths: Vec<String>,
        progress: impl FnMut(u64) + Send + 'scope,
    ) -> Self
    where
        'a: 'scope,
    {
        let (send, arriving) = sync_channel(1);
        scope.spawn(move || read_all((files, lock), paths, progress, &send));
        Self { files, arriving, unreadable: RefCell::default() }
    }

    /// Reads nothing ahead.
    pub fn none(files: &'a DiskFiles) -> Self {
        let (_, arriving) = sync_channel(0);
        Self { files, arriving, unreadable: RefCell::default() }
    }

    /// What could not be read.
    pub fn into_unreadable(self) -> Vec<Unreadable> {
        self.unreadable.into_inner()
    }
}

fn read_all<'a>(
    (files, lock): (&'a DiskFiles, &'a File),
    paths: Vec<String>,
    mut progress: impl FnMut(u64),
    send: &SyncSender<Arrived<'a>>,
) {
    for path in paths {
        let mut unreadable = Vec::new();
        let bytes = match Mapped::read(&files.at(&path), lock) {
            Ok(mapped) => Ok(Box::new(mapped) as Whole<'_>),
            Err(_) => read_pieces(files, &path, &mut unreadable).map(|read| Box::new(read) as _),
        };
        progress(bytes.as_ref().map_or(0, |bytes| bytes.as_bytes().len() as u64));
        if send.send(Arrived { path, bytes, unreadable }).is_err() {
            // Nobody waits for them any more.
            return;
        }
    }
}

/// Reads a file of which not everything can be read.
fn read_pieces(
    files: &DiskFiles,
    path: &str,
    unreadable: &mut Vec<Unreadable>,
) -> io::Result<Vec<u8>> {
    let file = File::open(files.at(path))?;
    let size = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = vec![0; size];
    for (number, piece) in bytes.chunks_mut(PIECE_BYTES).enumerate() {
        let at = (number * PIECE_BYTES) as u64;
        if let Err(cause) = file.read_exact_at(piece, at) {
            piece.fill(0);
            unreadable.push(Unreadable { path: path.to_owned(), at, cause: cause.to_string() });
        }
    }
    Ok(bytes)
}

fn refused<T>() -> io::Result<T> {
    Err(ErrorKind::ReadOnlyFilesystem.into())
}

impl Files for ReadAhead<'_> {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.files.list(dir)
    }

    fn size(&self, path: &str) -> io::Result<Option<u64>> {
        self.files.size(path)
    }

    fn read(&self, path: &str, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let failed = match self.files.read(path, at, bytes) {
            Err(failed) if matches!(self.files.size(path), Ok(Some(_))) => failed,
            read => return read,
        };
        let mut unreadable = Vec::new();
        let whole = read_pieces(self.files, path, &mut unreadable)?;
        if unreadable.is_empty() {
            return Err(failed);
        }
        self.unreadable.borrow_mut().extend(unreadable);
        let start = usize::try_from(at).unwrap_or(usize::MAX).min(whole.len());
        Ok(whole[start..start.saturating_add(bytes).min(whole.len())].to_vec())
    }

    fn whole<'b>(&'b self, path: &str) -> io::Result<Box<dyn StableBytes + 'b>> {
        // Those that nobody asked for are passed by; one that was not announced is read now.
        for arrived in self.arriving.iter() {
            if arrived.path == path {
                self.unreadable.borrow_mut().extend(arrived.unreadable);
                return arrived.bytes.map(|bytes| bytes as _);
            }
        }
        Ok(Box::new(self.read(path, 0, usize::MAX)?))
    }

    fn create(&self, _path: &str, _bytes: &[u8]) -> io::Result<()> {
        refused()
    }

    fn append(&self, _path: &str, _bytes: &[u8]) -> io::Result<()> {
        refused()
    }

    fn resize(&self, _path: &str, _bytes: u64) -> io::Result<()> {
        refused()
    }

    fn flush(&self, _path: &str) -> io::Result<()> {
        refused()
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _path: &str) -> io::Result<()> {
        refused()
    }

    fn make_dir(&self, _dir: &str) -> io::Result<()> {
        refused()
    }

    fn remove_dir(&self, _dir: &str) -> io::Result<()> {
        refused()
    }

    fn flush_dir(&self, _dir: &str) -> io::Result<()> {
        refused()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_any_case() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c", "d"] {
            std::fs::write(dir.path().join(name), name.repeat(PIECE_BYTES + 1)).unwrap();
        }
        let files = DiskFiles::new(dir.path());
        let lock = File::create(dir.path().join("lock")).unwrap();
        let mut seen = 0;
        std::thread::scope(|scope| {
            let paths = ["a", "b", "c"].map(str::to_owned).to_vec();
            let ahead = ReadAhead::start(scope, (&files, &lock), paths, |bytes| seen += bytes);
            let check = |name: &str| {
                let whole = ahead.whole(name).unwrap();
                assert_eq!(whole.as_bytes(), name.repeat(PIECE_BYTES + 1).as_bytes(), "{name}");
            };
            check("a");
            assert_eq!(ahead.read("c", 3, 2).unwrap(), b"cc", "a part is read at once");
            // One is passed by, and one was not announced.
            check("c");
            check("d");
            assert!(ahead.create("a", b"").is_err() && ahead.remove("a").is_err());
            assert!(ahead.into_unreadable().is_empty());
        });
        assert_eq!(seen, 3 * (PIECE_BYTES as u64 + 1));
    }
}
