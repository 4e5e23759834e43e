//! The start of a data directory: its logs are looked through, cut, sealed, and a generation begun.
//!
//! Comes in: the files and what this start wants. Goes out: what the shards continue from. What is
//! kept is flushed before anyone reads it; the new manifest, renamed into place, is the moment at
//! which the old logs are sealed. A start that is interrupted anywhere is begun again by the next.
//! Damage does not keep it from starting: what is lost is fenced (see `recovery`) and told.
//! Deliberately absent: the lock, and I/O of its own.

use std::collections::BTreeSet;

use super::files::{Files, IoError, failed};
use super::index::SegmentEnd;
use super::inspect::{Recovery, inspect, is_blank, keys};
use super::manifest::{
    self, Generation, Manifest, ManifestStream, OffsetRange, OffsetRow, Refused, SealedSegment,
};
use super::recovery::Recovered;
use super::segment::{SegmentKey, generation_dir, log_dir};
use super::starts;
use crate::record::{Durability, StreamName};

/// The manifest's file.
pub const MANIFEST: &str = "manifest.json";
const MANIFEST_ASIDE: &str = "manifest.json.new";
/// Segments that wait for being used again.
pub const SPARE_DIR: &str = "spare";

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

/// A directory that is ready for its shards.
#[derive(Debug)]
pub struct Started {
    /// As it was written for this start.
    pub manifest: Manifest,
    /// What the shards continue from.
    pub recovered: Recovered,
    /// Torn tails that were cut: segment and byte. They were never acknowledged.
    pub torn: Vec<(SegmentKey, u64)>,
    /// Offsets that damage took and that no earlier start has told of.
    pub newly_lost: Vec<OffsetRange>,
}

/// Why a directory cannot be started from. Nothing that was acknowledged is changed by then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system's.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The manifest is not one that this engine can go on from.
    #[error(transparent)]
    Manifest(#[from] Refused),
    /// There are files in it, but no manifest.
    #[error("the directory is not empty and holds no Tidegate data")]
    NotOurs,
    /// There are segments in it, but no manifest.
    #[error("the directory has segments, but its manifest is gone")]
    ManifestGone,
    /// The number of partitions is fixed.
    #[error("it has {there} partitions, and {asked} are asked for")]
    Partitions {
        /// As created.
        there: u32,
        /// As asked for.
        asked: u32,
    },
}

/// Recovers a locked directory and begins a generation in it. `random` gives the random bits of new
/// ids.
///
/// # Errors
/// [`Error`].
pub fn start(
    files: &dyn Files,
    wanted: &Wanted,
    random: &mut dyn FnMut() -> u64,
) -> Result<Started, Error> {
    let old = read_manifest(files)?;
    if let (Some(old), Some(asked)) = (&old, wanted.partitions)
        && old.partitions != asked
    {
        return Err(Error::Partitions { there: old.partitions, asked });
    }
    let mut manifest = match old {
        Some(old) => old,
        None => new_manifest(files, wanted, random)?,
    };
    let mut recovery = recover(files, &manifest, wanted.block)?;
    begin_generation(&mut manifest, &mut recovery.recovered, wanted, random);
    let newly_lost = note_lost(&mut manifest, &recovery.recovered);
    let generation = manifest.current.generation;
    for shard in 0..wanted.shards {
        let dir = log_dir(generation, shard);
        files.make_dir(&dir).map_err(failed("creating", &dir))?;
        files.flush_dir(&dir).map_err(failed("flushing", &dir))?;
    }
    // A copy, from which a lost manifest is restored.
    write_manifest(files, &generation_dir(generation), &manifest)?;
    files.flush_dir("").map_err(failed("flushing", "the data directory"))?;
    write_manifest(files, "", &manifest)?;
    // From here on the old logs are sealed. What is left speeds up the next start, and frees space.
    write_indexes(files, &recovery.indexes)?;
    remove_unbegun(files, &recovery.unbegun)?;
    remove_leftovers(files, &manifest)?;
    Ok(Started { manifest, recovered: recovery.recovered, torn: recovery.torn, newly_lost })
}

