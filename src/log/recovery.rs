//! Recovery: what of a log is whole after a stop of any kind, and where it ends.
//!
//! Comes in: the bytes of one log's segments, in order. Goes out: its end, the index of each
//! segment, and the offsets of every partition, or the news that it is damaged. A frame that does
//! not hold ends the log there, unless a later frame, of the same segment or of one behind it, says
//! that the log was durable beyond that point: then acknowledged data is harmed, and that is never
//! taken for a torn tail. Recovery may itself be interrupted anywhere and begun again.
//! Deliberately absent: I/O. The driver reads the files, flushes what is kept and cuts the rest.

use std::collections::{BTreeMap, VecDeque};

use super::frame::{self, Entry, FLAG_CLEAN_END, Frame, FrameHeader};
use super::index::{self, IndexEntry, IndexRow, SegmentEnd, Span};
use super::partition::RESERVED_AHEAD;
use super::segment::{PartitionOffsets, SegmentHeader, SegmentKey, identity_beside};
use crate::record::batch::BatchHeader;
use crate::record::{Durability, Offset, PartitionId, ShardId, StreamId};

/// The smallest block that a log may have: frames start at multiples of it.
pub const BLOCK_MIN: usize = 512;

/// Acknowledged data is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("segment {} is damaged at byte {at}: {what}", key.stem())]
pub struct Damage {
    /// In which segment.
    pub key: SegmentKey,
    /// From which byte of its file on.
    pub at: u64,
    /// What was found.
    pub what: &'static str,
}

/// A segment that is kept, never to be appended to again.
#[derive(Debug, Clone)]
pub struct RecoveredSegment {
    /// Which.
    pub key: SegmentKey,
    /// How it ended.
    pub end: SegmentEnd,
    /// What it holds.
    pub spans: Vec<Span>,
}

/// A segment of an older generation and where each partition's part of it ends.
#[derive(Debug, Clone)]
pub struct OldSegment {
    /// Which.
    pub key: SegmentKey,
    /// (stream, partition, offset after the last record).
    pub ends: Vec<(u32, u32, Offset)>,
}

/// Everything that the shards of a new start continue from.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Offsets by (stream, partition).
    pub offsets: BTreeMap<(u32, u32), PartitionOffsets>,
    /// Segments of all generations and logs, by key.
    pub segments: Vec<RecoveredSegment>,
}

impl Recovered {
    /// Where a partition continues; at 0 when it is new.
    pub fn offsets(&self, stream: StreamId, partition: PartitionId) -> PartitionOffsets {
        self.offsets.get(&(stream.0, partition.0)).copied().unwrap_or(PartitionOffsets {
            stream: stream.0,
            partition: partition.0,
            start: Offset(0),
            next: Offset(0),
            ceiling: Offset(0),
        })
    }

    /// Adds what a log of the last generation came to. A log that did not end cleanly may have
    /// given out every offset below its ceilings. Returns the index files that have yet to be
    /// written, each padded to `block`.
    pub fn add_log(&mut self, log: LogEnd, block: usize) -> Vec<(SegmentKey, Vec<u8>)> {
        for (place, mut offsets) in log.offsets {
            if !log.clean {
                offsets.next = offsets.next.max(offsets.ceiling);
            }
            self.offsets.insert(place, offsets);
        }
        let mut files = Vec::new();
        for (key, end, found) in log.segments {
            let spans = match found {
                Found::Indexed(spans) => spans,
                Found::Scanned(rows) => {
                    let (file, spans) = index::encode(&end, &rows, block);
                    files.push((key, file));
                    spans
                }
            };
            self.segments.push(RecoveredSegment { key, end, spans });
        }
        files
    }

    /// Sets the ceilings of the start that follows: ahead of the next offset for streams that are
    /// not flushed. They must be durable, in the manifest, before the first record is appended.
    pub fn reserve(&mut self, streams: &[Durability], partitions: u32) {
        for (stream, durability) in streams.iter().enumerate() {
            for partition in 0..partitions {
                let (stream, partition) = (StreamId(stream as u32), PartitionId(partition));
                let mut offsets = self.offsets(stream, partition);
                let flushed = *durability == Durability::Fsync;
                let ahead = if flushed { 0 } else { RESERVED_AHEAD };
                offsets.ceiling = offsets.next.plus(ahead);
                self.offsets.insert((stream.0, partition.0), offsets);
            }
        }
    }

