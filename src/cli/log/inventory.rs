//! What a data directory holds: the same finding as at a start of the engine, changing nothing.
//!
//! Comes in: a path. Goes out: the locked directory with its manifest; its segments with where each
//! of them ends, what they hold of each partition, and what is damaged. Index files say so where
//! they are; segments without one, as a crash or a clean stop leaves the last of each log, are
//! looked through as recovery does, on mapped bytes. The invariant: the lock is held.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::Error;
use crate::driver::data_dir::{self, index_path, log_dir, segment_path};
use crate::driver::mapped::Mapped;
use crate::log::SegmentKey;
use crate::log::index::{self, SegmentEnd, Span};
use crate::log::manifest::{Manifest, SealedSegment};
use crate::log::recovery::{BLOCK_MIN, Damage, LogScan, Recovered, RecoveredSegment};
use crate::log::segment::SegmentHeader;

/// Enough for every segment header: 32,000 partitions in one log.
const HEADER_BYTES_MAX: u64 = 1 << 20;

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
            return Err(Error::NotThere(path.to_owned()));
        }
        let lock = data_dir::lock(path)?;
        let manifest =
            data_dir::read_manifest(path)?.ok_or_else(|| Error::NotThere(path.to_owned()))?;
        Ok(Self { path: path.to_owned(), manifest, lock })
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
}

impl Inventory {
    /// Looks at everything in the directory.
    ///
    /// # Errors
    /// The system's; damage is no error here.
    pub fn take(directory: &Directory) -> Result<Self, Error> {
        let mut inventory = Self::default();
        let manifest = &directory.manifest;
        for row in &manifest.offsets {
            inventory.recovered.offsets.insert((row.stream, row.partition), (*row).into());
        }
        let mut before: Option<(u32, u32)> = None;
        for sealed in &manifest.sealed {
            let log = Some((sealed.generation, sealed.log));
            if inventory.take_sealed(directory, sealed)? {
                before = log;
            } else if before == log {
                // Retention deletes from the front.
                let what = "its file is missing, and one before it is there";
                inventory.damages.push(Damage { key: key_of(sealed), at: 0, what });
            }
        }
        for log in 0..manifest.current.shards {
            inventory.take_log(directory, log)?;
        }
        inventory.segments.sort_unstable_by_key(|segment| segment.key);
        inventory.recovered.segments.sort_unstable_by_key(|segment| segment.key);
        inventory.recovered.settle();
        Ok(inventory)
    }

    /// A segment that the manifest names; false when it is not there.
    fn take_sealed(&mut self, directory: &Directory, named: &SealedSegment) -> Result<bool, Error> {
        let key = key_of(named);
        let Some(file_bytes) = size(&segment_path(&directory.path, key))? else {
            return Ok(false);
        };
        let indexed = self.read_index(directory, key)?;
        let indexed = indexed.filter(|(end, _)| end.identity == named.identity);
        let mut scan = LogScan::new(BTreeMap::new());
        let damage = match indexed {
            Some((end, spans)) => {
                let end = SegmentEnd { end: named.end, ..end };
                self.keep_indexed(key, end, spans, file_bytes);
                return Ok(true);
            }
            None => scan.scan(key, &directory.map(key)?).err(),
        };
        let end = scan.finish();
        let reached = end.segments.first().map_or(0, |(_, end, _)| end.end);
        let short = (reached != named.end).then_some(Damage {
            key,
            at: reached,
            what: "it ends before the manifest says that it does",
        });
        self.damages.extend(damage.or(short));
        for (key, end, _) in &end.segments {
            self.segments.push(segment(*key, end, file_bytes, true));
        }
        // What the table in its header says is older than the manifest.
        let mut alone = Recovered::default();
        alone.add_log(end, BLOCK_MIN);
        self.recovered.segments.append(&mut alone.segments);
        Ok(true)
    }

