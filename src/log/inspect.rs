//! Looking through a data directory as it is: nothing is changed.
//!
//! Comes in: the files and their manifest. Goes out: what a start would go on from, with what is
//! torn and what is damaged. Segments with an index file are not read, but for the header; so the
//! time that it takes grows with their number, not their bytes. `start` and the tools call it; those
//! that are to find whatever there is [`examine`] the segments themselves.
//! Deliberately absent: I/O of its own.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::files::{Files, IoError, failed};
use super::index::{self, SegmentEnd, Span};
use super::manifest::{Generation, Manifest, SealedSegment};
use super::recovery::{Recovered, RecoveredSegment};
use super::scan::{BLOCK_MIN, Damage, Found, LogEnd, LogScan};
use super::segment::{SegmentHeader, SegmentKey, identity, log_dir};
use super::start::Error;
use super::starts;
use crate::record::{Offset, StableBytes};

/// Enough for every segment header: 32,000 partitions in one log.
const HEADER_BYTES_MAX: usize = 1 << 20;

/// What looking through a directory came to.
#[derive(Debug, Default)]
pub struct Recovery {
    /// What the shards would continue from, but for the ceilings of the streams that they have.
    pub recovered: Recovered,
    /// Torn tails: segment and byte.
    pub torn: Vec<(SegmentKey, u64)>,
    /// Index files that are missing.
    pub indexes: Vec<(SegmentKey, Vec<u8>)>,
    /// Segments that were made ready and never begun.
    pub unbegun: Vec<SegmentKey>,
}

/// How closely the segments are looked at.
enum Look<'a> {
    /// As a start does it: an index file stands for its segment.
    Indexes,
    /// Everything is read, and each segment's index, as it should be, given away.
    Contents(&'a mut dyn FnMut(SegmentKey, Vec<u8>)),
}

impl Look<'_> {
    fn scan(&self) -> LogScan {
        LogScan::default().thorough(self.is_thorough())
    }

    fn is_thorough(&self) -> bool {
        matches!(self, Self::Contents(_))
    }

    /// The index of a segment, if that may stand for it.
    fn index(
        &self,
        files: &dyn Files,
        key: SegmentKey,
        identity: u64,
    ) -> Result<Option<(SegmentEnd, Vec<Span>)>, Error> {
        if self.is_thorough() { Ok(None) } else { read_index(files, key, identity) }
    }

    /// Takes the indexes that were made of segments.
    fn made(&mut self, recovery: &mut Recovery, indexes: Vec<(SegmentKey, Vec<u8>)>) {
        match self {
            Self::Indexes => recovery.indexes.extend(indexes),
            Self::Contents(take) => indexes.into_iter().for_each(|(key, bytes)| take(key, bytes)),
        }
    }
}

/// Looks through a directory. `keep` is called for each segment of the last generation that was
/// looked through, with its end; those with an index file were durable before.
///
/// # Errors
/// The file system's, and those of `keep`.
pub fn inspect(
    files: &dyn Files,
    manifest: &Manifest,
    block: usize,
    keep: &mut dyn FnMut(SegmentKey, &SegmentEnd) -> Result<(), Error>,
) -> Result<Recovery, Error> {
    look_through(files, manifest, block, &mut Look::Indexes, keep)
}

/// Looks through a directory and takes no index file's word: every frame, batch and record is
/// checked. `index` gets what the index file of each segment should hold, padded to [`BLOCK_MIN`].
///
/// # Errors
/// The file system's.
pub fn examine(
    files: &dyn Files,
    manifest: &Manifest,
    index: &mut dyn FnMut(SegmentKey, Vec<u8>),
) -> Result<Recovery, Error> {
    look_through(files, manifest, BLOCK_MIN, &mut Look::Contents(index), &mut |_, _| Ok(()))
}

