//! Retention: what is too old or too much of a stream is let go, a segment at a time.
//!
//! Ages are measured with the *age clock*, which only counts time that passed: while the engine
//! runs it follows a monotonic clock, and between two runs it moves by the wall clock's difference,
//! never backwards. A step of the wall clock so expires nothing. A segment is deleted when no
//! partition needs anything in it; segments of older generations hold partitions of several shards,
//! so that their one owner looks at the log start offsets that all shards publish.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::recovery::{OldSegment, Recovered};
use super::segment::SegmentKey;
use super::{Log, Options, Request};
use crate::record::{Offset, PartitionId, StreamId};

/// The age of the newest record of a segment, milliseconds of the age clock.
#[derive(Debug, Clone, Copy)]
pub struct SegmentAge {
    last_ms: u64,
}

/// Log start offsets of every partition, published by their owners: one writer a cell.
#[derive(Debug)]
pub struct LogStarts {
    partitions: u32,
    cells: Box<[AtomicU64]>,
}

impl LogStarts {
    /// All zero, for `streams` × `partitions`.
    pub fn new(streams: usize, partitions: u32) -> Self {
        let cells = (0..streams * partitions as usize).map(|_| AtomicU64::new(0)).collect();
        Self { partitions, cells }
    }

    fn cell(&self, stream: StreamId, partition: PartitionId) -> Option<&AtomicU64> {
        self.cells.get(stream.index() * self.partitions as usize + partition.0 as usize)
    }

    fn publish(&self, stream: StreamId, partition: PartitionId, start: Offset) {
        if let Some(cell) = self.cell(stream, partition) {
            // Relaxed: the value stands alone; a reader that sees it late deletes late.
            cell.store(start.0, Ordering::Relaxed);
        }
    }

    fn has_passed(&self, stream: u32, partition: u32, offset: Offset) -> bool {
        self.cell(StreamId(stream), PartitionId(partition))
            .is_none_or(|cell| cell.load(Ordering::Relaxed) >= offset.0)
    }
}

/// Ages of the segments that hold something of this shard.
pub fn ages(options: &Options, recovered: &Recovered) -> BTreeMap<SegmentKey, SegmentAge> {
    let owned = |partition: u32| PartitionId(partition).owner(options.shards) == options.shard;
    recovered
        .segments
        .iter()
        .filter(|segment| segment.spans.iter().any(|span| owned(span.partition)))
        .map(|segment| (segment.key, SegmentAge { last_ms: segment.end.age_ms }))
        .collect()
}

impl Log {
    /// Notes that a segment got a frame at this age.
    pub(super) fn note_age(&mut self, key: SegmentKey, age_ms: u64) {
        self.segments.insert(key, SegmentAge { last_ms: age_ms });
    }

    /// Segments that hold something of this shard.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Lets go of what each stream no longer keeps, and asks for the deletion of segments that
    /// nobody needs. To be called now and then; cheap when there is nothing to do.
    pub fn expire(&mut self, age_ms: u64, starts: &LogStarts) {
        for stream in 0..self.options.streams.len() {
            self.expire_stream(stream, age_ms);
        }
        for row in &self.rows {
            starts.publish(row.stream, row.partition, row.start);
        }
        self.delete_unneeded(starts);
    }

    fn expire_stream(&mut self, stream: usize, age_ms: u64) {
        let options = self.options.streams[stream];
        let per_stream = self.rows.len() / self.options.streams.len();
        let rows = &mut self.rows[stream * per_stream..(stream + 1) * per_stream];
        let mut stored: u64 =
            rows.iter().flat_map(|row| &row.spans).map(|(_, span)| span.stored_bytes).sum();
        loop {
            // The oldest segment that holds something of the stream; by age, as an older
            // generation has several logs.
            let fronts = rows.iter().filter_map(|row| Some(row.spans.front()?.0));
            let aged =
                fronts.map(|key| (self.segments.get(&key).map_or(0, |age| age.last_ms), key));
            let Some((last_ms, oldest)) = aged.min() else { return };
            let expired = age_ms.saturating_sub(last_ms) > options.retention_ms;
            if !expired && stored <= options.retention_bytes {
                return;
            }
            for row in rows.iter_mut() {
                if row.spans.front().is_some_and(|(key, _)| *key == oldest)
                    && let Some((_, span)) = row.spans.pop_front()
                {
                    stored -= span.stored_bytes;
                    row.start = row.start.max(span.next);
                }
            }
        }
    }

