//! Repair: a directory that holds what is sound of a damaged one, and nothing else.
//!
//! Comes in: a directory and what is left in it (`inspect::examine`). Goes out: its sound segments as
//! they are, the others written anew of their sound frames, and a manifest that seals them all.
//! Offsets, ages and identities stay; what damage took is lost for good and stays fenced. The next
//! start goes on from that. The invariant: at any moment, also after a crash, what was readable
//! before can be read still: into another directory, as its manifest is written last; in place, as
//! what is replaced is copied aside first, and replaced by a rename. Deliberately absent: I/O of its
//! own, and any judgement on what is damaged.

use std::collections::{BTreeMap, BTreeSet};

use super::files::{Files, IoError, failed};
use super::frame::{Entry, Frame, FrameHeader, FrameWriter, HEADER_BYTES, Range};
use super::index;
use super::manifest::Manifest;
use super::recovery::{Recovered, RecoveredSegment};
use super::scan::{BLOCK_MIN, Found, LogScan, frames_over_damage};
use super::segment::{SegmentHeader, SegmentKey, generation_dir, header_bytes, log_dir};
use super::start::{Error, MANIFEST, replace, sealed_manifest, write_manifest};
use crate::record::batch;

/// What a repair goes by.
#[derive(Debug)]
pub struct Job<'a> {
    /// The manifest of the damaged directory.
    pub manifest: &'a Manifest,
    /// Segments in which something does not hold.
    pub harmed: &'a BTreeSet<SegmentKey>,
    /// Segments whose index files agree with them.
    pub indexed: &'a BTreeSet<SegmentKey>,
    /// Segments that are in no log, or hold nothing that was acknowledged.
    pub foreign: &'a [SegmentKey],
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: i64,
}

impl Job<'_> {
    /// Writes into `to`, an empty directory, what is sound in `from`. Returns the manifest of `to`.
    ///
    /// # Errors
    /// The file system's; then `to` has no manifest.
    pub fn copy(
        &self,
        from: &dyn Files,
        to: &dyn Files,
        recovered: &mut Recovered,
    ) -> Result<Manifest, Error> {
        for segment in &mut recovered.segments {
            let dir = log_dir(segment.key.generation, segment.key.log);
            to.make_dir(&dir).map_err(failed("creating", &dir))?;
            let used = read_used(from, segment)?;
            let (path, index_path) = (segment.key.path(), segment.key.index_path());
            if self.harmed.contains(&segment.key) {
                if let Some((bytes, index)) = rewrite(segment, &used) {
                    write(to, &path, &bytes)?;
                    write(to, &index_path, &index)?;
                }
                continue;
            }
            write(to, &path, &used)?;
            if self.indexed.contains(&segment.key) {
                let index = from.read(&index_path, 0, usize::MAX);
                write(to, &index_path, &index.map_err(failed("reading", &index_path))?)?;
            }
        }
        self.finish(to, recovered)
    }

    /// Replaces, in the directory `files`, what is damaged. What it replaces or takes out is copied
    /// into `aside` first, a directory that is made for it. Returns the new manifest.
    ///
    /// # Errors
    /// The file system's; then it can be begun again.
    pub fn in_place(
        &self,
        files: &dyn Files,
        aside: &str,
        recovered: &mut Recovered,
    ) -> Result<Manifest, Error> {
        let within = |path: &str| format!("{aside}/{}", path.replace('/', "-"));
        let harmed = recovered.segments.iter().map(|segment| segment.key);
        let mut touched: Vec<_> = harmed.filter(|key| self.harmed.contains(key)).collect();
        touched.extend(self.foreign);
        files.make_dir(aside).map_err(failed("creating", aside))?;
        for path in touched.iter().map(SegmentKey::path).chain([MANIFEST.to_owned()]) {
            if files.size(&path).map_err(failed("reading", &path))?.is_some() {
                let bytes = files.read(&path, 0, usize::MAX).map_err(failed("reading", &path))?;
                write(files, &within(&path), &bytes)?;
            }
        }
        for dir in [aside, ""] {
            files.flush_dir(dir).map_err(failed("flushing", dir))?;
        }
        for segment in &mut recovered.segments {
            if self.harmed.contains(&segment.key) {
                replace_segment(files, segment)?;
            } else if !self.indexed.contains(&segment.key) {
                // The next start makes it anew.
                remove_index(files, segment.key)?;
            }
        }
        let manifest = self.finish(files, recovered)?;
        // Nothing points to them any more.
        for path in self.foreign.iter().map(SegmentKey::path) {
            files.remove(&path).map_err(failed("removing", &path))?;
        }
        Ok(manifest)
    }

    fn finish(&self, files: &dyn Files, recovered: &mut Recovered) -> Result<Manifest, Error> {
        // Of some nothing was left.
        recovered.segments.retain(|segment| segment.end.end > 0);
        // What was written anew may be more than a start finds in what is damaged.
        recovered.settle();
        let dirs: BTreeSet<_> =
            recovered.segments.iter().map(|s| log_dir(s.key.generation, s.key.log)).collect();
        let generations: BTreeSet<_> =
            recovered.segments.iter().map(|s| generation_dir(s.key.generation)).collect();
        let manifest = sealed_manifest(self.manifest, recovered, self.wall_ms);
        let newest = generation_dir(manifest.current.generation);
        files.make_dir(&newest).map_err(failed("creating", &newest))?;
        write_manifest(files, &newest, &manifest)?;
        for dir in dirs.iter().chain(&generations).map(String::as_str).chain([""]) {
            files.flush_dir(dir).map_err(failed("flushing", dir))?;
        }
        write_manifest(files, "", &manifest)?;
        Ok(manifest)
    }
}

