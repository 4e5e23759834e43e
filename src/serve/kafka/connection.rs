//! One client connection: frames in, one request at a time, responses out in the same order.
//!
//! Comes in: the bytes received, the shard's [`Store`], the time. Goes out: responses appended to
//! the connection's send buffer. Invariant: while a request is parked nothing more is consumed, so
//! responses keep the order of requests. Deliberately absent: sockets, timers (the shard keeps the
//! deadline of [`Parked`]), and a limit on unsent bytes (the shard stops calling [`Connection::step`]).

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, FetchRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, RequestHeader,
};
use kafka_protocol::protocol::Decodable;

use crate::record::{PartitionId, StreamId};

use super::api_versions::{self, Served};
use super::fetch::Fetch;
use super::list_offsets::ListOffsets;
use super::{Malformed, Store, guard, metadata, produce};

/// What one connection may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one request, without its length prefix.
    pub request_bytes_max: usize,
    /// Array elements (topics, partitions) of one request; bounds what decoding it allocates.
    pub request_elements_max: usize,
    /// Bytes of records in one Fetch response, unless its first batch alone is larger.
    pub fetch_bytes_max: usize,
    /// The longest that a Fetch waits for `min_bytes`, whatever the client asks for.
    pub fetch_wait_max_ns: u64,
    /// How long records already found wait for other partitions' reads from disk.
    pub disk_wait_max_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes_max: 1 << 20,
            request_elements_max: 1 << 16,
            fetch_bytes_max: 8 << 20,
            fetch_wait_max_ns: 60_000_000_000,
            disk_wait_max_ns: 20_000_000,
        }
    }
}

/// Why a connection must be closed: the peer's doing, and Kafka's own refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The length prefix.
    #[error("a request of {bytes} bytes; the limit is {bytes_max}")]
    RequestTooLarge {
        /// What the client announced.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The length prefix is negative or shorter than a request header.
    #[error("a request length of {0}, which is no Kafka request")]
    BadLength(i32),
    /// An API that this node does not advertise.
    #[error("API {0} is not served here")]
    UnknownApi(i16),
    /// A version that this node does not advertise.
    #[error("{api:?} version {version} is not served here")]
    UnsupportedVersion {
        /// The API.
        api: ApiKey,
        /// The version asked for.
        version: i16,
    },
    /// The request does not follow its schema.
    #[error("malformed {api:?} request version {version}: {reason}")]
    Malformed {
        /// The API.
        api: ApiKey,
        /// The version.
        version: i16,
        /// What is wrong.
        reason: Malformed,
    },
    /// The request follows its schema, but means nothing.
    #[error("invalid {api:?} request: {reason}")]
    Invalid {
        /// The API.
        api: ApiKey,
        /// What is wrong.
        reason: &'static str,
    },
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are done with: a whole request, or none.
    pub consumed: usize,
    /// What now.
    pub state: StepState,
}

/// Where the connection stands after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// The input holds no whole request.
    NeedMore {
        /// Bytes of the request with its length prefix, once that is known.
        frame_bytes: Option<usize>,
    },
    /// One response was appended; step again with the rest of the input.
    Replied,
    /// The request waits for what [`Connection::parked`] says.
    Parked,
}

/// What became of a parked request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Its response was appended; step again with what was received meanwhile.
    Replied,
    /// It goes on waiting; [`Connection::parked`] may have changed.
    StillParked,
}

/// What a parked request waits for. Any of them is reason to call [`Connection::resume`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parked<'a> {
    /// The time at which it wants to be resumed; `None`: only the disk can wake it.
    pub deadline_ns: Option<u64>,
    /// A read or lookup was `Pending`.
    pub disk: bool,
    /// The partitions whose high watermark it waits for.
    pub wants: &'a [(StreamId, PartitionId)],
}

/// What a request that may have to wait waits for; the API's file decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) deadline_ns: Option<u64>,
    pub(super) disk: bool,
}

/// The requests that may have to wait.
#[derive(Debug)]
enum Waiting {
    Fetch(Fetch),
    ListOffsets(ListOffsets),
}

impl Waiting {
    /// Appends the response, or says what it waits for and appends nothing.
    fn evaluate<S: Store>(
        &mut self,
        limits: &Limits,
        store: &mut S,
        now_ns: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<Wait>, Violation> {
        match self {
            Self::Fetch(fetch) => Ok(fetch.evaluate(limits, store, now_ns, out)),
            Self::ListOffsets(list) => list.evaluate(store, out),
        }
    }
}

/// One client connection.
#[derive(Debug, Default)]
pub struct Connection {
    parked: Option<(Waiting, Wait)>,
}

impl Connection {
    /// A connection that has sent nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves the request at the front of `input`, which starts at a request.
    pub fn step<S: Store>(
        &mut self,
        limits: &Limits,
        input: &[u8],
        store: &mut S,
        now_ns: u64,
        out: &mut Vec<u8>,
    ) -> Result<Step, Violation> {
        if self.parked.is_some() {
            return Ok(Step { consumed: 0, state: StepState::Parked });
        }
        let Some((prefix, rest)) = input.split_first_chunk::<4>() else {
            return Ok(Step { consumed: 0, state: StepState::NeedMore { frame_bytes: None } });
        };
        let bytes = request_bytes(i32::from_be_bytes(*prefix), limits)?;
        let consumed = 4 + bytes;
        let Some(request) = rest.get(..bytes) else {
            let frame_bytes = Some(consumed);
            return Ok(Step { consumed: 0, state: StepState::NeedMore { frame_bytes } });
        };
        self.serve(limits, request, store, now_ns, out)?;
        let state = if self.parked.is_some() { StepState::Parked } else { StepState::Replied };
        Ok(Step { consumed, state })
    }

