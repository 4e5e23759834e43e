//! Looking through a log: what of it is whole after a stop of any kind, and where it ends.
//!
//! Comes in: the bytes of one log's segments, in order. Goes out: its end, the index of each
//! segment, the offsets of every partition, and what is damaged. A frame that does not hold ends
//! the log there, unless something shows that the log was durable beyond it: a frame behind it, of
//! the same segment, that says so, or a segment that was begun after it. Then acknowledged data is
//! harmed, and that is never taken for a torn tail: it is reported, and the scan goes on at the next
//! whole frame. Scanning may be interrupted anywhere and begun again: it changes nothing.
//! Deliberately absent: I/O; what is cut, flushed and written is `start`'s.

use std::collections::{BTreeMap, BTreeSet};

use super::frame::{Entry, FLAG_CLEAN_END, Frame};
use super::index::{IndexEntry, IndexRow, SegmentEnd, Span};
use super::segment::{self, PartitionOffsets, SegmentHeader, SegmentKey};
use crate::record::Offset;
use crate::record::batch::{self, BatchHeader};

mod frames;
mod recall;

pub use frames::frames_over_damage;
pub(super) use frames::holds_frames_of;
use frames::{Place, first_in_place, frame_at, is_torn, next_in_place, proves_durable};

/// The smallest block that a log may have: frames start at multiples of it.
pub const BLOCK_MIN: usize = 512;

/// How far the next offset jumps where damage hides how many were given: further than any segment
/// has records, so that none is given twice.
pub const UNCERTAIN_OFFSETS: u64 = 1 << 32;

const NO_HEADER: &str = "its header does not hold";
/// Of a segment's file: it begins with the header of another one.
pub const HOLDS_ANOTHER: &str = "it holds another segment";
const ENDS_EARLY: &str = "it ends before its end";
const NO_FRAME: &str = "a frame does not hold";

/// Something that was durable is not what was written.
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

/// One log being looked through, segment by segment in their order.
#[derive(Debug, Default)]
pub struct LogScan {
    seed: u64,
    /// Offsets by (stream, partition), as they are after what was seen.
    offsets: BTreeMap<(u32, u32), PartitionOffsets>,
    segments: Vec<(SegmentKey, SegmentEnd, Found)>,
    damages: Vec<Damage>,
    /// Partitions of which damage may have taken the last records, however many.
    uncertain: BTreeSet<(u32, u32)>,
    /// Those of them that were before the last segment.
    uncertain_before: BTreeSet<(u32, u32)>,
    /// Runs of moved segments of which a part is lost.
    split: Vec<(SegmentKey, Span)>,
    /// The last segment that was seen.
    last: Option<Last>,
    /// Where something that was never acknowledged stands behind the log's end.
    torn: Option<(SegmentKey, u64)>,
    /// Segments that were made ready and never begun.
    unbegun: Vec<SegmentKey>,
    clean: bool,
    /// The records of every batch are checked, and not the frames alone.
    thorough: bool,
    scratch: Vec<u8>,
}

/// What the next segment must continue.
#[derive(Debug, Clone, Copy)]
struct Last {
    key: SegmentKey,
    /// Bytes of it that hold.
    end: u64,
    /// CRC of its last frame; `None` where that is lost.
    crc: Option<u32>,
    block: u32,
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
    /// Partitions whose next offset damage hides; theirs has jumped.
    pub uncertain: BTreeSet<(u32, u32)>,
    /// Its segments with something in them; each file is to be cut at its end.
    pub segments: Vec<(SegmentKey, SegmentEnd, Found)>,
    /// Segments that were made ready and never begun.
    pub unbegun: Vec<SegmentKey>,
    /// The last frame says that the engine was stopped cleanly.
    pub clean: bool,
    /// Where a torn tail was cut off, as (segment, byte).
    pub torn: Option<(SegmentKey, u64)>,
    /// What is harmed.
    pub damages: Vec<Damage>,
    /// Runs of moved segments of which a part is lost.
    pub split: Vec<(SegmentKey, Span)>,
}

/// Runs of a segment that is being scanned, by (stream, partition).
type Runs = BTreeMap<(u32, u32), Vec<IndexRow>>;

