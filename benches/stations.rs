//! What each station costs, next to what nobody gets around: copying the same bytes, and their
//! CRC-32C.
//!
//! `cargo bench --bench stations` (`-- --quick` for a first look). Times are of one thread without
//! I/O; throughput is in messages. Each `reference` line moves or sums as many bytes as the line
//! above it writes. The whole path is driven by the harness of tests/allocations, where commit
//! buffers are memory that is there already.

#[path = "../tests/allocations/harness.rs"]
#[allow(dead_code)] // the tests ask it for more
mod harness;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use harness::{PARTITIONS, Rig, Setup, connect, fetch, publish};
use tidegate::ingest::mqtt::{Connection, Event, Limits};
use tidegate::record::batch::{BatchBuilder, BatchFinisher, RecordParts};
use tidegate::record::{Compression, Durability, Offset, partition_of};
use tidegate::shard::{ConnId, Protocol};

const PAYLOAD_BYTES: usize = 128;
const TOPIC: &str = "plant/7/line/3/temperature";
/// Records of a commit, and room for them in one batch.
const RECORDS: u64 = 1_000;
const BATCH_BYTES_MAX: usize = 1 << 20;
const HEADERS: [(&[u8], &[u8]); 3] =
    [(b"mqtt.topic", TOPIC.as_bytes()), (b"mqtt.qos", b"1"), (b"mqtt.retain", b"0")];

/// A payload as devices send it: text that LZ4 can shrink, never twice the same.
fn payload(seed: u64) -> Vec<u8> {
    let mut text = String::new();
    let mut state = seed;
    while text.len() < PAYLOAD_BYTES {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(&format!("{{\"t\":{},\"v\":{}}},", state >> 44, state >> 54));
    }
    text.truncate(PAYLOAD_BYTES);
    text.into_bytes()
}

fn decode(c: &mut Criterion) {
    const PACKETS: usize = 64;
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(PACKETS as u64));
    let limits = Limits { receive_maximum: u16::MAX, ..Limits::default() };
    for (name, version, properties) in [("3.1.1", 4, None), ("5", 5, Some([].as_slice()))] {
        let input = publish(TOPIC, 1, properties, &payload(1)).repeat(PACKETS);
        let mut out = Vec::with_capacity(1 << 16);
        let mut machine = Connection::new();
        let hello = connect(version, "bench");
        assert!(matches!(machine.step(&limits, &hello, &mut out), Ok((_, Event::Connect(_)))));
        machine.accept(&limits, None, &mut out);
        group.bench_function(format!("mqtt {name}, qos 1, {PAYLOAD_BYTES} bytes"), |b| {
            b.iter(|| {
                out.clear();
                let mut at = 0;
                while let Ok((bytes, Event::Publish(publish))) =
                    machine.step(&limits, &input[at..], &mut out)
                {
                    let packet_id = black_box(publish).packet_id;
                    machine.acknowledge(packet_id, true, &mut out);
                    at += bytes;
                }
                assert_eq!(at, input.len());
            });
        });
        references(&mut group, name, &input);
    }
    group.finish();
}

/// What copying `bytes` and summing them costs.
fn references(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    name: &str,
    bytes: &[u8],
) {
    let mut copy = vec![0; bytes.len()];
    group.bench_function(format!("reference memcpy, {name}, {} bytes", bytes.len()), |b| {
        b.iter(|| black_box(&mut copy).copy_from_slice(black_box(bytes)));
    });
    group.bench_function(format!("reference crc32c, {name}, {} bytes", bytes.len()), |b| {
        b.iter(|| crc32c::crc32c(black_box(bytes)));
    });
}

fn fill(builder: &mut BatchBuilder, payloads: &[Vec<u8>]) {
    for (offset, payload) in payloads.iter().enumerate() {
        let record = RecordParts {
            key: Some(b"device-4711".as_slice()),
            value: Some(payload),
            timestamp_ms: 1_700_000_000_000,
            headers: HEADERS.iter().copied(),
        };
        builder.append(Offset(offset as u64), black_box(&record), BATCH_BYTES_MAX);
    }
}

