//! The log of one shard: every stream and partition that the shard owns, in one chain of segments.
//!
//! Comes in: records to append, completions of what it asked for. Goes out: commits to write and
//! flush, reads, index files to write, segments to make ready or delete. It runs on its shard's
//! core. The invariant: a [`Committed`](crate::record::Committed) offset, and so an
//! acknowledgement, exists only after the completion that its stream's durability asks for.
//! Deliberately absent: I/O, clocks, threads; the driver does them, and a simulator can.
//!
//! A commit passes three states, in order: *sealed* (its bytes are fixed and being written),
//! *written* (on the device), *flushed* (durable). One commit is under way at a time; what arrives
//! meanwhile gathers for the next. That is the whole of group commit: no timer lingers.

mod active;
mod append;
mod cache;
pub mod clean;
mod cleaning;
pub mod examine;
mod files;
pub mod frame;
pub mod index;
pub mod inspect;
pub mod manifest;
#[cfg(test)]
mod memory;
pub mod misplaced;
mod partition;
mod read;
pub mod recovery;
pub mod repair;
mod retention;
#[cfg(test)]
mod rig;
pub mod scan;
pub mod segment;
pub mod start;
pub mod starts;
mod streams;
mod ticket;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use append::{Commit, Full};
pub use cache::FileKey;
pub use files::{Files, IoError};
pub use partition::RESERVED_AHEAD;
pub use read::{Bounds, MetDamage, Outcome, ReadRequest, Records, TimeLookup};
pub use retention::{Need, Needs};
pub use segment::SegmentKey;
pub use ticket::{Progress, Ticket};

use crate::record::batch::BatchFinisher;
use crate::record::{Compression, Durability, PartitionId, ShardId, StreamId};
use cache::{ReadCache, TailCache};
use index::IndexRow;
use partition::Row;

/// What a log is told once.
#[derive(Debug, Clone)]
pub struct Options {
    /// The generation that this start writes.
    pub generation: u32,
    /// The shard that owns the log.
    pub shard: ShardId,
    /// Shards of this run.
    pub shards: u32,
    /// Partitions of every stream.
    pub partitions: u32,
    /// Counts the starts; goes into every batch.
    pub leader_epoch: u32,
    /// Bytes that writes are aligned to and padded to.
    pub block: usize,
    /// Bytes of a segment's file.
    pub segment_bytes: u64,
    /// Bytes of records that may wait for the next commit.
    pub buffer_bytes: usize,
    /// Bytes at which a batch is closed and another begun.
    pub batch_bytes_max: usize,
    /// Bytes of the newest log kept in memory.
    pub tail_cache_bytes: usize,
    /// Bytes of extents read from disk kept in memory.
    pub read_cache_bytes: usize,
    /// Bytes read from disk at once.
    pub read_bytes: usize,
    /// Segments made ready ahead of the one that is written.
    pub segments_ahead: usize,
    /// Segments are cleaned of which no more than this is still needed.
    pub clean_live_max_percent: u32,
    /// Keys that compaction keeps in memory at a time.
    pub compact_keys_max: usize,
    /// One a stream, by [`StreamId`].
    pub streams: Vec<StreamOptions>,
}

/// What the log needs to know of a stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamOptions {
    /// When its records count as committed.
    pub durability: Durability,
    /// How its batches are stored.
    pub compression: Compression,
    /// Bytes that this shard keeps of it.
    pub retention_bytes: u64,
    /// How long it is kept, milliseconds of the age clock.
    pub retention_ms: u64,
    /// Of a stream of which the newest record of each key is kept: how long tombstones stay,
    /// milliseconds of the age clock.
    pub compaction: Option<u64>,
}

/// What the driver must do for the log; drained by [`Log::take_requests`].
#[derive(Debug)]
pub enum Request {
    /// Read bytes of a file and answer with [`Log::on_read`].
    Read(ReadRequest),
    /// Make the file of a segment ready to be written and answer with [`Log::on_segment_ready`]
    /// or [`Log::on_segment_refused`].
    MakeSegment(SegmentKey),
    /// Write the index file of a full segment and answer with [`Log::on_index_written`].
    WriteIndex {
        /// Which.
        key: SegmentKey,
        /// The whole file, padded.
        bytes: Vec<u8>,
    },
    /// Delete a segment, then its index; one after the other and in the order in which they were
    /// asked for, as a segment that is missing behind one that is there is damage.
    Delete(SegmentKey),
    /// Write the log's file of log starts and answer with [`Log::on_starts_saved`].
    SaveStarts(Vec<u8>),
    /// Run [`clean::clean`] somewhere that may block, and answer with [`Log::on_moved`] for each
    /// moved segment and, at last, [`Log::on_cleaned`].
    Clean(Box<clean::Job>),
}