impl LogScan {
    /// A log of the start with `seed`, whose partitions stood at `offsets` before its first segment.
    pub fn new(seed: u64, offsets: BTreeMap<(u32, u32), PartitionOffsets>) -> Self {
        Self { seed, offsets, ..Self::default() }
    }

    /// Checks the records of every batch as well: what a frame's CRC cannot show is an error of who
    /// wrote it.
    #[must_use]
    pub fn thorough(mut self, thorough: bool) -> Self {
        self.thorough = thorough;
        self
    }

    /// A segment whose index file is there and is of this segment: nothing needs to be read but the
    /// header, if there is one that holds.
    pub fn indexed(
        &mut self,
        key: SegmentKey,
        header: Option<&SegmentHeader>,
        end: SegmentEnd,
        spans: Vec<Span>,
    ) {
        match header {
            Some(header) => self.begin(header),
            None => self.harm(key, 0, NO_HEADER),
        }
        for span in &spans {
            self.move_next(span.stream, span.partition, span.next);
            self.raise_ceiling(span.stream, span.partition, span.ceiling);
        }
        let block = header.map_or(self.block(), |header| header.block);
        self.last = Some(Last { key, end: end.end, crc: Some(end.last_crc), block });
        self.clean = end.clean;
        self.segments.push((key, end, Found::Indexed(spans)));
    }

    /// Whether the last frame says that the engine was stopped cleanly.
    pub fn has_ended(&self) -> bool {
        self.clean
    }

    /// A segment that was never begun, as its first block says.
    pub fn pass_unbegun(&mut self, key: SegmentKey) {
        self.unbegun.push(key);
    }

    /// A segment's whole file. `followed`: a later segment of the log was begun, and so all of this
    /// one was durable.
    pub fn scan(&mut self, key: SegmentKey, file: &[u8], followed: bool) {
        self.uncertain_before.clone_from(&self.uncertain);
        let identity = segment::identity(self.seed, key);
        let found = SegmentHeader::read(file);
        let foreign = found.is_some();
        match found.filter(|(header, ..)| header.key == key && header.identity == identity) {
            Some((header, header_bytes, crc)) => {
                self.begin(&header);
                let (base_position, block) = (header.base_position, header.block);
                let place = Place { key, identity, base_position, block };
                self.walk(place, header_bytes, Some(crc), file, followed);
            }
            None => self.scan_headless(key, identity, file, followed, foreign),
        }
    }

    /// Of the segment that was scanned last, everything below `end` was durable.
    pub fn must_reach(&mut self, key: SegmentKey, end: u64) {
        let reached = self.last.filter(|last| last.key == key).map_or(0, |last| last.end);
        if reached < end {
            self.harm(key, reached, ENDS_EARLY);
        }
    }

    /// A segment that goes on where the last one ended, as its header says; what it says of every
    /// partition is certain again.
    fn begin(&mut self, header: &SegmentHeader) {
        if let Some(last) = self.last {
            let next = SegmentKey { sequence: last.key.sequence + 1, ..last.key };
            if header.key != next {
                self.harm(next, 0, "its file is missing");
            } else if last.crc.is_some_and(|crc| crc != header.previous_crc) {
                self.harm(last.key, last.end, "its end is missing");
            }
        }
        for row in &header.partitions {
            let offsets = self.entry(row.stream, row.partition);
            offsets.start = offsets.start.max(row.start);
            offsets.next = offsets.next.max(row.next);
            offsets.ceiling = offsets.ceiling.max(row.ceiling);
            self.uncertain.remove(&(row.stream, row.partition));
        }
    }

    /// A segment without a header of its own: made ready and never begun, or its first write was
    /// torn, or the header is lost. `foreign`: the file begins with another segment's.
    fn scan_headless(
        &mut self,
        key: SegmentKey,
        identity: u64,
        file: &[u8],
        followed: bool,
        foreign: bool,
    ) {
        let block = self.block();
        let Some((at, base_position)) = first_in_place(key, identity, file) else {
            let what = match (foreign, file.is_empty()) {
                (true, _) => HOLDS_ANOTHER,
                (false, true) => "it is empty",
                (false, false) => "nothing in it holds",
            };
            if followed || foreign {
                self.harm(key, 0, what);
                self.last = Some(Last { key, end: 0, crc: None, block });
            } else if first_block(file).iter().all(|byte| *byte == 0) {
                self.unbegun.push(key);
            } else {
                self.torn = Some((key, 0));
                self.unbegun.push(key);
            }
            return;
        };
        let place = Place { key, identity, base_position, block };
        if followed || proves_durable(place, file, 0, base_position) {
            self.harm(key, 0, NO_HEADER);
            self.walk(place, at, None, file, followed);
        } else {
            self.torn = Some((key, 0));
            self.unbegun.push(key);
        }
    }

