//! What a shard's thread does now and then: publishing, retention, and saying loudly what the
//! operator must know.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::{EXPIRE_EVERY, Turning};
use crate::log::clean::{Ended, Error};
use crate::log::{MetDamage, Records};
use crate::observe::ShardState;

/// How often quantiles and the lanes' state are published.
const PUBLISH_EVERY: Duration = Duration::from_millis(200);

impl Turning {
    /// What is due now and then.
    pub(super) fn keep_house(&mut self) {
        let now = Instant::now();
        if now >= self.publish_at {
            self.publish_at = now + PUBLISH_EVERY;
            self.thread.shard.publish_metrics();
            self.watch_disk(now);
        }
        if now >= self.expire_at {
            self.expire_at = now + EXPIRE_EVERY;
            self.thread.shard.expire(&self.thread.needs);
            self.tell_damages();
        }
        if self.retry_segment_at.is_some_and(|at| now >= at) {
            self.retry_segment_at = None;
            self.thread.shard.log().retry_segment();
        }
    }

    /// Says loudly what readers found to be damaged, once a place.
    fn tell_damages(&mut self) {
        let mut damages = Vec::new();
        self.thread.shard.log().take_damages(&mut damages);
        self.thread.shard.metrics().log.damages.add(damages.len() as u64);
        for MetDamage { file, at, records: Records { stream, partition, from, to } } in damages {
            let stream = self.thread.shard.stream_name(stream);
            tracing::error!(
                "{file} cannot be read, or is not what was written, at byte {at}: consumers of \
                 {stream}, partition {}, get CORRUPT_MESSAGE among the offsets {} to {} and can go \
                 on at {} (tidegate log verify)",
                partition.0,
                from.0,
                to.0 - 1,
                to.0
            );
        }
    }

    /// Counts and tells what the cleaner did, and lets the log go on from there.
    pub(super) fn on_cleaned(&mut self, ended: &Ended) {
        let metrics = &self.thread.shard.metrics().log;
        let tally = &ended.tally;
        metrics.moved_segments.add(tally.segments);
        metrics.clean_read_bytes.add(tally.read_bytes);
        metrics.clean_written_bytes.add(tally.written_bytes);
        metrics.compacted_keys.add(tally.keys);
        metrics.compacted_records.add(tally.removed);
        match &ended.failed {
            Some((Error::Io(failed), _)) if failed.cause.kind() == ErrorKind::Interrupted => {}
            Some((error, _)) => {
                metrics.clean_failures.increment();
                tracing::warn!("cleaning ended early, nothing is lost by it: {error}");
            }
            None => tracing::info!(
                "cleaned: {} KiB read, {} KiB written to {} moved segments, {} records compacted away",
                tally.read_bytes >> 10,
                tally.written_bytes >> 10,
                tally.segments,
                tally.removed
            ),
        }
        self.thread.shard.log().on_cleaned(ended);
    }

    /// Says loudly when publishers are held back because the disk is full, and when that is over.
    fn watch_disk(&mut self, now: Instant) {
        let starved = self.thread.shard.log().is_starved();
        if starved && self.starved_since.is_none() {
            self.starved_since = Some(now);
            self.thread.shard.metrics().enter(ShardState::DiskFull);
            self.thread.shard.metrics().log.disk_full_episodes.increment();
            tracing::error!(
                "no room for another segment: publishers are held back unacknowledged, consumers \
                 are served; free disk space or lower the retention, and it goes on by itself"
            );
        }
        if !starved && let Some(since) = self.starved_since.take() {
            self.thread.shard.metrics().enter(ShardState::Serving);
            let held = now - since;
            tracing::warn!("there is room again, publishers go on after {held:.1?}");
        }
    }
}
