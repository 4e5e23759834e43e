//! The cleaner over files in memory that lose what is not flushed: copies, compaction, and a crash
//! after every single change of a file.

use std::collections::BTreeMap;

use super::super::frame::FrameHeader;
use super::super::inspect::inspect;
use super::super::memory::MemoryFiles;
use super::super::recovery::Recovered;
use super::super::rig::{FLUSHED, NO_HEADERS, Rig, SEED, WRITTEN, durabilities, manifest, options};
use super::super::{Options, Outcome};
use super::*;
use crate::record::batch::{RecordParts, for_each_record};
use crate::record::{PartitionId, StreamId};

/// Offset, key, value.
type Record = (u64, Option<Vec<u8>>, Option<Vec<u8>>);
type Contents = BTreeMap<(u32, u32), Vec<Record>>;

fn small() -> Options {
    Options { batch_bytes_max: 300, ..options() }
}

fn put(rig: &mut Rig, stream: StreamId, partition: u32, key: Option<&str>, value: Option<&[u8]>) {
    let key = key.map(str::as_bytes);
    let record = RecordParts { key, value, timestamp_ms: rig.wall_ms, headers: NO_HEADERS };
    rig.log.append(stream, PartitionId(partition), &record).expect("room");
}

/// A log of some segments: much of one partition, a little of the others.
fn mixed() -> Rig {
    let mut rig = Rig::new(small());
    for i in 0_u8..40 {
        rig.age_ms += 10;
        put(&mut rig, FLUSHED, 0, Some("a"), Some(&[i; 1000]));
        put(&mut rig, FLUSHED, 0, None, Some(&[i; 500]));
        put(&mut rig, FLUSHED, 1, Some("b"), Some(&[i; 50]));
        put(&mut rig, WRITTEN, u32::from(i % 2), None, Some(&[i; 120]));
        rig.commit();
    }
    rig
}

/// What a start finds.
fn recover(files: &MemoryFiles) -> (Recovered, BTreeMap<FileKey, Vec<u8>>) {
    let found = inspect(files, &manifest(&small()), 512, &mut |_, _| Ok(())).expect("readable");
    assert_eq!(found.recovered.damages, []);
    assert_eq!(found.recovered.holes().count(), 0);
    let mut all = files.segments();
    all.extend(found.indexes.into_iter().map(|(key, bytes)| (FileKey::Index(key), bytes)));
    (found.recovered, all)
}

/// Everything that can be read after a start.
fn contents(files: &MemoryFiles) -> Contents {
    let (mut recovered, all) = recover(files);
    recovered.reserve(&durabilities(&small().streams), 2);
    let mut rig = Rig::after(Options { generation: 2, ..small() }, &recovered, all);
    let mut contents = Contents::new();
    for (stream, partition) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let place = (StreamId(stream), PartitionId(partition));
        let mut from = rig.log.bounds(place.0, place.1).expect("owned").start;
        let found = contents.entry((stream, partition)).or_default();
        loop {
            let outcome = rig.log.read(place, from, 1 << 20, true, |batch| {
                let whole = for_each_record(batch, &mut Vec::new(), |r| {
                    found.push((
                        r.offset.0,
                        r.key.map(<[u8]>::to_vec),
                        r.value.map(<[u8]>::to_vec),
                    ));
                    true
                });
                whole.expect("a whole batch");
            });
            match outcome {
                Outcome::Data(_, next) => from = next,
                Outcome::Pending => rig.answer(),
                Outcome::End => break,
                other => panic!("{other:?} at {from}"),
            }
        }
        assert!(found.is_sorted_by(|a, b| a.0 < b.0), "in order, once");
    }
    contents
}

fn runs(files: &MemoryFiles, wanted: impl Fn(&Run) -> bool) -> Vec<Run> {
    let (recovered, _) = recover(files);
    let places = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(s, p)| (StreamId(s), PartitionId(p)));
    let all = places.into_iter().flat_map(|(s, p)| recovered.layout(s, p).spans);
    // Those of the segment that is written are in memory.
    let last = recovered.segments.iter().map(|s| s.key).filter(|key| !key.moved).max();
    all.filter(|run| Some(run.0) != last && wanted(run)).collect()
}

