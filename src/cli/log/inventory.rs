//! What a data directory holds: the same finding as at a start of the engine, changing nothing.
//!
//! Comes in: a path. Goes out: the locked directory with its manifest; its segments with where each
//! of them ends, what they hold of each partition, and what is damaged, all as the next start would
//! find it. The invariant: the lock is held.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::Error;
use crate::cli::Failure;
use crate::driver::data_dir::{self, index_path, segment_path};
use crate::driver::disk_files::DiskFiles;
use crate::driver::mapped::Mapped;
use crate::log::SegmentKey;
use crate::log::inspect::inspect;
use crate::log::manifest::{Manifest, Refused};
use crate::log::recovery::{Recovered, RecoveredSegment};
use crate::log::scan::{BLOCK_MIN, Damage};
use crate::log::start::read_manifest_copy;

/// A locked data directory.
#[derive(Debug)]
pub struct Directory {
    /// Where.
    pub path: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    lock: File,
}

impl Directory {
    /// Locks the directory and reads its manifest.
    ///
    /// # Errors
    /// When an engine uses it, when it is none, when its manifest cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        // Before the lock, whose file would be made: nothing is to appear in other directories.
        if !data_dir::manifest_path(path).exists() {
            return Err(nothing_there(path));
        }
        let lock = data_dir::lock(path)?;
        let manifest = data_dir::read_manifest(path)?.ok_or_else(|| nothing_there(path))?;
        Ok(Self { path: path.to_owned(), manifest, lock })
    }

    /// As [`Directory::open`]; where the manifest is gone or harmed, with the copy that the last start
    /// left, and its path.
    ///
    /// # Errors
    /// As [`Directory::open`], where there is no copy either.
    pub fn open_to_repair(path: &Path) -> Result<(Self, Option<String>), Error> {
        let files = DiskFiles::new(path);
        let refused = match Self::open(path) {
            Ok(directory) => return Ok((directory, None)),
            Err(refused) => refused,
        };
        let is_harmed = matches!(
            refused,
            Error::DataDir(
                data_dir::Error::ManifestGone(_)
                    | data_dir::Error::Manifest { cause: Refused::Crc | Refused::Syntax(_), .. }
            )
        );
        if !is_harmed {
            return Err(refused);
        }
        let (manifest, copy) =
            read_manifest_copy(&files).map_err(|_| Error::NoManifest(path.to_owned()))?;
        let directory = Self { path: path.to_owned(), manifest, lock: data_dir::lock(path)? };
        Ok((directory, Some(copy)))
    }

    /// The lock.
    pub fn lock(&self) -> &File {
        &self.lock
    }

    /// The number of the stream with this name.
    ///
    /// # Errors
    /// When there is none; the ones that there are are told.
    pub fn stream(&self, name: &str) -> Result<u32, Failure> {
        let names: Vec<&str> = self.manifest.streams.iter().map(|s| s.name.as_str()).collect();
        let place = names.iter().position(|known| *known == name);
        place.map(|place| place as u32).ok_or_else(|| {
            let (dir, names) = (self.path.display(), names.join(", "));
            Failure::of_use(format!("there is no stream \"{name}\" in {dir}\n  it has: {names}"))
        })
    }

    /// `asked`, if there is such a partition.
    ///
    /// # Errors
    /// When there is none; those that there are are told.
    pub fn partition(&self, asked: u32) -> Result<u32, Failure> {
        if asked < self.manifest.partitions {
            return Ok(asked);
        }
        let (dir, last) = (self.path.display(), self.manifest.partitions.saturating_sub(1));
        let text = format!("there is no partition {asked} in {dir}\n  it has 0 to {last}");
        Err(Failure::of_use(text))
    }

    /// The bytes of a segment's file.
    ///
    /// # Errors
    /// The system's.
    pub fn map(&self, key: SegmentKey) -> Result<Mapped<'_>, Error> {
        let path = segment_path(&self.path, key);
        Mapped::open(&path, &self.lock).map_err(failed("mapping", &path))
    }
}

/// Why there is nothing to be read: there is no manifest.
fn nothing_there(path: &Path) -> Error {
    let what = match data_dir::read_manifest(path) {
        Err(lost @ data_dir::Error::ManifestGone(_)) => return lost.into(),
        _ if !path.exists() => "does not exist",
        _ if !path.is_dir() => "is no directory",
        Ok(None) => "is empty: no engine has started from it yet",
        _ => "holds no Tidegate data: it has no manifest.json",
    };
    Error::NotThere { path: path.to_owned(), what }
}

/// A segment that holds something.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// Which.
    pub key: SegmentKey,
    /// Its identity.
    pub identity: u64,
    /// Bytes of its file that are in use and not known to be damaged.
    pub end: u64,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// The manifest names it; the others are sealed by the next start.
    pub sealed: bool,
}

/// Everything that is there.
#[derive(Debug, Default)]
pub struct Inventory {
    /// By key, which is the order of offsets in each partition.
    pub segments: Vec<Segment>,
    /// What the segments hold, and what the next start would go on from.
    pub recovered: Recovered,
    /// What is damaged, as far as it was looked at.
    pub damages: Vec<Damage>,
    /// Torn tails: where each begins.
    pub torn: Vec<(SegmentKey, u64)>,
    /// Segments that were made ahead and hold nothing, and their bytes.
    pub unused: (usize, u64),
    /// Bytes of all index files.
    pub index_bytes: u64,
    /// Index files that are missing, as the next start would write them.
    pub indexes: BTreeMap<SegmentKey, Vec<u8>>,
}

impl Inventory {
    /// Looks at everything in the directory, as a start does, changing nothing.
    ///
    /// # Errors
    /// The system's; damage is no error here.
    pub fn take(directory: &Directory) -> Result<Self, Error> {
        let manifest = &directory.manifest;
        let files = DiskFiles::new(&directory.path);
        let recovery = inspect(&files, manifest, BLOCK_MIN, &mut |_, _| Ok(()))
            .map_err(|cause| data_dir::Error::new(&directory.path, cause))?;
        let indexes = recovery.indexes.into_iter().collect();
        let mut inventory = Self { torn: recovery.torn, indexes, ..Self::default() };
        for RecoveredSegment { key, end, .. } in &recovery.recovered.segments {
            let file_bytes = size(&segment_path(&directory.path, *key))?.unwrap_or(0);
            inventory.segments.push(Segment {
                key: *key,
                identity: end.identity,
                end: end.end,
                file_bytes,
                sealed: manifest.sealed.iter().any(|sealed| sealed.key() == *key),
            });
            let index = size(&index_path(&directory.path, *key))?;
            inventory.index_bytes += index.unwrap_or(0);
        }
        for key in &recovery.unbegun {
            let bytes = size(&segment_path(&directory.path, *key))?.unwrap_or(0);
            inventory.unused = (inventory.unused.0 + 1, inventory.unused.1 + bytes);
        }
        inventory.damages.clone_from(&recovery.recovered.damages);
        inventory.recovered = recovery.recovered;
        Ok(inventory)
    }
}

/// Bytes of a file, if it is there.
fn size(path: &Path) -> Result<Option<u64>, Error> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(failed("reading", path)(cause)),
    }
}

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |cause| Error::Io { what, path, cause }
}
