//! Reading: whole stored batches by offset, and offsets by time.
//!
//! The tail and what was read before are in memory; for anything else a read is asked for and the
//! caller comes back when it has ended. The index, not the position in the log, orders what is
//! returned, and nothing at or beyond the committed end is ever returned.

use super::cache::FileKey;
use super::index::{ENTRY_BYTES, EntriesAt, IndexEntry, Span};
use super::partition::Row;
use super::segment::SegmentKey;
use super::{Log, Request};
use crate::record::batch::for_each_record;
use crate::record::{Committed, Offset, PartitionId, SharedBytes, StreamId};

/// A read that the driver does for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRequest {
    /// From which file.
    pub file: FileKey,
    /// First byte, a multiple of the block.
    pub position: u64,
    /// Bytes, a multiple of the block; the file may end before.
    pub bytes: usize,
    /// Bytes without which the read is of no use.
    pub needed: usize,
}

impl ReadRequest {
    /// Whether it brings what `other` would.
    fn brings(&self, other: &Self) -> bool {
        self.file == other.file && self.position == other.position && self.needed >= other.needed
    }

    /// Whether its failure is that of `other`.
    fn fails_for(&self, other: &Self) -> bool {
        self.file == other.file && self.position == other.position && self.needed == other.needed
    }
}

/// What a partition offers to readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is kept.
    pub start: Offset,
    /// Readers see what is below.
    pub committed: Committed,
    /// Offsets that damage took: reading them is [`Outcome::Damaged`].
    pub fenced: u64,
    /// The next offset to be given. After a crash it may lie beyond `committed` with nothing in
    /// between: a reader that had come there waits there.
    pub next: Offset,
}

/// How a read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// So many bytes of whole batches, and the offset after their last record.
    Data(usize, Offset),
    /// Nothing at or behind the offset yet.
    End,
    /// A disk read was asked for; try again when it has ended.
    Pending,
    /// The offset is not within the partition's bounds.
    OutOfRange,
    /// The bytes on disk are not what was written.
    Damaged,
}

/// The first record at or after a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLookup {
    /// It, with its own timestamp in milliseconds since 1970.
    Found(Offset, i64),
    /// There is none.
    NotFound,
    /// A disk read was asked for; try again when it has ended.
    Pending,
    /// The bytes on disk are not what was written.
    Damaged,
}

/// Why bytes of a file are not at hand.
pub(super) enum Missing {
    Pending,
    Damaged,
}

/// Places of damage that are remembered, so that each is told once.
const HARMED_MAX: usize = 1024;

/// Where the records of a batch or of a run are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Records {
    /// Of which stream.
    pub stream: StreamId,
    /// In which partition.
    pub partition: PartitionId,
    /// The first offset.
    pub from: Offset,
    /// The offset after the last.
    pub to: Offset,
}

impl Records {
    /// Those of a run.
    pub(super) fn of(span: &Span) -> Self {
        let (stream, partition) = (StreamId(span.stream), PartitionId(span.partition));
        Self { stream, partition, from: span.base, to: span.next }
    }
}

/// Damage that a reader or the cleaner met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetDamage {
    /// In which file.
    pub file: FileKey,
    /// At which byte.
    pub at: u64,
    /// What of it cannot be read: a batch, or, where its index is harmed or the cleaner met it, a
    /// run.
    pub records: Records,
}

/// A run of a row: in an index file, or in the index of this number that is still in memory.
#[derive(Clone, Copy)]
enum Run {
    File((SegmentKey, Span)),
    Memory(usize),
}

/// The batches of one run.
enum Entries<'a> {
    Memory(&'a [IndexEntry]),
    File(SharedBytes, usize, EntriesAt),
}