fn job(mut runs: Vec<Run>) -> Job {
    runs.sort_by_key(|(key, span)| (*key, span.stream, span.partition, span.base));
    Job {
        first: SegmentKey::moved(1, 0, 0),
        seed: SEED,
        block: 512,
        segment_bytes: small().segment_bytes,
        wall_ms: 77,
        age_ms: 100_000,
        runs,
        compaction: None,
    }
}

fn run(files: &MemoryFiles, job: &Job) -> (Vec<Moved>, Ended) {
    let mut moved = Vec::new();
    let ended = clean(files, job, &mut |m| moved.push(m));
    (moved, ended)
}

/// What the driver does once nothing is needed of a segment any more.
fn delete(files: &MemoryFiles, keys: &[SegmentKey]) -> bool {
    let paths = keys.iter().flat_map(|key| [key.path(), key.index_path()]);
    paths.map(|path| files.remove(&path)).all(|removed| removed.is_ok())
}

#[test]
fn what_is_copied_is_the_same_and_its_source_may_go() {
    let files = MemoryFiles::of(&mixed().files);
    let before = contents(&files);
    let fronts = [SegmentKey::chain(1, 0, 0), SegmentKey::chain(1, 0, 1)];
    let job = job(runs(&files, |run| fronts.contains(&run.0)));
    let (moved, ended) = run(&files, &job);
    assert!(ended.failed.is_none() && ended.compacted.is_none());
    assert!(moved.len() == 2 && ended.next.sequence == 2, "as much as two segments");
    let sources: usize = moved.iter().map(|moved| moved.sources.len()).sum();
    assert_eq!(sources, job.runs.len());
    assert_eq!(ended.tally.segments, 2);
    assert!(ended.tally.written_bytes > 20_000 && ended.tally.read_bytes > 20_000);
    assert_eq!(contents(&files), before, "with sources and copies");
    // Ages are those of what was copied.
    for (_, source) in &job.runs {
        let same = |span: &&Span| span.covers(source) && span.age_ms == source.age_ms;
        assert!(moved.iter().flat_map(|moved| &moved.spans).any(|span| same(&span)), "{source:?}");
    }
    assert!(delete(&files, &fronts));
    assert_eq!(contents(&files), before, "with the copies alone");
    // Without their indexes as well, which are those that a start makes.
    let whole = files.segments();
    moved.iter().for_each(|moved| files.remove(&moved.key.index_path()).expect("removed"));
    assert_eq!(contents(&files), before, "looked through");
    let (_, made) = recover(&files);
    for moved in &moved {
        let index = FileKey::Index(moved.key);
        assert!(made[&index] == whole[&index], "{index}");
    }
    assert!(files.names().iter().all(|name| !name.ends_with(".new")));
}

#[test]
fn what_was_moved_is_moved_again() {
    let files = MemoryFiles::of(&mixed().files);
    let before = contents(&files);
    let small_ones = |run: &Run| (run.1.stream, run.1.partition) != (0, 0);
    let (first, _) = run(&files, &job(runs(&files, small_ones)));
    assert_eq!(contents(&files), before);
    let mut again = job(runs(&files, |run| run.0.moved));
    assert!(!again.runs.is_empty());
    again.first = SegmentKey::moved(1, 0, 9);
    let (second, ended) = run(&files, &again);
    assert!(ended.failed.is_none() && !second.is_empty());
    assert_eq!(contents(&files), before, "with both copies");
    assert!(delete(&files, &first.iter().map(|moved| moved.key).collect::<Vec<_>>()));
    assert_eq!(contents(&files), before, "with the last copy");
}

/// After every single change of a file the process ends, or power is lost.
fn crash_everywhere(files: &MemoryFiles, job: &Job, check: impl Fn(&Contents, &str)) -> usize {
    for step in 0.. {
        let mut ended_well = false;
        for power in [false, true] {
            let files = files.clone();
            files.left.set(Some(step));
            let mut sound = true;
            let ended = clean(&files, job, &mut |moved| {
                // What the log does: every source whose runs all are moved goes.
                let mut keys: Vec<_> = moved.sources.iter().map(|(key, _)| *key).collect();
                keys.dedup();
                let whole = |key: &SegmentKey| {
                    let of = |runs: &[Run]| runs.iter().filter(|run| run.0 == *key).count();
                    of(&moved.sources)
                        == recover(&files)
                            .0
                            .segments
                            .iter()
                            .find(|s| s.key == *key)
                            .map_or(0, |segment| segment.spans.len())
                };
                keys.retain(whole);
                keys.sort();
                sound &= delete(&files, &keys);
            });
            ended_well = sound && ended.failed.is_none() && files.left.get() != Some(0);
            files.crash(power);
            check(&contents(&files), &format!("step {step}, power {power}"));
        }
        if ended_well {
            return step;
        }
    }
    0
}