    /// A segment that somebody else knows: an earlier start sealed it, or the cleaner wrote it. All
    /// of it, up to `end` if that is known, was durable.
    pub fn scan_sealed(&mut self, key: SegmentKey, identity: u64, end: Option<u64>, file: &[u8]) {
        let found = SegmentHeader::read(file);
        let foreign = found.is_some();
        let found = found.filter(|(header, ..)| header.key == key && header.identity == identity);
        let block = found.as_ref().map_or(BLOCK_MIN as u32, |(header, ..)| header.block);
        let (at, crc, base_position) = match found {
            Some((header, at, crc)) => (at, Some(crc), header.base_position),
            None => {
                let what = if foreign { HOLDS_ANOTHER } else { NO_HEADER };
                self.harm(key, 0, what);
                let Some((at, base)) = first_in_place(key, identity, file) else { return };
                (at, None, base)
            }
        };
        let file = end.and_then(|end| file.get(..usize::try_from(end).ok()?)).unwrap_or(file);
        self.walk(Place { key, identity, base_position, block }, at, crc, file, true);
        self.must_reach(key, end.unwrap_or(file.len() as u64));
    }

    /// Goes through the frames of a segment from byte `at` on until one does not hold and nothing
    /// shows that it should.
    fn walk(
        &mut self,
        place: Place,
        mut at: usize,
        mut crc: Option<u32>,
        file: &[u8],
        followed: bool,
    ) {
        let header_bytes = at;
        let mut runs = Runs::new();
        let mut end = SegmentEnd {
            identity: place.identity,
            end: at as u64,
            last_crc: crc.unwrap_or_default(),
            ..SegmentEnd::default()
        };
        loop {
            if let Some(frame) = frame_at(place, crc, file, at) {
                self.take_frame(place.key, &frame, at, &mut runs);
                crc = Some(frame.crc);
                end.last_crc = frame.crc;
                end.wall_ms = frame.header.wall_ms;
                end.age_ms = frame.header.age_ms;
                end.clean = frame.header.flags & FLAG_CLEAN_END != 0;
                at += frame.bytes.len().next_multiple_of(place.block as usize);
                end.end = at as u64;
            } else if let Some(next) = next_in_place(place, file, at)
                && (followed || proves_durable(place, file, at, place.base_position + at as u64))
                && !mutated!(DamageTakenForTail)
            {
                self.harm(place.key, at as u64, NO_FRAME);
                (at, crc) = (next, None);
            } else {
                break;
            }
        }
        self.clean = end.clean;
        self.last = Some(Last { key: place.key, end: end.end, crc, block: place.block });
        let began = at > header_bytes;
        if began || followed {
            let rows = runs.into_values().flatten().collect();
            self.segments.push((place.key, end, Found::Scanned(rows)));
        } else {
            self.unbegun.push(place.key);
        }
        if !followed && (!began || is_torn(place.identity, file.get(at..).unwrap_or_default())) {
            self.torn = Some((place.key, at as u64));
        }
    }