/// Looks through a directory and makes durable what a start keeps of it: segments of the last
/// generation are cut at their ends and flushed.
fn recover(files: &dyn Files, manifest: &Manifest, block: usize) -> Result<Recovery, Error> {
    let mut cut = |key: SegmentKey, end: &SegmentEnd| -> Result<(), Error> {
        let path = key.path();
        let bytes = files.size(&path).map_err(failed("reading", &path))?.unwrap_or(0);
        // A growing file may lack the padding of its last frame, which every reader counts on.
        let whole = if mutated!(CutTooFar) { end.end - block as u64 } else { end.end };
        if bytes != whole {
            files.resize(&path, whole).map_err(failed("resizing", &path))?;
        }
        if mutated!(KeptUnflushed) {
            return Ok(());
        }
        files.flush(&path).map_err(failed("flushing", &path))?;
        Ok(())
    };
    let recovery = inspect(files, manifest, block, &mut cut)?;
    for log in 0..manifest.current.shards {
        let dir = log_dir(manifest.current.generation, log);
        if !files.list(&dir).map_err(failed("reading", &dir))?.is_empty() {
            files.flush_dir(&dir).map_err(failed("flushing", &dir))?;
        }
    }
    Ok(recovery)
}

/// Reads the manifest of a directory; `None` when the directory is empty.
///
/// # Errors
/// [`Error::NotOurs`] and [`Error::Manifest`], and the file system's.
pub fn read_manifest(files: &dyn Files) -> Result<Option<Manifest>, Error> {
    if files.size(MANIFEST).map_err(failed("reading", MANIFEST))?.is_none() {
        let names = files.list("").map_err(failed("reading", "the data directory"))?;
        let foreign = |name: &String| {
            !["lock", "lost+found", MANIFEST_ASIDE].contains(&name.as_str())
                && !name.starts_with(".tidegate-probe")
        };
        return match names.iter().any(foreign) {
            true if names.iter().any(|name| is_generation(name)) => Err(Error::ManifestGone),
            true => Err(Error::NotOurs),
            false => Ok(None),
        };
    }
    decode_manifest(files, MANIFEST).map(Some)
}

fn decode_manifest(files: &dyn Files, path: &str) -> Result<Manifest, Error> {
    let file = files.read(path, 0, usize::MAX).map_err(failed("reading", path))?;
    let text = String::from_utf8(file).map_err(|_| Refused::Crc)?;
    Ok(Manifest::decode(&text)?)
}

