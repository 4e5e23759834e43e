//! Retention: what is too old or too much of a stream is let go, a run at a time.
//!
//! Ages are measured with the *age clock*, which only counts time that passed: while the engine
//! runs it follows a monotonic clock, and between two runs it moves by the wall clock's difference,
//! never backwards. A step of the wall clock so expires nothing.
//!
//! A segment is deleted when no partition needs anything in it. What retention lets go of is
//! deleted only when the log start that says so is durable (`starts`): so whatever is missing
//! without that is damage. Segments of older generations hold partitions of several shards: each
//! shard says when it needs a segment no more, and the one shard that owns it deletes it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::clean::policy::Fill;
use super::index::Span;
use super::segment::SegmentKey;
use super::{Log, Request, starts};
use crate::record::{Offset, PartitionId, ShardId, StreamId};

/// How much a segment of an older generation is still needed.
#[derive(Debug, Default)]
pub struct Need {
    /// Shards that need something in it.
    pub shards: AtomicU32,
    /// Bytes of batches that are needed.
    pub live_bytes: AtomicU64,
    /// Bytes of all batches in it.
    pub stored_bytes: u64,
}

/// Which segments of older generations are still needed, by how many shards. Made before the shards
/// start; each shard takes itself off once a segment.
#[derive(Debug, Default)]
pub struct Needs {
    needs: BTreeMap<SegmentKey, Need>,
}

impl Needs {
    /// Needs by segment.
    pub fn new(needs: BTreeMap<SegmentKey, Need>) -> Self {
        Self { needs }
    }

    /// One shard needs `bytes` of `key` no more, and with `all` nothing in it.
    fn let_go(&self, key: SegmentKey, bytes: u64, all: bool) {
        let Some(need) = self.needs.get(&key) else { return };
        need.live_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if all {
            // Release: the owner, which acquires, deletes after whatever this shard did with it.
            need.shards.fetch_sub(1, Ordering::Release);
        }
    }

    /// Whether any shard needs `key`.
    fn is_needed(&self, key: SegmentKey) -> bool {
        // Acquire: see `let_go`. A count that is seen late deletes late.
        self.needs.get(&key).is_some_and(|need| need.shards.load(Ordering::Acquire) > 0)
    }

    /// The segments that `shard` has to delete when nobody needs them, by key.
    pub(super) fn owned_by(&self, shard: ShardId, shards: u32) -> Vec<SegmentKey> {
        self.needs.keys().filter(|key| key.log % shards == shard.0).copied().collect()
    }

    /// How full each segment is, by key; those at the front of a chain that nobody needs, which are
    /// on their way out or gone, apart.
    pub(super) fn fills(&self) -> impl Iterator<Item = (SegmentKey, Fill)> {
        let mut needed = None;
        self.needs.iter().filter_map(move |(key, need)| {
            let chain = (key.generation, key.log, key.moved);
            if self.is_needed(*key) {
                needed = Some(chain);
            }
            let live = need.live_bytes.load(Ordering::Relaxed);
            (needed == Some(chain)).then_some((*key, Fill { live, total: need.stored_bytes }))
        })
    }
}

/// What this shard has in a segment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Held {
    /// Runs, and whatever else keeps it from being deleted.
    pub count: usize,
    /// Bytes of the runs.
    pub live_bytes: u64,
    /// Bytes of all batches in it, where it is one of this generation.
    pub stored_bytes: u64,
}

/// Bytes of a run, and in which segment.
pub type Part = (SegmentKey, u64);

/// Segments that are on their way to being deleted.
#[derive(Debug, Default)]
pub struct Leaving {
    /// Runs that were let go of, whose log starts are not on their way yet.
    pub released: Vec<Part>,
    /// Those whose log starts are being made durable.
    pub saving: Option<Vec<Part>>,
}

impl Log {
    /// Counts the runs of each segment, so that it is known when nothing needs one any more.
    pub(super) fn hold(&mut self, (key, bytes): Part) {
        let held = self.held.entry(key).or_default();
        held.count += 1;
        held.live_bytes += bytes;
    }

    /// Notes how much a segment holds, so that it is known how much of it is still needed.
    pub(super) fn note_stored(&mut self, key: SegmentKey, spans: &[Span]) {
        let stored_bytes = spans.iter().map(|span| span.stored_bytes).sum();
        self.held.entry(key).or_default().stored_bytes = stored_bytes;
    }

