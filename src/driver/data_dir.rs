//! The data directory before the shards start: locked, recovered, sealed, ready for a generation.
//!
//! Comes in: a path and what this start wants. Goes out: what the shards continue from. It runs on
//! the main thread with ordinary files; nothing accepts yet. What is kept is flushed before anyone
//! reads it; the new manifest, renamed into place, is the moment at which the old logs are sealed.
//!
//! ```text
//! DIR/lock                        held while an engine uses the directory
//! DIR/manifest.json               what the directory is, where everything ended
//! DIR/g000001/s0000/0000000000.log  a segment: generation, log, sequence
//! DIR/g000001/s0000/0000000000.idx  its index
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::log::index;
use crate::log::index::SegmentEnd;
use crate::log::manifest::{self, Generation, Manifest, ManifestStream, Refused, SealedSegment};
use crate::log::recovery::{Damage, LogEnd, LogScan, Recovered, RecoveredSegment};
use crate::log::segment::{SegmentHeader, SegmentKey};
use crate::record::{Durability, StreamName};

mod error;

pub use error::Error;

const MANIFEST: &str = "manifest.json";
const LOCK: &str = "lock";

/// A stream that this start has.
#[derive(Debug, Clone)]
pub struct StreamWanted {
    /// Its name.
    pub name: StreamName,
    /// Its durability; streams that are not flushed reserve offsets.
    pub durability: Durability,
}

/// What this start wants of the directory.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Shards of this start.
    pub shards: u32,
    /// Partitions, if a person asked for a number.
    pub partitions: Option<u32>,
    /// Partitions of a new directory.
    pub partitions_of_new: u32,
    /// The configured streams.
    pub streams: Vec<StreamWanted>,
    /// Bytes that writes are aligned to.
    pub block: usize,
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: i64,
}

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
    /// The streams of this start.
    pub streams: Vec<StreamWanted>,
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
    let mut notes = Vec::new();
    let old = read_manifest(dir)?;
    if let (Some(old), Some(asked)) = (&old, wanted.partitions)
        && old.partitions != asked
    {
        let there = old.partitions;
        return Err(Error::Partitions { dir: dir.to_owned(), there, asked });
    }
    let mut manifest = match old {
        Some(old) => old,
        None => new_manifest(dir, wanted)?,
    };
    let mut recovered = recover(dir, &manifest, wanted, &mut notes)?;
    let sealed = recovered.segments.iter().map(|segment| SealedSegment {
        generation: segment.key.generation,
        log: segment.key.log,
        sequence: segment.key.sequence,
        identity: segment.end.identity,
        end: segment.end.end,
    });
    manifest.sealed = sealed.collect();
    manifest.age_ms = age_at_start(&manifest, &recovered, wanted.wall_ms);
    manifest.wall_ms = wanted.wall_ms;
    manifest.starts += 1;
    let generation = manifest.current.generation + 1;
    manifest.current = Generation { generation, shards: wanted.shards };
    name_streams(&mut manifest, &wanted.streams);
    recovered.reserve(&durabilities(&manifest, &wanted.streams), manifest.partitions);
    manifest.offsets = recovered.offsets.values().map(|row| (*row).into()).collect();
    for shard in 0..wanted.shards {
        let path = log_dir(dir, generation, shard);
        fs::create_dir_all(&path).map_err(io_error("creating", &path))?;
        sync_dir(&path)?;
    }
    sync_dir(&dir.join(format!("g{generation:06}")))?;
    write_manifest(dir, &manifest)?;
    remove_empty_logs(dir, generation);
    let streams = wanted.streams.clone();
    Ok(DataDir { path: dir.to_owned(), manifest, recovered, notes, streams, _lock: lock })
}

/// The manifest's file.
pub fn manifest_path(dir: &Path) -> PathBuf {
    dir.join(MANIFEST)
}

/// The directory of a log.
pub fn log_dir(dir: &Path, generation: u32, log: u32) -> PathBuf {
    dir.join(format!("g{generation:06}")).join(format!("s{log:04}"))
}

/// The file of a segment.
pub fn segment_path(dir: &Path, key: SegmentKey) -> PathBuf {
    dir.join(format!("{}.log", key.stem()))
}

/// The index file of a segment.
pub fn index_path(dir: &Path, key: SegmentKey) -> PathBuf {
    dir.join(format!("{}.idx", key.stem()))
}

/// Reads the manifest of a directory; `None` when the directory is empty.
pub fn read_manifest(dir: &Path) -> Result<Option<Manifest>, Error> {
    let path = manifest_path(dir);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            let entries = fs::read_dir(dir).map_err(io_error("reading", dir))?;
            let foreign = |name: &std::ffi::OsStr| {
                let name = name.to_string_lossy();
                name != LOCK && name != "lost+found" && !name.starts_with(".tidegate-probe")
            };
            let mut names = entries.filter_map(Result::ok).map(|entry| entry.file_name());
            return match names.any(|name| foreign(&name)) {
                true => Err(Error::NotOurs(dir.to_owned())),
                false => Ok(None),
            };
        }
        Err(cause) => return Err(io_error("reading", &path)(cause)),
    };
    Manifest::decode(&text).map(Some).map_err(|cause| Error::Manifest {
        dir: dir.to_owned(),
        remedy: match cause {
            Refused::Newer(..) => "Start the version of Tidegate that wrote it, or a newer one.",
            _ => "Restore manifest.json from a copy of the directory.",
        },
        cause,
    })
}