fn is_generation(name: &str) -> bool {
    name.strip_prefix('g').is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Of a directory whose manifest is gone or harmed: the copy that its last start left, and where.
///
/// # Errors
/// As [`read_manifest`], where there is no sound copy.
pub fn read_manifest_copy(files: &dyn Files) -> Result<(Manifest, String), Error> {
    let mut names = files.list("").map_err(failed("reading", "the data directory"))?;
    names.retain(|name| is_generation(name));
    names.sort_by_key(|name| (name.len(), name.clone()));
    let path = names.pop().map(|newest| format!("{newest}/{MANIFEST}"));
    // An older one does not know what the last start sealed.
    let path = path.filter(|path| matches!(files.size(path), Ok(Some(_)))).ok_or(Error::NotOurs)?;
    Ok((decode_manifest(files, &path)?, path))
}

fn new_manifest(
    files: &dyn Files,
    wanted: &Wanted,
    random: &mut dyn FnMut() -> u64,
) -> Result<Manifest, Error> {
    let manifest = Manifest {
        format: manifest::FORMAT,
        features: manifest::FEATURES,
        cluster_id: random_uuid(random).simple().to_string(),
        partitions: wanted.partitions.unwrap_or(wanted.partitions_of_new),
        starts: 0,
        streams: Vec::new(),
        current: Generation { generation: 0, shards: 0, seed: 0 },
        sealed: Vec::new(),
        offsets: Vec::new(),
        gaps: Vec::new(),
        lost: Vec::new(),
        age_ms: 0,
        wall_ms: wanted.wall_ms,
    };
    // A directory without one would not be taken for ours if this start ended early.
    write_manifest(files, "", &manifest)?;
    Ok(manifest)
}

fn random_uuid(random: &mut dyn FnMut() -> u64) -> uuid::Uuid {
    let bits = (u128::from(random()) << 64) | u128::from(random());
    uuid::Builder::from_random_bytes(bits.to_le_bytes()).into_uuid()
}

/// Seals what was found, and names what this start has.
fn begin_generation(
    manifest: &mut Manifest,
    recovered: &mut Recovered,
    wanted: &Wanted,
    random: &mut dyn FnMut() -> u64,
) {
    seal(manifest, recovered, wanted.wall_ms);
    manifest.starts += 1;
    let generation = manifest.current.generation + 1;
    manifest.current = Generation { generation, shards: wanted.shards, seed: random() };
    name_streams(manifest, &wanted.streams, random);
    recovered.reserve(&durabilities(manifest, &wanted.streams), manifest.partitions);
    note_offsets(manifest, recovered);
}

/// Names every segment that is there, and the time up to which it was written.
fn seal(manifest: &mut Manifest, recovered: &Recovered, wall_ms: i64) {
    let sealed = recovered.segments.iter().map(|segment| SealedSegment {
        generation: segment.key.generation,
        log: segment.key.log,
        moved: segment.key.moved,
        sequence: segment.key.sequence,
        identity: segment.end.identity,
        end: segment.end.end,
    });
    manifest.sealed = sealed.collect();
    manifest.age_ms = age_at_start(manifest, recovered, wall_ms);
    manifest.wall_ms = wall_ms;
}

fn note_offsets(manifest: &mut Manifest, recovered: &Recovered) {
    manifest.offsets = recovered.offsets.values().map(|row| (*row).into()).collect();
    let gaps = recovered.gaps.iter().flat_map(|(&(stream, partition), gaps)| {
        gaps.iter().map(move |(from, to)| OffsetRange { stream, partition, from: from.0, to: to.0 })
    });
    manifest.gaps = gaps.collect();
}

/// The manifest of a directory in which nothing is written any more until its next start.
pub(super) fn sealed_manifest(old: &Manifest, recovered: &Recovered, wall_ms: i64) -> Manifest {
    let mut manifest = old.clone();
    seal(&mut manifest, recovered, wall_ms);
    note_offsets(&mut manifest, recovered);
    note_lost(&mut manifest, recovered);
    manifest.current = Generation { shards: 0, seed: 0, ..manifest.current };
    manifest
}

/// Notes the holes in the manifest. Returns those that were not noted before.
fn note_lost(manifest: &mut Manifest, recovered: &Recovered) -> Vec<OffsetRange> {
    let holes: Vec<_> = recovered.holes().collect();
    let known = std::mem::replace(&mut manifest.lost, holes.clone());
    let is_known = |hole: &OffsetRange| {
        known.iter().any(|k| {
            (k.stream, k.partition) == (hole.stream, hole.partition)
                && k.from <= hole.from
                && hole.to <= k.to
        })
    };
    holes.into_iter().filter(|hole| !is_known(hole)).collect()
}

/// Adds streams to the manifest of a directory in use, durably: until then no log may be told of
/// them. `manifest` changes once that is done.
///
/// # Errors
/// The file system's. The file then has the old streams or the new ones, of which nothing is written.
pub fn add_streams(
    files: &dyn Files,
    manifest: &mut Manifest,
    streams: &[StreamWanted],
    random: &mut dyn FnMut() -> u64,
) -> Result<(), IoError> {
    let mut new = manifest.clone();
    let mut recovered = Recovered::default();
    let first = new.streams.len() as u32;
    name_streams(&mut new, streams, random);
    recovered.reserve(&durabilities(&new, streams), new.partitions);
    let added = recovered.offsets.into_values().filter(|row| row.stream >= first);
    new.offsets.extend(added.map(Into::<OffsetRow>::into));
    write_manifest(files, &generation_dir(new.current.generation), &new)?;
    write_manifest(files, "", &new)?;
    *manifest = new;
    Ok(())
}

/// Gives an id to each stream that has none.
fn name_streams(
    manifest: &mut Manifest,
    streams: &[StreamWanted],
    random: &mut dyn FnMut() -> u64,
) {
    for stream in streams {
        if manifest.streams.iter().all(|known| known.name != stream.name) {
            let topic_id = random_uuid(random);
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

/// Writes a manifest aside, flushed, and renames it into place, durably.
pub(super) fn write_manifest(
    files: &dyn Files,
    dir: &str,
    manifest: &Manifest,
) -> Result<(), IoError> {
    let text =
        manifest.encode().map_err(std::io::Error::other).map_err(failed("encoding", MANIFEST))?;
    let within =
        |name: &str| if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
    replace(files, &within(MANIFEST_ASIDE), &within(MANIFEST), text.as_bytes())?;
    files.flush_dir(dir).map_err(failed("flushing", dir))
}

pub(super) fn replace(
    files: &dyn Files,
    aside: &str,
    path: &str,
    bytes: &[u8],
) -> Result<(), IoError> {
    files.create(aside, bytes).map_err(failed("writing", aside))?;
    if !mutated!(RenamedUnflushed) {
        files.flush(aside).map_err(failed("flushing", aside))?;
    }
    files.rename(aside, path).map_err(failed("renaming", aside))
}

fn write_indexes(files: &dyn Files, indexes: &[(SegmentKey, Vec<u8>)]) -> Result<(), Error> {
    let mut dirs = BTreeSet::new();
    for (key, bytes) in indexes {
        let path = key.index_path();
        replace(files, &format!("{path}.new"), &path, bytes)?;
        dirs.insert(log_dir(key.generation, key.log));
    }
    for dir in dirs {
        files.flush_dir(&dir).map_err(failed("flushing", &dir))?;
    }
    Ok(())
}

fn remove_unbegun(files: &dyn Files, unbegun: &[SegmentKey]) -> Result<(), Error> {
    for key in unbegun {
        for path in [key.path(), key.index_path()] {
            files.remove(&path).map_err(failed("removing", &path))?;
        }
    }
    Ok(())
}

/// Removes what was being written or made ready when an earlier start ended, and what older logs
/// leave when they are empty. Whatever holds something stays.
fn remove_leftovers(files: &dyn Files, manifest: &Manifest) -> Result<(), Error> {
    let sealed: BTreeSet<_> = manifest.sealed.iter().map(SealedSegment::key).collect();
    for name in files.list("").map_err(failed("reading", "the data directory"))? {
        let generation = name.strip_prefix('g').and_then(|number| number.parse::<u32>().ok());
        let Some(generation) = generation.filter(|older| *older < manifest.current.generation)
        else {
            continue;
        };
        let mut segments = 0;
        for log in files.list(&name).map_err(failed("reading", &name))? {
            if let Some(log) = log.strip_prefix('s').and_then(|number| number.parse().ok()) {
                segments += remove_leftovers_of_log(files, (generation, log), &sealed)?;
            }
        }
        if segments == 0 {
            let copy = format!("{name}/{MANIFEST}");
            files.remove(&copy).map_err(failed("removing", &copy))?;
            files.remove_dir(&name).map_err(failed("removing", &name))?;
        }
    }
    Ok(())
}

/// Returns how many files are left.
fn remove_leftovers_of_log(
    files: &dyn Files,
    (generation, log): (u32, u32),
    sealed: &BTreeSet<SegmentKey>,
) -> Result<usize, Error> {
    let dir = &log_dir(generation, log);
    for key in keys(files, generation, log)?.into_iter().filter(|key| !sealed.contains(key)) {
        if is_blank(files, key)? {
            remove_unbegun(files, &[key])?;
        }
    }
    let names: BTreeSet<_> = files.list(dir).map_err(failed("reading", dir))?.into_iter().collect();
    let segments = names.iter().filter(|name| name.ends_with(".log")).count();
    let mut left = 0;
    for name in &names {
        let orphaned =
            name.strip_suffix(".idx").is_some_and(|stem| !names.contains(&format!("{stem}.log")));
        let of_no_use = segments == 0 && name == starts::FILE;
        if orphaned || of_no_use || name.ends_with(".new") {
            let path = format!("{dir}/{name}");
            files.remove(&path).map_err(failed("removing", &path))?;
        } else {
            left += 1;
        }
    }
    if left == 0 {
        files.remove_dir(dir).map_err(failed("removing", dir))?;
    }
    Ok(left)
}
