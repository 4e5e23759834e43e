//! Appending and committing: offsets are given, batches built, frames sealed, completions counted.

use super::frame::{self, FrameHeader, FrameWriter};
use super::index::{IndexEntry, SegmentEnd};
use super::partition::RESERVED_AHEAD;
use super::segment::{self, SegmentKey};
use super::{Log, Progress, Ticket};
use crate::record::batch::{Headers, RecordParts, record_bytes_max};
use crate::record::{Committed, Durability, Offset, PartitionId, SharedBytes, StreamId};

/// Bytes that a batch costs in a frame beyond itself.
const ENTRY_OVERHEAD: usize = frame::ENTRY_HEADER_BYTES + frame::ENTRY_ALIGN;
/// Bytes that a reservation takes in a frame at the most.
pub const RESERVATION_BYTES: usize = ENTRY_OVERHEAD + 8;
/// Records that may wait for one commit in streams that reserve their offsets. A ceiling is asked
/// for when less than half of [`RESERVED_AHEAD`] is left and stands a commit later: two commits of
/// this size fit, and no append ever meets the ceiling.
const RESERVED_WAITING_MAX: u64 = RESERVED_AHEAD / 4;

/// There is no room for the record now: no credit. Ask again after a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// A sealed commit: what the driver writes, and whether it flushes afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// The segment.
    pub segment: SegmentKey,
    /// First byte in its file, a multiple of the block.
    pub position: u64,
    /// Bytes, a multiple of the block.
    pub bytes: usize,
    /// Whether the write must be followed by a flush.
    pub flush: bool,
    /// Whether somebody waits for the write alone: the flush need not be awaited to tell of it.
    pub tell_written: bool,
    /// Records in it.
    pub record_count: u64,
}

/// The lists of a commit under way, while there is none.
pub type Spare = (Vec<(u32, Offset)>, Vec<(u32, Offset)>);

/// The commit that is under way.
pub struct InFlight {
    commit: Commit,
    number: u64,
    /// Log position after it.
    end_position: u64,
    /// Rows that it holds something of, with the offset after the last record.
    touched: Vec<(u32, Offset)>,
    /// Ceilings that it reserves.
    reserved: Vec<(u32, Offset)>,
}

/// Whether a last frame that says that the engine stopped cleanly is asked for.
#[derive(PartialEq, Eq, Clone, Copy)]
pub enum CleanEnd {
    No,
    Wanted,
    Done,
}

impl Log {
    /// Whether `records` records would be taken now, whose [`RecordParts::parts_bytes_max`] are
    /// `bytes` in all. A message for several streams asks once for all of them, so that it is
    /// taken whole or not at all.
    pub fn has_room(&self, bytes: usize, records: usize) -> bool {
        let most = bytes + records * Self::price(0);
        let kept = if mutated!(RoomPromisedTwice) { 0 } else { self.kept_bytes };
        self.waiting_bytes + kept + most <= self.options.buffer_bytes
            && self.waiting_reserved + records as u64 <= RESERVED_WAITING_MAX
    }

    /// What a record costs in the buffer that gathers the next commit, at the most, whose
    /// [`RecordParts::parts_bytes_max`] are `parts_bytes`.
    pub fn price(parts_bytes: usize) -> usize {
        parts_bytes + record_bytes_max(0, 0, 0, 0) + ENTRY_OVERHEAD
    }

    /// Whether `bytes` in all may be kept for what other shards send: half of the buffer at the
    /// most, and only what is free.
    pub fn may_keep(&self, bytes: u64) -> bool {
        let (free, half) =
            (self.options.buffer_bytes - self.waiting_bytes, self.options.buffer_bytes / 2);
        bytes <= free.min(half) as u64
    }

    /// Keeps `bytes` of the buffer for what other shards send; [`Log::has_room`] leaves them out.
    pub fn keep_room(&mut self, bytes: u64) {
        self.kept_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }

    /// Bytes kept for what other shards send.
    pub fn kept_room(&self) -> u64 {
        self.kept_bytes as u64
    }

