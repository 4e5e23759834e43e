//! What decides on a record's partition: the client, the topic, or nothing.

use crate::clients::{
    CONSUMERS, Record, any_consumer, has_consumer, has_python, partitions_of, read_all,
};
use crate::engine::{Engine, Setup, scratch};
use crate::sequences;
use crate::wire::{PUBACK, Publish, Version, Wire};

/// What an engine has that is started with one or two shards.
pub const PARTITIONS: u32 = 8;

/// The partition that Kafka's default partitioner chooses for a key. Written after the Java client
/// (`Utils.murmur2`, `Utils.toPositive`) and on purpose not shared with src/record.
pub fn partition_of(key: &str, partitions: u32) -> u32 {
    let bytes = key.as_bytes();
    let m = 0x5bd1_e995_u32 as i32;
    let mut h = 0x9747_b28c_u32 as i32 ^ bytes.len() as i32;
    for i in 0..bytes.len() / 4 {
        let at = i * 4;
        let mut k = i32::from(bytes[at])
            + (i32::from(bytes[at + 1]) << 8)
            + (i32::from(bytes[at + 2]) << 16)
            + (i32::from(bytes[at + 3]) << 24);
        k = k.wrapping_mul(m);
        k ^= (k as u32 >> 24) as i32;
        k = k.wrapping_mul(m);
        h = h.wrapping_mul(m);
        h ^= k;
    }
    let rest = bytes.len() & !3;
    if bytes.len() % 4 == 3 {
        h ^= i32::from(bytes[rest + 2]) << 16;
    }
    if bytes.len() % 4 >= 2 {
        h ^= i32::from(bytes[rest + 1]) << 8;
    }
    if bytes.len() % 4 >= 1 {
        h ^= i32::from(bytes[rest]);
        h = h.wrapping_mul(m);
    }
    h ^= (h as u32 >> 13) as i32;
    h = h.wrapping_mul(m);
    h ^= (h as u32 >> 15) as i32;
    (h & 0x7fff_ffff) as u32 % partitions
}

/// Names that belong to one of `shards` shards, by the rule that partition p is on shard p mod
/// shards: `prefix0`, `prefix1`, … without those that belong to others.
pub fn names_on(shard: u32, shards: u32, prefix: &str) -> impl Iterator<Item = String> {
    let names = (0..).map(move |number: u32| format!("{prefix}{number}"));
    names.filter(move |name| partition_of(name, PARTITIONS) % shards == shard)
}

#[test]
fn the_partitioner_is_kafkas() {
    // Hashes of Kafka's own UtilsTest.testMurmur2, which modulo 2^31 are partitions as well.
    let all = i32::MAX as u32;
    for (key, hash) in [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ] {
        assert_eq!(partition_of(key, all), (hash & i32::MAX) as u32 % all, "{key}");
    }
    if !has_python() {
        return;
    }
    let keys: Vec<String> = topics().collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let expected: Vec<u32> = keys.iter().map(|key| partition_of(key, PARTITIONS)).collect();
    assert_eq!(partitions_of(&keys, PARTITIONS), expected);
}

/// Topics of all lengths modulo 4, some with bytes above 127, which Java's signed bytes are about.
fn topics() -> impl Iterator<Item = String> {
    (0..60_usize).map(|number| match number % 3 {
        0 => format!("plant/{number}/temp"),
        1 => format!("werk/süd/{number}/{}", "°".repeat(number)),
        _ => "t".repeat(number),
    })
}

const STREAMS: &str = r##"
[[stream]]
name = "by_client"

[[stream]]
name = "by_topic"
partition_by = "topic"

[[stream]]
name = "by_nothing"
partition_by = "none"
"##;

/// Each of four clients sends one message to each topic, which is a message of all three streams.
/// Gives what was sent: client, topic, payload.
fn publish_to_all(engine: &Engine) -> Vec<(String, String, String)> {
    let mut sent = Vec::new();
    for client in ["left", "right", "up", "down"] {
        let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, client);
        let begin = sent.len();
        for (seq, topic) in topics().enumerate() {
            let payload = format!("{seq} of {client}");
            wire.publish(&Publish::new(&topic, seq as u16 + 1, payload.as_bytes()));
            sent.push((client.to_owned(), topic, payload));
        }
        for id in 1..=(sent.len() - begin) as u16 {
            let answer = wire.packet();
            assert_eq!((answer.kind(), answer.id(), answer.reason()), (PUBACK, id, 0));
        }
    }
    sent
}

