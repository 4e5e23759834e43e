//! ListOffsets: the earliest offset, the latest, or the first at or after a time.
//!
//! A search by time may need the disk; then the request is parked. What was found stays found, so
//! that many searches cannot push one another out of the log's cache for ever. The isolation level
//! is ignored: there are no transactions, so what is committed is stable.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ApiKey, ListOffsetsRequest, ListOffsetsResponse};

use super::connection::Wait;
use super::fetch::owned;
use super::{Store, TimeLookup, Violation, wire};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// The earliest on the node's own disks, which is the earliest: nothing is tiered.
const EARLIEST_LOCAL: i64 = -4;
/// The latest in tiered storage, of which there is none.
const LATEST_TIERED: i64 = -5;

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct ListOffsets {
    version: i16,
    correlation_id: i32,
    topics: Vec<ListOffsetsTopic>,
    /// The answers so far, in the order of the request's partitions over all topics.
    answers: Vec<Option<Answer>>,
}

/// Offset and timestamp, or why not.
type Answer = Result<(i64, i64), ResponseError>;

impl ListOffsets {
    pub(super) fn new(request: ListOffsetsRequest, version: i16, correlation_id: i32) -> Self {
        let count = request.topics.iter().map(|topic| topic.partitions.len()).sum();
        Self { version, correlation_id, topics: request.topics, answers: vec![None; count] }
    }

    /// Appends the response, or says what it waits for and appends nothing.
    pub(super) fn evaluate<S: Store>(
        &mut self,
        store: &mut S,
        out: &mut Vec<u8>,
    ) -> Result<Option<Wait>, Violation> {
        let mut answers = self.answers.iter_mut();
        for topic in &self.topics {
            let row = store.cluster().by_name(&topic.name);
            for (partition, answer) in topic.partitions.iter().zip(&mut answers) {
                if answer.is_none() {
                    *answer = find(row, partition, store);
                }
            }
        }
        if self.answers.iter().any(Option::is_none) {
            return Ok(Some(Wait { deadline_ns: None, disk: true }));
        }
        let response = self.response();
        wire::respond(out, ApiKey::ListOffsets, self.version, self.correlation_id, &response)?;
        Ok(None)
    }

    fn response(&self) -> ListOffsetsResponse {
        let mut answers = self.answers.iter().flatten();
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().zip(&mut answers);
            ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(
                partitions.map(|(asked, answer)| partition(asked, answer)).collect(),
            )
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    }
}

/// The answer for one partition; `None` while it is searched for on disk.
fn find<S: Store>(
    row: Option<usize>,
    asked: &ListOffsetsPartition,
    store: &mut S,
) -> Option<Answer> {
    let row = row.ok_or(ResponseError::UnknownTopicOrPartition);
    let (stream, partition, bounds) =
        match owned(row, asked.partition_index, asked.current_leader_epoch, store) {
            Ok(owned) => owned,
            Err(error) => return Some(Err(error)),
        };
    Some(match asked.timestamp {
        LATEST => Ok((bounds.high_watermark.end().to_wire(), -1)),
        EARLIEST | EARLIEST_LOCAL => Ok((bounds.log_start.to_wire(), -1)),
        LATEST_TIERED => Ok((-1, -1)),
        time @ 0.. => match store.find_time(stream, partition, time) {
            TimeLookup::Found { offset, timestamp_ms } => Ok((offset.to_wire(), timestamp_ms)),
            TimeLookup::NotFound => Ok((-1, -1)),
            TimeLookup::Pending => return None,
            TimeLookup::Damaged => Err(ResponseError::CorruptMessage),
        },
        // The largest timestamp (-3) would take a search of the whole partition.
        _ => Err(ResponseError::UnsupportedVersion),
    })
}

