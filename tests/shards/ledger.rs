//! What was sent, what came into the logs, what was acknowledged; and whether that is right.
//!
//! Every message carries its number (in its payload, or in its topic where the payload is too
//! short), so that each record is one transmission of one message, and a doubled one shows.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use tidegate::record::Durability;
use tidegate::record::batch::{BatchHeader, RecordView, for_each_record};

use crate::commits::{Commits, Number, Sealed};
use crate::disk::Disk;
use crate::packets::Contents;
use crate::records::{check_contents, number_of};
use crate::setup::{Place, Setup};

/// Payloads from so many bytes on carry their message's number.
pub const NUMBER_BYTES: usize = 4;

/// How a process ended, by what is gone after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// What was in memory.
    Process,
    /// And what was not flushed.
    Power,
}

/// A record that was sealed: where, and with which commit of this start; with none when an earlier
/// start has left it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    offset: u64,
    commit: Option<Number>,
}

/// What became of a transmission in one of its places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Sent,
    Recorded(At),
    /// A crash took it, and might.
    Lost,
}

/// One transmission of a message.
#[derive(Debug)]
pub struct Message {
    pub device: usize,
    /// Counts the messages of a device; the same when it is sent again.
    pub sequence: u32,
    pub link: usize,
    pub contents: Contents,
    pub payload: Vec<u8>,
    pub places: Vec<Place>,
    at: Vec<Standing>,
    pub acknowledged: bool,
}

/// What stands at an offset.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    pub number: usize,
    commit: Option<Number>,
    /// Age clock when it was sealed.
    pub age_ms: u64,
    /// Damage took it, and that was said.
    fenced: bool,
    /// Compaction took it, in a world with harm; in others nothing is known of it any more.
    pub compacted: bool,
}

#[derive(Default)]
pub struct Log {
    next_offset: u64,
    pub records: BTreeMap<u64, Record>,
    /// The first offset that is kept, as its owner last said.
    start: u64,
    /// Readers may have seen what is below.
    shown: u64,
    /// Of a compacted place: the last offset that each key was given.
    pub newest: HashMap<String, u64>,
    /// By device and sequence: the message that came first.
    seen: BTreeMap<(usize, u32), usize>,
    /// By link: the last message.
    last: HashMap<usize, usize>,
    /// Acknowledged when they were only in memory: the offset below which they must show.
    promised: BTreeMap<usize, u64>,
}

/// What was found in a place after a start.
#[derive(Debug, Default)]
pub struct Found {
    pub start: u64,
    /// Readers are shown what is below.
    pub committed: u64,
    pub next: u64,
    /// Offsets and messages.
    pub records: Vec<(u64, usize)>,
    /// Offsets that readers are told to be damaged.
    pub fenced: Vec<u64>,
}

pub struct Ledger {
    pub setup: Setup,
    pub client_ids: Vec<String>,
    pub messages: Vec<Message>,
    pub logs: BTreeMap<Place, Log>,
    commits: Commits,
    scratch: Vec<u8>,
    /// The age clock.
    pub age_ms: u64,
    pub acknowledged: usize,
    /// Records that were read and compared.
    pub checked: u64,
    /// Something durable may have been harmed: what is not readable must be fenced, but for what
    /// [`Ledger::may_be_lost`] allows.
    pub harmed: bool,
}

impl Ledger {
    pub fn new(setup: &Setup, client_ids: Vec<String>) -> Self {
        Self {
            setup: setup.clone(),
            client_ids,
            messages: Vec::new(),
            logs: BTreeMap::new(),
            commits: Commits::new(setup.shards),
            scratch: Vec::new(),
            age_ms: 0,
            acknowledged: 0,
            checked: 0,
            harmed: false,
        }
    }

    /// The number that the next message has.
    pub fn next_number(&self) -> usize {
        self.messages.len()
    }

    /// A message leaves its device. Returns its number.
    pub fn send(
        &mut self,
        (device, sequence, link): (usize, u32, usize),
        contents: Contents,
        payload: Vec<u8>,
    ) -> usize {
        let places = self.setup.places(&self.client_ids[device], &contents.topic);
        let at = vec![Standing::Sent; places.len()];
        self.messages.push(Message {
            device,
            sequence,
            link,
            contents,
            payload,
            places,
            at,
            acknowledged: false,
        });
        self.messages.len() - 1
    }

