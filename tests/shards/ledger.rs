//! What was sent, what came into the logs, what was acknowledged; and whether that is right.
//!
//! Every message carries its number (in its payload, or in its topic where the payload is too
//! short), so that each record is one transmission of one message, and a doubled one shows.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use tidegate::record::batch::{BatchHeader, RecordView, for_each_record};
use tidegate::record::{Durability, PartitionBy};

use crate::packets::Contents;
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
    commit: Option<(usize, usize)>,
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

#[derive(Debug, Default)]
struct Commit {
    /// In which file; a flush concerns one.
    segment: u64,
    written: bool,
    flushed: bool,
}

/// What stands at an offset.
#[derive(Debug, Clone, Copy)]
struct Record {
    number: usize,
    commit: Option<(usize, usize)>,
    /// Damage took it, and that was said.
    fenced: bool,
}

#[derive(Default)]
struct Log {
    next_offset: u64,
    records: BTreeMap<u64, Record>,
    /// The first offset that is kept, as its owner last said.
    start: u64,
    /// Readers may have seen what is below.
    shown: u64,
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
    setup: Setup,
    client_ids: Vec<String>,
    pub messages: Vec<Message>,
    logs: BTreeMap<Place, Log>,
    commits: Vec<Vec<Commit>>,
    scratch: Vec<u8>,
    pub acknowledged: usize,
    /// Records that were read and compared.
    pub checked: u64,
    /// Something durable may have been harmed: what is not readable must be fenced, and what was
    /// the end of a log when it was harmed cannot be told from a torn tail.
    pub harmed: bool,
}

