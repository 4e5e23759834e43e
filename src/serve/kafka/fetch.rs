//! Fetch: whole stored batches from each partition asked for, or a wait for the first of them.
//!
//! Comes in: the request, the log behind [`Store`], the time. Goes out: the response, written field
//! by field so that `Store::read` copies records to their final place; or what the request waits
//! for. Each look begins from scratch: nothing is held between looks but the request. Deliberately
//! absent: fetch sessions (every answer has session id 0, so clients send whole requests).

use bytes::BufMut;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};

use crate::record::{Offset, PartitionId, StreamId};

use super::connection::Wait;
use super::wire::{Blob, Frame, put_count, put_no_tags, put_text, put_varint};
use super::{Bounds, Cluster, Limits, Read, Store};

/// The first version whose lengths are compact.
const FLEXIBLE: i16 = 12;
/// The first version that names topics by id.
const TOPIC_IDS: i16 = 13;
/// The first version that tells where the leader is (KIP-951).
const LEADER_HINTS: i16 = 16;

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Fetch {
    version: i16,
    correlation_id: i32,
    /// When the client wants an answer whatever there is.
    deadline_ns: u64,
    bytes_min: usize,
    bytes_max: usize,
    /// There are no transactions to report, but who asks for them gets an empty list, not null.
    read_committed: bool,
    unknown_session: bool,
    topics: Vec<FetchTopic>,
    /// The row of each topic in the cluster's streams.
    rows: Vec<Result<usize, ResponseError>>,
    wants: Vec<(StreamId, PartitionId)>,
    /// When what was found stops waiting for other partitions' disk reads; set by the first look
    /// that met one.
    disk_deadline_ns: Option<u64>,
}

/// What one look at the partitions found.
#[derive(Debug, Default)]
struct Tally {
    /// Bytes of records appended.
    found: usize,
    /// Bytes of `bytes_max` spoken for: found, or expected from the disk.
    planned: usize,
    /// A read waits for the disk.
    pending: bool,
    /// Records are left that did not fit.
    more: bool,
    /// A partition has an error that the client should see now.
    error: bool,
    /// A partition is led by another node, or the client's idea of the leader is old.
    moved: bool,
}

impl Fetch {
    pub(super) fn new<S: Store>(
        request: FetchRequest,
        version: i16,
        correlation_id: i32,
        limits: &Limits,
        store: &S,
        now_ns: u64,
    ) -> Self {
        let wait_ns = u64::try_from(request.max_wait_ms).unwrap_or(0).saturating_mul(1_000_000);
        let bytes = |wire: i32| usize::try_from(wire).unwrap_or(0);
        let bytes_max = bytes(request.max_bytes).min(limits.fetch_bytes_max);
        let cluster = store.cluster();
        let row = |topic: &FetchTopic| {
            if version >= TOPIC_IDS {
                cluster.by_uuid(topic.topic_id).ok_or(ResponseError::UnknownTopicId)
            } else {
                cluster.by_name(&topic.topic).ok_or(ResponseError::UnknownTopicOrPartition)
            }
        };
        Self {
            version,
            correlation_id,
            deadline_ns: now_ns.saturating_add(wait_ns.min(limits.fetch_wait_max_ns)),
            bytes_min: bytes(request.min_bytes).min(bytes_max),
            bytes_max,
            read_committed: request.isolation_level == 1,
            unknown_session: request.session_id != 0 || request.session_epoch > 0,
            rows: request.topics.iter().map(row).collect(),
            topics: request.topics,
            wants: Vec::new(),
            disk_deadline_ns: None,
        }
    }

    /// The partitions whose high watermark it waits for.
    pub(super) fn wants(&self) -> &[(StreamId, PartitionId)] {
        &self.wants
    }