    fn take_frame(&mut self, key: SegmentKey, frame: &Frame<'_>, at: usize, runs: &mut Runs) {
        for entry in frame.entries() {
            match entry {
                Some(Entry::Batch { stream, partition, at: batch_at, batch }) => {
                    let Some(header) = BatchHeader::read(batch) else {
                        let at = (at + batch_at) as u64;
                        self.harm(key, at, "a frame holds something that is no record batch");
                        continue;
                    };
                    if self.thorough
                        && let Err(what) = batch::check(batch, &mut self.scratch)
                    {
                        self.damages.push(Damage { key, at: (at + batch_at) as u64, what });
                        self.move_next(stream, partition, header.next_offset());
                        continue;
                    }
                    let entry = IndexEntry::of(&header, (at + batch_at) as u32);
                    let runs = runs.entry((stream, partition)).or_default();
                    add_batch(runs, entry, stream, partition);
                    self.move_next(stream, partition, header.next_offset());
                    self.uncertain.remove(&(stream, partition));
                }
                Some(Entry::Reservation { stream, partition, ceiling }) => {
                    self.raise_ceiling(stream, partition, Offset(ceiling));
                    if let Some(row) = runs.get_mut(&(stream, partition)).and_then(|r| r.last_mut())
                    {
                        row.ceiling = row.ceiling.max(Offset(ceiling));
                    }
                }
                Some(Entry::Range { stream, partition, range }) => {
                    let row =
                        IndexRow { stream, partition, range: Some(range), ..IndexRow::default() };
                    runs.entry((stream, partition)).or_default().push(row);
                }
                None => return self.harm(key, at as u64, "a frame contradicts itself"),
            }
        }
    }

    /// Notes damage: of every partition it may have taken the last records.
    fn harm(&mut self, key: SegmentKey, at: u64, what: &'static str) {
        self.damages.push(Damage { key, at, what });
        self.uncertain.extend(self.offsets.keys());
    }

    fn block(&self) -> u32 {
        self.last.map_or(BLOCK_MIN as u32, |last| last.block)
    }

    /// What the log came to.
    pub fn finish(mut self) -> LogEnd {
        for place in &self.uncertain {
            if let Some(offsets) = self.offsets.get_mut(place) {
                offsets.next = offsets.next.max(offsets.ceiling).plus(UNCERTAIN_OFFSETS);
                offsets.ceiling = offsets.next;
            }
        }
        LogEnd {
            clean: self.clean && self.torn.is_none(),
            torn: self.torn,
            offsets: self.offsets,
            uncertain: self.uncertain,
            segments: self.segments,
            unbegun: self.unbegun,
            damages: self.damages,
            split: self.split,
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
        let new = PartitionOffsets::new(stream, partition);
        self.offsets.entry((stream, partition)).or_insert(new)
    }
}

/// Adds a batch to the runs of its partition. A jump in the offsets, as damage leaves it, begins a
/// new run, but within a range of a moved segment.
fn add_batch(runs: &mut Vec<IndexRow>, entry: IndexEntry, stream: u32, partition: u32) {
    let goes_on = |row: &IndexRow| match row.range {
        Some(range) => range.from <= entry.base.0 && entry.next().0 <= range.to,
        None => row.entries.last().is_none_or(|last| last.next() == entry.base),
    };
    match runs.last_mut().filter(|row| goes_on(row)) {
        Some(row) => row.entries.push(entry),
        None => {
            let entries = vec![entry];
            runs.push(IndexRow { stream, partition, entries, ..IndexRow::default() });
        }
    }
}

fn first_block(file: &[u8]) -> &[u8] {
    &file[..file.len().min(BLOCK_MIN)]
}

#[cfg(test)]
mod tests {
    use super::super::FileKey;
    use super::super::partition::RESERVED_AHEAD;
    use super::super::recovery::Recovered;
    use super::super::rig::{FLUSHED, Rig, SEED, WRITTEN, durabilities, options};
    use super::*;
    use crate::record::{PartitionId, StreamId};

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
        let end = Rig::new(options()).sound();
        assert_eq!((sequences(&end), end.clean, end.torn), (vec![], false, None));
        assert_eq!(next(&end, FLUSHED, 1), 0);
        let end = LogScan::new(SEED, BTreeMap::new()).finish();
        assert_eq!((sequences(&end), end.clean, end.torn), (vec![], false, None));
    }