impl Ledger {
    pub fn new(setup: &Setup, client_ids: Vec<String>) -> Self {
        Self {
            setup: setup.clone(),
            client_ids,
            messages: Vec::new(),
            logs: BTreeMap::new(),
            commits: (0..setup.shards).map(|_| Vec::new()).collect(),
            scratch: Vec::new(),
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
        segment: u64,
        batches: impl Iterator<Item = (Place, &'a [u8])>,
    ) {
        let commit = self.commits[shard].len();
        self.commits[shard].push(Commit { segment, ..Commit::default() });
        for (place, batch) in batches {
            assert_eq!(self.setup.owner(place), shard, "{place:?} is another shard's");
            self.visit(place, batch, |ledger, record| {
                let offset = record.offset.0;
                ledger.record(place, At { offset, commit: Some((shard, commit)) }, record);
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
        let message = &mut self.messages[number];
        let index = message.places.iter().position(|other| *other == place);
        let index = index.unwrap_or_else(|| panic!("message {number} in {place:?}"));
        let before = std::mem::replace(&mut message.at[index], Standing::Recorded(at));
        assert_eq!(before, Standing::Sent, "message {number} twice in {place:?}, now at {at:?}");
        let log = self.logs.entry(place).or_default();
        assert_eq!(log.next_offset, at.offset, "offsets of {place:?}");
        log.next_offset += 1;
        log.records.insert(at.offset, Record { number, commit: at.commit, fenced: false });
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
        self.commits[shard].last_mut().expect("a commit").written = true;
    }

    /// The last commit of a shard is flushed, and with it what its file held before.
    pub fn flushed(&mut self, shard: usize) {
        let segment = self.commits[shard].last().expect("a commit").segment;
        let of_file = self.commits[shard].iter_mut().rev();
        of_file.take_while(|commit| commit.segment == segment).for_each(|c| c.flushed = true);
    }

    /// Whether a commit outlives a loss.
    fn outlives(&self, commit: Option<(usize, usize)>, loss: Loss) -> bool {
        let Some((shard, commit)) = commit else { return true };
        let commit = &self.commits[shard][commit];
        commit.flushed || (commit.written && loss == Loss::Process)
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
    /// sealed; their CRC holds still.
    pub fn take_batch(&mut self, place: Place, batch: &[u8], into: &mut Vec<(u64, usize)>) {
        self.visit(place, batch, |_, record| {
            into.push((record.offset.0, number_of(record).unwrap_or(usize::MAX)));
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
            if record.fenced && !records.iter().any(|(there, _)| *there == offset) {
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
        self.commits = (0..setup.shards).map(|_| Vec::new()).collect();
        self.setup = setup.clone();
    }

    /// A start after a `loss` found this in a place; to be called before [`Ledger::begin`]. What had
    /// to outlive it is there, at its offset.
    pub fn restarted(&mut self, place: Place, found: &Found, loss: Loss) {
        let mut log = self.logs.remove(&place).unwrap_or_default();
        let harmed = self.harmed;
        let (start, next) = (found.start, found.next);
        // Where offsets are reserved nobody can tell those that were given from those that were not.
        let end = match self.setup.streams[place.stream].durability {
            Durability::Fsync => found.committed,
            Durability::Write | Durability::Memory => {
                let last = found.records.last().map(|(offset, _)| *offset);
                last.max(found.fenced.last().copied()).map_or(0, |last| last + 1)
            }
        };
        let again = "offsets would be given twice";
        assert!(next >= log.shown || harmed, "{place:?} goes on at {next}: {again}");
        let mut there = found.records.iter().copied().peekable();
        while there.next_if(|(offset, _)| *offset < start).is_some() {}
        for (offset, record) in std::mem::take(&mut log.records) {
            if there.next_if(|(found, _)| *found == offset).is_some_and(|(_, number)| {
                assert_eq!(number, record.number, "what stands in {place:?} at {offset}");
                true
            }) {
                log.records.insert(offset, Record { commit: None, fenced: false, ..record });
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
            let unknown = harmed && offset >= end;
            let lost = !self.outlives(record.commit, loss) || unknown;
            let number = record.number;
            assert!(
                lost,
                "message {number} is gone from {place:?} at {offset}, {record:?}, after {loss:?}: it \
                 began at {}, now {start}..{next}",
                log.start
            );
            self.stand(place, number, Standing::Lost);
            let key = (self.messages[number].device, self.messages[number].sequence);
            if log.seen.get(&key) == Some(&number) {
                log.seen.remove(&key);
            }
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
        self.commits.iter().map(Vec::len).sum()
    }

    /// The next offset of a place.
    pub fn end(&self, place: Place) -> u64 {
        self.logs.get(&place).map_or(0, |log| log.next_offset)
    }
}

/// The payload of message `number`: its number, then bytes that follow from it.
pub fn payload(number: usize, bytes: usize) -> Vec<u8> {
    const RUN: [u8; 251] = {
        let mut run = [0; 251];
        let mut at = 0;
        while at < run.len() {
            run[at] = at as u8;
            at += 1;
        }
        run
    };
    let mut out = Vec::with_capacity(bytes + RUN.len());
    out.extend_from_slice(&(number as u32).to_le_bytes());
    out.extend_from_slice(&RUN[number % RUN.len()..]);
    while out.len() < bytes {
        out.extend_from_slice(&RUN);
    }
    out.truncate(bytes);
    out
}

fn number_of(record: &RecordView<'_>) -> Option<usize> {
    let value = record.value?;
    if let Some(number) = value.first_chunk::<NUMBER_BYTES>() {
        return Some(u32::from_le_bytes(*number) as usize);
    }
    let (_, topic) = record.headers().find(|(name, _)| *name == b"mqtt.topic")?;
    std::str::from_utf8(topic).ok()?.rsplit_once('/')?.1.parse().ok()
}

fn check_contents(
    setup: &Setup,
    place: Place,
    message: &Message,
    client_id: &str,
    record: &RecordView<'_>,
) {
    let (contents, by) = (&message.contents, setup.streams[place.stream].by);
    let key = match by {
        PartitionBy::Client => Some(client_id),
        PartitionBy::Topic => Some(contents.topic.as_str()),
        PartitionBy::None => None,
    };
    assert_eq!(record.key, key.map(str::as_bytes), "key in {place:?} of {message:?}");
    let same = record.value == Some(&message.payload);
    assert!(same, "value in {place:?} of {:?}: {:?}", message.contents, record.value);
    let digit = |n: u8| if n == 0 { "0" } else { "1" };
    let mut headers = vec![
        ("mqtt.topic", contents.topic.as_str()),
        ("mqtt.qos", digit(contents.qos)),
        ("mqtt.retain", digit(u8::from(contents.retain))),
    ];
    headers.extend((by != PartitionBy::Client).then_some(("mqtt.client_id", client_id)));
    headers.extend(contents.content_type.as_deref().map(|text| ("mqtt.content_type", text)));
    headers.extend(contents.properties.iter().map(|(n, v)| (n.as_str(), v.as_str())));
    let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let shown = || (place, &message.contents, record.headers().collect::<Vec<_>>());
    assert!(record.headers().eq(headers), "headers of {:?}", shown());
}