    /// Moves each log start to the first offset that is there, once all segments are known.
    pub fn settle(&mut self) {
        let keys: Vec<_> = self.offsets.keys().copied().collect();
        for (stream, partition) in keys {
            let first = self.spans(StreamId(stream), PartitionId(partition)).front().copied();
            if let Some(offsets) = self.offsets.get_mut(&(stream, partition)) {
                let there = first.map_or(offsets.next, |(_, span)| span.base);
                offsets.start = offsets.start.max(there);
            }
        }
    }

    /// The segments that hold something of a partition, oldest first.
    pub fn spans(&self, stream: StreamId, partition: PartitionId) -> VecDeque<(SegmentKey, Span)> {
        let start = self.offsets(stream, partition).start;
        let of = |segment: &RecoveredSegment| {
            let mine = |span: &&Span| {
                span.stream == stream.0 && span.partition == partition.0 && span.next > start
            };
            segment.spans.iter().find(mine).map(|span| (segment.key, *span))
        };
        let mut spans: Vec<_> = self.segments.iter().filter_map(of).collect();
        spans.sort_unstable_by_key(|(key, span)| (span.base, *key));
        spans.into()
    }

    /// The segments that `shard` has to delete when nobody needs them any more.
    pub fn inherited_by(&self, shard: ShardId, shards: u32) -> Vec<OldSegment> {
        let mut inherited: Vec<_> = self
            .segments
            .iter()
            .filter(|segment| segment.key.log % shards == shard.0)
            .map(|segment| OldSegment {
                key: segment.key,
                ends: segment.spans.iter().map(|s| (s.stream, s.partition, s.next)).collect(),
            })
            .collect();
        inherited.sort_unstable_by_key(|segment| segment.key);
        inherited
    }
}

/// One log being looked through, segment by segment in their order.
#[derive(Debug, Default)]
pub struct LogScan {
    /// Offsets by (stream, partition), as they are after what was seen.
    offsets: BTreeMap<(u32, u32), PartitionOffsets>,
    segments: Vec<(SegmentKey, SegmentEnd, Found)>,
    /// The last segment that holds something.
    last: Option<Last>,
    /// Where the log is whole up to, unless the next segment continues it.
    stop: Option<Stop>,
    clean: bool,
}

/// What the next segment must continue.
#[derive(Debug, Clone, Copy)]
struct Last {
    key: SegmentKey,
    identity: u64,
    crc: u32,
}

/// Where a log stops being whole.
#[derive(Debug, Clone, Copy)]
struct Stop {
    key: SegmentKey,
    /// Byte in the segment.
    at: u64,
    /// Position in the log after the last whole frame.
    position: u64,
    /// Whether something was written there.
    torn: bool,
}

/// What is known of a segment's contents.
#[derive(Debug, Clone)]
pub enum Found {
    /// From its index file.
    Indexed(Vec<Span>),
    /// From looking through it; the index file has yet to be written.
    Scanned(Vec<IndexRow>),
}

/// What a log came to.
#[derive(Debug)]
pub struct LogEnd {
    /// Offsets by (stream, partition).
    pub offsets: BTreeMap<(u32, u32), PartitionOffsets>,
    /// Its segments with something in them; each file is to be cut at its end.
    pub segments: Vec<(SegmentKey, SegmentEnd, Found)>,
    /// The last frame says that the engine was stopped cleanly.
    pub clean: bool,
    /// Where a torn tail was cut off, as (segment, byte).
    pub torn: Option<(SegmentKey, u64)>,
}

impl LogScan {
    /// A log whose partitions stood at `offsets` before its first segment.
    pub fn new(offsets: BTreeMap<(u32, u32), PartitionOffsets>) -> Self {
        Self { offsets, ..Self::default() }
    }

    /// A segment whose index file is there and is of this segment: nothing needs to be read.
    ///
    /// # Errors
    /// [`Damage`] when the log was not whole up to here.
    pub fn indexed(
        &mut self,
        header: &SegmentHeader,
        end: SegmentEnd,
        spans: Vec<Span>,
    ) -> Result<(), Damage> {
        if !self.continues(header) {
            // An index is written when its segment is full and durable.
            return Err(self.damage(header.key, "a later segment shows that it was durable"));
        }
        self.take_table(&header.partitions);
        for span in &spans {
            self.move_next(span.stream, span.partition, span.next);
            self.raise_ceiling(span.stream, span.partition, span.ceiling);
        }
        let key = header.key;
        self.last = Some(Last { key, identity: end.identity, crc: end.last_crc });
        let position = header.base_position + end.end;
        self.stop = Some(Stop { key, at: end.end, position, torn: false });
        self.clean = end.clean;
        self.segments.push((key, end, Found::Indexed(spans)));
        Ok(())
    }