fn look_through(
    files: &dyn Files,
    manifest: &Manifest,
    block: usize,
    look: &mut Look<'_>,
    keep: &mut dyn FnMut(SegmentKey, &SegmentEnd) -> Result<(), Error>,
) -> Result<Recovery, Error> {
    let mut recovery = Recovery::default();
    let recovered = &mut recovery.recovered;
    for row in &manifest.offsets {
        recovered.offsets.insert((row.stream, row.partition), (*row).into());
    }
    for gap in &manifest.gaps {
        let gaps = recovered.gaps.entry((gap.stream, gap.partition)).or_default();
        gaps.push((Offset(gap.from), Offset(gap.to)));
    }
    inspect_sealed(files, manifest, block, look, &mut recovery)?;
    for log in 0..manifest.current.shards {
        inspect_moved(files, (manifest.current, log), block, look, &mut recovery)?;
        let end = inspect_log(files, (manifest.current, log), look, &mut recovery)?;
        for (key, end, found) in &end.segments {
            if matches!(found, Found::Scanned(_)) {
                keep(*key, end)?;
            }
        }
        recovery.torn.extend(end.torn);
        recovery.unbegun.extend(&end.unbegun);
        let indexes = recovery.recovered.add_log(end, block);
        look.made(&mut recovery, indexes);
    }
    recovery.recovered.settle();
    Ok(recovery)
}

/// Segments that an earlier start sealed.
fn inspect_sealed(
    files: &dyn Files,
    manifest: &Manifest,
    block: usize,
    look: &mut Look<'_>,
    recovery: &mut Recovery,
) -> Result<(), Error> {
    let mut there: BTreeMap<(u32, u32), BTreeSet<SegmentKey>> = BTreeMap::new();
    let mut first_there = BTreeSet::new();
    for sealed in &manifest.sealed {
        let key = sealed.key();
        let log = (key.generation, key.log);
        if let Entry::Vacant(vacant) = there.entry(log) {
            vacant.insert(keys(files, key.generation, key.log)?.into_iter().collect());
        }
        if !there[&log].contains(&key) {
            // Retention deletes a chain from its front, so that a gap in it is damage.
            if !key.moved && first_there.contains(&log) {
                let what = "its file is missing";
                recovery.recovered.damages.push(Damage { key, at: 0, what });
            }
            continue;
        }
        if !key.moved {
            first_there.insert(log);
        }
        if let Some((end, spans)) = look.index(files, key, sealed.identity)? {
            let path = key.path();
            let short = files.size(&path).map_err(failed("reading", &path))?.unwrap_or(0);
            if short < end.end {
                let what = "it ends before its end";
                recovery.recovered.damages.push(Damage { key, at: short, what });
            }
            recovery.recovered.segments.push(RecoveredSegment { key, end, spans });
            continue;
        }
        // The index is gone or harmed: the segment itself has everything.
        let mut scan = look.scan();
        let file = read_whole(files, key)?;
        scan.scan_sealed(key, sealed.identity, Some(sealed.end), file.as_bytes());
        recall(files, &mut scan, (key, sealed.identity), file.as_bytes())?;
        take_alone(scan, block, look, recovery);
    }
    Ok(())
}

/// Adds what the scan of one segment that stands for itself found: its batches, and its damage. The
/// offsets of its partitions are known from elsewhere.
fn take_alone(scan: LogScan, block: usize, look: &mut Look<'_>, recovery: &mut Recovery) {
    let end = scan.finish();
    recovery.recovered.damages.extend(end.damages);
    recovery.recovered.split.extend(end.split);
    let indexes = recovery.recovered.add_segments(end.segments, block);
    look.made(recovery, indexes);
}

/// Of a segment that was scanned and is harmed: what its index knows of it.
fn recall(
    files: &dyn Files,
    scan: &mut LogScan,
    (key, identity): (SegmentKey, u64),
    file: &[u8],
) -> Result<(), Error> {
    let path = key.index_path();
    if scan.is_harmed(key) && files.size(&path).map_err(failed("reading", &path))?.is_some() {
        let index = files.read(&path, 0, usize::MAX).map_err(failed("reading", &path))?;
        scan.recall(key, identity, file, &index);
    }
    Ok(())
}

