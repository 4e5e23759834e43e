//! Walks a request along its schema before anything decodes it.
//!
//! kafka-protocol reserves memory for as many array elements as a request *says* it has, so a
//! hostile count would end the process. A request that passes here has every element, string and
//! tagged field that it announces, within its own bytes, and no more elements than the limit; its
//! decoded form is a small multiple of its size. Deliberately absent: values (strings need not be
//! UTF-8 here; the decoder refuses those).
//!
//! The tables follow Kafka's `clients/src/main/resources/common/message/*Request.json` for exactly
//! the versions that `api_versions` advertises.

/// Why a request does not follow its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A field, or the elements that a count announces, end after the request.
    #[error("it is cut short")]
    Truncated,
    /// A length below -1, which stands for null.
    #[error("a negative length")]
    NegativeLength,
    /// A variable-length number of more than 32 bits.
    #[error("a variable-length number of more than 32 bits")]
    Varint,
    /// More array elements and tagged fields than allowed.
    #[error("more array elements than the limit")]
    TooManyElements,
    /// A tagged field whose content is not as long as it says, or that its version does not have.
    #[error("a tagged field that does not hold what its tag stands for")]
    TaggedField,
    /// It follows its schema, but a value is not allowed (a null, a string that is not UTF-8).
    #[error("a value that is not allowed")]
    Undecodable,
}

/// The layout of a request: the header is implied.
pub(super) struct Schema {
    /// The first version with compact lengths, tagged fields, and header version 2.
    flexible_from: i16,
    body: Struct,
}

struct Struct {
    fields: &'static [Field],
    tags: &'static [Tag],
}

struct Field {
    since: i16,
    until: i16,
    kind: Kind,
}

/// A tagged field whose content the decoder interprets; it skips others by their size.
struct Tag {
    tag: u32,
    since: i16,
    kind: Kind,
}