fn write(files: &dyn Files, path: &str, bytes: &[u8]) -> Result<(), IoError> {
    files.create(path, bytes).map_err(failed("writing", path))?;
    files.flush(path).map_err(failed("flushing", path))
}

/// What is in use of a segment's file.
fn read_used(files: &dyn Files, segment: &RecoveredSegment) -> Result<Vec<u8>, IoError> {
    let path = segment.key.path();
    let end = usize::try_from(segment.end.end).unwrap_or(usize::MAX);
    // Of one that is harmed more may be sound than what the end says: that is where frames end.
    files.read(&path, 0, end).map_err(failed("reading", &path))
}

/// A segment is replaced by a rename; its index is gone before, so that none of other bytes is ever
/// beside it.
fn replace_segment(files: &dyn Files, segment: &mut RecoveredSegment) -> Result<(), IoError> {
    let (path, index_path) = (segment.key.path(), segment.key.index_path());
    let dir = log_dir(segment.key.generation, segment.key.log);
    let used = read_used(files, segment)?;
    remove_index(files, segment.key)?;
    match rewrite(segment, &used) {
        Some((bytes, index)) => {
            replace(files, &format!("{path}.new"), &path, &bytes)?;
            replace(files, &format!("{index_path}.new"), &index_path, &index)?;
        }
        None => files.remove(&path).map_err(failed("removing", &path))?,
    }
    files.flush_dir(&dir).map_err(failed("flushing", &dir))
}

fn remove_index(files: &dyn Files, key: SegmentKey) -> Result<(), IoError> {
    let (path, dir) = (key.index_path(), log_dir(key.generation, key.log));
    files.remove(&path).map_err(failed("removing", &path))?;
    files.flush_dir(&dir).map_err(failed("flushing", &dir))
}

/// A segment's file, written anew of the sound batches in `used`, and its index file; `segment` then
/// says what it holds. `None` when nothing in it is sound.
fn rewrite(segment: &mut RecoveredSegment, used: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (key, identity) = (segment.key, segment.end.identity);
    let mut writer = Rewriter::new(key, identity, used);
    for found in frames_over_damage(key, identity, used) {
        match found {
            Ok((_, frame)) => writer.frame(&frame),
            Err(_) => writer.ranges.clear(),
        }
    }
    segment.end.end = 0;
    segment.spans.clear();
    if !writer.holds_something {
        return None;
    }
    let mut scan = LogScan::default();
    scan.scan_sealed(key, identity, Some(writer.out.len() as u64), &writer.out);
    let (_, end, found) = scan.finish().segments.pop()?;
    let Found::Scanned(rows) = found else { return None };
    let (index, spans) = index::encode(&end, &rows, writer.header.block as usize);
    (segment.end, segment.spans) = (end, spans);
    Some((writer.out, index))
}

