//! What must be true of the log, kept beside it: every record ever appended, and what became of it.

use std::collections::BTreeMap;

use tidegate::log::{Log, Outcome, Request, Ticket, TimeLookup};
use tidegate::record::batch::{BatchHeader, RecordParts, for_each_record};
use tidegate::record::{Durability, Offset};

use crate::engine::Engine;
use crate::random::Random;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp_ms: i64,
}

#[derive(Debug)]
struct Appended {
    record: Record,
    /// `None` once it was found after a restart: then it is durable.
    ticket: Option<Ticket>,
    age_ms: u64,
    acknowledged: bool,
}

/// One partition of one stream.
#[derive(Debug, Default)]
pub struct Row {
    /// By offset; what a crash took is taken out.
    records: BTreeMap<u64, Appended>,
    next: u64,
    start: u64,
    /// Below it readers have seen records, or could have.
    visible_end: u64,
}

#[derive(Debug)]
pub struct Model {
    streams: usize,
    partitions: u32,
    rows: BTreeMap<(usize, u32), Row>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Clean,
    /// The process was killed; what was written stays.
    Killed,
    PowerLoss,
}

/// A record from a seed: compressible or not, with or without key.
pub fn make_record(seed: u64, bytes: usize, timestamp_ms: i64) -> Record {
    let mut random = Random(seed);
    let value = if random.one_in(2) {
        (0..bytes).map(|_| random.next() as u8).collect()
    } else {
        b"temperature=21.5;".iter().copied().cycle().take(bytes).collect()
    };
    let keys = [3, 20, 1000][random.below(3)];
    let key = (!random.one_in(4)).then(|| format!("device-{}", random.below(keys)).into_bytes());
    let value = (key.is_none() || !random.one_in(5)).then_some(value);
    Record { key, value, timestamp_ms }
}

impl Model {
    pub fn new(streams: usize, partitions: u32) -> Self {
        let places = (0..streams).flat_map(|s| (0..partitions).map(move |p| (s, p)));
        let rows = places.map(|place| (place, Row::default())).collect();
        Self { streams, partitions, rows }
    }

    pub fn places(&self) -> Vec<(usize, u32)> {
        (0..self.streams).flat_map(|s| (0..self.partitions).map(move |p| (s, p))).collect()
    }

    /// Appends; whether the log took it.
    pub fn append(&mut self, engine: &mut Engine, place: (usize, u32), record: Record) -> bool {
        let topic = format!("plant/{}", place.1);
        let headers: [(&[u8], &[u8]); 2] = [(b"mqtt.topic", topic.as_bytes()), (b"mqtt.qos", b"1")];
        let parts = RecordParts {
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            timestamp_ms: record.timestamp_ms,
            headers: headers.iter().copied(),
        };
        let age_ms = engine.age_ms;
        let unlimited = engine.setup.reserved.is_none();
        let log = engine.log(place.1);
        let promised = log.has_room(parts.parts_bytes_max(), 1);
        let (stream, partition) = Engine::place(place.0, place.1);
        let Ok(ticket) = log.append(stream, partition, &parts) else {
            assert!(!promised || !unlimited, "has_room promised room");
            return false;
        };
        assert!(promised, "taken beyond the limit");
        let row = self.rows.get_mut(&place).expect("known");
        let appended = Appended { record, ticket: Some(ticket), age_ms, acknowledged: false };
        assert!(row.records.insert(row.next, appended).is_none());
        row.next += 1;
        true
    }

    /// Notes what may be acknowledged and seen by now, and that it agrees.
    pub fn observe(&mut self, engine: &mut Engine) {
        for (&(stream, partition), row) in &mut self.rows {
            let durability = engine.setup.streams[stream].durability;
            let log = engine.log(partition);
            let (s, p) = Engine::place(stream, partition);
            let bounds = log.bounds(s, p).expect("owned");
            let committed = bounds.committed.end().0;
            // A crash may take from streams that are not flushed what readers have seen; its offsets
            // are not given again, and readers wait there.
            assert!(durability != Durability::Fsync || committed >= row.visible_end);
            assert!(committed <= row.next && bounds.next.0 >= row.visible_end);
            assert!(bounds.start.0 <= committed);
            for (&offset, appended) in row.records.iter_mut().rev() {
                let reached = appended.ticket.is_none_or(|t| log.progress().reached(t));
                if durability != Durability::Memory {
                    assert_eq!(
                        reached,
                        offset < committed,
                        "offset {offset} of {stream}/{partition}"
                    );
                }
                if appended.acknowledged {
                    break;
                }
                appended.acknowledged = reached;
            }
            row.visible_end = committed;
            row.start = bounds.start.0;
        }
    }