    /// Appends the response, or says what it waits for and appends nothing.
    pub(super) fn evaluate<S: Store>(
        &mut self,
        limits: &Limits,
        store: &mut S,
        now_ns: u64,
        out: &mut Vec<u8>,
    ) -> Option<Wait> {
        let frame = Frame::begin(out, self.correlation_id, self.version >= FLEXIBLE);
        out.put_i32(0); // Throttle time.
        if self.version >= 7 {
            let error = ResponseError::FetchSessionIdNotFound.code();
            out.put_i16(if self.unknown_session { error } else { 0 });
            out.put_i32(0); // No session.
        }
        let tally = if self.unknown_session {
            put_count(out, self.version >= FLEXIBLE, 0);
            Tally { error: true, ..Tally::default() }
        } else {
            self.put_topics(store, out)
        };
        if let Some(wait) = self.wait(&tally, limits, now_ns) {
            frame.discard(out);
            return Some(wait);
        }
        self.put_node_endpoints(&tally, store.cluster(), out);
        frame.end(out);
        None
    }

    /// Whether the answer has to wait, and for what.
    fn wait(&mut self, tally: &Tally, limits: &Limits, now_ns: u64) -> Option<Wait> {
        if tally.error || self.wants.is_empty() {
            return None;
        }
        if tally.pending {
            let patience = now_ns.saturating_add(limits.disk_wait_max_ns);
            let deadline = *self.disk_deadline_ns.get_or_insert(patience);
            if tally.found == 0 {
                // Whatever the client's deadline: an empty answer would only be asked again.
                return Some(Wait { deadline_ns: None, disk: true });
            }
            let wait = Wait { deadline_ns: Some(deadline), disk: true };
            return (now_ns < deadline).then_some(wait);
        }
        let enough = tally.found >= self.bytes_min
            || tally.found > 0 && (tally.more || self.disk_deadline_ns.is_some())
            || now_ns >= self.deadline_ns;
        let wait = Wait { deadline_ns: Some(self.deadline_ns), disk: false };
        (!enough).then_some(wait)
    }

    fn put_topics<S: Store>(&mut self, store: &mut S, out: &mut Vec<u8>) -> Tally {
        let flexible = self.version >= FLEXIBLE;
        let mut tally = Tally::default();
        self.wants.clear();
        put_count(out, flexible, self.topics.len());
        for at in 0..self.topics.len() {
            let topic = &self.topics[at];
            if self.version >= TOPIC_IDS {
                out.put_slice(topic.topic_id.as_bytes());
            } else {
                put_text(out, flexible, &topic.topic);
            }
            put_count(out, flexible, topic.partitions.len());
            for partition in &topic.partitions {
                let want = self.put_partition(self.rows[at], partition, store, &mut tally, out);
                self.wants.extend(want);
            }
            if flexible {
                put_no_tags(out);
            }
        }
        tally
    }

    /// Appends one partition; returns it when there is something to wait for.
    fn put_partition<S: Store>(
        &self,
        row: Result<usize, ResponseError>,
        asked: &FetchPartition,
        store: &mut S,
        tally: &mut Tally,
        out: &mut Vec<u8>,
    ) -> Option<(StreamId, PartitionId)> {
        let (stream, partition, bounds) =
            match owned(row, asked.partition, asked.current_leader_epoch, store) {
                Ok(owned) => owned,
                Err(error) => {
                    self.put_refusal(asked, error, None, store.cluster(), tally, out);
                    return None;
                }
            };
        let start = out.len();
        self.put_head(asked.partition, 0, Some(bounds), out);
        let records = Blob::begin(out, self.version >= FLEXIBLE);
        if let Err(error) = self.read((stream, partition), bounds, asked, store, tally, out) {
            out.truncate(start);
            self.put_refusal(asked, error, Some(bounds), store.cluster(), tally, out);
            return None;
        }
        records.end(out);
        if self.version >= FLEXIBLE {
            put_no_tags(out);
        }
        Some((stream, partition))
    }