    fn keep_indexed(&mut self, key: SegmentKey, end: SegmentEnd, spans: Vec<Span>, bytes: u64) {
        self.segments.push(segment(key, &end, bytes, true));
        self.recovered.segments.push(RecoveredSegment { key, end, spans });
    }

    /// A log of the last generation, as a start would recover it.
    fn take_log(&mut self, directory: &Directory, log: u32) -> Result<(), Error> {
        let current = directory.manifest.current;
        let mine = self.recovered.offsets.iter();
        let mine = mine.filter(|((_, partition), _)| partition % current.shards == log);
        let mut scan = LogScan::new(mine.map(|(place, row)| (*place, *row)).collect());
        let keys = keys(directory, current.generation, log)?;
        let mut harmed = false;
        for &key in &keys {
            if let Err(damage) = self.scan_segment(directory, key, &mut scan)? {
                self.damages.push(damage);
                harmed = true;
                break;
            }
        }
        let end = scan.finish();
        // Behind damage nothing is known: neither what a tail is, nor what holds nothing.
        self.torn.extend(end.torn.filter(|_| !harmed));
        for key in keys {
            let bytes = size(&segment_path(&directory.path, key))?.unwrap_or(0);
            match end.segments.iter().find(|(kept, ..)| *kept == key) {
                Some((_, end, _)) => self.segments.push(segment(key, end, bytes, false)),
                None if harmed => {}
                None => self.unused = (self.unused.0 + 1, self.unused.1 + bytes),
            }
        }
        // The index files that a start would write.
        self.recovered.add_log(end, BLOCK_MIN);
        Ok(())
    }

    fn scan_segment(
        &mut self,
        directory: &Directory,
        key: SegmentKey,
        scan: &mut LogScan,
    ) -> Result<Result<(), Damage>, Error> {
        if let Some((end, spans)) = self.read_index(directory, key)? {
            let path = segment_path(&directory.path, key);
            let mut front = Vec::new();
            File::open(&path)
                .and_then(|file| file.take(HEADER_BYTES_MAX).read_to_end(&mut front))
                .map_err(failed("reading", &path))?;
            let header = SegmentHeader::read(&front).map(|(header, ..)| header);
            if let Some(header) = header.filter(|h| h.key == key && h.identity == end.identity) {
                return Ok(scan.indexed(&header, end, spans));
            }
        }
        Ok(scan.scan(key, &directory.map(key)?))
    }

    fn read_index(
        &mut self,
        directory: &Directory,
        key: SegmentKey,
    ) -> Result<Option<(SegmentEnd, Vec<Span>)>, Error> {
        let path = index_path(&directory.path, key);
        match fs::read(&path) {
            Ok(file) => {
                self.index_bytes += file.len() as u64;
                Ok(index::decode(&file))
            }
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(failed("reading", &path)(cause)),
        }
    }
}

fn segment(key: SegmentKey, end: &SegmentEnd, file_bytes: u64, sealed: bool) -> Segment {
    Segment { key, identity: end.identity, end: end.end, file_bytes, sealed }
}

fn key_of(sealed: &SealedSegment) -> SegmentKey {
    SegmentKey { generation: sealed.generation, log: sealed.log, sequence: sealed.sequence }
}

/// Segments in a log's directory, in order.
fn keys(directory: &Directory, generation: u32, log: u32) -> Result<Vec<SegmentKey>, Error> {
    let path = log_dir(&directory.path, generation, log);
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(failed("reading", &path)(cause)),
    };
    let mut keys = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("reading", &path))?.file_name();
        let sequence = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
        keys.extend(sequence.map(|sequence| SegmentKey { generation, log, sequence }));
    }
    keys.sort_unstable();
    Ok(keys)
}

/// Bytes of a file, if it is there.
fn size(path: &Path) -> Result<Option<u64>, Error> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(failed("reading", path)(cause)),
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |cause| Error::Io { what, path, cause }
}