    /// Whether compaction may have taken what was appended at `offset`. Loosely: see
    /// [`check_newest`].
    fn may_be_gone(&self, engine: &Engine, place: (usize, u32), offset: u64) -> bool {
        let row = &self.rows[&place];
        let record = &row.records[&offset].record;
        let Some(retention_ms) = engine.setup.streams[place.0].compaction else { return false };
        let newer = |(_, other): (&u64, &Appended)| other.record.key == record.key;
        record.key.is_some()
            && (is_old_tombstone(&row.records[&offset], engine.age_ms, retention_ms)
                || row.records.range(offset + 1..row.visible_end).any(newer))
    }

    /// Reads from `from` on, at most `bytes_max` bytes, and compares. Returns the next offset.
    pub fn read(
        &self,
        engine: &mut Engine,
        place: (usize, u32),
        from: u64,
        bytes_max: usize,
    ) -> Option<u64> {
        let row = &self.rows[&place];
        let (stream, partition) = Engine::place(place.0, place.1);
        let mut batches: Vec<Vec<u8>> = Vec::new();
        let mut behind = None;
        let shard = (place.1 as usize) % engine.shards.len();
        for turn in 0.. {
            assert!(turn < 20, "a read never ends");
            let take = |batch: &[u8]| batches.push(batch.to_vec());
            let log = engine.log(place.1);
            match log.read((stream, partition), Offset(from), bytes_max, true, take) {
                Outcome::Data(bytes, next) => {
                    assert!(next.0 > from, "a read goes on");
                    behind = Some(next.0);
                    assert_eq!(bytes, batches.iter().map(Vec::len).sum::<usize>());
                    assert!(bytes <= bytes_max || batches.len() == 1);
                    break;
                }
                Outcome::End => break,
                Outcome::OutOfRange => {
                    assert!(from < row.start || from > row.next);
                    return None;
                }
                Outcome::Damaged => panic!("{place:?} is damaged at {from}"),
                Outcome::Pending => {
                    assert!(batches.is_empty());
                    let answered = engine.answer(shard, 0, |r| matches!(r, Request::Read(_)));
                    assert!(answered, "pending without a read under way");
                }
            }
        }
        assert!(from >= row.start && from <= row.next);
        let mut expected = row.records.range(from..row.visible_end.max(from));
        for batch in &batches {
            let header = BatchHeader::read(batch).expect("a batch");
            assert!(header.crc_holds(batch));
            let whole = for_each_record(batch, &mut Vec::new(), |view| {
                if view.offset.0 >= from {
                    let (offset, appended) = loop {
                        let next = expected.next().expect("nothing beyond the end");
                        if *next.0 == view.offset.0 || !self.may_be_gone(engine, place, *next.0) {
                            break next;
                        }
                    };
                    let found = Record {
                        key: view.key.map(<[u8]>::to_vec),
                        value: view.value.map(<[u8]>::to_vec),
                        timestamp_ms: view.timestamp_ms,
                    };
                    assert_eq!(*offset, view.offset.0, "{place:?} read from {from}");
                    assert!(found == appended.record, "{place:?} at {offset} is another record");
                    assert_eq!(view.headers().count(), 2);
                }
                true
            });
            whole.expect("records of a batch");
        }
        let mut passed = expected.take_while(|(offset, _)| behind.is_none_or(|end| **offset < end));
        let missing = passed.find(|(offset, _)| !self.may_be_gone(engine, place, **offset));
        assert_eq!(missing.map(|(offset, _)| offset), None, "{place:?} from {from}");
        behind
    }

    /// Reads everything, from the log start to the end.
    pub fn read_all(&self, engine: &mut Engine, bytes_max: usize) {
        for place in self.places() {
            let mut from = self.rows[&place].start;
            while let Some(next) = self.read(engine, place, from, bytes_max) {
                from = next;
            }
        }
    }

    /// Offsets worth reading from: any, with a bias to the ends.
    pub fn some_offset(&self, place: (usize, u32), pick: u64) -> u64 {
        let row = &self.rows[&place];
        match pick % 8 {
            0 => row.start,
            1 => row.visible_end,
            2 => row.start.saturating_sub(1),
            3 => row.visible_end + 1,
            // Where crashes make large gaps, from a record there is.
            _ => {
                let there = row.records.len() as u64;
                let nth = (pick / 8) % there.max(1);
                row.records.keys().nth(nth as usize).copied().unwrap_or(row.start)
            }
        }
    }