fn new_manifest(dir: &Path, wanted: &Wanted) -> Result<Manifest, Error> {
    let manifest = Manifest {
        format: manifest::FORMAT,
        features: manifest::FEATURES,
        cluster_id: uuid::Uuid::new_v4().simple().to_string(),
        partitions: wanted.partitions.unwrap_or(wanted.partitions_of_new),
        starts: 0,
        streams: Vec::new(),
        current: Generation { generation: 0, shards: 0 },
        sealed: Vec::new(),
        offsets: Vec::new(),
        age_ms: 0,
        wall_ms: wanted.wall_ms,
    };
    // A directory without one would not be taken for ours if this start ended early.
    write_manifest(dir, &manifest)?;
    Ok(manifest)
}

/// Gives an id to every stream that has none yet.
fn name_streams(manifest: &mut Manifest, streams: &[StreamWanted]) {
    for stream in streams {
        if manifest.streams.iter().all(|known| known.name != stream.name) {
            let topic_id = uuid::Uuid::new_v4();
            manifest.streams.push(ManifestStream { name: stream.name.clone(), topic_id });
        }
    }
}

/// The streams as the log sees them for the reservation of offsets: those that the configuration
/// does not name any more are not written.
fn durabilities(manifest: &Manifest, streams: &[StreamWanted]) -> Vec<Durability> {
    let of = |known: &ManifestStream| streams.iter().find(|s| s.name == known.name);
    manifest.streams.iter().map(|s| of(s).map_or(Durability::Fsync, |s| s.durability)).collect()
}

/// The age clock: as far as it is known to have come, plus the wall clock's difference since.
fn age_at_start(manifest: &Manifest, recovered: &Recovered, wall_ms: i64) -> u64 {
    let ends = recovered.segments.iter().map(|segment| (segment.end.age_ms, segment.end.wall_ms));
    let (age, wall) = ends.chain([(manifest.age_ms, manifest.wall_ms)]).max().unwrap_or_default();
    age + u64::try_from(wall_ms.saturating_sub(wall)).unwrap_or(0)
}

fn recover(
    dir: &Path,
    manifest: &Manifest,
    wanted: &Wanted,
    notes: &mut Vec<String>,
) -> Result<Recovered, Error> {
    let mut recovered = Recovered::default();
    for row in &manifest.offsets {
        recovered.offsets.insert((row.stream, row.partition), (*row).into());
    }
    for sealed in &manifest.sealed {
        let key = SegmentKey {
            generation: sealed.generation,
            log: sealed.log,
            sequence: sealed.sequence,
        };
        if let Some(segment) = sealed_segment(dir, key, sealed, wanted.block)? {
            recovered.segments.push(segment);
        }
    }
    let current = manifest.current;
    for log in 0..current.shards {
        recover_log(dir, current, log, wanted, &mut recovered, notes)?;
    }
    recovered.segments.sort_unstable_by_key(|segment| segment.key);
    recovered.settle();
    Ok(recovered)
}

/// A segment that an earlier start sealed; `None` when retention has deleted it since.
fn sealed_segment(
    dir: &Path,
    key: SegmentKey,
    sealed: &SealedSegment,
    block: usize,
) -> Result<Option<RecoveredSegment>, Error> {
    let path = segment_path(dir, key);
    if !path.exists() {
        remove(&index_path(dir, key))?;
        return Ok(None);
    }
    let indexed = read_index(dir, key)?.filter(|(end, _)| end.identity == sealed.identity);
    if let Some((end, spans)) = indexed {
        return Ok(Some(RecoveredSegment { key, end, spans }));
    }
    // The index is gone or harmed: the segment itself has everything.
    let mut scan = LogScan::new(BTreeMap::new());
    let file = fs::read(&path).map_err(io_error("reading", &path))?;
    scan.scan(key, &file).map_err(|damage| damaged(dir, damage))?;
    let end = scan.finish();
    let whole = end.segments.first().is_some_and(|(_, end, _)| end.end == sealed.end);
    if !whole {
        let at = end.segments.first().map_or(0, |(_, end, _)| end.end);
        let what = "it ends before the manifest says that it does";
        return Err(damaged(dir, Damage { key, at, what }));
    }
    let mut alone = Recovered::default();
    keep(dir, end, block, &mut alone)?;
    Ok(alone.segments.pop())
}

fn read_index(
    dir: &Path,
    key: SegmentKey,
) -> Result<Option<(SegmentEnd, Vec<index::Span>)>, Error> {
    let path = index_path(dir, key);
    match fs::read(&path) {
        Ok(file) => Ok(index::decode(&file)),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(io_error("reading", &path)(cause)),
    }
}

