//! Rows: what the log knows of each partition of each stream that its shard owns.

use std::collections::VecDeque;

use super::Options;
use super::index::{IndexRow, Span};
use super::recovery::{Range, Recovered};
use super::segment::{PartitionOffsets, SegmentKey};
use crate::record::batch::BatchBuilder;
use crate::record::{Committed, Durability, Offset, PartitionId, StreamId};

/// How many offsets a stream that is not flushed reserves ahead.
pub const RESERVED_AHEAD: u64 = 1 << 20;

/// One partition of one stream.
///
/// Invariant: `start <= committed <= next`, and `next <= ceiling` where offsets are reserved.
pub struct Row {
    pub stream: StreamId,
    pub partition: PartitionId,
    /// The first offset that is kept.
    pub start: Offset,
    /// The next offset to be given.
    pub next: Offset,
    /// Everything below has its stream's durability.
    pub committed: Committed,
    /// Offsets below are durably reserved; `None` for streams that are flushed.
    pub ceiling: Option<Offset>,
    /// The ceiling that is on its way, if one is.
    pub asked_ceiling: Option<Offset>,
    /// Records that wait for the next commit.
    pub builder: BatchBuilder,
    /// Its runs in segments whose index files are there, by offset.
    pub spans: VecDeque<(SegmentKey, Span)>,
    /// Offsets that damage took, in order; in no run.
    pub holes: VecDeque<Range>,
    /// What lies below was compacted in this run of the engine.
    pub compacted_to: Offset,
    /// Age clock of the oldest tombstones that compaction left.
    pub tombstones_ms: Option<u64>,
}

impl Row {
    /// Lets go of what lies below `start`, runs apart.
    pub fn raise_start(&mut self, start: Offset) {
        self.start = self.start.max(start);
        let passed = self.holes.partition_point(|(_, to)| *to <= start);
        self.holes.drain(..passed);
        if let Some((from, _)) = self.holes.front_mut() {
            *from = start.max(*from);
        }
    }

    /// The first hole that ends behind `offset`.
    pub fn hole_from(&self, offset: Offset) -> Option<Range> {
        self.holes.get(self.holes.partition_point(|(_, to)| *to <= offset)).copied()
    }

    /// The row as a line of a segment header's table, where `next` is what was sealed before.
    pub fn offsets(&self, next: Offset) -> PartitionOffsets {
        PartitionOffsets {
            stream: self.stream.0,
            partition: self.partition.0,
            start: self.start,
            next,
            ceiling: self.ceiling.unwrap_or(next),
        }
    }
}

/// Partitions that `options.shard` owns of each stream.
pub fn owned(options: &Options) -> u32 {
    let (shard, shards) = (options.shard.0, options.shards);
    (options.partitions.saturating_sub(shard)).div_ceil(shards)
}

/// Where a partition's row is, if this shard owns the partition.
pub fn row_index(options: &Options, stream: StreamId, partition: PartitionId) -> Option<usize> {
    let known = stream.index() < options.streams.len() && partition.0 < options.partitions;
    (known && partition.owner(options.shards) == options.shard)
        .then(|| stream.index() * owned(options) as usize + partition.row(options.shards))
}

/// The rows of a log that continues after `recovered`.
pub fn rows(options: &Options, recovered: &Recovered) -> Vec<Row> {
    let mut rows = Vec::new();
    for (stream, stream_options) in options.streams.iter().enumerate() {
        for owned in 0..owned(options) {
            let stream = StreamId(stream as u32);
            let partition = PartitionId(options.shard.0 + owned * options.shards);
            let found = recovered.offsets(stream, partition);
            let flushed = stream_options.durability == Durability::Fsync;
            let layout = recovered.layout(stream, partition);
            // Offsets that were reserved and may have been given hold nothing that could be read:
            // readers are not told of them. Of those that damage took they are.
            let end = layout.spans.back().map_or(found.start, |(_, span)| span.next);
            let end = layout.holes.back().map_or(end, |(_, to)| end.max(*to)).max(found.start);
            rows.push(Row {
                stream,
                partition,
                start: found.start,
                next: found.next,
                committed: Committed(end),
                ceiling: (!flushed).then_some(found.ceiling),
                asked_ceiling: None,
                builder: BatchBuilder::default(),
                spans: layout.spans,
                holes: layout.holes,
                compacted_to: Offset(0),
                tombstones_ms: None,
            });
        }
    }
    rows
}

/// An empty index for the active segment, one row a row. Each has room for as many batches as it
/// had in `before`, the index of the segment before, and some more: under a steady load the index
/// grows only when a segment begins, never between a message and its commit.
pub fn index_rows(rows: &[Row], before: &[IndexRow]) -> Vec<IndexRow> {
    let room = |row: usize| {
        let count = before.get(row).map_or(0, |row| row.entries.len());
        count + count.div_ceil(8)
    };
    rows.iter()
        .enumerate()
        .map(|(at, row)| IndexRow {
            stream: row.stream.0,
            partition: row.partition.0,
            ceiling: Offset(0),
            range: None,
            entries: Vec::with_capacity(room(at)),
        })
        .collect()
}