    #[test]
    fn a_segment_that_was_made_and_not_begun_is_no_part_of_the_log() {
        let mut rig = Rig::new(options());
        let last = rig.put(FLUSHED, 0, b"a");
        assert!(rig.segment(1).iter().all(|byte| *byte == 0), "the next one is ready");
        let end = rig.sound();
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
            let end = rig.sound();
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
        let records = next(&rig.sound(), FLUSHED, 0);
        let sound = rig.segment(1).clone();
        for index in [true, false] {
            if !index {
                rig.drop_index(0);
            }
            // The frame is lost, the header is there; and the other way about; and all but padding.
            // Of the last nothing tells that it is not a file that was used before.
            let (key, table_end) = (rig.key(1), table as u64);
            let cases = [
                (table..sound.len(), Some((key, table_end))),
                (0..table, Some((key, 0))),
                (0..table + 512, None),
            ];
            for (lost, torn) in cases {
                *rig.segment(1) = sound.clone();
                rig.segment(1)[lost.clone()].fill(0);
                let end = rig.sound();
                assert_eq!(sequences(&end), [0], "{lost:?}");
                assert_eq!(next(&end, FLUSHED, 0), records - 1, "{lost:?}");
                assert_eq!(end.torn, torn, "{lost:?}");
            }
        }
    }

    /// Fills two segments and begins a third; what the first holds is read from its frames.
    fn three_segments() -> Rig {
        let mut rig = Rig::new(options());
        rig.fill_to(2);
        rig.put(FLUSHED, 0, b"later");
        rig.drop_index(0);
        assert_eq!(rig.sound().damages, []);
        rig
    }

    /// The offsets of a partition that no segment holds.
    fn lost(end: LogEnd, stream: StreamId, partition: u32) -> Vec<(u64, u64)> {
        let mut recovered = Recovered::default();
        recovered.add_log(end, 512);
        recovered.settle();
        let holes = recovered.layout(stream, PartitionId(partition)).holes;
        holes.into_iter().map(|(from, to)| (from.0, to.0)).collect()
    }

    #[test]
    fn harm_below_what_was_durable_is_told_and_the_rest_is_kept() {
        let records = next(&three_segments().sound(), FLUSHED, 0);
        let check = |harm: &dyn Fn(&mut Rig), at: (u64, u64), expected: &[(u64, u64)]| {
            let mut rig = three_segments();
            harm(&mut rig);
            let end = rig.recover();
            let found = end.damages.first().expect("damage");
            assert_eq!((found.key.sequence, found.at), at, "{found}");
            assert_eq!(end.torn, None);
            assert!(next(&end, FLUSHED, 0) >= records);
            assert_eq!(lost(end, FLUSHED, 0), expected, "{at:?}");
        };
        // A flipped byte and a lost block, in the middle of a segment.
        check(&|rig| rig.segment(0)[700] ^= 1, (0, 512), &[(0, 1)]);
        check(&|rig| rig.segment(0)[512..1024].fill(0), (0, 512), &[(0, 1)]);
        let place_of = |rig: &Rig, sequence, number: usize| {
            let mut of = rig.commits.iter().filter(|commit| commit.segment == rig.key(sequence));
            of.nth(number).expect("several").position
        };
        let second = place_of(&three_segments(), 0, 1);
        check(&|rig| rig.segment(0)[second as usize + 9] ^= 1, (0, second), &[(1, 2)]);
        // The last frame of a full segment, with the next one indexed and not.
        let last = place_of(&three_segments(), 0, 3);
        check(&|rig| rig.segment(0)[last as usize + 100] ^= 1, (0, last), &[(3, 4)]);
        let harm = |rig: &mut Rig| {
            rig.drop_index(1);
            rig.segment(0)[last as usize..].fill(0);
        };
        check(&harm, (0, last), &[(3, 4)]);
        // A header, of the first segment and of one behind it: the frames say where they belong.
        check(&|rig| rig.segment(0)[20] ^= 1, (0, 0), &[]);
        let harm = |rig: &mut Rig| {
            rig.drop_index(1);
            rig.segment(1)[20] ^= 1;
        };
        check(&harm, (1, 0), &[]);
        check(&|rig| rig.segment(1)[20] ^= 1, (1, 0), &[]);
        check(&|rig| rig.segment(2)[20] ^= 1, (2, 0), &[]);
        // The first frame of the active one: the second shows that it was durable.
        check(&|rig| rig.segment(2)[600] ^= 1, (2, 512), &[(8, 9)]);
        // And its header too, with a misdirected write of the second in their place.
        let harm = |rig: &mut Rig| {
            rig.segment(2)[20] ^= 1;
            let second = place_of(rig, 2, 1) as usize;
            rig.segment(2).copy_within(second..second + 512, 512);
        };
        check(&harm, (2, 0), &[(8, 9)]);
        // Likewise when an earlier start has sealed it.
        let mut rig = three_segments();
        let sealed_end = *ends(&rig.sound()).last().expect("three");
        harm(&mut rig);
        let (key, file) = (rig.key(2), rig.segment(2).clone());
        let mut scan = LogScan::default();
        scan.scan_sealed(key, segment::identity(SEED, key), Some(sealed_end), &file);
        let end = scan.finish();
        assert_eq!((ends(&end), next(&end, FLUSHED, 0)), (vec![sealed_end], records));
        // A header of the second segment, of which every position is a possible one: the others tell.
        let harm = |rig: &mut Rig| {
            rig.drop_index(1);
            let (second, third) = (place_of(rig, 1, 1) as usize, place_of(rig, 1, 2) as usize);
            rig.segment(1).copy_within(second..third, 0);
        };
        check(&harm, (1, 0), &[(4, 5)]);
        // All of it, in the middle of the log.
        let harm = |rig: &mut Rig| {
            rig.drop_index(1);
            rig.segment(1).fill(0);
        };
        check(&harm, (1, 0), &[(4, 8)]);
    }