enum Kind {
    Bytes(usize),
    Text,
    /// Bytes with a length of four bytes, where text has two.
    Blob,
    Ints,
    Structs(&'static Struct),
    Inline(&'static Struct),
}

const fn since(since: i16, kind: Kind) -> Field {
    Field { since, until: i16::MAX, kind }
}

const fn between(since: i16, until: i16, kind: Kind) -> Field {
    Field { since, until, kind }
}

const BOOL: Kind = Kind::Bytes(1);
const INT8: Kind = Kind::Bytes(1);
const INT16: Kind = Kind::Bytes(2);
const INT32: Kind = Kind::Bytes(4);
const INT64: Kind = Kind::Bytes(8);
const UUID: Kind = Kind::Bytes(16);

pub(super) const API_VERSIONS: Schema = Schema {
    flexible_from: 3,
    body: Struct { fields: &[since(3, Kind::Text), since(3, Kind::Text)], tags: &[] },
};

pub(super) const PRODUCE: Schema = Schema {
    flexible_from: 9,
    body: Struct {
        fields: &[
            since(3, Kind::Text),
            since(0, INT16),
            since(0, INT32),
            since(
                0,
                Kind::Structs(&Struct {
                    fields: &[
                        between(0, 12, Kind::Text),
                        since(13, UUID),
                        since(
                            0,
                            Kind::Structs(&Struct {
                                fields: &[since(0, INT32), since(0, Kind::Blob)],
                                tags: &[],
                            }),
                        ),
                    ],
                    tags: &[],
                }),
            ),
        ],
        tags: &[],
    },
};

pub(super) const METADATA: Schema = Schema {
    flexible_from: 9,
    body: Struct {
        fields: &[
            since(
                0,
                Kind::Structs(&Struct {
                    fields: &[since(10, UUID), since(0, Kind::Text)],
                    tags: &[],
                }),
            ),
            since(4, BOOL),
            between(8, 10, BOOL),
            since(8, BOOL),
        ],
        tags: &[],
    },
};

pub(super) const LIST_OFFSETS: Schema = Schema {
    flexible_from: 6,
    body: Struct {
        fields: &[
            since(0, INT32),
            since(2, INT8),
            since(
                0,
                Kind::Structs(&Struct {
                    fields: &[
                        since(0, Kind::Text),
                        since(
                            0,
                            Kind::Structs(&Struct {
                                fields: &[since(0, INT32), since(4, INT32), since(0, INT64)],
                                tags: &[],
                            }),
                        ),
                    ],
                    tags: &[],
                }),
            ),
            since(10, INT32),
        ],
        tags: &[],
    },
};

pub(super) const FETCH: Schema = Schema {
    flexible_from: 12,
    body: Struct {
        fields: &[
            between(0, 14, INT32),
            since(0, INT32),
            since(0, INT32),
            since(3, INT32),
            since(4, INT8),
            since(7, INT32),
            since(7, INT32),
            since(
                0,
                Kind::Structs(&Struct {
                    fields: &[
                        between(0, 12, Kind::Text),
                        since(13, UUID),
                        since(0, Kind::Structs(&FETCH_PARTITION)),
                    ],
                    tags: &[],
                }),
            ),
            since(
                7,
                Kind::Structs(&Struct {
                    fields: &[between(7, 12, Kind::Text), since(13, UUID), since(7, Kind::Ints)],
                    tags: &[],
                }),
            ),
            since(11, Kind::Text),
        ],
        tags: &[
            Tag { tag: 0, since: 12, kind: Kind::Text },
            Tag {
                tag: 1,
                since: 15,
                kind: Kind::Inline(&Struct {
                    fields: &[since(0, INT32), since(0, INT64)],
                    tags: &[],
                }),
            },
        ],
    },
};

const FETCH_PARTITION: Struct = Struct {
    fields: &[
        since(0, INT32),
        since(9, INT32),
        since(0, INT64),
        since(12, INT32),
        since(5, INT64),
        since(0, INT32),
    ],
    tags: &[Tag { tag: 0, since: 17, kind: UUID }, Tag { tag: 1, since: 18, kind: INT64 }],
};

/// Walks a whole request, header first; at most `elements_max` array elements and tagged fields.
pub(super) fn check(
    schema: &Schema,
    version: i16,
    request: &[u8],
    elements_max: usize,
) -> Result<(), Malformed> {
    walk(schema, version, request, elements_max).map(|_| ())
}

/// What follows the request's last field: nothing, from the clients that we know.
fn walk<'a>(
    schema: &Schema,
    version: i16,
    request: &'a [u8],
    elements_max: usize,
) -> Result<&'a [u8], Malformed> {
    let flexible = version >= schema.flexible_from;
    let mut walk = Walk { rest: request, version, flexible: false, elements_left: elements_max };
    walk.skip(8)?;
    walk.text()?; // The client id has the old length even in flexible headers.
    walk.flexible = flexible;
    walk.tags(&[])?;
    walk.record(&schema.body)?;
    Ok(walk.rest)
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements_left: usize,
}