    /// Looks at the parked request again: a partition of its `wants` advanced, a disk read ended,
    /// or the deadline passed. Without a parked request there is nothing to do.
    pub fn resume<S: Store>(
        &mut self,
        limits: &Limits,
        store: &mut S,
        now_ns: u64,
        out: &mut Vec<u8>,
    ) -> Result<Resume, Violation> {
        let Some((waiting, _)) = self.parked.take() else { return Ok(Resume::Replied) };
        self.evaluate(waiting, limits, store, now_ns, out)?;
        Ok(if self.parked.is_some() { Resume::StillParked } else { Resume::Replied })
    }

    /// What the connection waits for, when a request is parked.
    pub fn parked(&self) -> Option<Parked<'_>> {
        self.parked.as_ref().map(|(waiting, wait)| Parked {
            deadline_ns: wait.deadline_ns,
            disk: wait.disk,
            wants: match waiting {
                Waiting::Fetch(fetch) => fetch.wants(),
                Waiting::ListOffsets(_) => &[],
            },
        })
    }

    fn serve<S: Store>(
        &mut self,
        limits: &Limits,
        request: &[u8],
        store: &mut S,
        now_ns: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        // `request_bytes` made sure of these eight.
        let key = i16::from_be_bytes([request[0], request[1]]);
        let version = i16::from_be_bytes([request[2], request[3]]);
        let correlation_id = i32::from_be_bytes([request[4], request[5], request[6], request[7]]);
        let Some(served) = Served::by_key(key) else { return Err(Violation::UnknownApi(key)) };
        let api = served.api;
        if !served.versions.contains(&version) {
            if api == ApiKey::ApiVersions {
                api_versions::refuse_version(correlation_id, out);
                return Ok(());
            }
            return Err(Violation::UnsupportedVersion { api, version });
        }
        let malformed = |reason| Violation::Malformed { api, version, reason };
        guard::check(served.schema, version, request, limits.request_elements_max)
            .map_err(malformed)?;
        let undecodable = |_| malformed(Malformed::Undecodable);
        let mut body = Bytes::copy_from_slice(request);
        RequestHeader::decode(&mut body, api.request_header_version(version))
            .map_err(undecodable)?;
        let waiting = match api {
            ApiKey::Produce => {
                let request = ProduceRequest::decode(&mut body, version).map_err(undecodable)?;
                return produce::refuse(&request, version, correlation_id, out);
            }
            ApiKey::Metadata => {
                let request = MetadataRequest::decode(&mut body, version).map_err(undecodable)?;
                return metadata::answer(&request, version, correlation_id, store.cluster(), out);
            }
            ApiKey::ListOffsets => {
                let request =
                    ListOffsetsRequest::decode(&mut body, version).map_err(undecodable)?;
                Waiting::ListOffsets(ListOffsets::new(request, version, correlation_id))
            }
            ApiKey::Fetch => {
                let request = FetchRequest::decode(&mut body, version).map_err(undecodable)?;
                Waiting::Fetch(Fetch::new(request, version, correlation_id, limits, store, now_ns))
            }
            _ => {
                // The only other one in the table is ApiVersions, whose request asks nothing.
                api_versions::answer(version, correlation_id, out);
                return Ok(());
            }
        };
        self.evaluate(waiting, limits, store, now_ns, out)
    }

    fn evaluate<S: Store>(
        &mut self,
        mut waiting: Waiting,
        limits: &Limits,
        store: &mut S,
        now_ns: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let wait = waiting.evaluate(limits, store, now_ns, out)?;
        self.parked = wait.map(|wait| (waiting, wait));
        Ok(())
    }
}