/// The log of one shard.
pub struct Log {
    options: Options,
    rows: Vec<Row>,
    /// Rows with records that wait for the next commit.
    dirty: Vec<u32>,
    /// Bytes that the waiting records take in a frame, at the most.
    waiting_bytes: usize,
    /// Bytes of the buffer that other shards have credit for.
    kept_bytes: usize,
    /// Records that wait, of streams that reserve their offsets.
    waiting_reserved: u64,
    clean_end: append::CleanEnd,
    progress: Progress,
    in_flight: Option<append::InFlight>,
    /// Kept from commit to commit so that they need no allocation.
    spare: append::Spare,
    active: active::Active,
    /// Segments whose files are ready to be written, in order.
    ready: VecDeque<SegmentKey>,
    /// The sequence number of the next segment to be made, and whether that is under way.
    next_sequence: u64,
    making: bool,
    /// Indexes that are not in their files yet, oldest first; the last is the active segment's.
    indexes: VecDeque<(SegmentKey, Vec<IndexRow>)>,
    /// Full segments that wait for their index files.
    encoded: BTreeMap<SegmentKey, active::Encoded>,
    /// Every segment that this shard wrote, or has something in, and its runs of this shard.
    held: BTreeMap<SegmentKey, retention::Held>,
    /// Segments of older generations that this shard deletes when nobody needs them, by key.
    inherited: Vec<SegmentKey>,
    leaving: retention::Leaving,
    /// Runs that are needed no more, by their segments.
    unneeded: Vec<retention::Part>,
    cleaning: cleaning::Cleaning,
    tail: TailCache,
    cache: ReadCache,
    pending_reads: Vec<ReadRequest>,
    failed_reads: Vec<ReadRequest>,
    /// Damage that readers met: all places, and those that nobody was told of yet.
    harmed: BTreeSet<(FileKey, u64)>,
    found_damages: Vec<MetDamage>,
    requests: Vec<Request>,
    advanced: Vec<(StreamId, PartitionId)>,
    finisher: BatchFinisher,
    /// Bytes of batches stored so far, by stream.
    stored_bytes: Vec<u64>,
    scratch: Vec<u8>,
}

impl Log {
    /// The log of `options.shard`, continuing after what recovery found. `seed` is the random one
    /// of the start, that the manifest keeps.
    ///
    /// # Panics
    /// When a segment cannot take the largest commit, or its index not its positions: the
    /// configuration is to refuse that.
    pub fn new(
        options: Options,
        recovered: &recovery::Recovered,
        needs: &Needs,
        seed: u64,
    ) -> Self {
        let least = options.segment_bytes_min();
        assert!(options.segment_bytes >= least, "segments must have {least} bytes at least");
        assert!(options.segment_bytes <= u64::from(u32::MAX), "segments are too large");
        assert!(
            options.block.is_multiple_of(scan::BLOCK_MIN),
            "frames start at multiples of a sector"
        );
        let rows = partition::rows(&options, recovered);
        let indexes =
            VecDeque::from([(active::first_key(&options), partition::index_rows(&rows, &[]))]);
        let mut log = Self {
            active: active::Active::new(&options, seed),
            tail: TailCache::new(options.tail_cache_bytes),
            cache: ReadCache::new(options.read_cache_bytes),
            held: BTreeMap::new(),
            inherited: needs.owned_by(options.shard, options.shards),
            leaving: retention::Leaving::default(),
            unneeded: Vec::new(),
            cleaning: cleaning::Cleaning::default(),
            rows,
            dirty: Vec::new(),
            waiting_bytes: 0,
            kept_bytes: 0,
            waiting_reserved: 0,
            clean_end: append::CleanEnd::No,
            progress: Progress::default(),
            in_flight: None,
            spare: append::Spare::default(),
            ready: VecDeque::new(),
            next_sequence: 0,
            making: false,
            indexes,
            encoded: BTreeMap::new(),
            pending_reads: Vec::new(),
            failed_reads: Vec::new(),
            harmed: BTreeSet::new(),
            found_damages: Vec::new(),
            requests: Vec::new(),
            advanced: Vec::new(),
            finisher: BatchFinisher::default(),
            stored_bytes: vec![0; options.streams.len()],
            scratch: Vec::new(),
            options,
        };
        let runs = log.rows.iter().flat_map(|row| &row.spans).copied();
        let parts: Vec<_> = runs.map(retention::part).collect();
        parts.into_iter().for_each(|part| log.hold(part));
        log.ask_for_segment();
        log
    }

    /// What the driver must do; it leaves `into` as it is but for what it adds.
    pub fn take_requests(&mut self, into: &mut Vec<Request>) {
        into.append(&mut self.requests);
    }

    /// Partitions whose committed end moved since the last call.
    pub fn take_advanced(&mut self, into: &mut Vec<(StreamId, PartitionId)>) {
        into.append(&mut self.advanced);
    }

    /// Bytes that the caches hold: of the tail, and of what was read from disk.
    pub fn cached_bytes(&self) -> (usize, usize) {
        (self.tail.bytes(), self.cache.bytes())
    }

    /// Bytes of batches stored by this log since the start, by stream.
    pub fn stored_bytes(&self) -> &[u64] {
        &self.stored_bytes
    }

    /// Whether of a stream the newest record of each key is kept.
    pub fn is_compacted(&self, stream: StreamId) -> bool {
        self.options.streams.get(stream.index()).is_some_and(|stream| stream.compaction.is_some())
    }

    /// The options that it was made with, and what changed since.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The row of a partition, if this shard owns it.
    fn row_index(&self, stream: StreamId, partition: PartitionId) -> Option<usize> {
        partition::row_index(&self.options, stream, partition)
    }
}