/// Moved segments of a log of the last generation. Each is there whole or not at all.
fn inspect_moved(
    files: &dyn Files,
    (current, log): (Generation, u32),
    block: usize,
    look: &mut Look<'_>,
    recovery: &mut Recovery,
) -> Result<(), Error> {
    for key in keys(files, current.generation, log)?.into_iter().filter(|key| key.moved) {
        let identity = identity(current.seed, key);
        match look.index(files, key, identity)? {
            Some((end, spans)) => {
                recovery.recovered.segments.push(RecoveredSegment { key, end, spans });
            }
            None => {
                let mut scan = look.scan();
                let file = read_whole(files, key)?;
                scan.scan_sealed(key, identity, None, file.as_bytes());
                recall(files, &mut scan, (key, identity), file.as_bytes())?;
                take_alone(scan, block, look, recovery);
            }
        }
    }
    Ok(())
}

/// The chain of a log of the last generation.
fn inspect_log(
    files: &dyn Files,
    (current, log): (Generation, u32),
    look: &Look<'_>,
    recovery: &mut Recovery,
) -> Result<LogEnd, Error> {
    let offsets = recovery.recovered.offsets.iter();
    let mine = offsets.filter(|((_, partition), _)| partition % current.shards == log);
    let mut offsets: BTreeMap<_, _> = mine.map(|(place, row)| (*place, *row)).collect();
    read_starts(files, current.generation, log, |stream, partition, start| {
        if let Some(row) = offsets.get_mut(&(stream, partition)) {
            row.start = row.start.max(start);
            row.next = row.next.max(start);
        }
    })?;
    let mut scan = LogScan::new(current.seed, offsets).thorough(look.is_thorough());
    let chain: Vec<_> =
        keys(files, current.generation, log)?.into_iter().filter(|k| !k.moved).collect();
    let mut headers = Vec::with_capacity(chain.len());
    for key in &chain {
        let identity = identity(current.seed, *key);
        let header = read_header(files, *key)?;
        headers.push(header.filter(|own| own.key == *key && own.identity == identity));
    }
    for (at, &key) in chain.iter().enumerate() {
        let followed = headers[at + 1..].iter().any(Option::is_some);
        let identity = identity(current.seed, key);
        // Where it is not taken at its word, an index file still shows what was durable.
        let known = read_index(files, key, identity)?;
        match known {
            Some((end, spans)) if !look.is_thorough() => {
                scan.indexed(key, headers[at].as_ref(), end, spans);
            }
            // Behind a clean end nothing was ever written: there is nothing to look for. Behind any
            // other a disk that lied may have lost the beginning of what it kept later.
            None if scan.has_ended() && !followed && is_blank(files, key)? => {
                scan.pass_unbegun(key);
            }
            known => {
                let file = read_whole(files, key)?;
                scan.scan(key, file.as_bytes(), followed || known.is_some());
                if let Some((end, _)) = known {
                    scan.must_reach(key, end.end);
                }
                recall(files, &mut scan, (key, identity), file.as_bytes())?;
            }
        }
    }
    Ok(scan.finish())
}

/// The (generation, log) of every log's directory.
///
/// # Errors
/// The file system's.
pub fn log_dirs(files: &dyn Files) -> Result<Vec<(u32, u32)>, Error> {
    let numbered = |names: Vec<String>, letter: char| -> Vec<(u32, String)> {
        let number = |name: &String| name.strip_prefix(letter)?.parse().ok();
        names.into_iter().filter_map(|name| Some((number(&name)?, name))).collect()
    };
    let mut found = Vec::new();
    let names = files.list("").map_err(failed("reading", "the data directory"))?;
    for (generation, name) in numbered(names, 'g') {
        let names = files.list(&name).map_err(failed("reading", &name))?;
        found.extend(numbered(names, 's').into_iter().map(|(log, _)| (generation, log)));
    }
    Ok(found)
}