/// The leader epoch is left unknown (-1): clients would ask the node to verify it.
fn partition(asked: &ListOffsetsPartition, answer: &Answer) -> ListOffsetsPartitionResponse {
    let response =
        ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
    match answer {
        Ok((offset, timestamp)) => response.with_offset(*offset).with_timestamp(*timestamp),
        Err(error) => response.with_error_code(error.code()).with_offset(-1).with_timestamp(-1),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{BrokerId, TopicName};
    use kafka_protocol::protocol::StrBytes;

    use super::super::fake::{EPOCH, Fake, call, golden, hex, request, response};
    use super::super::{Connection, Limits, Resume, StepState};
    use super::*;

    /// Partition 0 of telemetry holds offsets 2 (at 1000), 3 (at 2000) and 4 (at 2000).
    fn fake() -> Fake {
        let mut fake = Fake::new();
        let log = fake.log(10, 0);
        log.append(2, 500, 10);
        log.append(1, 1000, 10);
        log.append(2, 2000, 10);
        log.log_start = 2;
        log.batches.remove(0);
        fake
    }

    fn at(partition: i32, timestamp: i64) -> ListOffsetsPartition {
        ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp)
    }

    fn asked(version: i16, topic: &str, partitions: Vec<ListOffsetsPartition>) -> Vec<u8> {
        let topic = ListOffsetsTopic::default()
            .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_partitions(partitions);
        let message =
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        request(ApiKey::ListOffsets, version, &message)
    }

    /// Error, offset and timestamp of each partition answered.
    fn answers(version: i16, out: &[u8]) -> Vec<(i16, i64, i64)> {
        let answer: ListOffsetsResponse = response(ApiKey::ListOffsets, version, out);
        let partitions = &answer.topics[0].partitions;
        assert!(partitions.iter().all(|p| p.leader_epoch == -1));
        partitions.iter().map(|p| (p.error_code, p.offset, p.timestamp)).collect()
    }

    #[test]
    fn golden_bytes() {
        let check = |version, expected: &[&str]| {
            let out = call(&mut fake(), &asked(version, "telemetry", vec![at(0, 1500)])).unwrap();
            assert_eq!(hex(&out), golden(expected));
        };
        check(
            1,
            &[
                "0000002d 01020304",                         // Length, correlation id.
                "00000001 0009 74656c656d65747279 00000001", // A topic: name, one partition:
                "00000000 0000",                             // index, no error,
                "00000000000007d0 0000000000000003",         // timestamp, offset.
            ],
        );
        check(
            7,
            &[
                "00000032 01020304 00 00000000", // Length, correlation id, tags, throttle time.
                "02 0a 74656c656d65747279 02",   // A topic: name, one partition:
                "00000000 0000",                 // index, no error,
                "00000000000007d0 0000000000000003", // timestamp, offset,
                "ffffffff 00 00 00",             // leader epoch unknown, tags of each level.
            ],
        );
    }

    #[test]
    fn each_kind_of_question() {
        for version in 1..=10 {
            let check = |partition, timestamp, expected| {
                let asked = asked(version, "telemetry", vec![at(partition, timestamp)]);
                let out = call(&mut fake(), &asked).unwrap();
                assert_eq!(answers(version, &out), [expected], "{version} {timestamp}");
            };
            check(0, LATEST, (0, 5, -1));
            check(0, EARLIEST, (0, 2, -1));
            check(0, EARLIEST_LOCAL, (0, 2, -1));
            check(0, LATEST_TIERED, (0, -1, -1));
            check(0, -3, (35, -1, -1));
            check(0, -99, (35, -1, -1));
            check(0, 0, (0, 2, 1000));
            check(0, 1001, (0, 3, 2000));
            check(0, 2001, (0, -1, -1));
            check(1, LATEST, (6, -1, -1)); // Another shard's.
            check(4, LATEST, (3, -1, -1));
            check(-1, LATEST, (3, -1, -1));
        }
    }

    #[test]
    fn unknown_streams_and_epochs() {
        let out = call(&mut fake(), &asked(7, "nothing", vec![at(0, LATEST)])).unwrap();
        assert_eq!(answers(7, &out), [(3, -1, -1)]);
        let epochs = [-1, EPOCH - 1, EPOCH, EPOCH + 1];
        let partitions = epochs.map(|epoch| at(0, LATEST).with_current_leader_epoch(epoch));
        let out = call(&mut fake(), &asked(7, "telemetry", partitions.to_vec())).unwrap();
        assert_eq!(answers(7, &out), [(0, 5, -1), (74, -1, -1), (0, 5, -1), (75, -1, -1)]);
    }

    #[test]
    fn damage_is_told() {
        let mut fake = fake();
        fake.damaged.insert((10, 0));
        let out = call(&mut fake, &asked(7, "telemetry", vec![at(0, 1)])).unwrap();
        assert_eq!(answers(7, &out), [(2, -1, -1)]);
    }

    #[test]
    fn a_search_on_disk_parks_and_keeps_what_it_found() {
        let (mut fake, mut out) = (fake(), Vec::new());
        fake.log(10, 2).append(1, 3000, 10);
        fake.cold.insert((10, 2));
        let (mut connection, limits) = (Connection::new(), Limits::default());
        let asked = asked(7, "telemetry", vec![at(0, 1500), at(2, 1500)]);
        let step = connection.step(&limits, &asked, &mut fake, 0, &mut out).unwrap();
        assert_eq!((step.consumed, step.state), (asked.len(), StepState::Parked));
        let parked = connection.parked().unwrap();
        assert_eq!((parked.deadline_ns, parked.disk, parked.wants.len()), (None, true, 0));
        fake.cold = [(10, 0)].into();
        let resumed = connection.resume(&limits, &mut fake, 1, &mut out);
        assert_eq!(resumed, Ok(Resume::Replied));
        assert_eq!(answers(7, &out), [(0, 3, 2000), (0, 0, 3000)]);
    }
}
