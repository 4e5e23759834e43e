//! What compaction may take of a place, and what it must leave: the newest record of each key, at its
//! offset. A tombstone whose time is over may go, with everything that it deletes: what is older of
//! its key is never seen again. Comes in: what the ledger knows and what was found. In worlds with harm
//! the newest record may be what harm took; there a record may be gone that ever had a newer one.

use std::collections::{BTreeMap, BTreeSet};

use crate::ledger::{Found, Ledger, Log, Record};
use crate::records::key_of;
use crate::setup::Place;

impl Ledger {
    /// The key of a message's record, where only the newest of each is kept.
    pub fn compacted_key(&self, place: Place, number: usize) -> Option<&str> {
        let message = &self.messages[number];
        let by = self.setup.streams[place.stream].by;
        let key = key_of(by, &self.client_ids[message.device], &message.contents);
        key.filter(|_| self.setup.is_compacted(place.stream))
    }

    fn is_old_tombstone(&self, record: &Record) -> bool {
        let age_ms = self.age_ms.saturating_sub(record.age_ms);
        self.messages[record.number].payload.is_empty()
            && self.setup.compaction.is_some_and(|kept_ms| age_ms > kept_ms)
    }

    /// Whether a record may be gone, loosely: as far as a reader can tell who does not see all.
    pub fn may_be_compacted(
        &self,
        place: Place,
        log: &Log,
        (offset, record): (u64, &Record),
    ) -> bool {
        self.compacted_key(place, record.number).is_some_and(|key| {
            record.compacted
                || self.is_old_tombstone(record)
                || log.newest.get(key).is_some_and(|newest| *newest > offset)
        })
    }

    /// Which offsets of a place compaction took. What it had to leave is there, as far as crashes
    /// left anything.
    pub fn check_compacted(&self, place: Place, log: &Log, found: &Found) -> BTreeSet<u64> {
        if !self.setup.is_compacted(place.stream) {
            return BTreeSet::new();
        }
        let there: BTreeSet<u64> = found.records.iter().map(|(offset, _)| *offset).collect();
        if self.harmed {
            let records = log.records.iter();
            let gone = records.filter(|(offset, record)| {
                !there.contains(*offset) && self.may_be_compacted(place, log, (**offset, *record))
            });
            return gone.map(|(offset, _)| *offset).collect();
        }
        // What a crash took are the last ones, and the very last record is never compacted away.
        let end = there.last().map_or(0, |last| last + 1).max(found.start);
        let mut keys: BTreeMap<&str, Vec<(u64, &Record)>> = BTreeMap::new();
        for (&offset, record) in log.records.range(found.start..end) {
            if let Some(key) = self.compacted_key(place, record.number) {
                keys.entry(key).or_default().push((offset, record));
            }
        }
        let mut gone = BTreeSet::new();
        for (key, mut records) in keys {
            let newest = records.last().copied().filter(|(offset, _)| !there.contains(offset));
            if let Some((_, record)) = newest {
                let back = records.iter().find(|(offset, _)| there.contains(offset));
                let deleted = self.is_old_tombstone(record);
                assert!(!deleted || back.is_none(), "{place:?}: {key} is back, {back:?}");
                if !deleted {
                    // It had to stay.
                    records.pop();
                }
            }
            let offsets = records.into_iter().map(|(offset, _)| offset);
            gone.extend(offsets.filter(|offset| !there.contains(offset)));
        }
        gone
    }

    /// As [`Ledger::check_compacted`], of a process that runs.
    pub fn compacted(&self, place: Place, found: &Found) -> BTreeSet<u64> {
        let log = self.logs.get(&place);
        log.map_or_else(BTreeSet::new, |log| self.check_compacted(place, log, found))
    }
}