    pub fn find_time(&self, engine: &mut Engine, place: (usize, u32), timestamp_ms: i64) {
        let row = &self.rows[&place];
        let expected: Vec<_> = row
            .records
            .range(row.start..row.visible_end.max(row.start))
            .filter(|(_, appended)| appended.record.timestamp_ms >= timestamp_ms)
            .map(|(offset, appended)| (*offset, appended.record.timestamp_ms))
            .collect();
        let (stream, partition) = Engine::place(place.0, place.1);
        let shard = (place.1 as usize) % engine.shards.len();
        for turn in 0.. {
            assert!(turn < 20, "a lookup never ends");
            let found = match engine.log(place.1).find_time(stream, partition, timestamp_ms) {
                TimeLookup::Found(offset, timestamp) => Some((offset.0, timestamp)),
                TimeLookup::NotFound => None,
                TimeLookup::Damaged => panic!("{place:?} is damaged"),
                TimeLookup::Pending => {
                    let answered = engine.answer(shard, 0, |r| matches!(r, Request::Read(_)));
                    assert!(answered, "pending without a read under way");
                    continue;
                }
            };
            let gone = |offset| self.may_be_gone(engine, place, offset);
            let passed = expected.iter().take_while(|late| found != Some(**late));
            let passed: Vec<_> = passed.filter(|(offset, _)| !gone(*offset)).collect();
            assert!(passed.is_empty(), "{place:?} at time {timestamp_ms}: not {passed:?}");
            assert!(found.is_none_or(|found| expected.contains(&found)));
            break;
        }
    }

    /// Lets retention work and checks that it takes nothing that is young.
    pub fn expire(&mut self, engine: &mut Engine) {
        let age_ms = engine.age_ms;
        for shard in 0..engine.shards.len() {
            engine.shards[shard].log.expire(age_ms, &engine.needs);
        }
        let before: BTreeMap<_, _> = self.rows.iter().map(|(p, row)| (*p, row.start)).collect();
        self.observe(engine);
        for (place, row) in &self.rows {
            let retention = &engine.setup.streams[place.0];
            assert!(row.start >= before[place]);
            if retention.retention_bytes == u64::MAX {
                for (offset, appended) in row.records.range(before[place]..row.start) {
                    let age = age_ms - appended.age_ms;
                    assert!(age > retention.retention_ms, "{place:?} lost {offset}, {age} ms old");
                }
            }
        }
    }

    /// Has cleaned what is worth it.
    pub fn clean(&mut self, engine: &mut Engine) {
        let (wall_ms, age_ms) = (engine.wall_ms, engine.age_ms);
        for shard in 0..engine.shards.len() {
            engine.shards[shard].log.clean(wall_ms, age_ms, &engine.needs);
        }
    }

    /// Of each compacted partition the newest record of each key can be read.
    pub fn check_compacted(&self, engine: &mut Engine) {
        for place in self.places() {
            if let Some(retention_ms) = engine.setup.streams[place.0].compaction {
                let found = offsets_of(engine, place);
                let row = &self.rows[&place];
                let there = row.records.range(row.start..row.visible_end.max(row.start));
                check_newest(there, &found, engine.age_ms, retention_ms);
            }
        }
    }

    /// After a restart: what must be there is there, and what is there is what was appended.
    pub fn restarted(&mut self, engine: &mut Engine, end: End) {
        for place in self.places() {
            let durability = engine.setup.streams[place.0].durability;
            let (stream, partition) = Engine::place(place.0, place.1);
            let log: &mut Log = engine.log(place.1);
            let bounds = log.bounds(stream, partition).expect("owned");
            let (start, next) = (bounds.start.0, bounds.next.0);
            let row = self.rows.get_mut(&place).expect("known");
            assert!(next >= row.visible_end, "{place:?} may give {next} again");
            let found = offsets_of(engine, place);
            let row = self.rows.get_mut(&place).expect("known");
            if end == End::Clean {
                assert_eq!(next, row.next, "{place:?}: a clean stop wastes no offsets");
            }
            let first = found.first().copied().unwrap_or(next);
            let mut at = row.start.max(start);
            if let Some(retention_ms) = engine.setup.streams[place.0].compaction {
                // What a crash took are the last ones.
                let end = found.last().map_or(at, |last| last + 1).max(at);
                check_newest(row.records.range(at..end), &found, engine.age_ms, retention_ms);
                (at, _) = (end, assert!(first >= start));
            } else {
                assert_eq!(first, start, "{place:?}: the log start is the first that is there");
            }
            let mut lost_from = None;
            for (&offset, appended) in row.records.range(at..) {
                let there = found.binary_search(&offset).is_ok();
                let promised = end == End::Clean
                    || durability == Durability::Fsync
                    || (end == End::Killed && durability == Durability::Write);
                let durable = appended.ticket.is_none() || (appended.acknowledged && promised);
                assert!(there || (!durable && end != End::Clean), "{place:?} lost {offset}");
                assert!(lost_from.is_none() || !there, "{place:?}: a hole before {offset}");
                lost_from = lost_from.or((!there).then_some(offset));
            }
            for (&offset, appended) in row.records.range(row.start.min(start)..start) {
                let durable = appended.ticket.is_none() || durability == Durability::Fsync;
                assert!(!(durable && appended.acknowledged), "{place:?} lost {offset}");
            }
            row.records.retain(|offset, _| *offset < start || found.binary_search(offset).is_ok());
            for appended in row.records.values_mut() {
                appended.ticket = None;
                appended.acknowledged = true;
            }
            row.next = next;
            row.visible_end = bounds.committed.end().0;
            row.start = start;
        }
        self.read_all(engine, 1 << 20);
    }
}

