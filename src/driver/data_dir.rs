//! The data directory: locked for one process, started from, its files by name.
//!
//! Comes in: a path and what this start wants. Goes out: what the shards continue from. It runs on
//! the main thread with ordinary files; nothing accepts yet. What a start does is `log::start`'s.
//!
//! ```text
//! DIR/lock                        held while an engine uses the directory
//! DIR/manifest.json               what the directory is, where everything ended
//! DIR/g000001/s0000/0000000000.log  a segment: generation, log, sequence
//! DIR/g000001/s0000/m000000000.log  a segment that the cleaner wrote
//! DIR/g000001/s0000/0000000000.idx  an index
//! DIR/g000001/s0000/starts          log starts that retention raised
//! DIR/spare/                        segments that are used again
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::disk_files::DiskFiles;
use crate::log::SegmentKey;
use crate::log::manifest::{Manifest, OffsetRange};
use crate::log::recovery::Recovered;
use crate::log::start::{self, MANIFEST, Started, StreamWanted, Wanted};

mod error;

pub use error::Error;

const LOCK: &str = "lock";

/// A directory that is ready for its shards. The lock is held until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    /// Where.
    pub path: PathBuf,
    /// As it was written for this start.
    pub manifest: Manifest,
    /// What the shards continue from.
    pub recovered: Recovered,
    /// One line a thing that the operator should know.
    pub notes: Vec<String>,
    _lock: File,
}

/// Holds the directory for one process. The lock goes with the process, however it ends.
pub fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io_error("opening", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only for the message; an empty one says as much.
            let _ = file.read_to_string(&mut pid);
            return Err(Error::InUse { dir: dir.to_owned(), pid: pid.trim().to_owned() });
        }
        Err(fs::TryLockError::Error(cause)) => return Err(io_error("locking", &path)(cause)),
    }
    file.set_len(0).map_err(io_error("writing", &path))?;
    writeln!(file, "{}", std::process::id()).map_err(io_error("writing", &path))?;
    Ok(file)
}

/// Recovers a locked directory and begins a generation in it.
///
/// # Errors
/// [`Error`]; then nothing that was in the directory is changed but for files that never held
/// anything acknowledged.
pub fn open(dir: &Path, lock: File, wanted: &Wanted) -> Result<DataDir, Error> {
    let mut random = || uuid::Uuid::new_v4().as_u64_pair().0;
    let started = start::start(&DiskFiles::new(dir), wanted, &mut random)
        .map_err(|cause| Error::new(dir, cause))?;
    let notes = notes(&started);
    Ok(DataDir {
        path: dir.to_owned(),
        manifest: started.manifest,
        recovered: started.recovered,
        notes,
        _lock: lock,
    })
}

/// Adds streams to a directory in use, durably.
///
/// # Errors
/// The file system's; see [`start::add_streams`].
pub fn add_streams(data: &mut DataDir, streams: &[StreamWanted]) -> Result<(), Error> {
    let mut random = || uuid::Uuid::new_v4().as_u64_pair().0;
    start::add_streams(&DiskFiles::new(&data.path), &mut data.manifest, streams, &mut random)
        .map_err(|cause| Error::new(&data.path, cause.into()))
}

/// Notes of one kind that a start shows; the log has them all.
const NOTES_MAX: usize = 8;

/// What the operator should know of a start; what is new and bad goes to the log as well.
fn notes(started: &Started) -> Vec<String> {
    let mut notes = Vec::new();
    for (key, at) in &started.torn {
        notes.push(format!(
            "cut a torn tail off segment {} at byte {at}: it was never acknowledged",
            key.stem()
        ));
    }
    let damages = started.recovered.damages.iter().map(|damage| {
        tracing::error!("{damage}; what was in it is fenced (tidegate log verify says more)");
        damage.to_string()
    });
    add_some(&mut notes, damages.collect());
    let lost = started.manifest.lost.iter().map(|lost| {
        let text = describe_lost(&started.manifest, lost);
        if started.newly_lost.contains(lost) {
            tracing::error!("{text}");
        }
        text
    });
    add_some(&mut notes, lost.collect());
    notes
}

fn add_some(notes: &mut Vec<String>, texts: Vec<String>) {
    let left = texts.len().saturating_sub(NOTES_MAX);
    notes.extend(texts.into_iter().take(NOTES_MAX));
    if left > 0 {
        notes.push(format!("… and {left} more like this: tidegate log verify names them all"));
    }
}

fn describe_lost(manifest: &Manifest, lost: &OffsetRange) -> String {
    let stream = manifest.streams.get(lost.stream as usize);
    let name = stream.map_or_else(|| lost.stream.to_string(), |stream| stream.name.to_string());
    format!(
        "offsets {} to {} of {name}, partition {}, are lost to damage: consumers get \
         CORRUPT_MESSAGE there and can go on at {}",
        lost.from,
        lost.to - 1,
        lost.partition,
        lost.to
    )
}

/// The manifest's file.
pub fn manifest_path(dir: &Path) -> PathBuf {
    dir.join(MANIFEST)
}

/// The directory of a log.
pub fn log_dir(dir: &Path, generation: u32, log: u32) -> PathBuf {
    dir.join(crate::log::segment::log_dir(generation, log))
}

/// The file of a segment.
pub fn segment_path(dir: &Path, key: SegmentKey) -> PathBuf {
    dir.join(key.path())
}

/// The index file of a segment.
pub fn index_path(dir: &Path, key: SegmentKey) -> PathBuf {
    dir.join(key.index_path())
}

/// Reads the manifest of a directory; `None` when the directory is empty.
///
/// # Errors
/// [`Error`].
pub fn read_manifest(dir: &Path) -> Result<Option<Manifest>, Error> {
    start::read_manifest(&DiskFiles::new(dir)).map_err(|cause| Error::new(dir, cause))
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |cause| Error::Io { what, path, cause }
}