impl Entries<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Memory(entries) => entries.len(),
            Self::File(_, _, located) => located.count as usize,
        }
    }

    fn at(&self, index: usize) -> Option<IndexEntry> {
        match self {
            Self::Memory(entries) => entries.get(index).copied(),
            Self::File(bytes, start, located) => {
                let entries = bytes.as_bytes().get(*start..start + located.bytes())?;
                IndexEntry::read(entries, index)
            }
        }
    }

    /// The first entry for which `before` is false; entries are ordered by it.
    fn partition_point(&self, before: impl Fn(&IndexEntry) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.at(middle).is_some_and(|entry| before(&entry)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

impl Log {
    /// What a partition offers; `None` when this shard does not own it.
    pub fn bounds(&self, stream: StreamId, partition: PartitionId) -> Option<Bounds> {
        let row = &self.rows[self.row_index(stream, partition)?];
        let fenced = row.holes.iter().map(|(from, to)| to.0 - from.0).sum();
        Some(Bounds { start: row.start, committed: row.committed, fenced, next: row.next })
    }

    /// Hands `take` the stored batches from the one that holds `from` on: at most `bytes_max`
    /// bytes, but the first batch whatever its size where `oversize_first` says so. A partition
    /// that this shard does not own is [`Outcome::OutOfRange`].
    pub fn read(
        &mut self,
        (stream, partition): (StreamId, PartitionId),
        from: Offset,
        bytes_max: usize,
        oversize_first: bool,
        mut take: impl FnMut(&[u8]),
    ) -> Outcome {
        let Some(row) = self.row_index(stream, partition) else { return Outcome::OutOfRange };
        let committed = self.rows[row].committed.end();
        if from < self.rows[row].start || from > self.rows[row].next {
            return Outcome::OutOfRange;
        }
        let mut taken = 0;
        let mut from = from;
        while from < committed {
            let batch = match self.batch_at(row, from) {
                Ok(Some((segment, entry))) if entry.base < committed => {
                    let fits = taken + entry.bytes as usize <= bytes_max;
                    if !fits && (taken > 0 || !oversize_first) {
                        break;
                    }
                    let handed = self.with_batch(row, segment, &entry, &mut take);
                    if handed.is_ok() {
                        from = entry.next();
                    }
                    handed
                }
                Ok(_) => break,
                Err(missing) => Err(missing),
            };
            match batch {
                Ok(bytes) => taken += bytes,
                Err(_) if taken > 0 => break,
                Err(Missing::Pending) => return Outcome::Pending,
                Err(Missing::Damaged) => return Outcome::Damaged,
            }
        }
        if taken > 0 { Outcome::Data(taken, from) } else { Outcome::End }
    }

    /// The first record of a partition at or after `timestamp_ms` (milliseconds since 1970).
    pub fn find_time(
        &mut self,
        stream: StreamId,
        partition: PartitionId,
        timestamp_ms: i64,
    ) -> TimeLookup {
        let Some(row) = self.row_index(stream, partition) else { return TimeLookup::NotFound };
        match self.search_time(row, timestamp_ms) {
            Ok(Some((offset, timestamp))) => TimeLookup::Found(offset, timestamp),
            Ok(None) => TimeLookup::NotFound,
            Err(Missing::Pending) => TimeLookup::Pending,
            Err(Missing::Damaged) => TimeLookup::Damaged,
        }
    }

    fn search_time(
        &mut self,
        row: usize,
        timestamp_ms: i64,
    ) -> Result<Option<(Offset, i64)>, Missing> {
        let committed = self.rows[row].committed.end();
        let reaches = |(_, span): &&(SegmentKey, Span)| span.max_timestamp_ms >= timestamp_ms;
        let spans: Vec<_> = self.rows[row].spans.iter().filter(reaches).copied().collect();
        let runs = spans.into_iter().map(Run::File).chain((0..self.indexes.len()).map(Run::Memory));
        for run in runs {
            let Some((segment, entries)) = self.entries(row, run)? else { continue };
            let late = (0..entries.len())
                .filter_map(|i| entries.at(i))
                .find(|entry| entry.max_timestamp_ms >= timestamp_ms);
            let Some(entry) = late.filter(|entry| entry.base < committed) else { continue };
            let mut found = None;
            let mut scratch = std::mem::take(&mut self.scratch);
            let read = self.with_batch(row, segment, &entry, &mut |batch: &[u8]| {
                for_each_record(batch, &mut scratch, |record| {
                    if record.timestamp_ms >= timestamp_ms {
                        found = Some((record.offset, record.timestamp_ms));
                    }
                    found.is_none()
                });
            });
            self.scratch = scratch;
            read?;
            return Ok(found.filter(|(offset, _)| *offset < committed));
        }
        Ok(None)
    }

    /// The batch that holds `from`, or the first one after it; damage where a hole comes first.
    fn batch_at(
        &mut self,
        row: usize,
        from: Offset,
    ) -> Result<Option<(SegmentKey, IndexEntry)>, Missing> {
        let found = self.batch_behind(row, from)?;
        match self.rows[row].hole_from(from) {
            Some((hole, _)) if found.is_none_or(|(_, entry)| hole < entry.base) => {
                Err(Missing::Damaged)
            }
            _ => Ok(found),
        }
    }

    fn batch_behind(
        &mut self,
        row: usize,
        from: Offset,
    ) -> Result<Option<(SegmentKey, IndexEntry)>, Missing> {
        // Of a run of a moved segment any batch may be gone, also the last ones. Where they are is
        // noted: were several such indexes to be read again and again, small caches would never hold
        // them all at once.
        for at in self.rows[row].spans.partition_point(|(_, span)| span.next <= from).. {
            let Some(run) = self.rows[row].spans.get(at).copied() else { break };
            if run.1.reach.is_some_and(|reach| reach <= from) {
                continue;
            }
            let Some((segment, entries)) = self.entries(row, Run::File(run))? else { continue };
            let index = entries.partition_point(|entry| entry.next() <= from);
            if let Some(entry) = entries.at(index) {
                return Ok(Some((segment, entry)));
            }
            let reach = index.checked_sub(1).and_then(|last| entries.at(last)).map(|e| e.next());
            self.rows[row].spans[at].1.reach = reach;
        }
        for (segment, rows) in &self.indexes {
            let entries = &rows[row].entries;
            let index = entries.partition_point(|entry| entry.next() <= from);
            if let Some(entry) = entries.get(index) {
                return Ok(Some((*segment, *entry)));
            }
        }
        Ok(None)
    }

    fn entries(
        &mut self,
        row: usize,
        run: Run,
    ) -> Result<Option<(SegmentKey, Entries<'_>)>, Missing> {
        let (segment, span) = match run {
            Run::Memory(at) => {
                let (segment, rows) = &self.indexes[at];
                return Ok(Some((*segment, Entries::Memory(&rows[row].entries))));
            }
            Run::File(run) => run,
        };
        let Some(located) = span.entries.filter(|located| located.count > 0) else {
            return Ok(None);
        };
        let (file, records) = (FileKey::Index(segment), Records::of(&span));
        let length = located.bytes();
        let (bytes, start) = self.bytes_of(file, located.at, length, length, records)?;
        let entries = bytes.as_bytes().get(start..start + located.bytes());
        debug_assert_eq!(located.bytes() % ENTRY_BYTES, 0);
        if entries.is_none_or(|entries| crc32c::crc32c(entries) != located.crc) {
            self.cache.forget(file);
            return Err(self.damaged(MetDamage { file, at: located.at, records }));
        }
        Ok(Some((segment, Entries::File(bytes, start, located))))
    }

    /// Notes damage that a reader met, once a place.
    pub(super) fn damaged(&mut self, damage: MetDamage) -> Missing {
        if self.harmed.len() < HARMED_MAX && self.harmed.insert((damage.file, damage.at)) {
            self.found_damages.push(damage);
        }
        Missing::Damaged
    }

    /// Damage that readers met since the last call.
    pub fn take_damages(&mut self, into: &mut Vec<MetDamage>) {
        into.append(&mut self.found_damages);
    }

    /// Hands a batch of a row to `take` and returns its bytes.
    fn with_batch(
        &mut self,
        row: usize,
        segment: SegmentKey,
        entry: &IndexEntry,
        take: &mut impl FnMut(&[u8]),
    ) -> Result<usize, Missing> {
        let bytes = entry.bytes as usize;
        if let Some(batch) = self.tail.find(segment, u64::from(entry.position), bytes) {
            take(batch);
            return Ok(bytes);
        }
        let (position, framed) = (entry.framed_position(), entry.framed_bytes());
        let ahead = framed.max(self.options.read_bytes);
        let file = FileKey::Segment(segment);
        let Row { stream, partition, .. } = self.rows[row];
        let records = Records { stream, partition, from: entry.base, to: entry.next() };
        let (held, start) = self.bytes_of(file, position, framed, ahead, records)?;
        let framed = &held.as_bytes()[start..start + framed];
        let Some(batch) = entry.batch_in((stream.0, partition.0), framed) else {
            self.cache.forget(file);
            return Err(self.damaged(MetDamage { file, at: position, records }));
        };
        take(batch);
        Ok(bytes)
    }

    /// `bytes` of a file from `position` on, which `records` need: from the cache, or asked for with
    /// `ahead` bytes.
    fn bytes_of(
        &mut self,
        file: FileKey,
        position: u64,
        bytes: usize,
        ahead: usize,
        records: Records,
    ) -> Result<(SharedBytes, usize), Missing> {
        if let Some(found) = self.cache.find(file, position, bytes) {
            return Ok(found);
        }
        let block = self.options.block as u64;
        let start = position / block * block;
        // What is not written yet must not get into the cache, where it would grow stale.
        let written = match file {
            FileKey::Segment(key) if key == self.active.key => self.active.written,
            _ => u64::MAX,
        };
        let ahead = (position + ahead as u64).min(written).max(position + bytes as u64);
        let length = (ahead - start).next_multiple_of(block) as usize;
        let needed = (position - start) as usize + bytes;
        let request = ReadRequest { file, position: start, bytes: length, needed };
        let failed = self.failed_reads.iter().position(|failed| failed.fails_for(&request));
        if let Some(failed) = failed {
            self.failed_reads.swap_remove(failed);
            return Err(self.damaged(MetDamage { file, at: position, records }));
        }
        if !self.pending_reads.iter().any(|pending| pending.brings(&request)) {
            self.pending_reads.push(request);
            self.requests.push(Request::Read(request));
        }
        Err(Missing::Pending)
    }

    /// A read has ended: with bytes (fewer where the file ended before), or without.
    pub fn on_read(&mut self, request: ReadRequest, bytes: Option<SharedBytes>) {
        self.pending_reads.retain(|pending| *pending != request);
        match bytes.filter(|bytes| bytes.as_bytes().len() >= request.needed) {
            Some(bytes) => self.cache.insert(request.file, request.position, bytes),
            None => self.failed_reads.push(request),
        }
        // Nobody may have come back for the oldest failures.
        if self.failed_reads.len() > 64 {
            self.failed_reads.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{FLUSHED, Rig, WRITTEN, options};
    use super::super::{Options, Request};
    use super::*;

    /// With batches of one record, nothing kept in memory.
    fn cold() -> Rig {
        Rig::new(Options { batch_bytes_max: 1, read_cache_bytes: 0, ..options() })
    }

    fn offsets(read: Result<Vec<(u64, Vec<u8>)>, Outcome>) -> Vec<u64> {
        read.expect("readable").into_iter().map(|(offset, _)| offset).collect()
    }

    #[test]
    fn reading_crosses_from_files_to_memory() {
        let mut rig = cold();
        let mut count = 0;
        while rig.put(FLUSHED, 1, &[3; 1000]).segment.sequence < 3 {
            count += 1;
        }
        for from in [0, 1, count / 2, count] {
            let read = offsets(rig.read(FLUSHED, 1, from));
            assert!(read.starts_with(&[from]) && read.is_sorted());
        }
        assert_eq!(offsets(rig.read(FLUSHED, 1, count + 1)), [0; 0]);
        assert_eq!(rig.read(FLUSHED, 1, count + 2), Err(Outcome::OutOfRange));
        assert_eq!(rig.read(FLUSHED, 2, 0), Err(Outcome::OutOfRange), "not its own");
    }

    /// What was read ahead of the end must not hide what is written there afterwards.
    #[test]
    fn nothing_is_read_ahead_of_the_end_of_the_log() {
        let mut rig = Rig::new(options());
        rig.put(FLUSHED, 0, b"first");
        rig.put(FLUSHED, 0, b"second");
        assert_eq!(offsets(rig.read(FLUSHED, 0, 0)), [0, 1]);
        rig.put(FLUSHED, 0, b"third");
        rig.put(FLUSHED, 0, b"fourth");
        assert_eq!(offsets(rig.read(FLUSHED, 0, 2)), [2, 3]);
        // Nor what is just being written.
        rig.append(FLUSHED, 0, b"fifth").expect("room");
        rig.seal();
        assert_eq!(offsets(rig.read(FLUSHED, 0, 0)), [0, 1, 2, 3]);
        rig.log.on_written();
        assert_eq!(offsets(rig.read(FLUSHED, 0, 4)), [0; 0]);
        rig.log.on_flushed();
        rig.put(FLUSHED, 0, b"sixth");
        assert_eq!(offsets(rig.read(FLUSHED, 0, 4)), [4, 5]);
    }

    #[test]
    fn index_files_that_end_out_of_order_hide_nothing() {
        let mut rig = cold();
        rig.holds = true;
        let mut count = 0;
        for sequence in 0..3 {
            while rig.put_if_ready() {
                count += 1;
            }
            let made = rig.held.iter().position(|r| matches!(r, Request::MakeSegment(_)));
            let made = rig.held.remove(made.expect("asked for"));
            let held = std::mem::replace(&mut rig.held, vec![made]);
            rig.holds = false;
            rig.answer();
            rig.holds = true;
            rig.held.extend(held);
            rig.commit();
            count += u64::from(sequence < 9);
        }
        let indexes = rig.held.extract_if(.., |r| matches!(r, Request::WriteIndex { .. }));
        let mut indexes: Vec<_> = indexes.collect();
        assert!(indexes.len() >= 2);
        rig.holds = false;
        rig.answer();
        let all: Vec<_> = (0..count).collect();
        while let Some(last) = indexes.pop() {
            rig.held.push(last);
            rig.answer();
            for from in 0..count {
                assert_eq!(offsets(rig.read(FLUSHED, 0, from)).first(), Some(&all[from as usize]));
            }
        }
    }

    #[test]
    fn a_failed_read_is_told_once_and_tried_again() {
        let mut rig = cold();
        rig.fill_to(1);
        let file = FileKey::Segment(rig.key(0));
        let held = rig.files.remove(&file).expect("there");
        assert_eq!(rig.read(FLUSHED, 0, 0), Err(Outcome::Damaged));
        let short = held[..600].to_vec();
        rig.files.insert(file, short);
        assert_eq!(rig.read(FLUSHED, 0, 0), Err(Outcome::Damaged));
        let mut harmed = held.clone();
        harmed[700] ^= 1;
        rig.files.insert(file, harmed);
        assert_eq!(rig.read(FLUSHED, 0, 0), Err(Outcome::Damaged));
        let mut told = Vec::new();
        rig.log.take_damages(&mut told);
        let [damage] = told[..] else { panic!("once: {told:?}") };
        let Records { stream, partition, from, to } = damage.records;
        assert_eq!((damage.file, stream, partition), (file, FLUSHED, PartitionId(0)));
        assert_eq!((from, to), (Offset(0), Offset(1)));
        rig.files.insert(file, held);
        assert_eq!(offsets(rig.read(FLUSHED, 0, 0))[0], 0);
    }

    /// Same offset, same place, same bytes: only what the frame says in front of it differs.
    #[test]
    fn a_batch_of_another_partition_is_not_served() {
        let (mut rig, mut other) = (cold(), cold());
        rig.fill_to(1);
        while other.put(FLUSHED, 1, &[7; 3000]).segment.sequence < 1 {}
        *rig.segment(0) = other.segment(0).clone();
        assert_eq!(rig.read(FLUSHED, 0, 0), Err(Outcome::Damaged));
    }

    #[test]
    fn who_asks_while_a_read_is_under_way_waits_for_the_same() {
        let mut rig = Rig::new(options());
        rig.put(WRITTEN, 0, b"first");
        rig.put(WRITTEN, 0, b"second");
        rig.holds = true;
        let place = (WRITTEN, PartitionId(0));
        for _ in 0..3 {
            assert_eq!(rig.log.read(place, Offset(0), 9, true, |_| ()), Outcome::Pending);
            rig.put(WRITTEN, 0, b"more");
        }
        rig.answer();
        assert_eq!(rig.held.len(), 1);
    }

    #[test]
    fn a_time_is_found_whatever_the_wall_clock_does() {
        let mut rig = cold();
        let times = [1000, 5000, 2000, 2000, 9000, 3000];
        for ms in times {
            rig.wall_ms = ms;
            rig.put(FLUSHED, 0, b"x");
        }
        let find = |rig: &mut Rig, ms| {
            for _ in 0..9 {
                match rig.log.find_time(FLUSHED, PartitionId(0), ms) {
                    TimeLookup::Pending => rig.answer(),
                    found => return found,
                }
            }
            panic!("a lookup never ends");
        };
        for (ms, expected) in [(0, 0), (1000, 0), (1001, 1), (5000, 1), (5001, 4), (9000, 4)] {
            let found = find(&mut rig, ms);
            assert_eq!(found, TimeLookup::Found(Offset(expected), times[expected as usize]));
        }
        assert_eq!(find(&mut rig, 9001), TimeLookup::NotFound);
        let other = rig.log.find_time(FLUSHED, PartitionId(1), 0);
        assert_eq!(other, TimeLookup::NotFound);
    }
}
