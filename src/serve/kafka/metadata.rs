//! Metadata: the nodes, and which of them leads each partition of the topics asked for.
//!
//! Answered from [`Cluster`] alone. Topics are never created by asking for them.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{ApiKey, BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::record::{PartitionId, StreamName};

use super::{Cluster, Violation, wire};

/// Appends the response.
pub(super) fn answer(
    request: &MetadataRequest,
    version: i16,
    correlation_id: i32,
    cluster: &Cluster,
    out: &mut Vec<u8>,
) -> Result<(), Violation> {
    let response = MetadataResponse::default()
        .with_brokers(cluster.nodes().iter().map(broker).collect())
        .with_cluster_id(Some(cluster.id().clone()))
        .with_controller_id(BrokerId(0))
        .with_topics(topics(request, version, cluster)?);
    wire::respond(out, ApiKey::Metadata, version, correlation_id, &response)
}

fn broker(node: &super::Node) -> MetadataResponseBroker {
    MetadataResponseBroker::default()
        .with_node_id(BrokerId(node.shard.0 as i32))
        .with_host(node.host.clone())
        .with_port(node.port.into())
}

fn topics(
    request: &MetadataRequest,
    version: i16,
    cluster: &Cluster,
) -> Result<Vec<MetadataResponseTopic>, Violation> {
    // Null asks for all topics; before there was null, no topic at all did.
    let asked = request.topics.as_deref().filter(|asked| version > 0 || !asked.is_empty());
    let Some(asked) = asked else {
        let rows = 0..cluster.streams().len();
        return Ok(rows.map(|row| known(row, version, cluster)).collect());
    };
    // A stream named twice is answered once, or a small request could ask for a huge answer.
    let mut answered = vec![false; cluster.streams().len()];
    let mut topics = Vec::new();
    for topic in asked {
        let (row, missing) = match &topic.name {
            _ if version >= 12 && !topic.topic_id.is_nil() => {
                let row = cluster.by_uuid(topic.topic_id);
                (row, unknown(None, topic.topic_id, ResponseError::UnknownTopicId))
            }
            Some(name) => {
                let error = name_error(name);
                (cluster.by_name(name), unknown(Some(name.clone()), Uuid::nil(), error))
            }
            None => {
                let reason = "a topic without a name, and without an id before version 12";
                return Err(Violation::Invalid { api: ApiKey::Metadata, reason });
            }
        };
        match row {
            Some(row) if answered[row] => {}
            Some(row) => {
                answered[row] = true;
                topics.push(known(row, version, cluster));
            }
            None => topics.push(missing),
        }
    }
    Ok(topics)
}

fn known(row: usize, version: i16, cluster: &Cluster) -> MetadataResponseTopic {
    let stream = &cluster.streams()[row];
    let name = StrBytes::from_string(stream.name.as_str().to_owned());
    let partitions = (0..cluster.partitions()).map(|p| partition(PartitionId(p), version, cluster));
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(name)))
        .with_topic_id(stream.uuid)
        .with_partitions(partitions.collect())
}

fn unknown(name: Option<TopicName>, uuid: Uuid, error: ResponseError) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(name)
        .with_topic_id(uuid)
}

/// The error of a name that is no stream's.
fn name_error(name: &TopicName) -> ResponseError {
    match StreamName::try_from(name.to_string()) {
        Ok(_) => ResponseError::UnknownTopicOrPartition,
        Err(_) => ResponseError::InvalidTopicException,
    }
}