    /// A segment's whole file.
    ///
    /// # Errors
    /// [`Damage`] when acknowledged data is harmed.
    pub fn scan(&mut self, key: SegmentKey, file: &[u8]) -> Result<(), Damage> {
        let found = SegmentHeader::read(file);
        let foreign = found.as_ref().map(|(header, _, _)| header.identity);
        let Some((header, header_bytes, crc)) = found.filter(|(header, _, _)| header.key == key)
        else {
            return self.pass_headless(key, foreign, file);
        };
        if self.continues(&header) {
            self.stop = None;
            self.take_table(&header.partitions);
            return self.walk(&header, header_bytes, crc, file);
        }
        // It was begun when something before it, which is not there, was not durable yet.
        let position = self.stop.map_or(0, |stop| stop.position);
        self.look_for_evidence(key, file, |_, frame| {
            frame.segment_identity == header.identity && frame.durable > position
        })?;
        self.note_torn(key, 0);
        Ok(())
    }

    /// Whether the log goes on in the segment with `header`.
    fn continues(&self, header: &SegmentHeader) -> bool {
        match self.last {
            Some(last) => {
                (header.previous_identity, header.previous_crc) == (last.identity, last.crc)
            }
            // What was before the first one that is there has been deleted.
            None => self.stop.is_none(),
        }
    }

    /// A segment without a header of its own: made ready and never begun, or its first write was
    /// torn. A frame of it that was written when it was durable in part shows that the header was
    /// there. `foreign` is the identity of another segment whose header the file holds.
    fn pass_headless(
        &mut self,
        key: SegmentKey,
        foreign: Option<u64>,
        file: &[u8],
    ) -> Result<(), Damage> {
        let expected = self.last.map(|last| identity_beside((last.key, last.identity), key));
        let position = self.stop.map_or(0, |stop| stop.position);
        self.look_for_evidence(key, file, |at, frame| match expected {
            Some(identity) => frame.segment_identity == identity && frame.durable > position,
            // Nothing is known of the log: only of this very segment.
            None => {
                let base_position = frame.position.saturating_sub(at as u64);
                Some(frame.segment_identity) != foreign && frame.durable > base_position
            }
        })?;
        if file.iter().any(|byte| *byte != 0) {
            self.note_torn(key, 0);
        } else if self.stop.is_none() {
            self.stop = Some(Stop { key, at: 0, position, torn: false });
        }
        Ok(())
    }

    /// Goes through the frames of a segment until one does not hold.
    fn walk(
        &mut self,
        header: &SegmentHeader,
        header_bytes: usize,
        header_crc: u32,
        file: &[u8],
    ) -> Result<(), Damage> {
        let key = header.key;
        let mut rows: BTreeMap<(u32, u32), IndexRow> = BTreeMap::new();
        let mut end = SegmentEnd {
            identity: header.identity,
            end: header_bytes as u64,
            last_crc: header_crc,
            ..SegmentEnd::default()
        };
        let mut at = header_bytes;
        while let Some(frame) = frame_at(header, end.last_crc, file, at) {
            self.take_frame(key, &frame, at, &mut rows)?;
            end.last_crc = frame.crc;
            end.wall_ms = frame.header.wall_ms;
            end.age_ms = frame.header.age_ms;
            end.clean = frame.header.flags & FLAG_CLEAN_END != 0;
            self.clean = end.clean;
            at += frame.bytes.len().next_multiple_of(header.block as usize);
            end.end = at as u64;
        }
        let position = header.base_position + end.end;
        let began = at > header_bytes;
        if began {
            self.last = Some(Last { key, identity: end.identity, crc: end.last_crc });
            self.segments.push((key, end, Found::Scanned(rows.into_values().collect())));
        }
        // The next segment's header says whether this was the end: it holds the last frame's CRC.
        let torn = !began || file.iter().skip(at).any(|byte| *byte != 0);
        self.stop = Some(Stop { key, at: at as u64, position, torn });
        self.look_for_evidence(key, file, |from, frame| {
            from >= at && frame.segment_identity == header.identity && frame.durable > position
        })
    }