struct Rewriter {
    header: SegmentHeader,
    out: Vec<u8>,
    /// CRC of the last frame, or the header.
    crc: u32,
    /// Of a moved segment: the ranges that batches are in, by (stream, partition). Behind damage
    /// nobody knows them.
    ranges: BTreeMap<(u32, u32), Range>,
    scratch: Vec<u8>,
    holds_something: bool,
}

impl Rewriter {
    /// Keeps the header, or makes one of what is known.
    fn new(key: SegmentKey, identity: u64, used: &[u8]) -> Self {
        let found = SegmentHeader::read(used).map(|(header, ..)| header);
        let found = found.filter(|header| header.key == key && header.identity == identity);
        let header = found.unwrap_or(SegmentHeader {
            key,
            block: BLOCK_MIN as u32,
            identity,
            previous_identity: 0,
            base_position: 0,
            previous_crc: 0,
            partitions: Vec::new(),
        });
        let mut out = vec![0; header_bytes(header.partitions.len(), header.block as usize)];
        let (_, crc) = header.write(&mut out);
        let (ranges, scratch) = (BTreeMap::new(), Vec::new());
        Self { header, out, crc, ranges, scratch, holds_something: false }
    }

    /// Adds a frame of what is sound in `frame`.
    fn frame(&mut self, frame: &Frame<'_>) {
        let block = self.header.block as usize;
        // A range more for each batch at the most.
        let room = frame.bytes.len() + frame.header.entry_count as usize * 40;
        let mut buffer = vec![0; room.next_multiple_of(block)];
        let mut writer = FrameWriter::new(&mut buffer);
        let mut holds_batches = false;
        for entry in frame.entries() {
            match entry {
                Some(Entry::Batch { stream, partition, batch, .. }) => {
                    if batch::check(batch, &mut self.scratch).is_ok() {
                        if let Some(range) = self.new_range((stream, partition), batch, frame) {
                            writer.range(stream, partition, range);
                        }
                        writer.batch(stream, partition, |out| {
                            out[..batch.len()].copy_from_slice(batch);
                            batch.len()
                        });
                        holds_batches = true;
                    }
                }
                Some(Entry::Reservation { stream, partition, ceiling }) => {
                    writer.reservation(stream, partition, ceiling);
                }
                Some(Entry::Range { stream, partition, range }) => {
                    writer.range(stream, partition, range);
                    self.ranges.insert((stream, partition), range);
                    self.holds_something = true;
                }
                None => break,
            }
        }
        self.holds_something |= holds_batches;
        let position = self.header.base_position + self.out.len() as u64;
        let header = FrameHeader {
            previous_crc: self.crc,
            position,
            durable: position.min(frame.header.durable),
            ..frame.header
        };
        let (bytes, crc) = writer.finish(&header, block);
        debug_assert!(bytes >= HEADER_BYTES);
        self.out.extend_from_slice(&buffer[..bytes]);
        self.crc = crc;
    }

