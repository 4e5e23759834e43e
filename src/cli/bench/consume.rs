//! A Kafka consumer beside the load: how long from a message's send to whoever reads the stream.
//!
//! In: a bootstrap address, a stream, and payloads that carry a tag and the time that their latency
//! counts from. Out: latencies until a Fetch response with the record has been read. A thread for
//! each node that leads partitions, which blocks in a long poll as real consumers do. The invariant:
//! every partition is read from its end at the start, and after the load until nothing comes any
//! more. This is our own client over kafka-protocol's schemas: it decodes records and does nothing
//! else, so a real consumer is slower by what it does besides; `librdkafka` is such a one.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
    MetadataRequest, MetadataResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use kafka_protocol::records::{Compression, RecordBatchDecoder};

use super::measure::histogram;
use super::pin;
use super::subscribe::SLOW_REST;

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Client {
    /// A small Fetch client of our own
    Own,
    /// The C library that most clients are made of, through the rdkafka crate; the feature
    /// `librdkafka` of the build
    Librdkafka,
}

impl Client {
    /// A real consumer where this build has one.
    pub const DEFAULT: Self =
        if cfg!(feature = "librdkafka") { Self::Librdkafka } else { Self::Own };
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub client: Client,
    /// Takes 4 KiB and rests for 100 ms, over and over. Our own client only.
    pub slow: bool,
    /// HOST:PORT of any node.
    pub bootstrap: String,
    pub stream: String,
    pub core: Option<usize>,
    /// Origins that count: those of the measured time.
    pub from_ns: u64,
    pub to_ns: u64,
}

/// The tag and the origin, at the beginning of a payload.
pub const STAMP_BYTES: usize = 16;

/// Writes a stamp.
#[inline]
pub fn stamp(payload: &mut [u8], tag: u64, origin_ns: u64) {
    payload[..8].copy_from_slice(&tag.to_le_bytes());
    payload[8..STAMP_BYTES].copy_from_slice(&origin_ns.to_le_bytes());
}

/// The origin, where the payload has this tag.
#[inline]
pub fn origin_ns(payload: &[u8], tag: u64) -> Option<u64> {
    let (found, rest) = payload.split_first_chunk::<8>()?;
    let (origin, _) = rest.split_first_chunk::<8>()?;
    (u64::from_le_bytes(*found) == tag).then(|| u64::from_le_bytes(*origin))
}

/// A consumer at work.
pub trait Consuming {
    /// As reports name it.
    fn client(&self) -> String;
    /// Reads what is still to come, and tells the latencies of every message that counts.
    ///
    /// # Errors
    /// The first thing that went wrong on any thread.
    fn finish(self: Box<Self>) -> io::Result<Read>;
}

/// What a consumer has read.
#[derive(Debug)]
pub struct Read {
    pub latencies: Histogram<u64>,
    pub records: u64,
}

/// Finds every partition and its end, and begins to read. `begin`: the moment from which origins
/// count, known before the first message is sent.
///
/// # Errors
/// When no node answers, the stream is not there, or a thread cannot be pinned.
pub fn start(
    options: &Options,
    tag: u64,
    begin: &Arc<OnceLock<Instant>>,
) -> io::Result<Box<dyn Consuming>> {
    match options.client {
        #[cfg(feature = "librdkafka")]
        Client::Librdkafka if !options.slow => {
            Ok(Box::new(super::librdkafka::Consumer::start(options, tag, begin)?))
        }
        _ => Ok(Box::new(Consumers::start(options, tag, begin)?)),
    }
}

/// Consumers at work, a thread for each node.
#[derive(Debug)]
struct Consumers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<Read>>>,
}

const METADATA_VERSION: i16 = 9;
const LIST_OFFSETS_VERSION: i16 = 5;
/// The last one that names topics.
const FETCH_VERSION: i16 = 12;
const LATEST: i64 = -1;
const LONG_POLL_MS: i32 = 500;
const TIMEOUT: Duration = Duration::from_secs(10);
const FETCH_BYTES_MAX: i32 = 16 << 20;
/// A batch that is larger comes all the same, whole.
const SLOW_BYTES_MAX: i32 = 4 << 10;
const RESPONSE_BYTES_MAX: usize = 256 << 20;