/// Looks through one log of the generation that was being written.
fn recover_log(
    dir: &Path,
    current: Generation,
    log: u32,
    wanted: &Wanted,
    recovered: &mut Recovered,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    let path = log_dir(dir, current.generation, log);
    let sequences = sequences(&path)?;
    let mine: BTreeMap<_, _> = recovered
        .offsets
        .iter()
        .filter(|((_, partition), _)| partition % current.shards == log)
        .map(|(key, row)| (*key, *row))
        .collect();
    let mut scan = LogScan::new(mine);
    for &sequence in &sequences {
        let key = SegmentKey { generation: current.generation, log, sequence };
        scan_segment(dir, key, &mut scan)?;
    }
    let end = scan.finish();
    if let Some((key, at)) = end.torn {
        notes.push(format!(
            "cut a torn tail off segment {} at byte {at}: it was never acknowledged",
            key.stem()
        ));
    }
    let kept: Vec<u64> = end.segments.iter().map(|(key, _, _)| key.sequence).collect();
    keep(dir, end, wanted.block, recovered)?;
    for sequence in sequences.into_iter().filter(|sequence| !kept.contains(sequence)) {
        let key = SegmentKey { generation: current.generation, log, sequence };
        remove(&segment_path(dir, key))?;
        remove(&index_path(dir, key))?;
    }
    if path.exists() {
        sync_dir(&path)?;
    }
    Ok(())
}

/// Sequence numbers of the segments in a log's directory, in order.
fn sequences(path: &Path) -> Result<Vec<u64>, Error> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(io_error("reading", path)(cause)),
    };
    let mut sequences: Vec<u64> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok())
        .collect();
    sequences.sort_unstable();
    Ok(sequences)
}

fn scan_segment(dir: &Path, key: SegmentKey, scan: &mut LogScan) -> Result<(), Error> {
    let path = segment_path(dir, key);
    if let Some((end, spans)) = read_index(dir, key)? {
        let mut front = vec![0; 1 << 20];
        let mut file = File::open(&path).map_err(io_error("reading", &path))?;
        let bytes = file.read(&mut front).map_err(io_error("reading", &path))?;
        let header = SegmentHeader::read(&front[..bytes]);
        if let Some((header, _, _)) = header
            && header.identity == end.identity
            && header.key == key
        {
            return scan.indexed(&header, end, spans).map_err(|damage| damaged(dir, damage));
        }
    }
    let file = fs::read(&path).map_err(io_error("reading", &path))?;
    scan.scan(key, &file).map_err(|damage| damaged(dir, damage))
}

/// Cuts each segment that is kept of a log at its end and flushes it, writes the index files that
/// are missing, and adds the log to what was recovered.
fn keep(dir: &Path, log: LogEnd, block: usize, recovered: &mut Recovered) -> Result<(), Error> {
    for (key, end, _) in &log.segments {
        let path = segment_path(dir, *key);
        let file =
            OpenOptions::new().write(true).open(&path).map_err(io_error("opening", &path))?;
        let length = file.metadata().map_err(io_error("reading", &path))?.len();
        if length > end.end {
            file.set_len(end.end).map_err(io_error("cutting", &path))?;
        }
        file.sync_all().map_err(io_error("flushing", &path))?;
    }
    for (key, bytes) in recovered.add_log(log, block) {
        write_file(&index_path(dir, key), &bytes)?;
    }
    Ok(())
}

/// Removes the directories of older logs in which nothing is kept; those with files stay.
fn remove_empty_logs(dir: &Path, current: u32) {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    for generation in entries.filter(|entry| is_older(&entry.file_name(), current)) {
        for log in fs::read_dir(generation.path()).into_iter().flatten().filter_map(Result::ok) {
            let _ = fs::remove_dir(log.path());
        }
        let _ = fs::remove_dir(generation.path());
    }
}

fn is_older(name: &std::ffi::OsStr, current: u32) -> bool {
    let number = name.to_str().and_then(|name| name.strip_prefix('g')?.parse::<u32>().ok());
    number.is_some_and(|generation| generation < current)
}

fn write_manifest(dir: &Path, manifest: &Manifest) -> Result<(), Error> {
    let path = manifest_path(dir);
    let aside = dir.join("manifest.json.new");
    let text =
        manifest.encode().map_err(|cause| io_error("writing", &path)(io::Error::other(cause)))?;
    write_file(&aside, text.as_bytes())?;
    fs::rename(&aside, &path).map_err(io_error("renaming", &aside))?;
    sync_dir(dir)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = File::create(path).map_err(io_error("creating", path))?;
    file.write_all(bytes).map_err(io_error("writing", path))?;
    file.sync_all().map_err(io_error("flushing", path))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => Err(io_error("removing", path)(cause)),
        _ => Ok(()),
    }
}

fn sync_dir(path: &Path) -> Result<(), Error> {
    let flushed = File::open(path).and_then(|dir| dir.sync_all());
    flushed.map_err(io_error("flushing", path))
}

fn damaged(dir: &Path, damage: Damage) -> Error {
    Error::Damaged { dir: dir.to_owned(), damage }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |cause| Error::Io { what, path, cause }
}