    /// The range of a batch in a moved segment, where it is in none that is known.
    fn new_range(&mut self, place: (u32, u32), bytes: &[u8], frame: &Frame<'_>) -> Option<Range> {
        let header = batch::BatchHeader::read(bytes).filter(|_| self.header.key.moved)?;
        let (from, to) = (header.base_offset.0, header.next_offset().0);
        if self.ranges.get(&place).is_some_and(|known| known.from <= from && to <= known.to) {
            return None;
        }
        let range = Range { from, to, age_ms: frame.header.age_ms };
        self.ranges.insert(place, range);
        Some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::super::inspect::examine;
    use super::super::memory::MemoryFiles;
    use super::super::rig::{FLUSHED, Rig, SEED, WRITTEN, manifest, options};
    use super::super::segment::identity;
    use super::super::start::read_manifest;
    use super::*;
    use crate::record::batch::{BatchBuilder, RecordParts, for_each_record};
    use crate::record::{Offset, PartitionId, StreamId};

    /// A log of some segments, of which two are harmed: a frame of one, the header of the other.
    fn harmed() -> MemoryFiles {
        let mut rig = Rig::new(options());
        for number in 0..12_u8 {
            rig.put(FLUSHED, 0, &[number; 3000]);
            rig.put(FLUSHED, 1, &[number; 100]);
            rig.put(WRITTEN, 0, &[number; 100]);
        }
        let files = MemoryFiles::of(&rig.files);
        write_manifest(&files, "", &manifest(&options())).expect("no limit");
        assert!(rig.key(2).sequence == 2 && rig.files.len() > 4, "some segments");
        let at = rig.segment(0).windows(64).position(|bytes| bytes == [2; 64]);
        files.harm(&rig.key(0).path(), at.expect("the third value"));
        files.harm(&rig.key(1).path(), 20);
        for key in [rig.key(0), rig.key(1)] {
            files.flush(&key.path()).expect("no limit");
        }
        files
    }

    /// Stream, partition, offset, and the value's bytes and first byte, of everything that is there.
    type Contents = BTreeSet<(u32, u32, u64, usize, u8)>;

    fn contents(files: &MemoryFiles) -> (Manifest, Recovered, Contents) {
        let manifest = read_manifest(files).expect("sound").expect("there");
        let mut indexes = BTreeMap::new();
        let found = examine(files, &manifest, &mut |key, index| _ = indexes.insert(key, index));
        let recovered = found.expect("readable").recovered;
        let mut contents = Contents::new();
        for (stream, partition) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let layout = recovered.layout(StreamId(stream), PartitionId(partition));
            for (key, span) in layout.spans {
                let index = &indexes[&key];
                let located = span.entries.expect("in a file");
                let entries = &index[located.at as usize..];
                let file = files.read(&key.path(), 0, usize::MAX).expect("there");
                for number in 0..located.count as usize {
                    let entry = index::IndexEntry::read(entries, number).expect("whole");
                    let batch = &file[entry.position as usize..][..entry.bytes as usize];
                    let whole = for_each_record(batch, &mut Vec::new(), |record| {
                        let value = record.value.expect("no tombstones");
                        let offset = record.offset.0;
                        contents.insert((stream, partition, offset, value.len(), value[0]))
                    });
                    whole.expect("a whole batch");
                }
            }
        }
        (manifest, recovered, contents)
    }

    fn repair(files: &MemoryFiles, to: Option<&MemoryFiles>) -> Result<Manifest, Error> {
        let (manifest, mut recovered, _) = contents(files);
        let harmed = recovered.damages.iter().map(|damage| damage.key).collect();
        let job = Job {
            manifest: &manifest,
            harmed: &harmed,
            indexed: &BTreeSet::new(),
            foreign: &[],
            wall_ms: 5,
        };
        match to {
            Some(to) => job.copy(files, to, &mut recovered),
            None => job.in_place(files, "damaged-0", &mut recovered),
        }
    }

    /// Nothing is damaged, the same is there, and what is not is known to be lost.
    fn check_mended(files: &MemoryFiles, before: &MemoryFiles, context: &str) {
        let (_, recovered_before, sound) = contents(before);
        let (manifest, recovered, found) = contents(files);
        assert_eq!(found, sound, "{context}");
        assert_eq!(recovered.damages, [], "{context}");
        assert_eq!(manifest.lost, recovered_before.holes().collect::<Vec<_>>(), "{context}");
        assert_eq!(manifest.lost, recovered.holes().collect::<Vec<_>>(), "{context}");
        for (place, offsets) in &recovered_before.offsets {
            let after = recovered.offsets[place];
            assert_eq!((after.start, after.next), (offsets.start, offsets.next), "{context}");
        }
    }

