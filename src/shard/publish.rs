//! What the shard publishes of its log.

use super::Core;
use crate::record::{PartitionId, StreamId};

impl Core {
    /// Publishes where a partition begins and ends.
    pub fn publish_bounds(&self, stream: StreamId, partition: PartitionId) {
        if let Some(bounds) = self.log.bounds(stream, partition) {
            let row = partition.row(self.options.shards);
            let metrics = self.options.metrics.stream(stream).partition(row);
            metrics.log_start.set(bounds.start.0);
            metrics.fenced_offsets.set(bounds.fenced);
            metrics.high_watermark.set(bounds.committed.end().0);
        }
    }

    /// Publishes the state of the log.
    pub fn publish_log(&self) {
        let metrics = &self.options.metrics.log;
        metrics.segments.set(self.log.segment_count() as u64);
        metrics.segments_ready.set(self.log.ready_segments() as u64);
        let (appended, written, flushed) = self.log.positions();
        metrics.appended.set(appended);
        metrics.written.set(written);
        metrics.flushed.set(flushed);
        for (stream, stored) in self.options.metrics.streams.iter().zip(self.log.stored_bytes()) {
            stream.bytes_stored.publish(*stored);
        }
        let streams = 0..self.log.options().streams.len() as u32;
        for stream in streams {
            let first = self.options.shard.0;
            for partition in (first..self.options.partitions).step_by(self.options.shards as usize)
            {
                self.publish_bounds(StreamId(stream), PartitionId(partition));
            }
        }
    }
}