    /// Appends the records of one partition, as far as the limits allow.
    fn read<S: Store>(
        &self,
        (stream, partition): (StreamId, PartitionId),
        bounds: Bounds,
        asked: &FetchPartition,
        store: &mut S,
        tally: &mut Tally,
        out: &mut Vec<u8>,
    ) -> Result<(), ResponseError> {
        let end = bounds.high_watermark.end();
        let from = Offset::from_wire(asked.fetch_offset)
            .filter(|from| (bounds.log_start..=bounds.log_end).contains(from))
            .ok_or(ResponseError::OffsetOutOfRange)?;
        if from >= end {
            return Ok(());
        }
        let room = self.bytes_max.saturating_sub(tally.planned);
        let oversize_first = tally.planned == 0;
        if room == 0 && !oversize_first {
            tally.more = true;
            return Ok(());
        }
        let bytes_max = room.min(usize::try_from(asked.partition_max_bytes).unwrap_or(0));
        match store.read(stream, partition, from, bytes_max, oversize_first, out) {
            Read::Data { bytes, next } => {
                tally.found += bytes;
                tally.planned += bytes;
                tally.more |= next < end;
            }
            Read::End => tally.more |= !oversize_first,
            Read::Pending => {
                tally.planned += bytes_max.max(1);
                tally.pending = true;
            }
            Read::OutOfRange => return Err(ResponseError::OffsetOutOfRange),
            Read::Damaged => return Err(ResponseError::CorruptMessage),
        }
        Ok(())
    }

    fn put_refusal(
        &self,
        asked: &FetchPartition,
        error: ResponseError,
        bounds: Option<Bounds>,
        cluster: &Cluster,
        tally: &mut Tally,
        out: &mut Vec<u8>,
    ) {
        tally.error = true;
        self.put_head(asked.partition, error.code(), bounds, out);
        put_count(out, self.version >= FLEXIBLE, 0); // No records.
        if self.version < FLEXIBLE {
            return;
        }
        let moved =
            matches!(error, ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch);
        match cluster.partition(asked.partition) {
            Some(partition) if moved && self.version >= LEADER_HINTS => {
                tally.moved = true;
                put_varint(out, 1);
                put_varint(out, 1); // The tag of the current leader.
                put_varint(out, 9); // Bytes of the three fields below.
                out.put_i32(cluster.leader(partition).shard.0 as i32);
                out.put_i32(cluster.leader_epoch());
                put_no_tags(out);
            }
            _ => put_no_tags(out),
        }
    }

    /// The fields of a partition before its records.
    fn put_head(&self, partition: i32, error: i16, bounds: Option<Bounds>, out: &mut Vec<u8>) {
        let high_watermark = bounds.map_or(-1, |bounds| bounds.high_watermark.end().to_wire());
        out.put_i32(partition);
        out.put_i16(error);
        out.put_i64(high_watermark);
        out.put_i64(high_watermark); // The last stable offset: there are no transactions.
        if self.version >= 5 {
            out.put_i64(bounds.map_or(-1, |bounds| bounds.log_start.to_wire()));
        }
        match (self.read_committed, self.version >= FLEXIBLE) {
            (true, flexible) => put_count(out, flexible, 0),
            (false, true) => out.put_u8(0),
            (false, false) => out.put_i32(-1),
        }
        if self.version >= 11 {
            out.put_i32(-1); // No replica is better to read from.
        }
    }

    /// The end of the response; names the nodes when a partition was asked of the wrong one.
    fn put_node_endpoints(&self, tally: &Tally, cluster: &Cluster, out: &mut Vec<u8>) {
        if self.version < FLEXIBLE {
            return;
        }
        if !tally.moved {
            return put_no_tags(out);
        }
        put_varint(out, 1);
        put_varint(out, 0); // The tag of the node endpoints.
        let mut nodes = Vec::new();
        put_count(&mut nodes, true, cluster.nodes().len());
        for node in cluster.nodes() {
            nodes.put_i32(node.shard.0 as i32);
            put_text(&mut nodes, true, &node.host);
            nodes.put_i32(node.port.into());
            nodes.put_u8(0); // No rack.
            put_no_tags(&mut nodes);
        }
        put_varint(out, nodes.len() as u32);
        out.put_slice(&nodes);
    }
}