    /// Segments of a log go in their order, so that one that is missing in the middle is damage.
    /// The newest one whose header is durable stays: it knows the offsets of every partition.
    fn delete_unneeded(&mut self, starts: &LogStarts) {
        let Self { rows, segments, requests, inherited, indexes, options, active, .. } = self;
        let fronts = rows.iter().filter_map(|row| Some(row.spans.front()?.0));
        let newest = SegmentKey {
            sequence: active.key.sequence.saturating_sub(u64::from(!active.is_begun())),
            ..active.key
        };
        let kept = fronts.chain(indexes.iter().map(|(key, _)| *key)).chain([newest]);
        let Some(oldest) = kept.min() else { return };
        segments.retain(|key, _| {
            if *key < oldest && key.generation == options.generation {
                requests.push(Request::Delete(*key));
            }
            *key >= oldest
        });
        let mut held_back = Vec::new();
        inherited.retain(|OldSegment { key, ends }| {
            let log = (key.generation, key.log);
            let needed = held_back.contains(&log)
                || ends.iter().any(|&(s, p, next)| !starts.has_passed(s, p, next));
            if needed {
                held_back.push(log);
            } else {
                requests.push(Request::Delete(*key));
            }
            needed
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::rig::{FLUSHED, Rig, WRITTEN, durabilities, options};
    use super::*;
    use crate::record::ShardId;

    fn start(rig: &Rig, stream: StreamId, partition: u32) -> u64 {
        rig.log.bounds(stream, PartitionId(partition)).expect("owned").start.0
    }

    fn expire(rig: &mut Rig) -> Vec<u64> {
        rig.log.expire(rig.age_ms, &rig.starts);
        rig.answer();
        rig.deleted.drain(..).map(|key| key.sequence).collect()
    }

    #[test]
    fn the_oldest_goes_by_bytes() {
        let mut options = options();
        options.streams[0].retention_bytes = 20_000;
        let mut rig = Rig::new(options);
        rig.fill_to(1);
        assert_eq!(expire(&mut rig), [0; 0], "12 KiB are kept");
        rig.fill_to(4);
        let deleted = expire(&mut rig);
        assert_eq!(deleted, [0, 1, 2], "a full segment holds 12 kB; two would be more");
        let from = start(&rig, FLUSHED, 0);
        assert_eq!(from, 12, "four records a segment");
        assert_eq!(rig.read(FLUSHED, 0, from).expect("there")[0].0, from);
        assert_eq!(rig.read(FLUSHED, 0, from - 1), Err(super::super::Outcome::OutOfRange));
        assert_eq!(expire(&mut rig), [0; 0]);
    }

    #[test]
    fn age_is_counted_by_time_that_passed_and_the_wall_clock_expires_nothing() {
        let mut options = options();
        options.streams[0].retention_ms = 1000;
        let mut rig = Rig::new(options);
        rig.age_ms = 500;
        rig.fill_to(1);
        rig.age_ms = 1000;
        rig.fill_to(2);
        for step in [1 << 40, -(1 << 41)] {
            rig.wall_ms += step;
            rig.put(FLUSHED, 1, b"x");
            assert_eq!(expire(&mut rig), [0; 0], "after a step of {step} ms");
        }
        for (age_ms, expected) in [(1500, vec![]), (1501, vec![0]), (2000, vec![]), (2001, vec![1])]
        {
            rig.age_ms = age_ms;
            assert_eq!(expire(&mut rig), expected, "at {age_ms} ms");
        }
        rig.age_ms = 100_000;
        assert_eq!(expire(&mut rig), [0; 0], "the one that is written stays");
    }

    #[test]
    fn a_segment_stays_while_any_stream_needs_it_and_those_behind_it_too() {
        let mut options = options();
        options.streams[0].retention_bytes = 0;
        let mut rig = Rig::new(options);
        rig.put(WRITTEN, 1, b"needed");
        rig.fill_to(3);
        assert_eq!(expire(&mut rig), [0; 0]);
        assert!(start(&rig, FLUSHED, 0) > 0, "it is let go all the same");
        assert_eq!(start(&rig, WRITTEN, 1), 0);
        assert_eq!(rig.read(WRITTEN, 1, 0).expect("there").len(), 1);
    }

    /// The header of the next segment takes over what its own knows: first it must be durable.
    #[test]
    fn the_newest_durable_header_stays() {
        let mut options = options();
        options.streams[0].retention_bytes = 0;
        let mut rig = Rig::new(options);
        rig.fill_to(1);
        while rig.log.active.key.sequence == 1 {
            rig.append(FLUSHED, 0, &[7; 3000]).expect("room");
            rig.seal();
            if rig.log.active.key.sequence == 1 {
                rig.log.on_written();
                rig.log.on_flushed();
            }
            rig.answer();
        }
        assert_eq!(expire(&mut rig), [0], "the second is not durable yet");
        rig.log.on_written();
        assert_eq!(expire(&mut rig), [0; 0]);
        rig.log.on_flushed();
        assert_eq!(expire(&mut rig), [1]);
    }

    #[test]
    fn what_waits_for_its_index_is_not_let_go() {
        let mut options = options();
        options.streams[0].retention_bytes = 0;
        let mut rig = Rig::new(options);
        rig.fill_to(1);
        rig.holds = true;
        while rig.put_if_ready() {}
        rig.holds = false;
        let index = rig.held.iter().position(|r| matches!(r, Request::WriteIndex { .. }));
        let late = rig.held.remove(index.expect("full"));
        rig.answer();
        rig.fill_to(4);
        assert_eq!(expire(&mut rig), [0]);
        rig.held.push(late);
        rig.answer();
        assert_eq!(expire(&mut rig), [1, 2, 3]);
        assert_eq!(rig.recover().expect("sound").segments.len(), 1);
    }

    /// Two logs of an older generation, now of one shard, now of three.
    fn old_generation() -> (Recovered, BTreeMap<super::super::FileKey, Vec<u8>>) {
        let (mut recovered, mut files) = (Recovered::default(), BTreeMap::new());
        for shard in 0..2 {
            let options = Options { shard: ShardId(shard), shards: 2, partitions: 6, ..options() };
            let mut rig = Rig::new(options);
            rig.age_ms = 1000 - u64::from(shard) * 500;
            for _ in 0..12 {
                for partition in [0, 2, 4] {
                    rig.put(FLUSHED, partition + shard, &[1; 1000]);
                }
            }
            rig.log.end_cleanly();
            rig.commit();
            let written = recovered.add_log(rig.recover().expect("sound"), 512);
            files.append(&mut rig.files);
            files.extend(
                written.into_iter().map(|(key, file)| (super::super::FileKey::Index(key), file)),
            );
        }
        recovered.settle();
        recovered.reserve(&durabilities(&options().streams), 6);
        (recovered, files)
    }

    #[test]
    fn an_old_generation_goes_when_every_shard_has_passed_it() {
        let (recovered, files) = old_generation();
        let run = |shard| {
            let mut options = Options {
                generation: 2,
                shard: ShardId(shard),
                shards: 3,
                partitions: 6,
                ..options()
            };
            options.streams[0].retention_ms = 100;
            Rig::after(options, &recovered, files.clone())
        };
        let mut rigs = [0, 1, 2].map(run);
        let starts = LogStarts::new(2, 6);
        let mut deleted = Vec::new();
        for (turn, last) in [(0, false), (1, false), (2, false), (0, true), (1, true), (2, true)] {
            let rig = &mut rigs[turn];
            rig.log.expire(5000, &starts);
            rig.answer();
            let here: Vec<_> = rig.deleted.drain(..).collect();
            assert!(here.iter().all(|key| key.log == turn as u32), "each has one owner");
            assert!(last || turn == 2 || here.is_empty(), "not all have passed");
            deleted.extend(here);
        }
        assert_eq!(deleted.len(), recovered.segments.len());
        assert!(deleted.is_sorted_by_key(|key| (key.log, key.sequence)));
    }

    #[test]
    fn of_several_old_logs_the_oldest_data_goes_first() {
        let (recovered, files) = old_generation();
        let mut options = Options { generation: 2, partitions: 6, ..options() };
        options.streams[0].retention_ms = 4200;
        let mut rig = Rig::after(options, &recovered, files);
        let starts = LogStarts::new(2, 6);
        rig.log.expire(5000, &starts);
        // Log 1 was written at 500 ms, log 0 at 1000.
        let start = |partition| start(&rig, FLUSHED, partition);
        assert_eq!([0, 2, 4].map(start), [0; 3]);
        assert_eq!([1, 3, 5].map(start), [12; 3]);
        rig.answer();
        assert!(!rig.deleted.is_empty() && rig.deleted.iter().all(|key| key.log == 1));
    }
}