/// Records into a batch, and the batch into a commit's buffer.
fn append_and_seal(c: &mut Criterion) {
    let payloads: Vec<_> = (0..RECORDS).map(payload).collect();
    let mut builder = BatchBuilder::default();
    let mut batch = Vec::new();
    fill(&mut builder, &payloads);
    builder.drain(|bytes, _| batch.extend_from_slice(bytes));

    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(RECORDS));
    group.bench_function(format!("{RECORDS} records"), |b| {
        b.iter(|| {
            fill(&mut builder, &payloads);
            builder.drain(|bytes, header| _ = black_box((bytes, header)));
        });
    });
    references(&mut group, "batch", &batch);
    group.finish();

    let mut group = c.benchmark_group("seal");
    group.throughput(Throughput::Elements(RECORDS));
    let mut finisher = BatchFinisher::default();
    let mut out = vec![0; batch.len()];
    for compression in [Compression::None, Compression::Lz4] {
        let bytes = finisher.finish(&batch, compression, 1, &mut out);
        let name = format!("{RECORDS} records, {}, {bytes} bytes", compression.name());
        group.bench_function(name, |b| {
            b.iter(|| finisher.finish(black_box(&batch), compression, 1, &mut out));
        });
    }
    references(&mut group, "batch", &batch);
    group.finish();
}

/// Devices that each send `messages` at a time, as (connection, burst).
fn devices(rig: &mut Rig, count: usize, messages: usize) -> Vec<(ConnId, Vec<u8>)> {
    let device = |i: usize| {
        let id = rig.connect(4, &format!("device-{i}"));
        let packets = (0..messages).map(|m| publish(TOPIC, 1, None, &payload((i + m) as u64)));
        (id, packets.collect::<Vec<_>>().concat())
    };
    (0..count).map(device).collect()
}

fn setup(compression: Compression) -> Setup {
    Setup {
        streams: vec![("#", Durability::Fsync, compression)],
        segment_bytes: 64 << 20,
        buffer_bytes: 2 << 20,
        batch_bytes_max: BATCH_BYTES_MAX,
        rules: "",
    }
}

/// From received bytes to sent acknowledgements, commit included.
fn whole_path(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish, append, seal, acknowledge");
    for (connections, messages) in [(100, 16), (1_000, 1)] {
        group.throughput(Throughput::Elements((connections * messages) as u64));
        for compression in [Compression::None, Compression::Lz4] {
            let mut rig = Rig::new(&setup(compression));
            let devices = devices(&mut rig, connections, messages);
            let name = format!("{connections} connections × {messages}, {}", compression.name());
            group.bench_function(name, |b| {
                b.iter(|| {
                    for (id, burst) in &devices {
                        rig.receive(*id, burst, usize::MAX);
                    }
                    rig.settle();
                });
            });
        }
    }
    let mut rig = Rig::new(&setup(Compression::None));
    let input: Vec<u8> =
        devices(&mut rig, 100, 16).into_iter().flat_map(|(_, burst)| burst).collect();
    group.throughput(Throughput::Elements(1_600));
    references(&mut group, "what 100 × 16 sent", &input);
    group.finish();
}

/// A Fetch of what has just been committed, from memory.
fn fetch_at_the_tail(c: &mut Criterion) {
    let mut group = c.benchmark_group("fetch");
    group.throughput(Throughput::Elements(RECORDS));
    let mut rig = Rig::new(&setup(Compression::None));
    let devices = devices(&mut rig, 1, RECORDS as usize);
    rig.receive(devices[0].0, &devices[0].1, usize::MAX);
    rig.settle();
    let partition = partition_of(b"device-0", PARTITIONS).0;
    assert_eq!(rig.end(0, partition), RECORDS);
    let request = fetch(partition, 0, 8 << 20);
    let consumer = rig.accept(Protocol::Kafka);
    rig.receive(consumer, &request, usize::MAX);
    let response = vec![7; rig.sent_bytes(consumer)];
    group.bench_function(format!("{RECORDS} records, {} bytes", response.len()), |b| {
        b.iter(|| rig.receive(consumer, &request, usize::MAX));
    });
    references(&mut group, "response", &response);
    group.finish();
}

criterion_group! {
    name = stations;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .sample_size(20);
    targets = decode, append_and_seal, whole_path, fetch_at_the_tail
}
criterion_main!(stations);