    fn take_frame(
        &mut self,
        key: SegmentKey,
        frame: &Frame<'_>,
        at: usize,
        rows: &mut BTreeMap<(u32, u32), IndexRow>,
    ) -> Result<(), Damage> {
        for entry in frame.entries() {
            match entry {
                Some(Entry::Batch { stream, partition, at: batch_at, batch }) => {
                    let Some(header) = BatchHeader::read(batch) else {
                        let what = "a frame holds something that is no record batch";
                        return Err(Damage { key, at: (at + batch_at) as u64, what });
                    };
                    let row = rows.entry((stream, partition)).or_insert_with(|| IndexRow {
                        stream,
                        partition,
                        ..IndexRow::default()
                    });
                    row.entries.push(IndexEntry::of(&header, (at + batch_at) as u32));
                    self.move_next(stream, partition, header.next_offset());
                }
                Some(Entry::Reservation { stream, partition, ceiling }) => {
                    self.raise_ceiling(stream, partition, Offset(ceiling));
                    if let Some(row) = rows.get_mut(&(stream, partition)) {
                        row.ceiling = row.ceiling.max(Offset(ceiling));
                    }
                }
                None => {
                    let what = "a frame contradicts itself";
                    return Err(Damage { key, at: at as u64, what });
                }
            }
        }
        Ok(())
    }

    /// Looks for a whole frame, at any place of a segment, that shows that the log was durable
    /// beyond where it stops: `shows` gets its place in the file and its header.
    fn look_for_evidence(
        &self,
        key: SegmentKey,
        file: &[u8],
        shows: impl Fn(usize, &FrameHeader) -> bool,
    ) -> Result<(), Damage> {
        for at in (0..file.len()).step_by(BLOCK_MIN) {
            if frame::read(&file[at..]).is_some_and(|frame| shows(at, &frame.header)) {
                return Err(self.damage(key, "later frames show that it was durable"));
            }
        }
        Ok(())
    }

    /// The log stops where it should not, or else the segment `key` does not begin.
    fn damage(&self, key: SegmentKey, what: &'static str) -> Damage {
        let (key, at) = self.stop.map_or((key, 0), |stop| (stop.key, stop.at));
        Damage { key, at, what }
    }

    /// Something was written behind the log's end that does not belong to it.
    fn note_torn(&mut self, key: SegmentKey, at: u64) {
        let stop = self.stop.get_or_insert(Stop { key, at, position: 0, torn: true });
        stop.torn = true;
    }

    /// What the log came to.
    pub fn finish(self) -> LogEnd {
        let torn = self.stop.filter(|stop| stop.torn);
        LogEnd {
            torn: torn.map(|stop| (stop.key, stop.at)),
            clean: self.clean && torn.is_none(),
            offsets: self.offsets,
            segments: self.segments,
        }
    }

    fn take_table(&mut self, table: &[PartitionOffsets]) {
        for row in table {
            let offsets = self.entry(row.stream, row.partition);
            offsets.start = offsets.start.max(row.start);
            offsets.next = offsets.next.max(row.next);
            offsets.ceiling = offsets.ceiling.max(row.ceiling);
        }
    }

    fn move_next(&mut self, stream: u32, partition: u32, next: Offset) {
        let offsets = self.entry(stream, partition);
        offsets.next = offsets.next.max(next);
    }

    fn raise_ceiling(&mut self, stream: u32, partition: u32, ceiling: Offset) {
        let offsets = self.entry(stream, partition);
        offsets.ceiling = offsets.ceiling.max(ceiling);
    }

    fn entry(&mut self, stream: u32, partition: u32) -> &mut PartitionOffsets {
        self.offsets.entry((stream, partition)).or_insert(PartitionOffsets {
            stream,
            partition,
            start: Offset(0),
            next: Offset(0),
            ceiling: Offset(0),
        })
    }
}

/// The frame at `at` of a segment, if it is whole and belongs there.
fn frame_at<'a>(
    header: &SegmentHeader,
    previous_crc: u32,
    file: &'a [u8],
    at: usize,
) -> Option<Frame<'a>> {
    frame::read(file.get(at..)?).filter(|frame| {
        frame.header.segment_identity == header.identity
            && frame.header.position == header.base_position + at as u64
            && frame.header.previous_crc == previous_crc
    })
}