/// Whether a segment's first block holds zeros, as long as it was not begun.
///
/// # Errors
/// The file system's.
pub fn is_blank(files: &dyn Files, key: SegmentKey) -> Result<bool, Error> {
    let path = key.path();
    let block = files.read(&path, 0, BLOCK_MIN).map_err(failed("reading", &path))?;
    Ok(block.iter().all(|byte| *byte == 0))
}

fn read_starts(
    files: &dyn Files,
    generation: u32,
    log: u32,
    mut take: impl FnMut(u32, u32, Offset),
) -> Result<(), Error> {
    let path = format!("{}/{}", log_dir(generation, log), starts::FILE);
    if files.size(&path).map_err(failed("reading", &path))?.is_none() {
        return Ok(());
    }
    let file = files.read(&path, 0, usize::MAX).map_err(failed("reading", &path))?;
    // One that is harmed only raises less: what was let go of shows as holes.
    for (stream, partition, start) in starts::decode(&file).unwrap_or_default() {
        take(stream, partition, start);
    }
    Ok(())
}

/// Segments that there are, in the order in which [`examine`] reads them; some of the last generation
/// may never have been begun.
///
/// # Errors
/// The file system's.
pub fn segments(files: &dyn Files, manifest: &Manifest) -> Result<Vec<SegmentKey>, Error> {
    let mut found = Vec::new();
    for key in manifest.sealed.iter().map(SealedSegment::key) {
        let path = key.path();
        if files.size(&path).map_err(failed("reading", &path))?.is_some() {
            found.push(key);
        }
    }
    for log in 0..manifest.current.shards {
        let mut keys = keys(files, manifest.current.generation, log)?;
        keys.sort_by_key(|key| !key.moved);
        found.extend(keys);
    }
    Ok(found)
}

/// Segments in a log's directory, in order.
///
/// # Errors
/// The file system's.
pub fn keys(files: &dyn Files, generation: u32, log: u32) -> Result<Vec<SegmentKey>, Error> {
    let dir = log_dir(generation, log);
    let names = files.list(&dir).map_err(failed("reading", &dir))?;
    let mut keys: Vec<_> =
        names.iter().filter_map(|name| SegmentKey::from_name(generation, log, name)).collect();
    keys.sort_unstable();
    Ok(keys)
}

/// The header at the front of a segment's file, whosever it is.
///
/// # Errors
/// The file system's.
pub fn read_header(files: &dyn Files, key: SegmentKey) -> Result<Option<SegmentHeader>, Error> {
    let path = key.path();
    let mut bytes = 1 << 16;
    loop {
        let front = files.read(&path, 0, bytes).map_err(failed("reading", &path))?;
        let found = SegmentHeader::read(&front).map(|(header, ..)| header);
        if found.is_some() || front.len() < bytes || bytes >= HEADER_BYTES_MAX {
            return Ok(found);
        }
        bytes = HEADER_BYTES_MAX;
    }
}

/// The directory of a segment's index file, if that is there and of the segment with `identity`.
/// Index files get their names when they are durable, so that their entries are not read.
///
/// # Errors
/// The file system's.
pub fn read_index(
    files: &dyn Files,
    key: SegmentKey,
    identity: u64,
) -> Result<Option<(SegmentEnd, Vec<Span>)>, Error> {
    let path = key.index_path();
    let reading = || failed("reading", &path);
    if files.size(&path).map_err(reading())?.is_none() {
        return Ok(None);
    }
    let mut front = files.read(&path, 0, 1 << 14).map_err(reading())?;
    if let Some(needed) = index::directory_bytes(&front).filter(|needed| *needed > front.len()) {
        front = files.read(&path, 0, needed).map_err(reading())?;
    }
    Ok(index::decode_directory(&front).filter(|(end, _)| end.identity == identity))
}

fn read_whole<'a>(
    files: &'a dyn Files,
    key: SegmentKey,
) -> Result<Box<dyn StableBytes + 'a>, IoError> {
    let path = key.path();
    files.whole(&path).map_err(failed("reading", &path))
}