    #[test]
    fn what_is_sound_is_copied_and_the_rest_is_known_to_be_lost() {
        let files = harmed();
        let to = MemoryFiles::default();
        let manifest = repair(&files, Some(&to)).expect("no limit");
        let lost: Vec<_> =
            manifest.lost.iter().map(|l| (l.stream, l.partition, l.from, l.to)).collect();
        assert_eq!(lost, [(0, 0, 2, 3)]);
        check_mended(&to, &files, "copied");
        to.crash(true);
        check_mended(&to, &files, "after power was lost");
    }

    #[test]
    fn mending_in_place_never_takes_anything_away() {
        let before = harmed();
        let (_, _, sound) = contents(&before);
        for step in 0.. {
            let mut ended = false;
            for power in [false, true] {
                let files = before.clone();
                files.left.set(Some(step));
                ended = repair(&files, None).is_ok();
                files.crash(power);
                let context = format!("step {step}, power {power}");
                assert_eq!(contents(&files).2, sound, "{context}");
                if !ended {
                    repair(&files, None).expect("no limit any more");
                }
                check_mended(&files, &before, &context);
                let names = files.names();
                let kept = names.iter().filter(|name| name.starts_with("damaged-0/"));
                assert!(kept.count() >= 3, "{context}: {names:?}");
            }
            if ended {
                assert!(step > 10, "{step}");
                return;
            }
        }
    }

    /// A range whose entry is lost is gone, but not what stands behind it.
    #[test]
    fn batches_of_a_moved_segment_keep_or_get_their_ranges() {
        let key = SegmentKey::moved(1, 0, 0);
        let identity = identity(SEED, key);
        let header = SegmentHeader {
            key,
            block: 512,
            identity,
            previous_identity: 0,
            base_position: 0,
            previous_crc: 0,
            partitions: Vec::new(),
        };
        let mut out = vec![0; 512];
        let (_, mut crc) = header.write(&mut out);
        for (range, base) in [(Some((0, 10)), 3), (Some((20, 40)), 20), (None, 25)] {
            let mut buffer = vec![0; 4096];
            let mut writer = FrameWriter::new(&mut buffer);
            if let Some((from, to)) = range {
                writer.range(0, 1, Range { from, to, age_ms: 7 });
            }
            let mut builder = BatchBuilder::default();
            let headers = std::iter::empty();
            let record = RecordParts { key: None, value: Some(b"x"), timestamp_ms: 1, headers };
            builder.append(Offset(base), &record, 1000);
            let mut batch = Vec::new();
            builder.drain(|closed, _| {
                batch = vec![0; closed.len()];
                batch::BatchFinisher::default().finish(
                    closed,
                    crate::record::Compression::None,
                    1,
                    &mut batch,
                );
            });
            writer.batch(0, 1, |out| {
                out[..batch.len()].copy_from_slice(&batch);
                batch.len()
            });
            let header = FrameHeader {
                previous_crc: crc,
                segment_identity: identity,
                position: out.len() as u64,
                age_ms: 9,
                ..FrameHeader::default()
            };
            let (bytes, next) = writer.finish(&header, 512);
            out.extend_from_slice(&buffer[..bytes]);
            crc = next;
        }
        out[1024 + 70] ^= 1;
        let end = index::SegmentEnd { identity, end: out.len() as u64, ..Default::default() };
        let mut segment = RecoveredSegment { key, end, spans: Vec::new() };
        let (bytes, _) = rewrite(&mut segment, &out).expect("something is sound");
        let spans =
            segment.spans.iter().map(|s| (s.base.0, s.next.0, s.age_ms, s.stored_bytes > 0));
        assert_eq!(spans.collect::<Vec<_>>(), [(0, 10, 7, true), (25, 26, 9, true)]);
        let frames = frames_over_damage(key, identity, &bytes);
        assert!(frames.fold(0, |count, frame| count + usize::from(frame.is_ok())) == 2);
    }
}