    /// A run of `key` is needed no more.
    fn unhold(&mut self, (key, bytes): Part, needs: &Needs) {
        let Some(held) = self.held.get_mut(&key) else { return };
        held.count -= 1;
        held.live_bytes -= bytes;
        if key.generation != self.options.generation {
            let all = held.count == 0;
            if all {
                self.held.remove(&key);
            }
            needs.let_go(key, bytes, all);
        }
    }

    /// Segments that hold something of this shard.
    pub fn segment_count(&self) -> usize {
        self.held.len()
    }

    /// Lets go of what each stream no longer keeps, and asks for the deletion of segments that
    /// nobody needs. To be called now and then; cheap when there is nothing to do.
    pub fn expire(&mut self, age_ms: u64, needs: &Needs) {
        for stream in 0..self.options.streams.len() {
            self.expire_stream(stream, age_ms);
        }
        for part in std::mem::take(&mut self.unneeded) {
            self.unhold(part, needs);
        }
        self.save_starts();
        self.delete_unneeded(needs);
    }

    fn expire_stream(&mut self, stream: usize, age_ms: u64) {
        let options = self.options.streams[stream];
        let per_stream = self.rows.len() / self.options.streams.len();
        let rows = &mut self.rows[stream * per_stream..(stream + 1) * per_stream];
        let mut stored: u64 =
            rows.iter().flat_map(|row| &row.spans).map(|(_, span)| span.stored_bytes).sum();
        loop {
            // The oldest run of the stream; those of one segment are as old as one another.
            let fronts = rows.iter().filter_map(|row| row.spans.front());
            let oldest = fronts.map(|(key, span)| (span.age_ms, *key)).min();
            let Some((last_ms, oldest)) = oldest else { return };
            let expired = age_ms.saturating_sub(last_ms) > options.retention_ms;
            if !expired && stored <= options.retention_bytes {
                return;
            }
            for row in rows.iter_mut() {
                if let Some((key, span)) = row.spans.front().copied()
                    && (span.age_ms, key) == (last_ms, oldest)
                {
                    row.spans.pop_front();
                    stored -= span.stored_bytes;
                    row.raise_start(span.next);
                    self.leaving.released.push((key, span.stored_bytes));
                }
            }
        }
    }

    /// Raises the log start of a partition to `offset`, or to its committed end if that is lower:
    /// what lies below is let go of, a run at a time. A partition that this shard does not own is
    /// left alone. Returns the log start. (Kafka's DeleteRecords will ask for this.)
    pub fn trim(&mut self, stream: StreamId, partition: PartitionId, offset: Offset) -> Offset {
        let Some(row) = self.row_index(stream, partition) else { return Offset(0) };
        let row = &mut self.rows[row];
        row.raise_start(offset.min(row.committed.end()));
        let passed = row.spans.partition_point(|(_, span)| span.next <= row.start);
        self.leaving.released.extend(row.spans.drain(..passed).map(part));
        row.start
    }

    /// Asks for the log starts to be made durable, on which deletions wait.
    fn save_starts(&mut self) {
        if self.leaving.released.is_empty() || self.leaving.saving.is_some() {
            return;
        }
        self.leaving.saving = Some(std::mem::take(&mut self.leaving.released));
        if mutated!(StartsNotAwaited) {
            self.on_starts_saved();
        }
        let rows = self.rows.iter().map(|row| (row.stream.0, row.partition.0, row.start));
        self.requests.push(Request::SaveStarts(starts::encode(rows)));
    }

    /// The log starts that were asked for last are durable.
    pub fn on_starts_saved(&mut self) {
        self.unneeded.extend(self.leaving.saving.take().unwrap_or_default());
    }

