//! The segment that is being written, and how the log goes on to the next one.
//!
//! Two flushes hold the chain of segments together. The first commit of a segment is flushed
//! whatever its streams promise, so that the table in its header is durable before anything may
//! stand on it. And a segment that holds anything unflushed gets an empty closing frame, flushed,
//! before the next one begins: a flush concerns one file, and so whatever a segment says to be
//! durable in those before it is.

use super::frame;
use super::index::{self, SegmentEnd, Span};
use super::partition;
use super::segment::{self, SegmentHeader, SegmentKey};
use super::{Log, Options, Request};
use crate::record::{Offset, PartitionId, StreamId};

/// The segment that is being written.
pub struct Active {
    pub key: SegmentKey,
    pub identity: u64,
    previous_identity: u64,
    /// Where the next frame goes; 0 until the header has been sealed.
    pub at: u64,
    /// Bytes of the file that have been written, whole commits only.
    pub written: u64,
    pub base_position: u64,
    /// CRC of the last frame (or header) sealed.
    pub crc: u32,
    /// Log position up to which everything is durable.
    pub durable: u64,
    seed: u64,
    pub end: SegmentEnd,
}

/// A full segment that waits for its index file, or for one before it.
pub struct Encoded {
    spans: Vec<Span>,
    written: bool,
}

/// The first segment that a log writes.
pub fn first_key(options: &Options) -> SegmentKey {
    SegmentKey::chain(options.generation, options.shard.0, 0)
}

impl Active {
    pub fn new(options: &Options, seed: u64) -> Self {
        let key = first_key(options);
        Self {
            key,
            identity: segment::identity(seed, key),
            previous_identity: 0,
            at: 0,
            written: 0,
            base_position: 0,
            crc: 0,
            durable: 0,
            seed,
            end: SegmentEnd::default(),
        }
    }

    /// The random bits of the start, of which identities are made.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether everything sealed into it is durable.
    pub fn is_flushed(&self) -> bool {
        self.base_position + self.at == self.durable
    }

    /// Whether its header is durable.
    pub fn is_begun(&self) -> bool {
        self.durable > self.base_position
    }
}

impl Options {
    /// Partitions of all streams that the log owns.
    pub(super) fn row_count(&self) -> usize {
        self.streams.len() * partition::owned(self) as usize
    }

    /// The smallest [`Options::segment_bytes`] that takes every commit that
    /// [`Options::buffer_bytes`] lets gather.
    pub fn segment_bytes_min(&self) -> u64 {
        let rows = self.row_count();
        let frame =
            frame::HEADER_BYTES + self.buffer_bytes + rows * super::append::RESERVATION_BYTES;
        let header = segment::header_bytes(rows, self.block);
        // One block for the closing frame.
        (header + frame.next_multiple_of(self.block) + self.block) as u64
    }
}

impl Log {
    /// Log positions up to which bytes are appended (those that wait included), written and
    /// flushed.
    pub fn positions(&self) -> (u64, u64, u64) {
        let active = &self.active;
        let appended = active.base_position + active.at + self.waiting_bytes as u64;
        (appended, active.base_position + active.written, active.durable)
    }

    /// Writes the header of the active segment to the front of `out`.
    pub(super) fn begin_segment(&mut self, out: &mut [u8]) -> usize {
        self.ready.pop_front();
        self.held.entry(self.active.key).or_default();
        let header = SegmentHeader {
            key: self.active.key,
            block: self.options.block as u32,
            identity: self.active.identity,
            previous_identity: self.active.previous_identity,
            base_position: self.active.base_position,
            previous_crc: self.active.crc,
            partitions: self
                .rows
                .iter()
                .map(|row| {
                    // Offsets that wait for this very commit are not part of what came before.
                    let waiting = row.builder.record_count();
                    let waiting = if mutated!(HeaderCountsWaiting) { 0 } else { waiting };
                    row.offsets(Offset(row.next.0 - waiting))
                })
                .collect(),
        };
        let (bytes, crc) = header.write(out);
        self.active.crc = crc;
        self.ask_for_segment();
        bytes
    }

    /// Goes on to the next segment: the full one's index is written to its file.
    pub(super) fn roll(&mut self) {
        let options = &self.options;
        let before = self.indexes.back().map_or(&[][..], |(_, rows)| rows);
        let index = partition::index_rows(&self.rows, before);
        if let Some((key, rows)) = self.indexes.back() {
            let (bytes, spans) = index::encode(&self.active.end, rows, options.block);
            self.encoded.insert(*key, Encoded { spans, written: false });
            self.requests.push(Request::WriteIndex { key: *key, bytes });
        }
        let key = SegmentKey { sequence: self.active.key.sequence + 1, ..self.active.key };
        self.indexes.push_back((key, index));
        self.active.previous_identity = self.active.identity;
        self.active.identity = segment::identity(self.active.seed, key);
        self.active.base_position += options.segment_bytes;
        let full = std::mem::replace(&mut self.active.key, key);
        self.active.at = 0;
        self.active.written = 0;
        if mutated!(IndexForgottenEarly) {
            self.on_index_written(full);
        }
    }

    /// Keeps `segments_ahead` segments ready, one made at a time.
    pub(super) fn ask_for_segment(&mut self) {
        if self.making || self.ready.len() >= self.options.segments_ahead {
            return;
        }
        self.making = true;
        let key = SegmentKey { sequence: self.next_sequence, ..first_key(&self.options) };
        self.requests.push(Request::MakeSegment(key));
    }

    /// The file of `key` is ready: zeros, size and directory entry are flushed.
    pub fn on_segment_ready(&mut self, key: SegmentKey) {
        self.making = false;
        self.next_sequence = key.sequence + 1;
        self.ready.push_back(key);
        self.ask_for_segment();
    }

    /// The file could not be made (the disk is full). The driver calls
    /// [`Log::retry_segment`] when it is worth another try.
    pub fn on_segment_refused(&mut self) {
        self.making = false;
    }

    /// Asks again for a segment that was refused.
    pub fn retry_segment(&mut self) {
        self.ask_for_segment();
    }

    /// Segments that are ready to be written.
    pub fn ready_segments(&self) -> usize {
        self.ready.len()
    }

    /// The index file of `key` is durable: memory keeps only its spans, once those of the segments
    /// before it are there too, so that the spans of a row have no gaps.
    pub fn on_index_written(&mut self, key: SegmentKey) {
        if let Some(encoded) = self.encoded.get_mut(&key) {
            encoded.written = true;
        }
        while let Some(first) = self.encoded.first_entry().filter(|first| first.get().written) {
            let (key, Encoded { spans, .. }) = first.remove_entry();
            self.indexes.retain(|(held, _)| *held != key);
            self.note_stored(key, &spans);
            for span in spans {
                let place = (StreamId(span.stream), PartitionId(span.partition));
                if let Some(index) = self.row_index(place.0, place.1) {
                    self.rows[index].spans.push_back((key, span));
                    self.hold((key, span.stored_bytes));
                }
            }
        }
    }
}
