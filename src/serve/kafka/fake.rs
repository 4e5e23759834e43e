//! Tests only: a log in memory behind [`Store`], and the client's side of the protocol.

use std::collections::{HashMap, HashSet};

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use uuid::Uuid;

use crate::record::{Committed, Offset, PartitionId, ShardId, StreamId, StreamName};

use super::*;

pub(super) const CORRELATION: i32 = 0x0102_0304;
pub(super) const TELEMETRY: Uuid = Uuid::from_u128(0x1111_2222_3333_4444_5555_6666_7777_8888);
pub(super) const ALARMS: Uuid = Uuid::from_u128(0xaaaa);
pub(super) const EPOCH: i32 = 5;

/// One batch of `count` records, each with the batch's timestamp and a value of `value_bytes`.
pub(super) fn batch(base: u64, count: u64, timestamp: i64, value_bytes: usize) -> Vec<u8> {
    let record = |offset: u64| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: EPOCH,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset: offset as i64,
        sequence: offset as i32,
        timestamp,
        key: Some(Bytes::from_static(b"device")),
        value: Some(Bytes::from(vec![b'v'; value_bytes])),
        headers: IndexMap::new(),
    };
    let records: Vec<Record> = (base..base + count).map(record).collect();
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
    out.to_vec()
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) log_start: u64,
    pub(super) end: u64,
    /// Base offset, offset after the last, timestamp, bytes.
    pub(super) batches: Vec<(u64, u64, i64, Vec<u8>)>,
}

impl Log {
    pub(super) fn append(&mut self, count: u64, timestamp: i64, value_bytes: usize) -> usize {
        let bytes = batch(self.end, count, timestamp, value_bytes);
        let appended = bytes.len();
        self.batches.push((self.end, self.end + count, timestamp, bytes));
        self.end += count;
        appended
    }
}

/// Shard 0 of two; two streams of four partitions, of which it owns 0 and 2.
#[derive(Debug)]
pub(super) struct Fake {
    pub(super) cluster: Cluster,
    pub(super) logs: HashMap<(u32, u32), Log>,
    /// Partitions whose reads and lookups are `Pending`.
    pub(super) cold: HashSet<(u32, u32)>,
    pub(super) damaged: HashSet<(u32, u32)>,
    pub(super) reads: usize,
}

impl Fake {
    pub(super) fn new() -> Self {
        let node = |shard: u32| Node {
            shard: ShardId(shard),
            host: StrBytes::from_static_str("127.0.0.1"),
            port: 9092 + shard as u16,
        };
        let stream = |id: u32, name: &str, uuid| Stream {
            id: StreamId(id),
            name: StreamName::try_from(name.to_owned()).unwrap(),
            uuid,
        };
        let streams = vec![stream(10, "telemetry", TELEMETRY), stream(11, "alarms", ALARMS)];
        let nodes = vec![node(0), node(1)];
        let logs = [(10, 0), (10, 2), (11, 0), (11, 2)].map(|at| (at, Log::default()));
        Self {
            cluster: Cluster::new("cluster", ShardId(0), nodes, streams, 4, EPOCH as u32),
            logs: HashMap::from(logs),
            cold: HashSet::new(),
            damaged: HashSet::new(),
            reads: 0,
        }
    }

    pub(super) fn log(&mut self, stream: u32, partition: u32) -> &mut Log {
        self.logs.get_mut(&(stream, partition)).unwrap()
    }
}

impl Store for Fake {
    fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    fn bounds(&self, stream: StreamId, partition: PartitionId) -> Option<Bounds> {
        let log = self.logs.get(&(stream.0, partition.0))?;
        let high_watermark = Committed(Offset(log.end));
        let log_end = Offset(log.end);
        Some(Bounds { log_start: Offset(log.log_start), high_watermark, log_end })
    }

    fn read(
        &mut self,
        stream: StreamId,
        partition: PartitionId,
        from: Offset,
        bytes_max: usize,
        oversize_first: bool,
        out: &mut Vec<u8>,
    ) -> Read {
        self.reads += 1;
        let at = (stream.0, partition.0);
        if self.cold.contains(&at) {
            return Read::Pending;
        }
        if self.damaged.contains(&at) {
            return Read::Damaged;
        }
        let (mut bytes, mut next) = (0, from);
        for (_, end, _, stored) in self.logs[&at].batches.iter().filter(|b| b.1 > from.0) {
            let fits = bytes + stored.len() <= bytes_max || bytes == 0 && oversize_first;
            if !fits {
                break;
            }
            out.extend_from_slice(stored);
            bytes += stored.len();
            next = Offset(*end);
        }
        if bytes == 0 { Read::End } else { Read::Data { bytes, next } }
    }

    fn find_time(&mut self, stream: StreamId, partition: PartitionId, time: i64) -> TimeLookup {
        let at = (stream.0, partition.0);
        if self.cold.contains(&at) {
            return TimeLookup::Pending;
        }
        if self.damaged.contains(&at) {
            return TimeLookup::Damaged;
        }
        match self.logs[&at].batches.iter().find(|batch| batch.2 >= time) {
            Some(batch) => TimeLookup::Found { offset: Offset(batch.0), timestamp_ms: batch.2 },
            None => TimeLookup::NotFound,
        }
    }
}

/// A request as a client sends it.
pub(super) fn request(api: ApiKey, version: i16, message: &impl Encodable) -> Vec<u8> {
    let mut out = vec![0; 4];
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_correlation_id(CORRELATION)
        .with_client_id(Some(StrBytes::from_static_str("test")));
    header.encode(&mut out, api.request_header_version(version)).unwrap();
    message.encode(&mut out, version).unwrap();
    let bytes = (out.len() - 4) as i32;
    out[..4].copy_from_slice(&bytes.to_be_bytes());
    out
}

/// A response as a client reads it: exactly one, whole.
pub(super) fn response<R: Decodable>(api: ApiKey, version: i16, out: &[u8]) -> R {
    let (prefix, rest) = out.split_first_chunk::<4>().unwrap();
    assert_eq!(i32::from_be_bytes(*prefix) as usize, rest.len());
    let mut rest = Bytes::copy_from_slice(rest);
    let header = ResponseHeader::decode(&mut rest, api.response_header_version(version)).unwrap();
    assert_eq!(header.correlation_id, CORRELATION);
    let response = R::decode(&mut rest, version).unwrap();
    assert!(rest.is_empty(), "{} bytes after the response", rest.len());
    response
}

/// Sends one request on a new connection and returns what comes back at once.
pub(super) fn call(fake: &mut Fake, request: &[u8]) -> Result<Vec<u8>, Violation> {
    let mut out = Vec::new();
    let step = Connection::new().step(&Limits::default(), request, fake, 0, &mut out)?;
    assert_eq!(step, Step { consumed: request.len(), state: StepState::Replied });
    Ok(out)
}

/// Bytes as the hexadecimal text of golden tests.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text of golden bytes, one field or group of fields a line.
pub(super) fn golden(lines: &[&str]) -> String {
    lines.concat().replace(' ', "")
}
