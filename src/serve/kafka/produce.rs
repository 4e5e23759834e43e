//! Produce: advertised because librdkafka will not *fetch* without it, and refused.
//!
//! librdkafka (kcat, confluent-kafka) takes a node for one from before record batches, and sends it
//! no Fetch that it could answer, unless the node speaks Produce 3 as well as Fetch 4
//! (`rdkafka_feature.c`, MSGVER2). Nothing is stored: every partition gets UNSUPPORTED_VERSION,
//! which no client retries.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::TopicProduceData;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ApiKey, ProduceRequest, ProduceResponse};

use super::{Violation, wire};

/// Appends the refusal; a producer that wants no answer (`acks=0`) can only be disconnected.
pub(super) fn refuse(
    request: &ProduceRequest,
    version: i16,
    correlation_id: i32,
    out: &mut Vec<u8>,
) -> Result<(), Violation> {
    let api = ApiKey::Produce;
    if request.acks == 0 {
        return Err(Violation::Invalid { api, reason: "producing is not served here" });
    }
    let topics = request.topic_data.iter().map(topic).collect();
    let response = ProduceResponse::default().with_responses(topics);
    wire::respond(out, api, version, correlation_id, &response)
}

fn topic(asked: &TopicProduceData) -> TopicProduceResponse {
    let partitions = asked.partition_data.iter().map(|partition| {
        PartitionProduceResponse::default()
            .with_index(partition.index)
            .with_error_code(ResponseError::UnsupportedVersion.code())
            .with_base_offset(-1)
    });
    TopicProduceResponse::default()
        .with_name(asked.name.clone())
        .with_partition_responses(partitions.collect())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::TopicName;
    use kafka_protocol::messages::produce_request::PartitionProduceData;
    use kafka_protocol::protocol::StrBytes;

    use super::super::fake::{Fake, batch, call, request, response};
    use super::*;

    fn ask(acks: i16) -> Result<Vec<u8>, Violation> {
        let partition = PartitionProduceData::default()
            .with_index(2)
            .with_records(Some(Bytes::from(batch(0, 1, 0, 10))));
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_static_str("telemetry")))
            .with_partition_data(vec![partition]);
        let message = ProduceRequest::default().with_acks(acks).with_topic_data(vec![topic]);
        call(&mut Fake::new(), &request(ApiKey::Produce, 3, &message))
    }

    #[test]
    fn every_partition_is_refused() {
        let answer: ProduceResponse = response(ApiKey::Produce, 3, &ask(-1).unwrap());
        let topic = &answer.responses[0];
        assert_eq!(topic.name.as_str(), "telemetry");
        assert_eq!(topic.partition_responses[0].index, 2);
        assert_eq!(topic.partition_responses[0].error_code, 35);
        assert_eq!(topic.partition_responses[0].base_offset, -1);
    }

    #[test]
    fn who_wants_no_answer_is_disconnected() {
        assert!(matches!(ask(0), Err(Violation::Invalid { .. })));
    }
}