    /// A commit of a shard is sealed, with these batches.
    pub fn sealed<'a>(
        &mut self,
        shard: usize,
        sealed: Sealed,
        batches: impl Iterator<Item = (Place, &'a [u8])>,
    ) {
        let commit = Some(self.commits.sealed(shard, sealed));
        for (place, batch) in batches {
            assert_eq!(self.setup.owner(place), shard, "{place:?} is another shard's");
            self.visit(place, batch, |ledger, record| {
                let offset = record.offset.0;
                ledger.record(place, At { offset, commit }, record);
            });
        }
    }

    fn visit(
        &mut self,
        place: Place,
        batch: &[u8],
        mut each: impl FnMut(&mut Self, &RecordView<'_>),
    ) {
        let header = BatchHeader::read(batch).expect("a batch");
        assert!(header.crc_holds(batch), "a batch of {place:?} is damaged");
        let mut scratch = std::mem::take(&mut self.scratch);
        let whole = for_each_record(batch, &mut scratch, |record| {
            each(self, &record);
            true
        });
        whole.expect("a whole batch");
        self.scratch = scratch;
    }

    /// The message that a record is of; its contents are the message's.
    fn check_record(&self, place: Place, record: &RecordView<'_>) -> usize {
        let number = number_of(record).unwrap_or(usize::MAX);
        let Some(message) = self.messages.get(number) else {
            panic!("nobody sent what stands in {place:?}: {record:?}");
        };
        let client_id = &self.client_ids[message.device];
        check_contents(&self.setup, place, message, client_id, record);
        number
    }

    fn record(&mut self, place: Place, at: At, record: &RecordView<'_>) {
        let number = self.check_record(place, record);
        let key = self.compacted_key(place, number).map(str::to_owned);
        let message = &mut self.messages[number];
        let index = message.places.iter().position(|other| *other == place);
        let index = index.unwrap_or_else(|| panic!("message {number} in {place:?}"));
        let before = std::mem::replace(&mut message.at[index], Standing::Recorded(at));
        assert_eq!(before, Standing::Sent, "message {number} twice in {place:?}, now at {at:?}");
        let log = self.logs.entry(place).or_default();
        assert_eq!(log.next_offset, at.offset, "offsets of {place:?}");
        log.next_offset += 1;
        let (commit, age_ms) = (at.commit, self.age_ms);
        let new = Record { number, commit, age_ms, fenced: false, compacted: false };
        log.records.insert(at.offset, new);
        if let Some(key) = key {
            log.newest.insert(key, at.offset);
        }
        if let Some(end) = log.promised.remove(&number) {
            assert!(at.offset < end, "message {number} was acknowledged before it arrived");
        }
        let last = log.last.insert(message.link, number);
        assert!(last < Some(number), "{number} behind {last:?} of its link in {place:?}");
        let (device, sequence) = (message.device, message.sequence);
        let before = log.seen.range((device, 0)..=(device, u32::MAX)).next_back();
        let before = before.map(|((_, sequence), _)| *sequence);
        if let Entry::Vacant(first) = log.seen.entry((device, sequence)) {
            assert!(
                before < Some(sequence),
                "message {number} of link {} comes first in {place:?} as {sequence} behind {before:?}",
                message.link
            );
            first.insert(number);
        }
    }

    /// The last commit of a shard is on the device.
    pub fn written(&mut self, shard: usize) {
        self.commits.written(shard);
    }

    /// The last commit of a shard is flushed.
    pub fn flushed(&mut self, shard: usize) {
        self.commits.flushed(shard);
    }

    /// The process has ended, and left this.
    pub fn crashed(&mut self, disk: &Disk) {
        self.commits.look_at(disk);
    }

    /// Whether a commit outlives a loss.
    fn outlives(&self, commit: Option<Number>, loss: Loss) -> bool {
        commit.is_none_or(|commit| self.commits.outlives(commit, loss))
    }

    /// A device is told that a message is safe. `end_of` says what offset a place gives next.
    pub fn acknowledge(&mut self, number: usize, end_of: impl Fn(Place) -> u64) {
        let message = &mut self.messages[number];
        assert!(!message.acknowledged, "message {number} is acknowledged twice");
        message.acknowledged = true;
        self.acknowledged += 1;
        let message = &self.messages[number];
        let mut promised = Vec::new();
        for (&place, standing) in message.places.iter().zip(&message.at) {
            let loss = match self.setup.streams[place.stream].durability {
                Durability::Fsync => Loss::Power,
                Durability::Write => Loss::Process,
                Durability::Memory => {
                    if *standing == Standing::Sent {
                        promised.push((place, end_of(place)));
                    }
                    continue;
                }
            };
            let kept = match standing {
                Standing::Recorded(at) => self.outlives(at.commit, loss),
                Standing::Sent | Standing::Lost => false,
            };
            assert!(kept, "message {number} is acknowledged, {place:?} has it {standing:?}");
        }
        for (place, end) in promised {
            self.logs.entry(place).or_default().promised.insert(number, end);
        }
    }

    /// What a log offers to readers now.
    pub fn shows(&mut self, place: Place, start: u64, committed: u64) {
        let log = self.logs.entry(place).or_default();
        assert!(start >= log.start, "the log start of {place:?} goes back to {start}");
        assert!(start == log.start || self.setup.retention.is_some(), "{place:?} loses its front");
        log.start = start;
        log.shown = log.shown.max(committed);
    }

    /// Reads the numbers out of batches that a log gave. Their contents were compared when they were
    /// sealed; their CRC holds still. What compaction made of them is compared again.
    pub fn take_batch(&mut self, place: Place, batch: &[u8], into: &mut Vec<(u64, usize)>) {
        let again = self.setup.is_compacted(place.stream);
        self.visit(place, batch, |ledger, record| {
            let number = match again {
                true => ledger.check_record(place, record),
                false => number_of(record).unwrap_or(usize::MAX),
            };
            into.push((record.offset.0, number));
        });
        self.checked += BatchHeader::read(batch).map_or(0, |header| u64::from(header.record_count));
    }

    /// What a reader was given from offset `from` on: exactly what stands there.
    pub fn check_read(&self, place: Place, from: u64, end: u64, records: &[(u64, usize)]) {
        let empty = Log::default();
        let log = self.logs.get(&place).unwrap_or(&empty);
        let behind = records.iter().filter(|(offset, _)| *offset >= log.shown);
        assert_eq!(behind.count(), 0, "{place:?} shows what is not committed: {records:?}");
        let mut read = records.iter().copied().filter(|(offset, _)| *offset >= from);
        for (&offset, record) in log.records.range(from..end.max(from)) {
            let may_miss = record.fenced || self.may_be_compacted(place, log, (offset, record));
            if may_miss && !records.iter().any(|(there, _)| *there == offset) {
                continue;
            }
            let there = read.next();
            assert_eq!(there, Some((offset, record.number)), "read in {place:?} from {from}");
        }
        assert_eq!(read.next(), None, "read in {place:?} from {from} to {end}");
    }

    /// Offsets at which a place has something, within bounds.
    pub fn offsets(&self, place: Place, from: u64, end: u64) -> Vec<u64> {
        let records = self.logs.get(&place).map(|log| log.records.range(from..end.max(from)));
        records.into_iter().flatten().map(|(offset, _)| *offset).collect()
    }

    /// Shards begin anew, which may be another number of them.
    pub fn begin(&mut self, setup: &Setup) {
        self.commits = Commits::new(setup.shards);
        self.setup = setup.clone();
    }

    /// A start after a `loss` found this in a place; to be called before [`Ledger::begin`]. What had
    /// to outlive it is there, at its offset.
    pub fn restarted(&mut self, place: Place, found: &Found, loss: Loss) {
        let mut log = self.logs.remove(&place).unwrap_or_default();
        let harmed = self.harmed;
        let (start, next) = (found.start, found.next);
        let last = found.records.last().map(|(offset, _)| *offset);
        let last_end = last.max(found.fenced.last().copied()).map_or(0, |last| last + 1);
        // Where offsets are reserved nobody can tell those that were given from those that were not.
        let end = match self.setup.streams[place.stream].durability {
            Durability::Fsync => found.committed,
            Durability::Write | Durability::Memory => last_end,
        };
        let compacted = self.check_compacted(place, &log, found);
        let again = "offsets would be given twice";
        assert!(next >= log.shown || harmed, "{place:?} goes on at {next}: {again}");
        let mut there = found.records.iter().copied().peekable();
        while there.next_if(|(offset, _)| *offset < start).is_some() {}
        for (offset, record) in std::mem::take(&mut log.records) {
            if there.next_if(|(found, _)| *found == offset).is_some_and(|(_, number)| {
                assert_eq!(number, record.number, "what stands in {place:?} at {offset}");
                true
            }) {
                let there = Record { commit: None, fenced: false, compacted: false, ..record };
                log.records.insert(offset, there);
                self.stand(place, record.number, Standing::Recorded(At { offset, commit: None }));
                continue;
            }
            // Retention had let go of it.
            if offset < start && offset < log.start {
                continue;
            }
            let fenced = found.fenced.contains(&offset);
            if fenced {
                assert!(harmed, "{place:?} is fenced at {offset}");
                log.records.insert(offset, Record { commit: None, fenced: true, ..record });
                continue;
            }
            // A lost end is just that, whatever compaction might have done to it.
            let may_be_lost = self.may_be_lost(&record, offset >= end, loss);
            if compacted.contains(&offset) && (offset < last_end || !may_be_lost) {
                if harmed {
                    log.records.insert(offset, Record { commit: None, compacted: true, ..record });
                }
                let at = At { offset, commit: None };
                self.stand(place, record.number, Standing::Recorded(at));
                continue;
            }
            assert!(
                may_be_lost,
                "{record:?} is gone from {place:?} at {offset} after {loss:?}: it began at {}, now \
                 {start}..{next}{}",
                log.start,
                record.commit.map_or_else(String::new, |commit| self.commits.describe(commit))
            );
            self.lose(place, &mut log, record.number);
        }
        assert_eq!(there.next(), None, "{place:?} has what nobody knows of");
        for number in std::mem::take(&mut log.promised).into_keys() {
            self.stand(place, number, Standing::Lost);
        }
        log.last.clear();
        log.next_offset = next;
        log.start = start;
        if harmed {
            log.shown = log.shown.min(next);
        }
        log.shown = log.shown.max(found.committed);
        self.logs.insert(place, log);
    }

    /// Whether a record that nobody finds may be gone. Where harm is done that may also have been the
    /// end of a log, which cannot be told from a torn tail; but only if nothing behind it is left that
    /// shows that it was durable.
    fn may_be_lost(&self, record: &Record, at_end: bool, loss: Loss) -> bool {
        let proven = record.commit.is_none_or(|commit| self.commits.is_proven(commit));
        !self.outlives(record.commit, loss) || (self.harmed && at_end && !proven)
    }

    fn lose(&mut self, place: Place, log: &mut Log, number: usize) {
        self.stand(place, number, Standing::Lost);
        let key = (self.messages[number].device, self.messages[number].sequence);
        if log.seen.get(&key) == Some(&number) {
            log.seen.remove(&key);
        }
    }

    fn stand(&mut self, place: Place, number: usize, standing: Standing) {
        let message = &mut self.messages[number];
        let index = message.places.iter().position(|other| *other == place).expect("its place");
        message.at[index] = standing;
    }

    /// In how many of its places a message stands.
    pub fn recorded(&self, number: usize) -> usize {
        let at = self.messages[number].at.iter();
        at.filter(|standing| matches!(standing, Standing::Recorded(_))).count()
    }

    /// Everything that was acknowledged is there, but for what was promised to be in memory of those
    /// of `lost`, and what crashes took.
    pub fn check_acknowledged(&self, lost: &[usize]) {
        let acknowledged = self.messages.iter().enumerate().filter(|(_, m)| m.acknowledged);
        for (number, message) in acknowledged {
            for (&place, standing) in message.places.iter().zip(&message.at) {
                let in_memory = self.setup.streams[place.stream].durability == Durability::Memory;
                let excused = in_memory && lost.contains(&self.setup.owner(place));
                let there = *standing != Standing::Sent;
                assert!(there || excused, "message {number}, acknowledged, in {place:?}");
            }
        }
    }

    /// Commits sealed since the start.
    pub fn commits(&self) -> usize {
        self.commits.count()
    }

    /// The next offset of a place.
    pub fn end(&self, place: Place) -> u64 {
        self.logs.get(&place).map_or(0, |log| log.next_offset)
    }
}