#[cfg(test)]
mod tests {
    use super::super::FileKey;
    use super::super::rig::{FLUSHED, Rig, WRITTEN, durabilities, options};
    use super::*;

    fn next(end: &LogEnd, stream: StreamId, partition: u32) -> u64 {
        end.offsets[&(stream.0, partition)].next.0
    }

    fn sequences(end: &LogEnd) -> Vec<u64> {
        end.segments.iter().map(|(key, _, _)| key.sequence).collect()
    }

    /// Where each segment that is kept ends.
    fn ends(end: &LogEnd) -> Vec<u64> {
        end.segments.iter().map(|(_, end, _)| end.end).collect()
    }

    #[test]
    fn a_log_that_was_never_written_has_no_segments() {
        let end = Rig::new(options()).recover().expect("sound");
        assert_eq!((sequences(&end), end.clean, end.torn), (vec![], false, None));
        assert_eq!(next(&end, FLUSHED, 1), 0);
        let end = LogScan::new(BTreeMap::new()).finish();
        assert_eq!((sequences(&end), end.clean, end.torn), (vec![], false, None));
    }

    #[test]
    fn a_segment_that_was_made_and_not_begun_is_no_part_of_the_log() {
        let mut rig = Rig::new(options());
        let last = rig.put(FLUSHED, 0, b"a");
        assert!(rig.segment(1).iter().all(|byte| *byte == 0), "the next one is ready");
        let end = rig.recover().expect("sound");
        assert_eq!((sequences(&end), end.torn), (vec![0], None));
        assert_eq!(ends(&end), [last.position + last.bytes as u64]);
    }

    /// The last frame with any one of its blocks missing, or all from one on.
    #[test]
    fn a_torn_tail_is_cut_at_every_block() {
        let mut rig = Rig::new(options());
        let whole = rig.put(FLUSHED, 0, b"acknowledged");
        let torn = rig.put(FLUSHED, 0, &[9; 2000]);
        let blocks = torn.bytes / 512;
        assert_eq!(blocks, 5);
        let check = |lost: std::ops::Range<usize>, rig: &mut Rig| {
            let sound = rig.segment(0).clone();
            for block in lost.clone() {
                let at = torn.position as usize + block * 512;
                rig.segment(0)[at..at + 512].fill(0);
            }
            let end = rig.recover().expect("torn, not damaged");
            assert_eq!(ends(&end), [whole.position + whole.bytes as u64], "{lost:?}");
            let all = lost == (0..blocks);
            assert_eq!(end.torn, (!all).then_some((rig.key(0), torn.position)), "{lost:?}");
            assert_eq!(next(&end, FLUSHED, 0), 1);
            *rig.segment(0) = sound;
        };
        for from in 0..blocks {
            check(from..blocks, &mut rig);
            check(from..from + 1, &mut rig);
            check(0..from + 1, &mut rig);
        }
    }

    #[test]
    fn the_torn_first_write_of_a_segment_ends_the_log_before_it() {
        let mut rig = Rig::new(options());
        rig.fill_to(1);
        let table = SegmentHeader::read(rig.segment(1)).expect("whole").1;
        let records = next(&rig.recover().expect("sound"), FLUSHED, 0);
        let sound = rig.segment(1).clone();
        for index in [true, false] {
            if !index {
                rig.drop_index(0);
            }
            // The frame is lost, the header is there; and the other way about; and all but padding.
            let lost = [table..sound.len(), 0..table, 0..table + 512];
            for lost in lost {
                *rig.segment(1) = sound.clone();
                rig.segment(1)[lost.clone()].fill(0);
                let end = rig.recover().expect("torn, not damaged");
                assert_eq!(sequences(&end), [0], "{lost:?}");
                assert_eq!(next(&end, FLUSHED, 0), records - 1, "{lost:?}");
                let header_is_whole = lost.start > 0;
                let expected = if header_is_whole {
                    (rig.key(1), table as u64)
                } else {
                    (rig.key(0), ends(&end)[0])
                };
                assert_eq!(end.torn, Some(expected), "{lost:?}");
            }
        }
    }