fn partition(id: PartitionId, version: i16, cluster: &Cluster) -> MetadataResponsePartition {
    let leader = BrokerId(cluster.leader(id).shard.0 as i32);
    let epoch = if version >= 7 { cluster.leader_epoch() } else { -1 };
    MetadataResponsePartition::default()
        .with_partition_index(id.0 as i32)
        .with_leader_id(leader)
        .with_leader_epoch(epoch)
        .with_replica_nodes(vec![leader])
        .with_isr_nodes(vec![leader])
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;

    use super::super::fake::{
        ALARMS, EPOCH, Fake, TELEMETRY, call, golden, hex, request, response,
    };
    use super::*;

    fn named(name: &str) -> MetadataRequestTopic {
        let name = StrBytes::from_string(name.to_owned());
        MetadataRequestTopic::default().with_name(Some(TopicName(name)))
    }

    fn by_id(uuid: Uuid) -> MetadataRequestTopic {
        MetadataRequestTopic::default().with_name(None).with_topic_id(uuid)
    }

    fn ask(version: i16, topics: Option<Vec<MetadataRequestTopic>>) -> Result<Vec<u8>, Violation> {
        let message = MetadataRequest::default().with_topics(topics);
        call(&mut Fake::new(), &request(ApiKey::Metadata, version, &message))
    }

    /// Name (or "-"), error and number of partitions of each topic answered.
    fn answered(version: i16, topics: Option<Vec<MetadataRequestTopic>>) -> Vec<String> {
        let out = ask(version, topics).unwrap();
        let answer: MetadataResponse = response(ApiKey::Metadata, version, &out);
        let text = |topic: &MetadataResponseTopic| {
            let name = topic.name.as_ref().map_or("-", |name| name.as_str());
            format!("{name} {} {}", topic.error_code, topic.partitions.len())
        };
        answer.topics.iter().map(text).collect()
    }

    #[test]
    fn golden_bytes_before_tagged_fields() {
        let expected = [
            "000000b1 01020304", // Length, correlation id.
            "00000002",          // Nodes: id, host, port, rack.
            "00000000 0009 3132372e302e302e31 00002384 ffff",
            "00000001 0009 3132372e302e302e31 00002385 ffff",
            "00000000",                                                 // Controller.
            "00000001 0000 0006 616c61726d73 00 00000004", // A topic: name, not internal.
            "0000 00000000 00000000 0000000100000000 0000000100000000", // Index, leader,
            "0000 00000001 00000001 0000000100000001 0000000100000001", // replicas, in sync.
            "0000 00000002 00000000 0000000100000000 0000000100000000",
            "0000 00000003 00000001 0000000100000001 0000000100000001",
        ];
        let out = ask(1, Some(vec![named("alarms")])).unwrap();
        assert_eq!(hex(&out), golden(&expected));
    }

    #[test]
    fn golden_bytes_with_topic_ids() {
        let expected = [
            "000000c8 01020304 00 00000000", // Length, correlation id, tags, throttle time.
            "03",                            // Two nodes: id, host, port, rack, tags.
            "00000000 0a 3132372e302e302e31 00002384 00 00",
            "00000001 0a 3132372e302e302e31 00002385 00 00",
            "08 636c7573746572 00000000", // Cluster id, controller.
            "02 0000 07 616c61726d73",    // A topic: no error, name,
            "0000000000000000000000000000aaaa 00 05", // id, not internal, partitions:
            "0000 00000000 00000000 00000005 0200000000 0200000000 01 00", // index, leader,
            "0000 00000001 00000001 00000005 0200000001 0200000001 01 00", // epoch, replicas,
            "0000 00000002 00000000 00000005 0200000000 0200000000 01 00", // in sync, offline,
            "0000 00000003 00000001 00000005 0200000001 0200000001 01 00", // tags.
            "80000000 00",                // Authorized operations unknown, tags.
            "00",                         // Tags.
        ];
        let out = ask(12, Some(vec![named("alarms")])).unwrap();
        assert_eq!(hex(&out), golden(&expected));
    }

    #[test]
    fn all_topics_or_the_named_ones() {
        for version in 0..=13 {
            let all = if version == 0 { Some(vec![]) } else { None };
            assert_eq!(answered(version, all), ["telemetry 0 4", "alarms 0 4"], "{version}");
            let none: [&str; 0] = [];
            if version > 0 {
                assert_eq!(answered(version, Some(vec![])), none, "{version}");
            }
            let asked = ["alarms", "nothing", "no name!", "alarms"].map(named).to_vec();
            let expected = ["alarms 0 4", "nothing 3 0", "no name! 17 0"];
            assert_eq!(answered(version, Some(asked)), expected, "{version}");
        }
    }

    #[test]
    fn topics_by_id() {
        for version in 12..=13 {
            let asked = vec![by_id(TELEMETRY), by_id(Uuid::from_u128(9)), named("alarms")];
            let expected = ["telemetry 0 4", "- 100 0", "alarms 0 4"];
            assert_eq!(answered(version, Some(asked)), expected, "{version}");
        }
        let nameless = by_id(Uuid::nil());
        assert!(matches!(ask(12, Some(vec![nameless])), Err(Violation::Invalid { .. })));
    }

    #[test]
    fn every_version_tells_leaders_and_ids() {
        for version in 0..=13 {
            let out = ask(version, Some(vec![named("alarms")])).unwrap();
            let answer: MetadataResponse = response(ApiKey::Metadata, version, &out);
            let topic = &answer.topics[0];
            assert_eq!(topic.topic_id, if version >= 10 { ALARMS } else { Uuid::nil() });
            for (index, partition) in topic.partitions.iter().enumerate() {
                assert_eq!(partition.partition_index, index as i32);
                assert_eq!(partition.leader_id.0, index as i32 % 2);
                assert_eq!(partition.leader_epoch, if version >= 7 { EPOCH } else { -1 });
                assert_eq!(partition.isr_nodes, [partition.leader_id]);
                assert_eq!(partition.replica_nodes, [partition.leader_id]);
            }
        }
    }
}