impl Walk<'_> {
    fn record(&mut self, layout: &Struct) -> Result<(), Malformed> {
        for field in layout.fields {
            if (field.since..=field.until).contains(&self.version) {
                self.field(&field.kind)?;
            }
        }
        self.tags(layout.tags)
    }

    fn field(&mut self, kind: &Kind) -> Result<(), Malformed> {
        match kind {
            Kind::Bytes(bytes) => self.skip(*bytes),
            Kind::Text => self.text(),
            Kind::Blob => self.blob(),
            Kind::Ints => {
                let count = self.count()?;
                self.skip(count.checked_mul(4).ok_or(Malformed::Truncated)?)
            }
            Kind::Structs(layout) => (0..self.count()?).try_for_each(|_| self.record(layout)),
            Kind::Inline(layout) => self.record(layout),
        }
    }

    /// An array's count, which the rest must be able to hold: no element is smaller than a byte.
    fn count(&mut self) -> Result<usize, Malformed> {
        let count = if self.flexible {
            self.varint()?.saturating_sub(1) as usize
        } else {
            Self::length(i32::from_be_bytes(self.take()?))?
        };
        self.elements_left =
            self.elements_left.checked_sub(count).ok_or(Malformed::TooManyElements)?;
        if count > self.rest.len() { Err(Malformed::Truncated) } else { Ok(count) }
    }

    fn text(&mut self) -> Result<(), Malformed> {
        if self.flexible {
            return self.compact();
        }
        let bytes = Self::length(i16::from_be_bytes(self.take()?).into())?;
        self.skip(bytes)
    }

    fn blob(&mut self) -> Result<(), Malformed> {
        if self.flexible {
            return self.compact();
        }
        let bytes = Self::length(i32::from_be_bytes(self.take()?))?;
        self.skip(bytes)
    }

    /// Text or bytes of the new kind: one more than the length, 0 is null.
    fn compact(&mut self) -> Result<(), Malformed> {
        let bytes = self.varint()?.saturating_sub(1) as usize;
        self.skip(bytes)
    }

    fn tags(&mut self, known: &[Tag]) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        let count = self.varint()? as usize;
        self.elements_left =
            self.elements_left.checked_sub(count).ok_or(Malformed::TooManyElements)?;
        for _ in 0..count {
            let tag = self.varint()?;
            let bytes = self.varint()? as usize;
            let after = self.rest.get(bytes..).ok_or(Malformed::Truncated)?;
            if let Some(known) = known.iter().find(|known| known.tag == tag) {
                // The decoder reads the content and ignores the size: they must agree.
                self.field(&known.kind)?;
                if self.rest.len() != after.len() || self.version < known.since {
                    return Err(Malformed::TaggedField);
                }
            }
            self.rest = after;
        }
        Ok(())
    }

    /// A length of the old kind: -1 is null.
    fn length(wire: i32) -> Result<usize, Malformed> {
        if wire == -1 { Ok(0) } else { wire.try_into().map_err(|_| Malformed::NegativeLength) }
    }

    fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0_u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::Varint)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.rest = self.rest.get(bytes..).ok_or(Malformed::Truncated)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, Bytes};
    use kafka_protocol::messages::fetch_request::{
        FetchPartition, FetchTopic, ForgottenTopic, ReplicaState,
    };
    use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{
        ApiKey, ApiVersionsRequest, BrokerId, FetchRequest, ListOffsetsRequest, MetadataRequest,
        ProduceRequest, RequestHeader, TopicName,
    };
    use kafka_protocol::protocol::{Decodable, StrBytes};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::api_versions::Served;
    use super::super::fake::{Fake, request};
    use super::super::{Connection, Limits};
    use super::*;

    const ELEMENTS: usize = 1000;

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    fn api_versions(version: i16) -> Vec<u8> {
        let mut message = ApiVersionsRequest::default();
        if version >= 3 {
            message = message
                .with_client_software_name(text("librdkafka"))
                .with_client_software_version(text("2.0.2"))
                .with_unknown_tagged_field(3, Bytes::from_static(b"tagged"));
        }
        request(ApiKey::ApiVersions, version, &message)
    }

    fn produce(version: i16) -> Vec<u8> {
        let partition = PartitionProduceData::default()
            .with_records(Some(Bytes::from_static(b"some records of some length")));
        let topic = TopicProduceData::default()
            .with_name(TopicName(text("telemetry")))
            .with_partition_data(vec![partition.clone(), partition]);
        let message = ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic]);
        request(ApiKey::Produce, version, &message)
    }

    fn metadata(version: i16) -> Vec<u8> {
        let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text("telemetry"))));
        let mut topics = vec![topic.clone(), topic];
        if version >= 10 {
            let named = MetadataRequestTopic::default();
            topics.push(named.with_name(None).with_topic_id(Uuid::from_u128(5)));
        }
        let message = MetadataRequest::default().with_topics(Some(topics));
        request(ApiKey::Metadata, version, &message)
    }

    fn list_offsets(version: i16) -> Vec<u8> {
        let partition = ListOffsetsPartition::default().with_timestamp(-1);
        let topic = ListOffsetsTopic::default()
            .with_name(TopicName(text("telemetry")))
            .with_partitions(vec![partition.clone(), partition]);
        let message = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topic.clone(), topic]);
        request(ApiKey::ListOffsets, version, &message)
    }

    fn fetch(version: i16) -> Vec<u8> {
        let mut partition = FetchPartition::default().with_partition_max_bytes(1000);
        if version >= 12 {
            let tagged = Bytes::from_static(b"tagged");
            partition = partition.with_unknown_tagged_field(9, tagged);
        }
        if version >= 17 {
            partition = partition.with_replica_directory_id(Uuid::from_u128(3));
        }
        if version >= 18 {
            partition = partition.with_high_watermark(77);
        }
        let topic = FetchTopic::default()
            .with_topic(TopicName(text("telemetry")))
            .with_partitions(vec![partition.clone(), partition]);
        let mut message = FetchRequest::default().with_topics(vec![topic.clone(), topic]);
        if version >= 7 {
            let forgotten = ForgottenTopic::default().with_partitions(vec![1, 2, 3]);
            message = message.with_forgotten_topics_data(vec![forgotten]);
        }
        if version >= 11 {
            message = message.with_rack_id(text("rack"));
        }
        if version >= 12 {
            message = message.with_cluster_id(Some(text("cluster")));
        }
        if version >= 15 {
            let state = ReplicaState::default().with_replica_epoch(4);
            message = message.with_replica_state(state);
        }
        request(ApiKey::Fetch, version, &message)
    }

    /// A request of every API and version that is served, with everything in it.
    fn samples() -> Vec<Vec<u8>> {
        let mut samples = Vec::new();
        samples.extend((0..=4).map(api_versions));
        samples.extend((3..=3).map(produce));
        samples.extend((0..=13).map(metadata));
        samples.extend((1..=10).map(list_offsets));
        samples.extend((4..=18).map(fetch));
        samples
    }

    fn set_length(request: &mut [u8]) {
        let bytes = (request.len() - 4) as i32;
        request[..4].copy_from_slice(&bytes.to_be_bytes());
    }

    /// The bytes that the decoder leaves, when it accepts the request.
    fn decoded_rest(api: ApiKey, version: i16, request: &[u8]) -> Option<usize> {
        let mut body = Bytes::copy_from_slice(request);
        RequestHeader::decode(&mut body, api.request_header_version(version)).ok()?;
        match api {
            ApiKey::ApiVersions => drop(ApiVersionsRequest::decode(&mut body, version).ok()?),
            ApiKey::Produce => drop(ProduceRequest::decode(&mut body, version).ok()?),
            ApiKey::Metadata => drop(MetadataRequest::decode(&mut body, version).ok()?),
            ApiKey::ListOffsets => drop(ListOffsetsRequest::decode(&mut body, version).ok()?),
            _ => drop(FetchRequest::decode(&mut body, version).ok()?),
        }
        Some(body.remaining())
    }

    /// What the guard lets pass, the decoder reads to the same byte, or refuses for a value: then
    /// no count that it reserves memory for was other than the guard saw. And a whole step with
    /// these bytes ends.
    fn check_agreement(framed: &[u8]) {
        let request = &framed[4..];
        let Some(key) = request.first_chunk::<2>() else { return };
        let Some(version) = request[2..].first_chunk::<2>() else { return };
        let version = i16::from_be_bytes(*version);
        let served = Served::by_key(i16::from_be_bytes(*key));
        if let Some(served) = served.filter(|served| served.versions.contains(&version)) {
            let walked = walk(served.schema, version, request, ELEMENTS);
            if let (Ok(rest), Some(decoded)) =
                (walked, walked.ok().and_then(|_| decoded_rest(served.api, version, request)))
            {
                assert_eq!(rest.len(), decoded, "{:?} {version}", served.api);
            }
        }
        let (mut connection, mut out) = (Connection::new(), Vec::new());
        let _ = connection.step(&Limits::default(), framed, &mut Fake::new(), 0, &mut out);
        assert!(out.len() < 100 * framed.len() + 10_000);
    }

    #[test]
    fn real_requests_pass_and_cut_ones_do_not() {
        for sample in samples() {
            let request = &sample[4..];
            let served = Served::by_key(i16::from_be_bytes([request[0], request[1]])).unwrap();
            let version = i16::from_be_bytes([request[2], request[3]]);
            let walked = walk(served.schema, version, request, ELEMENTS);
            assert_eq!(walked, Ok(&[][..]), "{:?} {version}", served.api);
            assert_eq!(decoded_rest(served.api, version, request), Some(0));
            for end in 0..request.len() {
                let walked = walk(served.schema, version, &request[..end], ELEMENTS);
                assert_eq!(walked, Err(Malformed::Truncated), "{:?} {version} {end}", served.api);
            }
        }
    }

    #[test]
    fn elements_are_limited() {
        let check = |request: Vec<u8>, schema, version, elements: usize| {
            let walked = |max| walk(schema, version, &request[4..], max).is_ok();
            assert!(walked(elements) && !walked(elements - 1));
        };
        check(metadata(1), &METADATA, 1, 2);
        check(list_offsets(6), &LIST_OFFSETS, 6, 6);
        // Topics, partitions and their tagged field, forgotten topic and partitions, cluster id.
        check(fetch(12), &FETCH, 12, 2 + 4 + 4 + 1 + 3 + 1);
    }

    #[test]
    fn huge_counts_anywhere_are_harmless() {
        let huge: [&[u8]; 5] = [
            &[0x7f, 0xff, 0xff, 0xff],
            &[0xff, 0xff, 0xff, 0xff, 0x07],
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0x00, 0xff, 0xff, 0xff],
            &[0x80, 0x00, 0x00, 0x00],
        ];
        for sample in samples() {
            for at in 12..sample.len() {
                for count in huge {
                    let mut hostile = sample.clone();
                    let end = hostile.len().min(at + count.len());
                    hostile[at..end].copy_from_slice(&count[..end - at]);
                    check_agreement(&hostile);
                    let mut hostile = [&sample[..at], count, &sample[at..]].concat();
                    set_length(&mut hostile);
                    check_agreement(&hostile);
                }
            }
        }
    }

    #[test]
    fn a_tag_must_hold_what_it_stands_for() {
        let sample = fetch(15);
        // The cluster id, tag 0 with 8 bytes: said to have 7, the decoder would read on past it.
        let at = sample.windows(3).position(|bytes| bytes == [0, 8, 8]).unwrap();
        let check = |at: usize, byte: u8, expected| {
            let mut hostile = sample[4..].to_vec();
            hostile[at - 4] = byte;
            assert_eq!(check(&FETCH, 15, &hostile, ELEMENTS), Err(expected));
        };
        check(at + 1, 7, Malformed::TaggedField);
        check(at + 1, 9, Malformed::TaggedField);
        check(at + 2, 7, Malformed::TaggedField);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn random_bodies_are_harmless(
            sample in 0..samples().len(),
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            // Keep the header up to the client id, whatever follows.
            let mut framed = [&samples()[sample][..18], &body[..]].concat();
            set_length(&mut framed);
            check_agreement(&framed);
        }

        #[test]
        fn mutated_requests_are_harmless(
            sample in 0..samples().len(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
            keep in any::<bool>(),
        ) {
            let mut framed = samples()[sample].clone();
            for (at, byte) in changes {
                let at = 8 + at.index(framed.len() - 8);
                framed[at] = byte;
            }
            if !keep {
                framed.truncate(12 + cut.index(framed.len() - 12));
                set_length(&mut framed);
            }
            check_agreement(&framed);
        }
    }
}
