//! Which records of a compacted partition are superseded.
//!
//! In: all runs of a partition, by offset. Out: one bit a record, and which runs are worth writing
//! again. The newest record of each key stays, with its offset; records without a key stay; a
//! tombstone that is the newest of its key goes when it is old enough, and never before what it
//! deletes. The last record of all stays whatever it is, so that consumers see where the partition
//! ends. Memory: `keys_max` keys at a time, known by 128 bits of two keyed hashes (as Kafka's cleaner
//! knows them by a digest); where a partition has more new keys than that, it is gone through again
//! for the next ones.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::source::{Place, Source};
use super::{Compaction, Error, FileKey, Job, Part, Run};
use crate::record::Offset;
use crate::record::batch::{RecordView, Rest, Retainer, for_each_record};

/// The newest offset of each key, as far as they fit.
struct Newest {
    keys_max: usize,
    hashers: [RandomState; 2],
    offsets: HashMap<[u64; 2], u64>,
}

impl Newest {
    fn new(keys_max: usize) -> Self {
        let hashers = [RandomState::new(), RandomState::new()];
        Self { keys_max: keys_max.max(1), hashers, offsets: HashMap::new() }
    }

    fn id(&self, key: &[u8]) -> [u64; 2] {
        self.hashers.each_ref().map(|hasher| hasher.hash_one(key))
    }

    /// Notes a record that is newer than those before; whether there was room.
    fn insert(&mut self, key: &[u8], offset: Offset) -> bool {
        let id = self.id(key);
        let room = self.offsets.len() < self.keys_max;
        match self.offsets.get_mut(&id) {
            Some(newest) => *newest = offset.0,
            None if room => drop(self.offsets.insert(id, offset.0)),
            None => return false,
        }
        true
    }

    fn supersedes(&self, key: &[u8], offset: Offset) -> bool {
        self.offsets.get(&self.id(key)).is_some_and(|newest| *newest > offset.0)
    }
}

/// The records of a run, by number among all of the partition.
#[derive(Debug, Clone, Copy, Default)]
struct Numbers {
    first: u64,
    count: u64,
    dead: u64,
}

/// The records that are superseded.
pub struct Dead {
    /// One bit a record, by its number.
    bits: Vec<u64>,
    /// By run.
    runs: Vec<Numbers>,
    records: u64,
    keys: u64,
    tombstones_ms: Option<u64>,
}

impl Dead {
    /// Looks through a partition. `at_run` is the run that is being read.
    pub fn find(
        source: &mut Source<'_>,
        job: &Job,
        compaction: Compaction,
        at_run: &mut Option<Run>,
    ) -> Result<Self, Error> {
        let mut reader = Reader { source, job, at_run, scratch: Vec::new() };
        let mut dead = Self::of(reader.numbers()?);
        let mut newest = Newest::new(compaction.keys_max);
        let mut from = compaction.dirty_from;
        loop {
            newest.offsets.clear();
            let mut full_at = None;
            reader.for_each(from, |_, _, record| {
                let passed = mutated!(TombstonesGoneAlone) && record.value.is_none();
                let key = record.key.filter(|_| !passed);
                let taken = key.is_none_or(|key| newest.insert(key, record.offset));
                full_at = (!taken).then_some(record.offset);
                taken
            })?;
            dead.keys += newest.offsets.len() as u64;
            dead.tombstones_ms = None;
            reader.for_each(Offset(0), |run, at, record| {
                let within = full_at.is_none_or(|end| record.offset < end);
                if within {
                    dead.judge(job, compaction, &newest, (run, at), record);
                }
                within
            })?;
            match full_at {
                Some(offset) => from = offset,
                None => return Ok(dead),
            }
        }
    }

    /// With no record dead, of runs with so many records.
    fn of(counts: Vec<u64>) -> Self {
        let mut records = 0;
        let number = |count| {
            let first = records;
            records += count;
            Numbers { first, count, dead: 0 }
        };
        let runs = counts.into_iter().map(number).collect();
        let bits = vec![0; records.div_ceil(64) as usize];
        Self { bits, runs, records, keys: 0, tombstones_ms: None }
    }

    /// Whether a record goes: that of number `at` in its run.
    fn judge(
        &mut self,
        job: &Job,
        compaction: Compaction,
        newest: &Newest,
        (run, at): (usize, u64),
        record: &RecordView<'_>,
    ) {
        let Some(key) = record.key else { return };
        let number = self.runs[run].first + at;
        if self.is_dead(number) || number + 1 == self.records {
            return;
        }
        let born_ms = job.runs[run].1.age_ms;
        let tombstone = record.value.is_none();
        let old = job.age_ms.saturating_sub(born_ms) > compaction.tombstone_retention_ms
            || mutated!(TombstonesGoneEarly);
        if newest.supersedes(key, record.offset) || (tombstone && old) {
            self.bits[(number / 64) as usize] |= 1 << (number % 64);
            self.runs[run].dead += 1;
        } else if tombstone {
            self.tombstones_ms = Some(self.tombstones_ms.map_or(born_ms, |ms| ms.min(born_ms)));
        }
    }