#[test]
fn a_crash_of_a_copy_at_any_moment_loses_and_doubles_nothing() {
    let files = MemoryFiles::of(&mixed().files);
    let before = contents(&files);
    let front = job(runs(&files, |run| run.0.sequence < 2));
    let steps = crash_everywhere(&files, &front, |found, when| {
        assert_eq!(*found, before, "{when}");
    });
    assert!(steps > 15, "{steps} steps");
}

#[test]
fn what_is_damaged_is_not_copied() {
    let files = MemoryFiles::of(&mixed().files);
    let before = contents(&files);
    let all = runs(&files, |run| run.0.sequence == 0);
    let harmed = all[2];
    // A byte of its first batch.
    let index = files.segments().remove(&FileKey::Index(harmed.0)).expect("there");
    let at = harmed.1.entries.expect("in the file").at as usize;
    let entry = super::super::index::IndexEntry::read(&index[at..], 0).expect("there");
    files.harm(&harmed.0.path(), entry.position as usize + 70);
    let (moved, ended) = run(&files, &job(all.clone()));
    assert!(moved.is_empty());
    let (error, whose) = ended.failed.expect("damage");
    assert!(matches!(error, Error::Harmed { .. }), "{error}");
    assert_eq!(whose.map(|run| run.1), Some(harmed.1));
    let others = all.into_iter().filter(|run| *run != harmed).collect();
    assert!(run(&files, &job(others)).1.failed.is_none());
    // And what can be read is as it was.
    files.harm(&harmed.0.path(), entry.position as usize + 70);
    assert_eq!(contents(&files), before);
    assert!(files.names().iter().all(|name| !name.ends_with(".new")));
}

#[test]
fn the_frames_of_a_moved_segment_tell_its_time() {
    let files = MemoryFiles::of(&mixed().files);
    let (moved, _) = run(&files, &job(runs(&files, |run| run.0.sequence == 0)));
    let file = files.segments().remove(&FileKey::Segment(moved[0].key)).expect("there");
    let frame = super::super::frame::read(&file[512..]).expect("whole");
    let FrameHeader { wall_ms, age_ms, position, .. } = frame.header;
    assert_eq!((wall_ms, age_ms, position), (77, 100_000, 512));
}

/// Keys over and over, some deleted, some records without a key.
fn keyed(keys: u8) -> Rig {
    let mut rig = Rig::new(small());
    for i in 0_u8..120 {
        rig.age_ms += 10;
        let key = format!("key-{}", i % keys);
        let value = (!i.is_multiple_of(5)).then_some([i; 400]);
        put(&mut rig, FLUSHED, 0, Some(&key), value.as_ref().map(<[u8; 400]>::as_slice));
        if i.is_multiple_of(40) {
            put(&mut rig, FLUSHED, 0, None, Some(&[i; 30]));
        }
        put(&mut rig, FLUSHED, 1, Some("other"), Some(&[i; 100]));
        rig.commit();
    }
    rig
}

fn compaction(files: &MemoryFiles, keys_max: usize, tombstone_retention_ms: u64) -> Job {
    let mut runs = runs(files, |run| (run.1.stream, run.1.partition) == (0, 0));
    runs.sort_by_key(|run| run.1.base);
    let compaction = Compaction { dirty_from: Offset(0), keys_max, tombstone_retention_ms };
    Job { runs, compaction: Some(compaction), ..job(vec![]) }
}