impl Model {
    /// After harm to a file: what can be read is what was appended; how much is missing without
    /// the log saying that it is damaged.
    pub fn count_missing(&self, engine: &mut Engine) -> usize {
        let mut missing = 0;
        for place in self.places() {
            let row = &self.rows[&place];
            let mut found = BTreeMap::new();
            let damaged = read_through(engine, place, |batch| {
                let whole = for_each_record(batch, &mut Vec::new(), |view| {
                    let value = view.value.map(<[u8]>::to_vec);
                    assert!(found.insert(view.offset.0, value).is_none(), "once");
                    true
                });
                whole.expect("a whole batch");
            });
            for (offset, value) in &found {
                let appended = row.records.get(offset).expect("was appended");
                assert!(*value == appended.record.value, "{place:?} at {offset}");
            }
            if !damaged {
                let there = |offset: &&u64| found.contains_key(offset);
                missing += row.records.keys().filter(|offset| !there(offset)).count();
            }
        }
        missing
    }
}

/// Whether it is a tombstone whose time is over.
fn is_old_tombstone(appended: &Appended, age_ms: u64, retention_ms: u64) -> bool {
    let is_tombstone = appended.record.key.is_some() && appended.record.value.is_none();
    is_tombstone && age_ms - appended.age_ms > retention_ms
}

/// Of each key the newest record is there, or it was a tombstone whose time is over: then there is
/// nothing older either. What has no key is there.
fn check_newest<'a>(
    records: impl Iterator<Item = (&'a u64, &'a Appended)>,
    found: &[u64],
    age_ms: u64,
    retention_ms: u64,
) {
    let mut keys: BTreeMap<&[u8], Vec<(u64, &Appended)>> = BTreeMap::new();
    for (&offset, appended) in records {
        match &appended.record.key {
            Some(key) => keys.entry(key).or_default().push((offset, appended)),
            None => assert!(found.binary_search(&offset).is_ok(), "{offset} has no key"),
        }
    }
    for records in keys.values() {
        let (newest, appended) = *records.last().expect("has one");
        if found.binary_search(&newest).is_err() {
            assert!(is_old_tombstone(appended, age_ms, retention_ms), "lost the newest, {newest}");
            let back = records.iter().find(|(offset, _)| found.binary_search(offset).is_ok());
            assert!(back.is_none(), "{:?} came back", back.map(|(offset, _)| offset));
        }
    }
}

/// The offsets of all records of a partition.
fn offsets_of(engine: &mut Engine, place: (usize, u32)) -> Vec<u64> {
    let mut offsets = Vec::new();
    let damaged = read_through(engine, place, |batch| {
        let whole = for_each_record(batch, &mut Vec::new(), |view| {
            offsets.push(view.offset.0);
            true
        });
        whole.expect("a whole batch");
    });
    assert!(!damaged, "{place:?} is damaged");
    assert!(offsets.is_sorted_by(|a, b| a < b), "{place:?} in order, once");
    offsets
}

/// Hands over every batch of a partition, from its log start on. Whether one was damaged: then
/// it ends there.
fn read_through(engine: &mut Engine, place: (usize, u32), mut take: impl FnMut(&[u8])) -> bool {
    let (stream, partition) = Engine::place(place.0, place.1);
    let shard = (place.1 as usize) % engine.shards.len();
    let mut from = engine.log(place.1).bounds(stream, partition).expect("owned").start;
    loop {
        let mut next = from;
        let place = (stream, partition);
        let outcome = engine.shards[shard].log.read(place, from, 1 << 20, true, |batch| {
            next = BatchHeader::read(batch).expect("a batch").next_offset();
            take(batch);
        });
        match outcome {
            Outcome::Data(_, behind) => {
                assert_eq!(behind, next);
                from = next;
            }
            Outcome::End => return false,
            Outcome::Damaged => return true,
            Outcome::Pending => {
                assert!(engine.answer(shard, 0, |r| matches!(r, Request::Read(_))));
            }
            Outcome::OutOfRange => panic!("{place:?} at {from} is out of range"),
        }
    }
}