impl Consumers {
    fn start(options: &Options, tag: u64, begin: &Arc<OnceLock<Instant>>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (address, partitions) in leaders(&options.bootstrap, &options.stream)? {
            let mut reader = Reader {
                node: Node::connect(&address)?,
                offsets: BTreeMap::new(),
                options: options.clone(),
                tag,
                latencies: histogram(),
            };
            reader.find_ends(&partitions)?;
            let (stop, begin) = (Arc::clone(&stop), Arc::clone(begin));
            threads.push(std::thread::spawn(move || reader.read_all(&begin, &stop)));
        }
        Ok(Self { stop, threads })
    }
}

impl Consuming for Consumers {
    fn client(&self) -> String {
        "own Fetch client".to_owned()
    }

    fn finish(self: Box<Self>) -> io::Result<Read> {
        // Relaxed: the flag carries nothing else.
        self.stop.store(true, Ordering::Relaxed);
        let (mut all, mut records) = (histogram(), 0);
        for thread in self.threads {
            let read =
                thread.join().map_err(|_| io::Error::other("a consumer thread panicked"))??;
            all.add(&read.latencies).map_err(io::Error::other)?;
            records += read.records;
        }
        Ok(Read { latencies: all, records })
    }
}

/// The nodes that lead partitions of the stream, with these partitions.
fn leaders(bootstrap: &str, stream: &str) -> io::Result<Vec<(String, Vec<i32>)>> {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(stream)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![topic]))
        .with_allow_auto_topic_creation(false);
    let response: MetadataResponse =
        Node::connect(bootstrap)?.call(ApiKey::Metadata, METADATA_VERSION, &request)?;
    let topic = response.topics.first().ok_or_else(|| broken("no topic in Metadata"))?;
    check(topic.error_code, "Metadata")?;
    let mut found: BTreeMap<BrokerId, Vec<i32>> = BTreeMap::new();
    for partition in &topic.partitions {
        check(partition.error_code, "Metadata")?;
        found.entry(partition.leader_id).or_default().push(partition.partition_index);
    }
    let address = |leader: BrokerId| {
        let node = response.brokers.iter().find(|node| node.node_id == leader);
        node.map(|node| format!("{}:{}", node.host.as_str(), node.port))
    };
    let with_address = |(leader, partitions)| Some((address(leader)?, partitions));
    let found: Vec<_> = found.into_iter().filter_map(with_address).collect();
    if found.is_empty() { Err(broken("nobody leads the stream's partitions")) } else { Ok(found) }
}

/// Reads the partitions of one node.
struct Reader {
    node: Node,
    /// By partition: the next offset.
    offsets: BTreeMap<i32, i64>,
    options: Options,
    tag: u64,
    latencies: Histogram<u64>,
}

impl Reader {
    fn find_ends(&mut self, partitions: &[i32]) -> io::Result<()> {
        let latest = |&partition: &i32| {
            ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(LATEST)
        };
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(&self.options.stream))
            .with_partitions(partitions.iter().map(latest).collect());
        let request =
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let response: ListOffsetsResponse =
            self.node.call(ApiKey::ListOffsets, LIST_OFFSETS_VERSION, &request)?;
        for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
            check(partition.error_code, "ListOffsets")?;
            self.offsets.insert(partition.partition_index, partition.offset);
        }
        Ok(())
    }

    fn read_all(mut self, begin: &OnceLock<Instant>, stop: &AtomicBool) -> io::Result<Read> {
        let mut records = 0;
        if let Some(core) = self.options.core {
            pin(core)?;
        }
        loop {
            // Before the request: what it does not find was not there when the load had ended.
            let last = stop.load(Ordering::Relaxed);
            let response: FetchResponse =
                self.node.call(ApiKey::Fetch, FETCH_VERSION, &self.request())?;
            let now_ns = begin.get().map_or(0, |begin| begin.elapsed().as_nanos() as u64);
            let count = self.take(response, now_ns)?;
            records += count as u64;
            if last && (count == 0 || self.options.slow) {
                return Ok(Read { latencies: self.latencies, records });
            }
            if self.options.slow {
                std::thread::sleep(SLOW_REST);
            }
        }
    }

    fn request(&self) -> FetchRequest {
        let bytes_max = if self.options.slow { SLOW_BYTES_MAX } else { FETCH_BYTES_MAX };
        let partition = |(&partition, &offset): (&i32, &i64)| {
            FetchPartition::default()
                .with_partition(partition)
                .with_current_leader_epoch(-1)
                .with_fetch_offset(offset)
                .with_partition_max_bytes(bytes_max)
        };
        let topic = FetchTopic::default()
            .with_topic(topic_name(&self.options.stream))
            .with_partitions(self.offsets.iter().map(partition).collect());
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(LONG_POLL_MS)
            .with_min_bytes(1)
            .with_max_bytes(bytes_max)
            .with_session_epoch(-1)
            .with_topics(vec![topic])
    }

    /// How many records came.
    fn take(&mut self, response: FetchResponse, now_ns: u64) -> io::Result<usize> {
        check(response.error_code, "Fetch")?;
        let mut count = 0;
        for partition in response.responses.into_iter().flat_map(|topic| topic.partitions) {
            check(partition.error_code, "Fetch")?;
            let next = self.offsets.entry(partition.partition_index).or_default();
            let mut bytes = partition.records.unwrap_or_default();
            while !bytes.is_empty() {
                let decoded = RecordBatchDecoder::decode_with_custom_compression(
                    &mut bytes,
                    Some(|bytes: &mut Bytes, how: Compression| {
                        decompress(bytes, how).map_err(Into::into)
                    }),
                );
                for record in decoded.map_err(broken)?.records {
                    if record.offset < *next {
                        continue; // a batch comes whole, also when its middle was asked for
                    }
                    *next = record.offset + 1;
                    count += 1;
                    let origin = record.value.and_then(|value| origin_ns(&value, self.tag));
                    let counts =
                        |origin: &u64| (self.options.from_ns..self.options.to_ns).contains(origin);
                    if let Some(origin) = origin.filter(counts) {
                        self.latencies.saturating_record(now_ns.saturating_sub(origin));
                    }
                }
            }
        }
        Ok(count)
    }
}