    /// Appends a record to a partition that this shard owns, behind everything appended before.
    ///
    /// # Errors
    /// [`Full`] when there is no room or no reserved offset: nothing was taken.
    pub fn append<'a, H>(
        &mut self,
        stream: StreamId,
        partition: PartitionId,
        record: &RecordParts<'a, H>,
    ) -> Result<Ticket, Full>
    where
        H: Headers<'a>,
    {
        let index = self.row_index(stream, partition).ok_or(Full)?;
        if !self.has_room(record.parts_bytes_max(), 1) {
            return Err(Full);
        }
        let row = &mut self.rows[index];
        if let Some(ceiling) = row.ceiling {
            if row.next >= ceiling {
                return Err(Full);
            }
            self.waiting_reserved += 1;
        }
        if row.builder.is_empty() {
            self.dirty.push(index as u32);
        }
        let batches = row.builder.batch_count();
        let added = row.builder.append(row.next, record, self.options.batch_bytes_max);
        let new_batches = row.builder.batch_count() - batches;
        self.waiting_bytes += added + new_batches * ENTRY_OVERHEAD;
        row.next = row.next.plus(1);
        let durability = self.options.streams[stream.index()].durability;
        Ok(Ticket::new(self.progress.filling, durability))
    }

    /// Which commits reached which state.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Bytes that wait for the next commit.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether a commit is under way.
    pub fn is_committing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_quiet(&self) -> bool {
        !self.has_waiting() && self.in_flight.is_none()
    }

    fn has_waiting(&self) -> bool {
        !self.dirty.is_empty() || self.clean_end == CleanEnd::Wanted
    }

    /// Whether records wait that cannot be committed because no segment is ready for them.
    pub fn is_starved(&self) -> bool {
        self.in_flight.is_none() && self.has_waiting() && !self.fits()
    }

    /// Asks for a last frame that says that the engine stopped cleanly.
    pub fn end_cleanly(&mut self) {
        if self.clean_end == CleanEnd::No {
            self.clean_end = CleanEnd::Wanted;
        }
    }

    /// Bytes that the next commit takes at the most, if one can be sealed now.
    pub fn commit_bytes(&self) -> Option<usize> {
        (self.in_flight.is_none() && self.has_waiting() && self.fits()).then(|| {
            let begins = self.active.at == 0 || !self.fits_active();
            let header = segment::header_bytes(self.rows.len(), self.options.block);
            self.frame_bytes_max() + if begins { header } else { 0 }
        })
    }

    fn frame_bytes_max(&self) -> usize {
        let reservations = self.dirty.len() * RESERVATION_BYTES;
        (frame::HEADER_BYTES + self.waiting_bytes + reservations)
            .next_multiple_of(self.options.block)
    }

    /// Whether what waits can be sealed: into the active segment, or because the next is ready.
    fn fits(&self) -> bool {
        if self.active.at == 0 {
            return self.ready.front() == Some(&self.active.key);
        }
        self.fits_active() || !self.ready.is_empty()
    }

    /// Whether the waiting records fit the active segment and leave a block for a closing frame.
    fn fits_active(&self) -> bool {
        let end = self.active.at + (self.frame_bytes_max() + self.options.block) as u64;
        end <= self.options.segment_bytes
    }

    /// A bug on purpose: the flush of a commit, or only of the first of a segment, is left out.
    fn forgets_flush(is_first: bool) -> bool {
        if mutated!(FirstCommitUnflushed) { is_first } else { mutated!(NoFlush) }
    }

    /// Seals what waits into `out`, which has [`Log::commit_bytes`] and is aligned; `None` when
    /// there is nothing to seal. `wall_ms` and `age_ms` are the two clocks.
    ///
    /// What is sealed may be an empty closing frame (see `active`): what waits then goes on
    /// waiting, and into the commit after it.
    pub fn seal(&mut self, out: &mut [u8], wall_ms: i64, age_ms: u64) -> Option<Commit> {
        self.commit_bytes()?;
        let full = self.active.at > 0 && !self.fits_active();
        let closing = full && !self.active.is_flushed() && !mutated!(NoClosingFrame);
        if full && !closing {
            self.roll();
        }
        let position = self.active.at;
        let header_bytes = if position == 0 { self.begin_segment(out) } else { 0 };
        let mut in_flight = self.begin_commit(closing);
        let frame_at = position + header_bytes as u64;
        let mut writer = FrameWriter::new(&mut out[header_bytes..]);
        let mut flags = 0;
        if !closing {
            writer = self.gather(writer, frame_at, &mut in_flight);
            if self.clean_end == CleanEnd::Wanted {
                self.clean_end = CleanEnd::Done;
                flags = frame::FLAG_CLEAN_END;
            }
        }
        let header = FrameHeader { flags, ..self.frame_header(frame_at, wall_ms, age_ms) };
        let (frame_bytes, crc) = writer.finish(&header, self.options.block);
        in_flight.commit.bytes = header_bytes + frame_bytes;
        in_flight.commit.flush |= closing || header_bytes > 0 || flags != 0;
        if Self::forgets_flush(header_bytes > 0) {
            (in_flight.commit.flush, in_flight.commit.tell_written) = (false, true);
        }
        self.active.at = frame_at + frame_bytes as u64;
        self.active.crc = crc;
        in_flight.end_position = self.active.base_position + self.active.at;
        self.active.end = SegmentEnd {
            identity: self.active.identity,
            end: self.active.at,
            last_crc: crc,
            clean: flags != 0,
            wall_ms,
            age_ms,
        };
        self.advance(&in_flight.touched, Durability::Memory);
        if mutated!(ShownWhenSealed) {
            self.advance(&in_flight.touched, Durability::Fsync);
        }
        let commit = in_flight.commit;
        self.in_flight = Some(in_flight);
        Some(commit)
    }

    /// The commit that is about to be sealed, and its number: a closing frame holds no records, so
    /// that it counts with the commit before it.
    fn begin_commit(&mut self, closing: bool) -> InFlight {
        let filling = self.progress.filling;
        let number = if closing { filling - 1 } else { filling };
        self.progress.filling = number + 1;
        let (touched, reserved) = std::mem::take(&mut self.spare);
        let commit = Commit {
            segment: self.active.key,
            position: self.active.at,
            bytes: 0,
            flush: false,
            tell_written: false,
            record_count: 0,
        };
        InFlight { commit, number, end_position: 0, touched, reserved }
    }

    fn frame_header(&self, frame_at: u64, wall_ms: i64, age_ms: u64) -> FrameHeader {
        FrameHeader {
            previous_crc: self.active.crc,
            segment_identity: self.active.identity,
            position: self.active.base_position + frame_at,
            durable: match mutated!(DurableTooEarly) {
                true => self.active.base_position + frame_at,
                false => self.active.durable,
            },
            wall_ms,
            age_ms,
            entry_count: 0,
            flags: 0,
        }
    }

    /// Moves every waiting batch into the frame, and reserves offsets where they run low.
    fn gather<'a>(
        &mut self,
        mut writer: FrameWriter<'a>,
        frame_at: u64,
        in_flight: &mut InFlight,
    ) -> FrameWriter<'a> {
        let Self { rows, dirty, finisher, options, indexes, stored_bytes, .. } = self;
        let Some((_, index)) = indexes.back_mut() else { return writer };
        for row_index in dirty.drain(..) {
            let row = &mut rows[row_index as usize];
            let stream = &options.streams[row.stream.index()];
            in_flight.commit.record_count += row.builder.record_count();
            in_flight.commit.flush |= stream.durability == Durability::Fsync;
            in_flight.commit.tell_written |= stream.durability == Durability::Write;
            let index_row = &mut index[row_index as usize];
            row.builder.drain(|batch, header| {
                let (at, bytes) = writer.batch(row.stream.0, row.partition.0, |out| {
                    finisher.finish(batch, stream.compression, options.leader_epoch, out)
                });
                let position = frame_at as u32 + at as u32;
                let stored = IndexEntry::of(&header, position);
                index_row.entries.push(IndexEntry { bytes: bytes as u32, ..stored });
                stored_bytes[row.stream.index()] += bytes as u64;
            });
            in_flight.touched.push((row_index, row.next));
            let low = row.next.plus(RESERVED_AHEAD / 2);
            if row.ceiling.is_some_and(|ceiling| ceiling < low) && row.asked_ceiling.is_none() {
                let ceiling = row.next.plus(RESERVED_AHEAD);
                writer.reservation(row.stream.0, row.partition.0, ceiling.0);
                index_row.ceiling = ceiling;
                row.asked_ceiling = Some(ceiling);
                in_flight.reserved.push((row_index, ceiling));
                in_flight.commit.flush = true;
            }
        }
        self.waiting_bytes = 0;
        self.waiting_reserved = 0;
        writer
    }

    /// Keeps the sealed bytes for readers at the tail.
    pub fn keep_sealed(&mut self, bytes: SharedBytes) {
        if let Some(in_flight) = &self.in_flight {
            let commit = &in_flight.commit;
            self.tail.push(commit.segment, commit.position, commit.bytes, bytes);
        }
    }

    /// The commit under way has been written. Returns whether it is complete (needs no flush).
    pub fn on_written(&mut self) -> bool {
        let Some(in_flight) = self.in_flight.take() else { return true };
        self.progress.written = in_flight.number;
        self.active.written = in_flight.commit.position + in_flight.commit.bytes as u64;
        self.advance(&in_flight.touched, Durability::Write);
        let complete = !in_flight.commit.flush;
        if Self::forgets_flush(in_flight.commit.position == 0) {
            self.in_flight = Some(in_flight);
            self.on_flushed();
        } else if complete {
            self.recycle(in_flight);
        } else {
            self.in_flight = Some(in_flight);
        }
        complete
    }

    /// The commit under way has been flushed, and with it everything written before.
    pub fn on_flushed(&mut self) {
        let Some(in_flight) = self.in_flight.take() else { return };
        debug_assert_eq!(self.progress.written, in_flight.number, "flushed before written");
        self.progress.flushed = in_flight.number;
        self.active.durable = in_flight.end_position;
        for &(row, ceiling) in &in_flight.reserved {
            let row = &mut self.rows[row as usize];
            row.ceiling = Some(ceiling);
            row.asked_ceiling = None;
        }
        self.advance(&in_flight.touched, Durability::Fsync);
        self.recycle(in_flight);
    }

    fn recycle(&mut self, mut in_flight: InFlight) {
        in_flight.touched.clear();
        in_flight.reserved.clear();
        self.spare = (in_flight.touched, in_flight.reserved);
    }

    /// Commits the rows of a commit whose streams promise just `reached`.
    fn advance(&mut self, touched: &[(u32, Offset)], reached: Durability) {
        for &(index, end) in touched {
            let row = &mut self.rows[index as usize];
            if self.options.streams[row.stream.index()].durability == reached {
                row.committed = Committed(end);
                self.advanced.push((row.stream, row.partition));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{FLUSHED, NO_HEADERS, Rig, WRITTEN, options};
    use super::super::{Options, StreamOptions};
    use super::*;
    use crate::record::Compression;

    /// Bytes that no compressor makes smaller.
    fn noise(bytes: usize, seed: u32) -> Vec<u8> {
        let mut state = seed | 1;
        let step = |_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        (0..bytes).map(step).collect()
    }

    #[test]
    fn acknowledgement_waits_for_what_the_stream_promises() {
        let mut options = options();
        options
            .streams
            .push(StreamOptions { durability: Durability::Memory, ..options.streams[0] });
        let mut rig = Rig::new(options);
        let [flushed, written, memory] =
            [0, 1, 2].map(|stream| rig.append(StreamId(stream), 0, b"x").expect("room"));
        let all = flushed.and(written).and(memory);
        let reached = |rig: &Rig| {
            let streams = [flushed, written, memory, all].map(|t| rig.log.progress().reached(t));
            let end = |s| rig.log.bounds(StreamId(s), PartitionId(0)).expect("owned").committed;
            (streams, [0, 1, 2].map(|stream| end(stream).end().0))
        };
        assert_eq!(reached(&rig), ([false, false, true, false], [0, 0, 0]));
        rig.seal();
        assert_eq!(reached(&rig), ([false, false, true, false], [0, 0, 1]));
        assert!(!rig.log.on_written(), "a flush is due");
        assert_eq!(reached(&rig), ([false, true, true, false], [0, 1, 1]));
        rig.log.on_flushed();
        assert_eq!(reached(&rig), ([true; 4], [1, 1, 1]));
        // A later commit that needs no flush, and a message in both.
        let late = all.and(rig.append(WRITTEN, 0, b"y").expect("room"));
        assert!(!rig.seal().expect("waiting").flush);
        assert!(!rig.log.progress().reached(late));
        assert!(rig.log.on_written());
        assert!(rig.log.progress().reached(late));
    }

    #[test]
    fn a_segment_is_closed_by_a_flush_before_the_next_begins() {
        let mut rig = Rig::new(options());
        rig.put(FLUSHED, 0, b"x");
        while rig.commits.last().is_some_and(|commit| commit.segment.sequence == 0) {
            rig.append(WRITTEN, 0, &[5; 3000]).expect("room");
            let early = rig.append(FLUSHED, 1, b"").is_err();
            assert!(!early);
            rig.commit();
        }
        // All of those were flushed; now only written ones.
        rig.commits.clear();
        while rig.commits.last().is_none_or(|commit| commit.segment.sequence == 1) {
            let ticket = rig.append(WRITTEN, 0, &[5; 3000]).expect("room");
            let commit = rig.seal().expect("waiting");
            let closes = commit.record_count == 0;
            assert!(!rig.log.progress().reached(ticket));
            if !rig.log.on_written() {
                rig.log.on_flushed();
            }
            assert_eq!(rig.log.progress().reached(ticket), !closes, "it went on waiting");
            rig.commit();
        }
        let of = |sequence| rig.commits.iter().filter(move |c| c.segment.sequence == sequence);
        let (last, before) = (of(1).next_back().expect("some"), of(1).rev().nth(1).expect("some"));
        assert_eq!((last.record_count, last.bytes, last.flush), (0, 512, true));
        assert!(!before.flush);
        assert!(of(2).next().expect("begun").flush, "the first commit of a segment");
    }

    /// Appends until there is no room, then commits; whether every promise held.
    fn fill(options: Options, value_bytes: usize, header_count: usize) {
        let mut rig = Rig::new(options);
        let headers: Vec<(Vec<u8>, Vec<u8>)> =
            (0..header_count).map(|i| (noise(i % 70, 3), noise(i % 130, 5))).collect();
        let rows = (rig.log.options().streams.len() * 2) as u32;
        for turn in 0..3 * rows {
            for i in 0.. {
                let value = noise(value_bytes, i + 1);
                let record = RecordParts {
                    key: Some(b"k".as_slice()),
                    value: Some(&value),
                    timestamp_ms: i64::from(i) << 40,
                    headers: headers.iter().map(|(n, v)| (n.as_slice(), v.as_slice())),
                };
                let two = rig.log.has_room(2 * record.parts_bytes_max(), 2);
                let one = rig.log.has_room(record.parts_bytes_max(), 1);
                let stream = StreamId((turn + i) % (rows / 2));
                let first = rig.log.append(stream, PartitionId(i % 2), &record);
                assert_eq!(first.is_ok(), one);
                if two {
                    let second = rig.log.append(stream, PartitionId(i / 2 % 2), &record);
                    assert!(second.is_ok());
                }
                assert!(rig.log.waiting_bytes() <= rig.log.options().buffer_bytes);
                if !one {
                    assert!(i > 0, "not even one fits");
                    break;
                }
            }
            rig.commit();
            assert!(rig.log.is_quiet());
        }
        let end = rig.sound();
        assert!(end.torn.is_none() && end.segments.len() > 1);
    }

    /// The largest commit fits the smallest segment, whatever the records are like.
    #[test]
    fn room_promised_is_room_given() {
        for compression in [Compression::None, Compression::Lz4] {
            for block in [512, 4096] {
                for batch_bytes_max in [1, 300, 1 << 20] {
                    for (value_bytes, header_count) in [(0, 0), (1, 9), (100, 1), (1000, 40)] {
                        let mut options = Options { block, batch_bytes_max, ..options() };
                        options.buffer_bytes = 20_001;
                        let stream = StreamOptions { compression, ..options.streams[0] };
                        options.streams = vec![stream; 5];
                        options.streams[1].durability = Durability::Write;
                        options.segment_bytes = options.segment_bytes_min();
                        fill(options, value_bytes, header_count);
                    }
                }
            }
        }
    }

    #[test]
    fn the_largest_record_goes_through() {
        let value = noise(1 << 20, 9);
        let record = RecordParts {
            key: Some(&value[..65_535]),
            value: Some(&value),
            timestamp_ms: 5,
            headers: [(b"mqtt.topic".as_slice(), &value[..65_535])].into_iter(),
        };
        let mut options = Options { block: 4096, ..options() };
        options.buffer_bytes =
            record.parts_bytes_max() + record_bytes_max(0, 0, 0, 0) + ENTRY_OVERHEAD;
        options.segment_bytes = options.segment_bytes_min();
        let mut rig = Rig::new(options.clone());
        for _ in 0..3 {
            assert!(rig.log.has_room(record.parts_bytes_max(), 1));
            rig.log.append(FLUSHED, PartitionId(1), &record).expect("room");
            assert_eq!(rig.log.append(FLUSHED, PartitionId(1), &record), Err(Full));
            rig.commit();
        }
        let read = rig.read(FLUSHED, 1, 2).expect("there");
        assert!(read.len() == 1 && read[0].1 == value);
        options.buffer_bytes -= 1;
        let mut rig = Rig::new(options);
        assert_eq!(rig.log.append(FLUSHED, PartitionId(1), &record), Err(Full));
    }

    #[test]
    fn reserved_offsets_never_run_out_where_room_was_promised() {
        let mut options = options();
        options.buffer_bytes = 16 << 20;
        options.batch_bytes_max = 1 << 20;
        options.segment_bytes = 20 << 20;
        let mut rig = Rig::new(options);
        let record =
            RecordParts { key: None, value: Some(b""), timestamp_ms: 0, headers: NO_HEADERS };
        let mut flushes = 0;
        for _ in 0..12 {
            // Commits as large and as late as they may be: sealed when full, ended when full again.
            let sealed = rig.seal();
            let mut count = 0;
            while rig.log.has_room(record.parts_bytes_max(), 1) {
                rig.log.append(WRITTEN, PartitionId(0), &record).expect("promised");
                count += 1;
            }
            let closes = sealed.is_some_and(|commit| commit.record_count == 0);
            assert!(closes || count > 100_000, "{count} records");
            if sealed.is_some() && !rig.log.on_written() {
                flushes += 1;
                rig.log.on_flushed();
            }
            rig.answer();
        }
        assert!(flushes > 1 && flushes < 12, "{flushes} flushes");
    }

    #[test]
    fn no_segment_ready_is_no_commit_but_no_loss_either() {
        let mut rig = Rig::new(options());
        rig.holds = true;
        while rig.put_if_ready() {}
        assert!(rig.log.is_starved() && rig.log.commit_bytes().is_none());
        let waiting = rig.log.waiting_bytes();
        rig.log.on_segment_refused();
        rig.log.retry_segment();
        assert!(rig.log.is_starved() && rig.log.waiting_bytes() == waiting);
        rig.holds = false;
        rig.held.truncate(1);
        rig.answer();
        rig.commit();
        assert!(rig.log.is_quiet());
        assert_eq!(rig.sound().segments.len(), 2);
    }
}