/// The partition when this shard owns it and the client's leader epoch, if it gives one, is ours.
pub(super) fn owned<S: Store>(
    row: Result<usize, ResponseError>,
    partition: i32,
    leader_epoch: i32,
    store: &S,
) -> Result<(StreamId, PartitionId, Bounds), ResponseError> {
    let cluster = store.cluster();
    let stream = cluster.streams()[row?].id;
    let partition = cluster.partition(partition).ok_or(ResponseError::UnknownTopicOrPartition)?;
    if leader_epoch >= 0 && leader_epoch < cluster.leader_epoch() {
        return Err(ResponseError::FencedLeaderEpoch);
    }
    if leader_epoch > cluster.leader_epoch() {
        return Err(ResponseError::UnknownLeaderEpoch);
    }
    let bounds = store.bounds(stream, partition).ok_or(ResponseError::NotLeaderOrFollower)?;
    Ok((stream, partition, bounds))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::fetch_request::ForgottenTopic;
    use kafka_protocol::messages::{ApiKey, FetchResponse, TopicName};
    use kafka_protocol::protocol::StrBytes;
    use uuid::Uuid;

    use super::super::fake::{EPOCH, Fake, TELEMETRY, call, golden, hex, request, response};
    use super::super::{Connection, Resume, StepState};
    use super::*;

    const MS: u64 = 1_000_000;

    fn from(partition: i32, offset: i64) -> FetchPartition {
        FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(1 << 20)
    }

    fn telemetry(version: i16, partitions: Vec<FetchPartition>) -> FetchTopic {
        let topic = FetchTopic::default().with_partitions(partitions);
        if version >= TOPIC_IDS {
            topic.with_topic_id(TELEMETRY)
        } else {
            topic.with_topic(TopicName(StrBytes::from_static_str("telemetry")))
        }
    }

    /// At least a byte, within 100 ms.
    fn message(version: i16, partitions: Vec<FetchPartition>) -> FetchRequest {
        FetchRequest::default()
            .with_max_wait_ms(100)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_topics(vec![telemetry(version, partitions)])
    }

    fn answer(version: i16, out: &[u8]) -> FetchResponse {
        let answer: FetchResponse = response(ApiKey::Fetch, version, out);
        assert_eq!((answer.session_id, answer.throttle_time_ms), (0, 0));
        answer
    }

    /// Error and bytes of records of each partition of the first topic.
    fn partitions(version: i16, out: &[u8]) -> Vec<(i16, usize)> {
        let answer = answer(version, out);
        let partitions = answer.responses[0].partitions.iter();
        partitions.map(|p| (p.error_code, p.records.as_ref().unwrap().len())).collect()
    }

    fn ask(fake: &mut Fake, version: i16, message: &FetchRequest) -> Vec<u8> {
        call(fake, &request(ApiKey::Fetch, version, message)).unwrap()
    }

    /// A connection whose first request, sent at time 0, is parked.
    fn park(fake: &mut Fake, message: &FetchRequest) -> Connection {
        let (mut connection, mut out) = (Connection::new(), Vec::new());
        let asked = request(ApiKey::Fetch, 12, message);
        let step = connection.step(&Limits::default(), &asked, fake, 0, &mut out).unwrap();
        assert_eq!((step.consumed, step.state), (asked.len(), StepState::Parked));
        assert!(out.is_empty());
        connection
    }

    fn resume(connection: &mut Connection, fake: &mut Fake, now_ns: u64) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match connection.resume(&Limits::default(), fake, now_ns, &mut out).unwrap() {
            Resume::Replied => Some(out),
            Resume::StillParked => {
                assert!(out.is_empty());
                None
            }
        }
    }

    #[test]
    fn golden_bytes() {
        let check = |version, expected: &[&str]| {
            let mut fake = Fake::new();
            let log = fake.log(10, 0);
            log.batches.push((0, 1, 0, b"BATCH".to_vec()));
            log.end = 1;
            let out = ask(&mut fake, version, &message(version, vec![from(0, 0)]));
            assert_eq!(hex(&out), golden(expected), "{version}");
        };
        check(
            4,
            &[
                "0000003e 01020304 00000000", // Length, correlation id, throttle time.
                "00000001 0009 74656c656d65747279 00000001", // A topic: name, one partition:
                "00000000 0000",              // index, no error,
                "0000000000000001 0000000000000001", // high watermark, last stable offset,
                "ffffffff 00000005 4241544348", // no aborted transactions, records.
            ],
        );
        check(
            11,
            &[
                "00000050 01020304 00000000 0000 00000000", // As above; no error, no session.
                "00000001 0009 74656c656d65747279 00000001", // A topic: name, one partition:
                "00000000 0000",                            // index, no error,
                "0000000000000001 0000000000000001",        // high watermark, last stable offset,
                "0000000000000000 ffffffff ffffffff", // log start, nothing aborted, no replica,
                "00000005 4241544348",                // records.
            ],
        );
    }

    #[test]
    fn golden_bytes_with_tagged_fields() {
        let check = |version, length: &str, topic: &str| {
            let mut fake = Fake::new();
            let log = fake.log(10, 0);
            log.batches.push((0, 1, 0, b"BATCH".to_vec()));
            log.end = 1;
            let out = ask(&mut fake, version, &message(version, vec![from(0, 0)]));
            let expected = [
                length,
                "01020304 00 00000000 0000 00000000", // Tags and throttle; no error, no session.
                "02",
                topic,
                "02 00000000 0000", // One partition: index, no error,
                "0000000000000001 0000000000000001", // high watermark, last stable offset,
                "0000000000000000 00 ffffffff", // log start, nothing aborted, no replica,
                "06 4241544348 00 00 00", // records, tags of each level.
            ];
            assert_eq!(hex(&out), golden(&expected), "{version}");
        };
        check(12, "00000047", "0a 74656c656d65747279");
        for version in 13..=18 {
            check(version, "0000004d", "11112222333344445555666677778888");
        }
    }

    #[test]
    fn every_version_returns_the_stored_batches() {
        for version in 4..=18 {
            let mut fake = Fake::new();
            // The compact length of 1, 2, 3 and 4 bytes.
            for value_bytes in [1, 1_000, 100_000, 3_000_000] {
                let at = fake.log(10, 2).end;
                let bytes = fake.log(10, 2).append(2, 1, value_bytes);
                let stored = fake.log(10, 2).batches.last().unwrap().3.clone();
                let mut message = message(version, vec![from(0, 0), from(2, at as i64)]);
                if version >= 7 {
                    let forgotten = ForgottenTopic::default().with_partitions(vec![1, 2]);
                    message = message.with_forgotten_topics_data(vec![forgotten]);
                }
                let out = ask(&mut fake, version, &message);
                assert_eq!(partitions(version, &out), [(0, 0), (0, bytes)], "{version}");
                let answer = answer(version, &out);
                let partition = &answer.responses[0].partitions[1];
                assert_eq!(partition.records.as_deref(), Some(stored.as_slice()));
                assert_eq!(partition.high_watermark, at as i64 + 2);
                assert_eq!(partition.last_stable_offset, at as i64 + 2);
            }
        }
    }

    #[test]
    fn each_error_is_answered_at_once() {
        for version in 4..=18 {
            let mut fake = Fake::new();
            fake.log(10, 0).append(5, 1, 10);
            fake.log(10, 0).log_start = 2;
            fake.log(10, 2).append(5, 1, 10);
            fake.damaged.insert((10, 2));
            let mut check = |asked, expected| {
                let out = ask(&mut fake, version, &message(version, vec![asked]));
                assert_eq!(partitions(version, &out), [(expected, 0)], "{version}");
                answer(version, &out).responses[0].partitions[0].clone()
            };
            for outside in [-1, 1, 6] {
                let answer = check(from(0, outside), 1);
                assert_eq!(answer.high_watermark, 5);
                assert_eq!(answer.log_start_offset, if version >= 5 { 2 } else { -1 });
            }
            check(from(2, 0), 2);
            check(from(4, 0), 3);
            check(from(-1, 0), 3);
            let moved = check(from(1, 0), 6);
            let leader = if version >= 16 { (1, EPOCH) } else { (-1, -1) };
            assert_eq!(
                (moved.current_leader.leader_id.0, moved.current_leader.leader_epoch),
                leader
            );
            if version >= 9 {
                check(from(0, 2).with_current_leader_epoch(EPOCH - 1), 74);
                check(from(0, 2).with_current_leader_epoch(EPOCH + 1), 75);
            }
        }
    }

    #[test]
    fn unknown_topics() {
        let check = |version, topic, expected| {
            let message = message(version, vec![]).with_topics(vec![topic]);
            let out = ask(&mut Fake::new(), version, &message);
            assert_eq!(partitions(version, &out), [(expected, 0)]);
        };
        let topic = FetchTopic::default().with_partitions(vec![from(0, 0)]);
        let name = TopicName(StrBytes::from_static_str("nothing"));
        check(11, topic.clone().with_topic(name.clone()), 3);
        check(12, topic.clone().with_topic(name), 3);
        check(13, topic.with_topic_id(Uuid::from_u128(9)), 100);
    }

    #[test]
    fn who_asks_the_wrong_node_is_told_the_nodes() {
        let out = ask(&mut Fake::new(), 16, &message(16, vec![from(1, 0)]));
        let nodes = answer(16, &out).node_endpoints;
        let nodes: Vec<_> = nodes.iter().map(|n| (n.node_id.0, n.host.as_str(), n.port)).collect();
        assert_eq!(nodes, [(0, "127.0.0.1", 9092), (1, "127.0.0.1", 9093)]);
    }

    #[test]
    fn there_are_no_sessions() {
        for (session, epoch, expected) in
            [(0, -1, 0), (0, 0, 0), (0, 1, 70), (7, 1, 70), (7, -1, 70)]
        {
            let mut fake = Fake::new();
            fake.log(10, 0).append(1, 1, 10);
            let message =
                message(12, vec![from(0, 0)]).with_session_id(session).with_session_epoch(epoch);
            let answer = answer(12, &ask(&mut fake, 12, &message));
            assert_eq!(answer.error_code, expected);
            assert_eq!(answer.responses.is_empty(), expected != 0);
        }
    }

    #[test]
    fn limits_hold_and_the_first_batch_is_whole() {
        let mut fake = Fake::new();
        let bytes = fake.log(10, 0).append(1, 1, 100);
        fake.log(10, 0).append(1, 1, 100);
        fake.log(10, 2).append(1, 1, 100);
        let mut check = |max_bytes: usize, partition_max: usize, expected: [usize; 2]| {
            let asked = [0, 2].map(|p| from(p, 0).with_partition_max_bytes(partition_max as i32));
            let message = message(12, asked.to_vec()).with_max_bytes(max_bytes as i32);
            let out = ask(&mut fake, 12, &message);
            assert_eq!(partitions(12, &out), expected.map(|batches| (0, batches * bytes)));
        };
        check(10 * bytes, 10 * bytes, [2, 1]);
        check(10 * bytes, bytes, [1, 1]);
        check(10 * bytes, 1, [1, 0]);
        check(2 * bytes, 10 * bytes, [2, 0]);
        check(2 * bytes, bytes, [1, 1]);
        check(1, 1, [1, 0]);
        check(0, 0, [1, 0]);
    }

    #[test]
    fn min_bytes_beyond_what_fits_do_not_wait_while_there_is_more() {
        let mut fake = Fake::new();
        let bytes = fake.log(10, 0).append(1, 1, 100);
        fake.log(10, 0).append(1, 1, 100);
        let asked = from(0, 0).with_partition_max_bytes(bytes as i32);
        let message = message(12, vec![asked]).with_min_bytes(100_000);
        let out = ask(&mut fake, 12, &message);
        assert_eq!(partitions(12, &out), [(0, bytes)]);
    }

    #[test]
    fn a_long_poll_wakes_when_a_commit_lands() {
        let mut fake = Fake::new();
        let mut connection = park(&mut fake, &message(12, vec![from(0, 0), from(2, 0)]));
        assert_eq!(fake.reads, 0, "an idle long poll reads nothing");
        let parked = connection.parked().unwrap();
        let at = |partition| (StreamId(10), PartitionId(partition));
        assert_eq!((parked.deadline_ns, parked.disk), (Some(100 * MS), false));
        assert_eq!(parked.wants, [at(0), at(2)]);
        assert_eq!(resume(&mut connection, &mut fake, MS), None);
        let bytes = fake.log(10, 2).append(1, 1, 10);
        let out = resume(&mut connection, &mut fake, 2 * MS).unwrap();
        assert_eq!(partitions(12, &out), [(0, 0), (0, bytes)]);
        assert!(connection.parked().is_none());
    }

    #[test]
    fn a_long_poll_ends_at_its_deadline_with_what_there_is() {
        let mut fake = Fake::new();
        let asked = message(12, vec![from(0, 0)]).with_min_bytes(100_000);
        let mut connection = park(&mut fake, &asked);
        let bytes = fake.log(10, 0).append(1, 1, 10);
        assert_eq!(resume(&mut connection, &mut fake, 100 * MS - 1), None);
        let out = resume(&mut connection, &mut fake, 100 * MS).unwrap();
        assert_eq!(partitions(12, &out), [(0, bytes)]);
    }

    #[test]
    fn who_does_not_want_to_wait_does_not() {
        let check = |message: FetchRequest, expected: usize| {
            let answer = answer(12, &ask(&mut Fake::new(), 12, &message));
            assert_eq!(answer.responses.len(), expected);
        };
        check(message(12, vec![from(0, 0)]).with_max_wait_ms(0), 1);
        check(message(12, vec![from(0, 0)]).with_max_wait_ms(-1), 1);
        check(message(12, vec![from(0, 0)]).with_min_bytes(0), 1);
        check(message(12, vec![]).with_topics(vec![]), 0);
    }

    #[test]
    fn a_deadline_is_bounded() {
        let asked = message(12, vec![from(0, 0)]).with_max_wait_ms(i32::MAX);
        let connection = park(&mut Fake::new(), &asked);
        let limit = Limits::default().fetch_wait_max_ns;
        assert_eq!(connection.parked().unwrap().deadline_ns, Some(limit));
    }

    #[test]
    fn a_read_from_disk_postpones_the_answer_past_the_deadline() {
        let mut fake = Fake::new();
        let bytes = fake.log(10, 0).append(1, 1, 10);
        fake.cold.insert((10, 0));
        let asked = message(12, vec![from(0, 0)]).with_min_bytes(100_000);
        let mut connection = park(&mut fake, &asked);
        let parked = connection.parked().unwrap();
        assert_eq!((parked.deadline_ns, parked.disk), (None, true));
        assert_eq!(resume(&mut connection, &mut fake, 200 * MS), None);
        fake.cold.clear();
        let out = resume(&mut connection, &mut fake, 200 * MS + 1).unwrap();
        assert_eq!(partitions(12, &out), [(0, bytes)]);
    }

    #[test]
    fn what_was_read_waits_for_the_disk_for_a_while_only() {
        let mut fake = Fake::new();
        let bytes = fake.log(10, 0).append(1, 1, 10);
        fake.log(10, 2).append(1, 1, 10);
        fake.cold.insert((10, 2));
        let partitions_asked = vec![from(0, 0), from(2, 0)];
        let mut connection = park(&mut fake, &message(12, partitions_asked));
        let deadline = Limits::default().disk_wait_max_ns;
        assert_eq!(connection.parked().unwrap().deadline_ns, Some(deadline));
        assert_eq!(resume(&mut connection, &mut fake, deadline - 1), None);
        let out = resume(&mut connection, &mut fake, deadline).unwrap();
        assert_eq!(partitions(12, &out), [(0, bytes), (0, 0)]);
    }

    #[test]
    fn reads_from_disk_are_asked_for_only_as_far_as_the_answer_has_room() {
        let mut fake = Fake::new();
        for partition in [0, 2] {
            fake.log(10, partition).append(1, 1, 10);
            fake.cold.insert((10, partition));
        }
        let asked = message(12, vec![from(0, 0), from(2, 0)]).with_max_bytes(1 << 10);
        park(&mut fake, &asked);
        assert_eq!(fake.reads, 1);
    }

    #[test]
    fn who_reads_committed_gets_an_empty_list_of_aborted_transactions() {
        for version in 4..=18 {
            let mut fake = Fake::new();
            fake.log(10, 0).append(1, 1, 10);
            for level in [0, 1] {
                let asked = message(version, vec![from(0, 0)]).with_isolation_level(level);
                let answer = answer(version, &ask(&mut fake, version, &asked));
                let aborted = &answer.responses[0].partitions[0].aborted_transactions;
                assert_eq!(aborted.is_some(), level == 1);
            }
        }
    }
}