/// The request's length from its prefix, when it can be one.
fn request_bytes(wire: i32, limits: &Limits) -> Result<usize, Violation> {
    /// API key, version and correlation id, without which no answer is possible.
    const BYTES_MIN: usize = 8;
    let bytes = usize::try_from(wire).map_err(|_| Violation::BadLength(wire))?;
    if bytes < BYTES_MIN {
        return Err(Violation::BadLength(wire));
    }
    if bytes > limits.request_bytes_max {
        return Err(Violation::RequestTooLarge { bytes, bytes_max: limits.request_bytes_max });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
    use kafka_protocol::messages::{ApiVersionsRequest, TopicName};
    use kafka_protocol::protocol::StrBytes;

    use super::super::fake::{Fake, call, request};
    use super::*;

    fn api_versions() -> Vec<u8> {
        request(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default())
    }

    fn metadata() -> Vec<u8> {
        request(ApiKey::Metadata, 1, &MetadataRequest::default())
    }

    /// A long poll of telemetry's partition 0.
    fn fetch() -> Vec<u8> {
        let partition = FetchPartition::default().with_partition_max_bytes(1000);
        let topic = FetchTopic::default()
            .with_topic(TopicName(StrBytes::from_static_str("telemetry")))
            .with_partitions(vec![partition]);
        let message = FetchRequest::default()
            .with_max_wait_ms(100)
            .with_min_bytes(1)
            .with_topics(vec![topic]);
        request(ApiKey::Fetch, 11, &message)
    }

    #[test]
    fn split_requests_say_what_they_need() {
        let (whole, limits) = (metadata(), Limits::default());
        let (mut connection, mut out) = (Connection::new(), Vec::new());
        for end in 0..whole.len() {
            let step = connection.step(&limits, &whole[..end], &mut Fake::new(), 0, &mut out);
            let frame_bytes = (end >= 4).then_some(whole.len());
            let state = StepState::NeedMore { frame_bytes };
            assert_eq!(step, Ok(Step { consumed: 0, state }));
            assert!(out.is_empty());
        }
        let step = connection.step(&limits, &whole, &mut Fake::new(), 0, &mut out);
        assert_eq!(step, Ok(Step { consumed: whole.len(), state: StepState::Replied }));
        assert!(!out.is_empty());
    }

    #[test]
    fn pipelined_requests_are_answered_in_order() {
        let (mut fake, limits) = (Fake::new(), Limits::default());
        let asked = [api_versions(), fetch(), metadata()];
        let input = asked.concat();
        let (mut connection, mut out) = (Connection::new(), Vec::new());
        let mut at = 0;
        let mut step = |connection: &mut Connection, fake: &mut Fake, out: &mut Vec<u8>| {
            let step = connection.step(&limits, &input[at..], fake, 0, out).unwrap();
            at += step.consumed;
            (step.consumed, step.state)
        };
        let replied = step(&mut connection, &mut fake, &mut out);
        assert_eq!(replied, (asked[0].len(), StepState::Replied));
        let parked = step(&mut connection, &mut fake, &mut out);
        assert_eq!(parked, (asked[1].len(), StepState::Parked));
        let first = out.len();
        // The third is left alone until the second is answered.
        assert_eq!(step(&mut connection, &mut fake, &mut out), (0, StepState::Parked));
        assert_eq!(out.len(), first);
        fake.log(10, 0).append(1, 1, 10);
        let resumed = connection.resume(&Limits::default(), &mut fake, 1, &mut out);
        assert_eq!(resumed, Ok(Resume::Replied));
        let replied = step(&mut connection, &mut fake, &mut out);
        assert_eq!(replied, (asked[2].len(), StepState::Replied));
        let expected = [
            call(&mut fake, &asked[0]).unwrap(),
            call(&mut fake, &asked[1]).unwrap(),
            call(&mut fake, &asked[2]).unwrap(),
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn resuming_nothing_does_nothing() {
        let mut out = Vec::new();
        let resumed = Connection::new().resume(&Limits::default(), &mut Fake::new(), 0, &mut out);
        assert_eq!((resumed, out.len()), (Ok(Resume::Replied), 0));
    }

    #[test]
    fn what_cannot_be_answered_is_refused() {
        let check = |request: &[u8], expected: &str| {
            let refused = call(&mut Fake::new(), request).unwrap_err();
            assert_eq!(refused.to_string(), expected);
        };
        let with = |at: usize, bytes: [u8; 2]| {
            let mut request = metadata();
            request[at..at + 2].copy_from_slice(&bytes);
            request
        };
        check(&with(4, [0, 11]), "API 11 is not served here"); // JoinGroup.
        check(&with(4, [0x7f, 0xff]), "API 32767 is not served here");
        check(&with(6, [0, 14]), "Metadata version 14 is not served here");
        check(&with(6, [0xff, 0xff]), "Metadata version -1 is not served here");
        check(&[0xff, 0xff, 0xff, 0xfe], "a request length of -2, which is no Kafka request");
        check(&[0, 0, 0, 7], "a request length of 7, which is no Kafka request");
        check(&[0x7f, 0xff, 0xff, 0xff], "a request of 2147483647 bytes; the limit is 1048576");
        let mut cut = metadata();
        cut.truncate(16);
        cut[3] = 12;
        check(&cut, "malformed Metadata request version 1: it is cut short");
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        let mut request = fetch();
        let at = request.windows(9).position(|bytes| bytes == b"telemetry").unwrap();
        request[at] = 0xff;
        let refused = call(&mut Fake::new(), &request);
        let (api, version, reason) = (ApiKey::Fetch, 11, Malformed::Undecodable);
        assert_eq!(refused, Err(Violation::Malformed { api, version, reason }));
    }
}