/// What a record must look like, and where it must lie.
struct Expected {
    key: Option<String>,
    partition: u32,
    has_client_header: bool,
}

/// Every message is in the stream once, as `expected` has it, and each client's are in order within
/// each partition.
fn check(
    records: &[Record],
    sent: &[(String, String, String)],
    expected: impl Fn(&str, &str) -> Expected,
) {
    assert_eq!(records.len(), sent.len());
    for (client, topic, payload) in sent {
        let found: Vec<&Record> = records.iter().filter(|r| r.text() == payload).collect();
        assert_eq!(found.len(), 1, "{payload}");
        let Expected { key, partition, has_client_header } = expected(client, topic);
        let key_found = found[0].has_key.then(|| found[0].key.clone());
        assert_eq!((key_found, found[0].partition), (key, partition), "{payload}: {topic}");
        let fixed = [("mqtt.topic", &**topic), ("mqtt.qos", "1"), ("mqtt.retain", "0")];
        let client = has_client_header.then_some(("mqtt.client_id", &**client));
        let headers: Vec<(&str, &str)> =
            found[0].headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(headers, fixed.into_iter().chain(client).collect::<Vec<_>>(), "{payload}");
    }
    sequences::check_offsets(records);
    let mut last = std::collections::HashMap::new();
    for record in records {
        let client = record.text().split_once(" of ").unwrap().1.to_owned();
        let before = last.insert((record.partition, client), sequences::number_of(record));
        assert!(before.is_none_or(|before| before < sequences::number_of(record)), "{record:?}");
    }
}

#[test]
fn a_message_lies_where_each_stream_has_it() {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let setup = Setup::new(scratch.path()).config(STREAMS).argument(&["--shards", "2"]);
    let engine = setup.start();
    let sent = publish_to_all(&engine);
    let by_client = |client: &str, _topic: &str| Expected {
        key: Some(client.to_owned()),
        partition: partition_of(client, PARTITIONS),
        has_client_header: false,
    };
    let by_topic = |_client: &str, topic: &str| Expected {
        key: Some(topic.to_owned()),
        partition: partition_of(topic, PARTITIONS),
        has_client_header: true,
    };
    // Without a key it stays where its client is, so that a device's order is kept all the same.
    let by_nothing = |client: &str, _topic: &str| Expected {
        key: None,
        partition: partition_of(client, PARTITIONS),
        has_client_header: true,
    };
    check(&read_all(consumer, &engine, "by_client"), &sent, by_client);
    check(&read_all(consumer, &engine, "by_nothing"), &sent, by_nothing);
    for consumer in CONSUMERS.into_iter().filter(|consumer| has_consumer(*consumer)) {
        check(&read_all(consumer, &engine, "by_topic"), &sent, by_topic);
    }
    // Of the three streams only the one by topic may send records to another shard.
    let owner = |name: &str| partition_of(name, PARTITIONS) % 2;
    let crossed = sent.iter().filter(|(client, topic, _)| owner(client) != owner(topic)).count();
    assert!(crossed > 0 && crossed < sent.len());
    assert_eq!(engine.metric("ring_arrived_records_total", ""), crossed as f64);
    engine.stop();
}

#[test]
fn several_clients_of_one_topic_share_its_partition() {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let config = "[[stream]]\nname = \"telemetry\"\npartition_by = \"topic\"\n";
    let setup = Setup::new(scratch.path()).config(config).argument(&["--shards", "2"]);
    let engine = setup.start();
    // From both shards, one after the other: what is acknowledged comes before what is sent then.
    let clients: Vec<String> =
        (0..2).flat_map(|shard| names_on(shard, 2, "sender-").take(2)).collect();
    let mut wires: Vec<Wire> = clients
        .iter()
        .map(|name| Wire::connect_as(engine.ports.mqtt, Version::V311, name))
        .collect();
    for seq in 0..200 {
        let payload = seq.to_string();
        let wire = &mut wires[seq % clients.len()];
        let publish = Publish::new("shared/topic", seq as u16 + 1, payload.as_bytes());
        assert_eq!(wire.publish_acknowledged(&publish), 0);
    }
    let records = read_all(consumer, &engine, "telemetry");
    let found: Vec<u64> = records.iter().map(sequences::number_of).collect();
    assert_eq!(found, (0..200).collect::<Vec<_>>());
    for (seq, record) in records.iter().enumerate() {
        assert_eq!(record.header("mqtt.client_id"), Some(&*clients[seq % clients.len()]));
        assert_eq!(record.partition, partition_of("shared/topic", PARTITIONS));
    }
    engine.stop();
}