    fn is_dead(&self, number: u64) -> bool {
        self.bits.get((number / 64) as usize).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// The number of a run's first record.
    pub fn first(&self, run: usize) -> u64 {
        self.runs[run].first
    }

    /// How many records of a run are dead.
    pub fn count(&self, run: usize) -> u64 {
        self.runs[run].dead
    }

    /// Keys that were looked at.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Age clock of the oldest tombstones that stay and are not the last record.
    pub fn tombstones_ms(&self) -> Option<u64> {
        self.tombstones_ms
    }

    /// What is left of a batch whose first record has the number `first`; `None` when the batch is
    /// malformed.
    pub fn rest<'r>(
        &self,
        retainer: &'r mut Retainer,
        batch: &[u8],
        first: u64,
    ) -> Option<Rest<'r>> {
        let mut number = first;
        retainer.retain(batch, |_| {
            number += 1;
            !self.is_dead(number - 1)
        })
    }
}

/// Goes through the records of a partition.
struct Reader<'r, 'a> {
    source: &'r mut Source<'a>,
    job: &'r Job,
    at_run: &'r mut Option<Run>,
    scratch: Vec<u8>,
}

impl Reader<'_, '_> {
    /// How many records each run holds.
    fn numbers(&mut self) -> Result<Vec<u64>, Error> {
        let mut counts = Vec::new();
        for run in &self.job.runs {
            *self.at_run = Some(*run);
            counts.push(self.source.places(run, (0, 0), 0, &mut Vec::new())?);
        }
        Ok(counts)
    }

    /// Visits the records from `from` on until `visit` returns false: the run, the record's number
    /// in it, the record.
    fn for_each(
        &mut self,
        from: Offset,
        mut visit: impl FnMut(usize, u64, &RecordView<'_>) -> bool,
    ) -> Result<(), Error> {
        for (number, run) in self.job.runs.iter().enumerate() {
            if run.1.next <= from {
                continue;
            }
            *self.at_run = Some(*run);
            let mut places = Vec::new();
            self.source.places(run, (0, 0), 0, &mut places)?;
            let passed = places.partition_point(|place| place.entry.next() <= from);
            for at in passed..places.len() {
                let Place { key, entry, ordinal, .. } = places[at];
                let batch = self.source.batch(&places, at)?;
                let (mut in_run, mut goes_on) = (ordinal, true);
                let whole = for_each_record(batch, &mut self.scratch, |record| {
                    goes_on = record.offset < from || visit(number, in_run, &record);
                    in_run += 1;
                    goes_on
                });
                if whole.is_none() {
                    let file = FileKey::Segment(key);
                    return Err(Error::Harmed { file, at: u64::from(entry.position) });
                }
                if !goes_on {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// What is written again: runs of which something goes. Neighbours become one where that costs no
/// tombstone its age, so that what is left of many segments does not stay many runs; so do those of
/// which nothing was left before.
pub fn parts(job: &Job, dead: &Dead, compaction: Compaction) -> Vec<Part> {
    let old = |age_ms| job.age_ms.saturating_sub(age_ms) > compaction.tombstone_retention_ms;
    let mut parts: Vec<(Part, u64)> = Vec::new();
    for (number, &run) in job.runs.iter().enumerate() {
        let numbers = dead.runs[number];
        if numbers.dead == 0 && numbers.count > 0 {
            continue;
        }
        let (part, left) = (Part::of(number, run), numbers.count - numbers.dead);
        let Some((before, before_left)) = parts.last_mut() else {
            parts.push((part, left));
            continue;
        };
        let (ages, empty) = ([before.range.age_ms, part.range.age_ms], left == 0);
        let follows = before.range.to == part.range.from
            && before.runs.last().is_some_and(|(last, _)| last + 1 == number);
        let ageless = empty || *before_left == 0 || ages.into_iter().all(old);
        if follows && ageless && before.bytes() + part.bytes() <= job.segment_bytes {
            before.range.to = part.range.to;
            before.range.age_ms = match (*before_left == 0, empty) {
                (true, false) => ages[1],
                (false, true) => ages[0],
                _ => ages[0].max(ages[1]),
            };
            before.runs.extend(part.runs);
            *before_left += left;
        } else {
            parts.push((part, left));
        }
    }
    // Runs of which nothing was left alone need not be written again.
    let changes = |part: &Part| part.runs.iter().any(|(number, _)| dead.runs[*number].dead > 0);
    parts.into_iter().map(|(part, _)| part).filter(changes).collect()
}
