//! A small Kafka client over kafka-protocol's schemas, for the commands that read streams of a running
//! engine: who leads what, where partitions begin and end, and Fetch.
//!
//! In: an address. Out: responses, decoded. Blocking, one request at a time.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, BrokerId, FetchRequest, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest,
    MetadataResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

const METADATA_VERSION: i16 = 9;
const LIST_OFFSETS_VERSION: i16 = 5;
/// The last one that names topics.
pub const FETCH_VERSION: i16 = 12;
/// Times that ListOffsets takes for an end and a start.
pub const LATEST: i64 = -1;
pub const EARLIEST: i64 = -2;
const TIMEOUT: Duration = Duration::from_secs(10);
const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// Who has what of a stream.
#[derive(Debug)]
pub struct Layout {
    pub cluster_id: String,
    /// Nodes of the cluster.
    pub nodes: u32,
    /// Partitions of the stream.
    pub partitions: u32,
    /// Addresses of the nodes that lead partitions, and which.
    pub leaders: Vec<(String, Vec<i32>)>,
}

/// Asks any node who leads a stream's partitions.
///
/// # Errors
/// When it does not answer, or there is no such stream.
pub fn layout(bootstrap: &str, stream: &str) -> io::Result<Layout> {
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
    let leaders: Vec<_> = found.into_iter().filter_map(with_address).collect();
    if leaders.is_empty() {
        return Err(broken("nobody leads the stream's partitions"));
    }
    Ok(Layout {
        cluster_id: response.cluster_id.as_ref().map(StrBytes::to_string).unwrap_or_default(),
        nodes: response.brokers.len() as u32,
        partitions: topic.partitions.len() as u32,
        leaders,
    })
}

/// A Fetch of some partitions, each from its offset.
pub fn fetch(
    stream: &str,
    offsets: &BTreeMap<i32, i64>,
    bytes_max: i32,
    wait_ms: i32,
) -> FetchRequest {
    let partition = |(&partition, &offset): (&i32, &i64)| {
        FetchPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(bytes_max)
    };
    let topic = FetchTopic::default()
        .with_topic(topic_name(stream))
        .with_partitions(offsets.iter().map(partition).collect());
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(bytes_max)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// One connection to a node.
pub struct Node {
    socket: TcpStream,
    correlation_id: i32,
}

impl Node {
    pub fn connect(address: &str) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { socket, correlation_id: 0 })
    }

    /// The offsets of partitions that the node leads, at [`LATEST`] or [`EARLIEST`].
    pub fn offsets(
        &mut self,
        stream: &str,
        partitions: &[i32],
        at: i64,
    ) -> io::Result<BTreeMap<i32, i64>> {
        let partition = |&partition: &i32| {
            ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(at)
        };
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(stream))
            .with_partitions(partitions.iter().map(partition).collect());
        let request =
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let response: ListOffsetsResponse =
            self.call(ApiKey::ListOffsets, LIST_OFFSETS_VERSION, &request)?;
        let mut offsets = BTreeMap::new();
        for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
            check(partition.error_code, "ListOffsets")?;
            offsets.insert(partition.partition_index, partition.offset);
        }
        Ok(offsets)
    }

    /// Sends a request and reads its response.
    pub fn call<R: Decodable>(
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
            .with_client_id(Some(StrBytes::from_static_str("tidegate")));
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

/// What an error code says.
pub fn check(error_code: i16, api: &str) -> io::Result<()> {
    match error_code {
        0 => Ok(()),
        code => Err(broken(format!("{api} answered with Kafka's error {code}"))),
    }
}

/// The peer's answer makes no sense.
pub fn broken(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(what)
}