    #[test]
    fn harm_below_what_was_durable_is_damage() {
        let check = |harm: &dyn Fn(&mut Rig)| {
            let mut rig = Rig::new(options());
            rig.fill_to(2);
            rig.put(FLUSHED, 0, b"later");
            rig.drop_index(0);
            assert!(rig.recover().is_ok());
            harm(&mut rig);
            rig.recover().map(|_| ()).expect_err("damage")
        };
        // A flipped byte and a lost block, in the middle of a segment.
        let at_first = Damage { what: "", ..check(&|rig| rig.segment(0)[700] ^= 1) };
        assert_eq!((at_first.key.sequence, at_first.at), (0, 512));
        check(&|rig| rig.segment(0)[512..1024].fill(0));
        // The last frame of a full segment, with the next one indexed and not.
        let last_of_first = |rig: &Rig| {
            let last = rig.commits.iter().rfind(|commit| commit.segment == rig.key(0));
            last.expect("several").position as usize
        };
        check(&|rig| {
            let at = last_of_first(rig);
            rig.segment(0)[at + 100] ^= 1;
        });
        check(&|rig| {
            rig.drop_index(1);
            let at = last_of_first(rig);
            rig.segment(0)[at..].fill(0);
        });
        // A header, of the first segment and of one behind it.
        check(&|rig| rig.segment(0)[20] ^= 1);
        check(&|rig| {
            rig.drop_index(1);
            rig.segment(1)[20] ^= 1;
        });
        check(&|rig| rig.segment(2)[20] ^= 1);
        // The first frame of the active one: the second shows that it was durable.
        check(&|rig| {
            let position = rig.commits[rig.commits.len() - 2].position as usize;
            assert_eq!(position, 0);
            rig.segment(2)[600] ^= 1;
        });
    }

    #[test]
    fn a_missing_or_misplaced_segment_is_damage() {
        let build = || {
            let mut rig = Rig::new(options());
            rig.fill_to(3);
            rig
        };
        for indexed in [true, false] {
            let mut rig = build();
            if !indexed {
                (0..3).for_each(|sequence| rig.drop_index(sequence));
            }
            let missing = FileKey::Segment(rig.key(1));
            let held = rig.files.remove(&missing);
            assert!(rig.recover().is_err(), "a gap");
            // A file under another's name.
            let other = rig.segment(0).clone();
            rig.files.insert(missing, other);
            rig.drop_index(1);
            assert!(rig.recover().is_err(), "renamed");
            rig.files.insert(missing, held.expect("was there"));
            rig.drop_index(1);
            assert!(rig.recover().is_ok());
            // The oldest may go: retention takes them in order.
            rig.files.remove(&FileKey::Segment(rig.key(0)));
            let end = rig.recover().expect("sound");
            assert_eq!(sequences(&end), [1, 2, 3]);
        }
    }

    #[test]
    fn a_file_that_still_holds_another_segment_is_not_begun() {
        let mut rig = Rig::new(options());
        rig.fill_to(1);
        let used = rig.segment(0).clone();
        // In front of a log, and behind it.
        let end = {
            let mut scan = LogScan::new(BTreeMap::new());
            scan.scan(SegmentKey { generation: 2, ..rig.key(0) }, &used).expect("only recycled");
            scan.finish()
        };
        assert!(sequences(&end).is_empty());
        *rig.segment(2) = used;
        let end = rig.recover().expect("only recycled");
        assert_eq!(sequences(&end), [0, 1]);
    }

    #[test]
    fn a_clean_end_holds_whatever_was_made_ahead_and_however_often_it_is_recovered() {
        let mut rig = Rig::new(options());
        rig.put(WRITTEN, 0, b"a");
        rig.log.end_cleanly();
        rig.commit();
        let end = rig.recover().expect("sound");
        assert!(end.clean);
        let mut recovered = Recovered::default();
        let files = recovered.add_log(end, 512);
        assert_eq!(recovered.offsets(WRITTEN, PartitionId(0)).next, Offset(1), "nothing wasted");
        assert_eq!(files.len(), 1);
        rig.files.extend(files.into_iter().map(|(key, file)| (FileKey::Index(key), file)));
        let again = rig.recover().expect("sound");
        assert!(again.clean && again.torn.is_none());
        assert!(matches!(again.segments[0].2, Found::Indexed(_)));
        // Something was written after all: the end is not clean.
        rig.files.retain(|key, _| matches!(key, FileKey::Segment(_)));
        rig.put(WRITTEN, 0, b"b");
        assert!(!rig.recover().expect("sound").clean);
        let last = *rig.commits.last().expect("one");
        rig.segment(0)[last.position as usize] ^= 1;
        let torn = rig.recover().expect("sound");
        assert!(!torn.clean && torn.torn.is_some());
    }

