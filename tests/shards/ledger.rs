//! What was sent, what came into the logs, what was acknowledged; and whether that is right.
//!
//! Every message carries its number (in its payload, or in its topic where the payload is too
//! short), so that each record is one transmission of one message, and a doubled one shows.

use std::collections::HashMap;

use tidegate::record::batch::{BatchHeader, RecordView, for_each_record};
use tidegate::record::{Durability, PartitionBy};

use crate::packets::Contents;
use crate::setup::{Place, Setup};

/// Payloads from so many bytes on carry their message's number.
pub const NUMBER_BYTES: usize = 4;

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    shard: usize,
    commit: usize,
    offset: u64,
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
    at: Vec<Option<At>>,
    pub acknowledged: bool,
}

#[derive(Debug, Default)]
struct Commit {
    /// In which file; a flush concerns one.
    segment: u64,
    written: bool,
    flushed: bool,
}

#[derive(Default)]
struct Log {
    next_offset: u64,
    /// By device: the largest sequence so far, and those that were first seen.
    first: HashMap<usize, u32>,
    seen: HashMap<(usize, u32), usize>,
    /// By link: the last message.
    last: HashMap<usize, usize>,
    /// Acknowledged when they were only in memory: the offset below which they must show.
    promised: HashMap<usize, u64>,
}

pub struct Ledger {
    setup: Setup,
    client_ids: Vec<String>,
    pub messages: Vec<Message>,
    logs: HashMap<Place, Log>,
    commits: Vec<Vec<Commit>>,
    scratch: Vec<u8>,
    pub acknowledged: usize,
}

impl Ledger {
    pub fn new(setup: &Setup, client_ids: Vec<String>) -> Self {
        Self {
            setup: setup.clone(),
            client_ids,
            messages: Vec::new(),
            logs: HashMap::new(),
            commits: (0..setup.shards).map(|_| Vec::new()).collect(),
            scratch: Vec::new(),
            acknowledged: 0,
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
        let at = vec![None; places.len()];
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
        let mut scratch = std::mem::take(&mut self.scratch);
        for (place, batch) in batches {
            assert_eq!(self.setup.owner(place), shard, "{place:?} is another shard's");
            let header = BatchHeader::read(batch).expect("a batch");
            assert!(header.crc_holds(batch), "a batch of {place:?} is damaged");
            let whole = for_each_record(batch, &mut scratch, |record| {
                let at = At { shard, commit, offset: record.offset.0 };
                self.record(place, at, &record);
                true
            });
            whole.expect("a whole batch");
        }
        self.scratch = scratch;
    }

    fn record(&mut self, place: Place, at: At, record: &RecordView<'_>) {
        let number = number_of(record).unwrap_or(usize::MAX);
        let Some(message) = self.messages.get_mut(number) else {
            panic!("nobody sent what stands in {place:?} at {at:?}: {record:?}");
        };
        let client_id = &self.client_ids[message.device];
        check_contents(&self.setup, place, message, client_id, record);
        let index = message.places.iter().position(|other| *other == place);
        let index = index.unwrap_or_else(|| panic!("message {number} in {place:?}"));
        assert_eq!(message.at[index], None, "message {number} twice in {place:?}, now at {at:?}");
        message.at[index] = Some(at);
        let log = self.logs.entry(place).or_default();
        assert_eq!(log.next_offset, at.offset, "offsets of {place:?}");
        log.next_offset += 1;
        if let Some(end) = log.promised.remove(&number) {
            assert!(at.offset < end, "message {number} was acknowledged before it arrived");
        }
        let last = log.last.insert(message.link, number);
        assert!(last < Some(number), "{number} behind {last:?} of its link in {place:?}");
        let (device, sequence) = (message.device, message.sequence);
        if log.seen.insert((device, sequence), number).is_none() {
            let before = log.first.insert(device, sequence);
            assert!(
                before < Some(sequence),
                "message {number} comes first in {place:?} as {sequence} behind {before:?}"
            );
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

    /// A device is told that a message is safe. `end_of` says what offset a place gives next.
    pub fn acknowledge(&mut self, number: usize, end_of: impl Fn(Place) -> u64) {
        let message = &mut self.messages[number];
        assert!(!message.acknowledged, "message {number} is acknowledged twice");
        message.acknowledged = true;
        self.acknowledged += 1;
        for (&place, at) in message.places.iter().zip(&message.at) {
            let durability = self.setup.streams[place.stream].durability;
            let commit = at.map(|at| &self.commits[at.shard][at.commit]);
            let kept = match durability {
                Durability::Fsync => commit.is_some_and(|commit| commit.flushed),
                Durability::Write => commit.is_some_and(|commit| commit.written),
                Durability::Memory => {
                    if at.is_none() {
                        let log = self.logs.entry(place).or_default();
                        log.promised.insert(number, end_of(place));
                    }
                    true
                }
            };
            assert!(
                kept,
                "message {number} is acknowledged, {place:?} has it at {at:?}: {commit:?}"
            );
        }
    }

    /// In how many of its places a message stands.
    pub fn recorded(&self, number: usize) -> usize {
        self.messages[number].at.iter().flatten().count()
    }

    /// Everything that was acknowledged is there, but for what was promised to be in memory of those
    /// of `lost`.
    pub fn check_acknowledged(&self, lost: &[usize]) {
        let acknowledged = self.messages.iter().enumerate().filter(|(_, m)| m.acknowledged);
        for (number, message) in acknowledged {
            for (&place, at) in message.places.iter().zip(&message.at) {
                let in_memory = self.setup.streams[place.stream].durability == Durability::Memory;
                let excused = in_memory && lost.contains(&self.setup.owner(place));
                assert!(at.is_some() || excused, "message {number}, acknowledged, in {place:?}");
            }
        }
    }

    /// Commits sealed so far.
    pub fn commits(&self) -> usize {
        self.commits.iter().map(Vec::len).sum()
    }

    /// Records of a place so far.
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