/// What Tidegate's streams have: none or LZ4.
fn decompress(bytes: &mut Bytes, compression: Compression) -> io::Result<Bytes> {
    match compression {
        Compression::None => Ok(std::mem::take(bytes)),
        Compression::Lz4 => {
            let mut out = Vec::new();
            lz4_flex::frame::FrameDecoder::new(&bytes[..]).read_to_end(&mut out)?;
            Ok(out.into())
        }
        other => Err(broken(format!("{other:?} is not decompressed here"))),
    }
}

/// One connection to a node.
struct Node {
    socket: TcpStream,
    correlation_id: i32,
}

impl Node {
    fn connect(address: &str) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { socket, correlation_id: 0 })
    }

    /// Sends a request and reads its response.
    fn call<R: Decodable>(
        &mut self,
        api: ApiKey,
        version: i16,
        message: &impl Encodable,
    ) -> io::Result<R> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("tidegate-bench")));
        let mut out = vec![0; 4];
        header.encode(&mut out, api.request_header_version(version)).map_err(broken)?;
        message.encode(&mut out, version).map_err(broken)?;
        let bytes = (out.len() - 4) as u32;
        out[..4].copy_from_slice(&bytes.to_be_bytes());
        self.socket.write_all(&out)?;
        let mut prefix = [0; 4];
        self.socket.read_exact(&mut prefix)?;
        let bytes = u32::from_be_bytes(prefix) as usize;
        if bytes > RESPONSE_BYTES_MAX {
            return Err(broken(format!("a response of {bytes} bytes")));
        }
        let mut response = vec![0; bytes];
        self.socket.read_exact(&mut response)?;
        let mut response = Bytes::from(response);
        let header = ResponseHeader::decode(&mut response, api.response_header_version(version));
        if header.map_err(broken)?.correlation_id != self.correlation_id {
            return Err(broken("a response to another request"));
        }
        R::decode(&mut response, version).map_err(broken)
    }
}

fn topic_name(stream: &str) -> TopicName {
    TopicName(StrBytes::from_string(stream.to_owned()))
}

fn check(error_code: i16, api: &str) -> io::Result<()> {
    match error_code {
        0 => Ok(()),
        code => Err(broken(format!("{api} answered with Kafka's error {code}"))),
    }
}

fn broken(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_read_back_by_their_tag() {
        let mut payload = [7; 20];
        stamp(&mut payload, 0x0102_0304, 99);
        assert_eq!(origin_ns(&payload, 0x0102_0304), Some(99));
        assert_eq!(origin_ns(&payload, 1), None);
        assert_eq!(origin_ns(&payload[..15], 0x0102_0304), None);
        assert_eq!(payload[16..], [7; 4]);
    }

    #[test]
    fn nobody_there_is_an_error_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let options = Options {
            client: Client::Own,
            slow: false,
            bootstrap: address,
            stream: "s".into(),
            core: None,
            from_ns: 0,
            to_ns: 1,
        };
        assert!(start(&options, 1, &Arc::default()).is_err());
    }
}