/// What compaction may leave of the records below `end`: the newest of each key.
fn newest(all: &[Record], end: u64, tombstones: bool) -> Vec<Record> {
    let stays = |record: &&Record| {
        let (offset, key, value) = record;
        let newer = |other: &Record| other.0 > *offset && other.0 < end && other.1 == *key;
        let superseded = key.is_some() && all.iter().any(newer);
        let deleted = !tombstones && value.is_none() && offset + 1 < end;
        *offset >= end || !(superseded || deleted)
    };
    all.iter().filter(stays).cloned().collect()
}

#[test]
fn the_newest_record_of_each_key_stays() {
    for (keys, keys_max) in [(7, 1000), (7, 3), (7, 1), (50, 11), (120, 7)] {
        for tombstones in [true, false] {
            let files = MemoryFiles::of(&keyed(keys).files);
            let before = contents(&files);
            let job = compaction(&files, keys_max, if tombstones { u64::MAX } else { 1000 });
            let end = job.runs.last().expect("some").1.next.0;
            let (moved, ended) = run(&files, &job);
            assert!(ended.failed.is_none(), "{:?}", ended.failed);
            let compacted = ended.compacted.expect("complete");
            assert_eq!(compacted.end.0, end);
            assert_eq!(compacted.tombstones_ms.is_some(), tombstones, "{compacted:?}");
            let after = contents(&files);
            let all = &before[&(0, 0)];
            assert_eq!(after[&(0, 0)], newest(all, end, tombstones), "{keys} keys, {keys_max}");
            assert_eq!(after[&(0, 1)], before[&(0, 1)]);
            let removed = all.len() - after[&(0, 0)].len();
            assert_eq!(ended.tally.removed, removed as u64);
            if keys == 7 {
                assert!(removed > 80, "{removed}");
                assert_eq!(moved.len(), 1, "little is left");
                assert!(keys_max < 7 || ended.tally.keys == 7);
            }
        }
    }
}

#[test]
fn a_crash_of_a_compaction_keeps_the_newest_and_brings_nothing_back() {
    let files = MemoryFiles::of(&keyed(30).files);
    let before = contents(&files).remove(&(0, 0)).expect("there");
    let mut job = compaction(&files, 1000, 1000);
    // Several moved segments, so that a crash falls between them.
    job.segment_bytes = 4000;
    let end = job.runs.last().expect("some").1.next.0;
    let least = newest(&before, end, false);
    let steps = crash_everywhere(&files, &job, |found, when| {
        let found = &found[&(0, 0)];
        assert!(least.iter().all(|record| found.contains(record)), "{when}: the newest stay");
        assert!(found.iter().all(|record| before.contains(record)), "{when}: nothing is new");
        for (offset, key, _) in found.iter().filter(|record| !least.contains(record)) {
            // Whatever supersedes or deletes it is still there.
            let newer = |r: &&Record| r.1 == *key && r.0 > *offset;
            let newest = before.iter().rfind(newer).map(|record| record.0);
            let tombstone = newest.is_none();
            assert!(tombstone || found.iter().any(|r| Some(r.0) == newest), "{when}: {offset}");
        }
    });
    assert!(steps > 15, "{steps} steps");
}

#[test]
fn what_was_compacted_is_compacted_with_what_came_since() {
    let files = MemoryFiles::of(&keyed(7).files);
    let before = contents(&files);
    let mut first = compaction(&files, 1000, u64::MAX);
    let half = first.runs.len() / 2;
    first.runs.truncate(half);
    let (_, ended) = run(&files, &first);
    let dirty_from = ended.compacted.expect("complete").end;
    // What is alive goes to the dirty runs alone now.
    let mut second = compaction(&files, 1000, 1000);
    second.first = SegmentKey::moved(1, 0, 5);
    second.compaction = second.compaction.map(|c| Compaction { dirty_from, ..c });
    let end = second.runs.last().expect("some").1.next.0;
    let (_, ended) = run(&files, &second);
    assert_eq!(ended.compacted.expect("complete").tombstones_ms, None);
    assert_eq!(contents(&files)[&(0, 0)], newest(&before[&(0, 0)], end, false));
    // Nothing is left to do: nothing is written.
    let mut third = compaction(&files, 1000, 1000);
    third.first = SegmentKey::moved(1, 0, 9);
    let (moved, ended) = run(&files, &third);
    assert!(moved.is_empty() && ended.tally.removed == 0 && ended.failed.is_none());
}
