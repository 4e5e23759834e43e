//! What a Kafka connection may ask of the shard that it is connected to.
//!
//! The shard implements [`Store`] over its log; tests implement it over vectors. Everything is
//! answered at once: what needs the disk is `Pending`, and the connection is resumed later.

use crate::record::{Committed, Offset, PartitionId, StreamId};

use super::Cluster;

/// The committed part of the partitions that one shard owns.
pub trait Store {
    /// Nodes, streams and epoch of this run; what Metadata answers.
    fn cluster(&self) -> &Cluster;

    /// Where the partition begins and ends; `None` when this shard does not own it.
    fn bounds(&self, stream: StreamId, partition: PartitionId) -> Option<Bounds>;

    /// Appends whole stored batches to `out`, the first being the one that holds `from`: at most
    /// `bytes_max` bytes, but the first batch whatever its size when `oversize_first` is set.
    /// Never a record at or above the high watermark. Appends nothing unless it says [`Read::Data`].
    fn read(
        &mut self,
        stream: StreamId,
        partition: PartitionId,
        from: Offset,
        bytes_max: usize,
        oversize_first: bool,
        out: &mut Vec<u8>,
    ) -> Read;

    /// The first committed record whose timestamp is `timestamp_ms` or later.
    fn find_time(
        &mut self,
        stream: StreamId,
        partition: PartitionId,
        timestamp_ms: i64,
    ) -> TimeLookup;
}

/// The offsets that a partition holds: `log_start <= offset < high_watermark`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that retention has kept.
    pub log_start: Offset,
    /// The first offset that is not committed.
    pub high_watermark: Committed,
    /// The next offset to be given, `>= high_watermark`: a Fetch from between the two waits.
    pub log_end: Offset,
}

/// What became of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Batches were appended.
    Data {
        /// How many bytes.
        bytes: usize,
        /// The offset after the last record appended: below the high watermark there is more.
        next: Offset,
    },
    /// Nothing to append: nothing is committed at `from` or after, or the first batch does not fit
    /// `bytes_max` (which counts only where `oversize_first` is not set).
    End,
    /// The batch is on disk and was asked for; the connection is to be resumed when it is here.
    Pending,
    /// `from` is not (any more) within the bounds.
    OutOfRange,
    /// The stored bytes do not pass their checks.
    Damaged,
}

/// What became of a search by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLookup {
    /// The first record at or after the time asked for.
    Found {
        /// Its offset.
        offset: Offset,
        /// Its timestamp.
        timestamp_ms: i64,
    },
    /// No committed record is that young.
    NotFound,
    /// The answer is on disk and was asked for; the connection is to be resumed when it is here.
    Pending,
    /// The stored bytes do not pass their checks.
    Damaged,
}