    #[test]
    fn a_log_that_never_held_a_record_ends_cleanly_too() {
        let mut rig = Rig::new(options());
        rig.log.end_cleanly();
        rig.commit();
        let end = rig.recover().expect("sound");
        assert!(end.clean);
        let mut recovered = Recovered::default();
        recovered.add_log(end, 512);
        assert_eq!(recovered.offsets(WRITTEN, PartitionId(1)).next, Offset(0));
    }

    /// Ceilings come from the manifest, from reservations in frames, from headers, from indexes.
    #[test]
    fn after_a_crash_offsets_go_on_at_the_ceiling() {
        let next_after = |rig: &Rig, stream| {
            let mut recovered = Recovered::default();
            recovered.add_log(rig.recover().expect("sound"), 512);
            recovered.settle();
            recovered.offsets(stream, PartitionId(0)).next.0
        };
        let mut rig = Rig::new(options());
        assert_eq!(next_after(&rig, WRITTEN), RESERVED_AHEAD, "the manifest's");
        assert_eq!(next_after(&rig, FLUSHED), 0);
        rig.put(WRITTEN, 0, b"a");
        rig.put(FLUSHED, 0, b"a");
        assert_eq!(next_after(&rig, WRITTEN), RESERVED_AHEAD);
        assert_eq!(next_after(&rig, FLUSHED), 1);

        // Few are left: the next commit reserves more, and is flushed for that.
        let mut recovered = Recovered::default();
        recovered.reserve(&durabilities(&options().streams), 2);
        let place = recovered.offsets.get_mut(&(WRITTEN.0, 0)).expect("reserved");
        place.ceiling = Offset(10);
        let mut rig = Rig::after(options(), &recovered, BTreeMap::new());
        let commit = rig.put(WRITTEN, 0, b"a");
        assert!(commit.flush);
        let header = SegmentHeader::read(rig.segment(0)).expect("whole").0;
        assert_eq!(header.partitions[2].ceiling, Offset(10), "the header is of before");
        assert_eq!(next_after(&rig, WRITTEN), 1 + RESERVED_AHEAD, "the frame's");
        rig.fill_to(1);
        rig.segment(1).fill(0);
        assert_eq!(next_after(&rig, WRITTEN), 1 + RESERVED_AHEAD, "the index's");
        rig.drop_index(0);
        assert_eq!(next_after(&rig, WRITTEN), 1 + RESERVED_AHEAD, "the frame's again");
    }

    #[test]
    fn a_recovery_that_was_interrupted_is_begun_again() {
        let mut rig = Rig::new(options());
        rig.put(FLUSHED, 0, b"kept");
        let torn = rig.put(WRITTEN, 0, &[9; 1000]);
        let end = rig.recover().expect("sound");
        rig.segment(0)[torn.position as usize + 600] ^= 1;
        let first = rig.recover().expect("torn");
        assert!(ends(&first) < ends(&end));
        // It was cut, and power failed before anything else.
        rig.segment(0).truncate(ends(&first)[0] as usize);
        let second = rig.recover().expect("torn");
        assert_eq!((ends(&second), second.torn), (ends(&first), None));
        assert_eq!(second.offsets, first.offsets);
    }

    #[test]
    fn the_log_start_is_the_first_record_that_is_there() {
        let mut rig = Rig::new(options());
        rig.fill_to(2);
        rig.put(FLUSHED, 1, b"other");
        rig.files.remove(&FileKey::Segment(rig.key(0)));
        let mut recovered = Recovered::default();
        recovered.add_log(rig.recover().expect("sound"), 512);
        recovered.settle();
        let first = recovered.segments[0].spans[0];
        assert!(first.base > Offset(0));
        assert_eq!(recovered.offsets(FLUSHED, PartitionId(0)).start, first.base);
        assert_eq!(recovered.offsets(FLUSHED, PartitionId(1)).start, Offset(0));
        let empty = recovered.offsets(WRITTEN, PartitionId(1));
        assert_eq!((empty.start, empty.next), (empty.ceiling, empty.ceiling));
        recovered.segments.clear();
        recovered.settle();
        let all_gone = recovered.offsets(FLUSHED, PartitionId(0));
        assert_eq!(all_gone.start, all_gone.next);
    }
}