    /// Segments of a chain go in their order, so that one that is missing in the middle is damage.
    /// The newest one whose header is durable stays: it knows the offsets of every partition.
    fn delete_unneeded(&mut self, needs: &Needs) {
        let Self { held, requests, inherited, indexes, options, active, .. } = self;
        let newest = SegmentKey {
            sequence: active.key.sequence.saturating_sub(u64::from(!active.is_begun())),
            ..active.key
        };
        let kept = indexes.iter().map(|(key, _)| *key).chain([newest]).min().unwrap_or(newest);
        let mut blocked = false;
        held.retain(|key, held| {
            if key.generation != options.generation {
                return true;
            }
            let in_order = blocked && !mutated!(DeletedOutOfOrder);
            let needed = held.count > 0 || (!key.moved && (in_order || *key >= kept));
            blocked |= needed && !key.moved;
            if !needed {
                requests.push(Request::Delete(*key));
            }
            needed
        });
        let mut held_back = Vec::new();
        inherited.retain(|key| {
            let log = (key.generation, key.log);
            let in_order = !mutated!(DeletedOutOfOrder) && !key.moved;
            let needed = needs.is_needed(*key) || (in_order && held_back.contains(&log));
            if !needed {
                requests.push(Request::Delete(*key));
            } else if !key.moved {
                held_back.push(log);
            }
            needed
        });
    }
}

/// A run as what is counted of it.
pub fn part((key, span): (SegmentKey, Span)) -> Part {
    (key, span.stored_bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Options;
    use super::super::recovery::Recovered;
    use super::super::rig::{FLUSHED, Rig, WRITTEN, durabilities, options};
    use super::*;

    fn start(rig: &Rig, stream: StreamId, partition: u32) -> u64 {
        rig.log.bounds(stream, PartitionId(partition)).expect("owned").start.0
    }

    fn expire(rig: &mut Rig) -> Vec<u64> {
        // Once more when the log starts are durable.
        for _ in 0..2 {
            rig.log.expire(rig.age_ms, &rig.needs);
            rig.answer();
        }
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
        assert_eq!(rig.sound().segments.len(), 1);
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
            let written = recovered.add_log(rig.sound(), 512);
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
        let needs = recovered.needs(3);
        let mut deleted = Vec::new();
        for (turn, last) in [(0, false), (1, false), (2, false), (0, true), (1, true), (2, true)] {
            let rig = &mut rigs[turn];
            for _ in 0..2 {
                rig.log.expire(5000, &needs);
                rig.answer();
            }
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
        rig.log.expire(5000, &rig.needs);
        // Log 1 was written at 500 ms, log 0 at 1000.
        let start = |partition| start(&rig, FLUSHED, partition);
        assert_eq!([0, 2, 4].map(start), [0; 3]);
        assert_eq!([1, 3, 5].map(start), [12; 3]);
        assert!(rig.deleted.is_empty(), "the log starts are not durable yet");
        rig.answer();
        rig.log.expire(5000, &rig.needs);
        rig.answer();
        assert!(!rig.deleted.is_empty() && rig.deleted.iter().all(|key| key.log == 1));
    }

    #[test]
    fn nothing_is_deleted_before_its_log_start_is_durable() {
        let mut options = options();
        options.streams[0].retention_bytes = 0;
        let mut rig = Rig::new(options);
        rig.fill_to(2);
        rig.holds = true;
        for _ in 0..3 {
            rig.log.expire(0, &rig.needs);
        }
        rig.log.take_requests(&mut rig.held);
        assert!(matches!(rig.held.as_slice(), [Request::SaveStarts(_)]), "{:?}", rig.held);
        rig.holds = false;
        rig.answer();
        assert!(rig.saved_starts.contains(&(0, 0, Offset(8))), "{:?}", rig.saved_starts);
        assert_eq!(expire(&mut rig), [0, 1]);
    }

    #[test]
    fn a_partition_is_trimmed_to_an_offset() {
        let mut rig = Rig::new(options());
        rig.fill_to(2);
        let place = |offset| (FLUSHED, PartitionId(0), Offset(offset));
        let trim = |rig: &mut Rig, offset| {
            let (stream, partition, offset) = place(offset);
            rig.log.trim(stream, partition, offset).0
        };
        assert_eq!(trim(&mut rig, 5), 5);
        assert_eq!(expire(&mut rig), [0], "the first segment ends at 4");
        assert_eq!(rig.read(FLUSHED, 0, 4), Err(super::super::Outcome::OutOfRange));
        assert_eq!(rig.read(FLUSHED, 0, 5).expect("there")[0].0, 5);
        assert_eq!(trim(&mut rig, 3), 5, "never back");
        let end = rig.log.bounds(FLUSHED, PartitionId(0)).expect("owned").next.0;
        assert_eq!(trim(&mut rig, u64::MAX), end, "no further than what is committed");
        assert_eq!(rig.log.trim(FLUSHED, PartitionId(9), Offset(1)), Offset(0), "not its own");
    }
}