    /// A misdirected write of a segment took its own header: the frames behind show that it was begun.
    #[test]
    fn a_header_under_a_frame_of_its_own_segment_is_no_torn_beginning() {
        let mut rig = Rig::new(options());
        rig.fill_to(1);
        let last = (0..3).map(|_| rig.put(FLUSHED, 0, b"later")).last().expect("three");
        let records = next(&rig.sound(), FLUSHED, 0);
        let at = last.position as usize;
        rig.segment(1).copy_within(at..at + last.bytes, 0);
        let end = rig.recover();
        let damages: Vec<_> = end.damages.iter().map(|d| (d.key.sequence, d.at, d.what)).collect();
        assert_eq!((damages, end.torn), (vec![(1, 0, NO_HEADER)], None));
        assert_eq!(next(&end, FLUSHED, 0), records);
        assert_eq!(lost(end, FLUSHED, 0), []);
    }

    /// Nobody knows how many offsets the damaged frame gave: none of them may be given again.
    #[test]
    fn where_damage_hides_the_end_offsets_jump() {
        let mut rig = Rig::new(options());
        rig.put(FLUSHED, 1, b"kept");
        let harmed = rig.put(FLUSHED, 1, b"harmed");
        rig.put(FLUSHED, 0, b"later");
        rig.segment(0)[harmed.position as usize + 80] ^= 1;
        let end = rig.recover();
        assert_eq!(end.damages.len(), 1);
        assert_eq!(next(&end, FLUSHED, 0), 1, "what comes after the damage is certain");
        assert_eq!(next(&end, FLUSHED, 1), 1 + UNCERTAIN_OFFSETS);
        assert_eq!(lost(end, FLUSHED, 1), [(1, 1 + UNCERTAIN_OFFSETS)]);
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
            let check = |rig: &Rig, what: &str| {
                let end = rig.recover();
                assert_eq!(end.damages.len(), 1, "{what}: {:?}", end.damages);
                assert_eq!(end.damages[0].key.sequence, 1, "{what}");
                assert_eq!(lost(end, FLUSHED, 0), [(4, 8)], "{what}");
            };
            let missing = FileKey::Segment(rig.key(1));
            let held = rig.files.remove(&missing);
            check(&rig, "a gap");
            // A file under another's name.
            let other = rig.segment(0).clone();
            rig.files.insert(missing, other);
            rig.drop_index(1);
            check(&rig, "renamed");
            rig.files.insert(missing, held.expect("was there"));
            rig.drop_index(1);
            assert_eq!(sequences(&rig.sound()), [0, 1, 2, 3]);
            // The oldest may go: retention takes them in order.
            rig.files.remove(&FileKey::Segment(rig.key(0)));
            assert_eq!(sequences(&rig.sound()), [1, 2, 3]);
        }
    }

    /// The driver wipes the first block of a file that is used again.
    #[test]
    fn a_file_that_still_holds_frames_of_another_segment_is_not_begun() {
        let mut rig = Rig::new(options());
        rig.fill_to(1);
        let mut used = rig.segment(0).clone();
        used[..512].fill(0);
        // In front of a log, and behind it.
        let mut scan = LogScan::new(SEED, BTreeMap::new());
        scan.scan(SegmentKey::chain(2, 0, 0), &used, false);
        let end = scan.finish();
        assert!(sequences(&end).is_empty() && end.damages.is_empty() && end.torn.is_none());
        *rig.segment(2) = used.clone();
        let end = rig.sound();
        assert_eq!((sequences(&end), end.torn), (vec![0, 1], None));
        // And when it is begun, its old frames are no part of it.
        let begun = ends(&end)[1] as usize;
        let mut file = used;
        file[..begun].copy_from_slice(&rig.segment(1)[..begun]);
        *rig.segment(1) = file;
        let end = rig.sound();
        assert_eq!((ends(&end)[1] as usize, end.torn), (begun, None));
    }

    #[test]
    fn a_segment_that_holds_another_one_is_damage() {
        let mut rig = Rig::new(options());
        rig.fill_to(1);
        let used = rig.segment(0).clone();
        *rig.segment(2) = used;
        let end = rig.recover();
        assert_eq!(
            end.damages,
            [Damage { key: rig.key(2), at: 0, what: "it holds another segment" }]
        );
        assert!(next(&end, FLUSHED, 0) > UNCERTAIN_OFFSETS);
    }

    #[test]
    fn a_clean_end_holds_whatever_was_made_ahead_and_however_often_it_is_recovered() {
        let mut rig = Rig::new(options());
        rig.put(WRITTEN, 0, b"a");
        rig.log.end_cleanly();
        rig.commit();
        let end = rig.sound();
        assert!(end.clean);
        let mut recovered = Recovered::default();
        let files = recovered.add_log(end, 512);
        assert_eq!(recovered.offsets(WRITTEN, PartitionId(0)).next, Offset(1), "nothing wasted");
        assert_eq!(files.len(), 1);
        rig.files.extend(files.into_iter().map(|(key, file)| (FileKey::Index(key), file)));
        let again = rig.sound();
        assert!(again.clean && again.torn.is_none());
        assert!(matches!(again.segments[0].2, Found::Indexed(_)));
        // Something was written after all: the end is not clean.
        rig.files.retain(|key, _| matches!(key, FileKey::Segment(_)));
        rig.put(WRITTEN, 0, b"b");
        assert!(!rig.sound().clean);
        let last = *rig.commits.last().expect("one");
        rig.segment(0)[last.position as usize] ^= 1;
        let torn = rig.sound();
        assert!(!torn.clean && torn.torn.is_some());
    }

    #[test]
    fn a_log_that_never_held_a_record_ends_cleanly_too() {
        let mut rig = Rig::new(options());
        rig.log.end_cleanly();
        rig.commit();
        let end = rig.sound();
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
            recovered.add_log(rig.sound(), 512);
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
        let end = rig.sound();
        rig.segment(0)[torn.position as usize + 600] ^= 1;
        let first = rig.sound();
        assert!(ends(&first) < ends(&end));
        // It was cut, and power failed before anything else.
        rig.segment(0).truncate(ends(&first)[0] as usize);
        let second = rig.sound();
        assert_eq!((ends(&second), second.torn), (ends(&first), None));
        assert_eq!(second.offsets, first.offsets);
    }

    /// Log starts are known from elsewhere: what is missing without one is a hole.
    #[test]
    fn a_front_that_is_missing_is_a_hole_but_for_a_log_start() {
        let mut rig = Rig::new(options());
        rig.fill_to(2);
        rig.put(FLUSHED, 1, b"other");
        rig.files.remove(&FileKey::Segment(rig.key(0)));
        assert_eq!(lost(rig.sound(), FLUSHED, 0), [(0, 4)]);
        let mut end = rig.sound();
        end.offsets.get_mut(&(FLUSHED.0, 0)).expect("there").start = Offset(4);
        assert_eq!(lost(end, FLUSHED, 0), []);
        // Reserved offsets are no hole.
        assert_eq!(lost(rig.sound(), WRITTEN, 1), []);
    }
}
