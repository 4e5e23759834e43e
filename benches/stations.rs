//! What each station costs, next to what nobody gets around: copying the same bytes, and their
//! CRC-32C; and next to what others have written: mqttbytes (the codec of rumqttc), the CPU's own
//! CRC instruction in a plain loop, and LZ4 in C.
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

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mqttbytes::{v4, v5};

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
        group.bench_function(format!("reference mqttbytes, {name}"), |b| {
            let acknowledge = |stream: &mut BytesMut, out: &mut BytesMut| match version {
                4 => match mqttbytes::v4::read(stream, usize::MAX) {
                    Ok(v4::Packet::Publish(it)) => v4::PubAck::new(it.pkid).write(out).is_ok(),
                    _ => false,
                },
                _ => match mqttbytes::v5::read(stream, usize::MAX) {
                    Ok(v5::Packet::Publish(it)) => v5::PubAck::new(it.pkid).write(out).is_ok(),
                    _ => false,
                },
            };
            let (fresh, mut out) =
                (|| BytesMut::from(&input[..]), BytesMut::with_capacity(1 << 16));
            b.iter_batched_ref(
                fresh,
                |stream| {
                    out.clear();
                    let mut count = 0;
                    while acknowledge(stream, &mut out) {
                        count += 1;
                    }
                    assert_eq!(count, PACKETS);
                },
                BatchSize::SmallInput,
            );
        });
        references(&mut group, name, &input);
    }
    group.finish();
}

/// The CPU's instruction over one word after the other, which waits for itself.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn crc32c_in_a_loop(bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u64};
    let (words, rest) = bytes.as_chunks::<8>();
    let word = |crc, word: &[u8; 8]| _mm_crc32_u64(crc, u64::from_le_bytes(*word));
    let crc = words.iter().fold(u64::from(u32::MAX), word) as u32;
    !rest.iter().fold(crc, |crc, &byte| _mm_crc32_u8(crc, byte))
}

/// Of a small batch and of a full commit.
fn crc(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    for bytes_count in [256, 4 << 10, 1 << 20] {
        let bytes: Vec<u8> = (0..bytes_count).map(|at| (at * 31 % 251) as u8).collect();
        group.throughput(Throughput::Bytes(bytes_count as u64));
        group.bench_function(format!("crate crc32c, {bytes_count} bytes"), |b| {
            b.iter(|| crc32c::crc32c(black_box(&bytes)));
        });
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("sse4.2") {
            #[allow(unsafe_code)]
            // SAFETY: the CPU has the instruction.
            let in_a_loop = |bytes: &[u8]| unsafe { crc32c_in_a_loop(bytes) };
            assert_eq!(in_a_loop(&bytes), crc32c::crc32c(&bytes));
            group.bench_function(format!("reference instruction, {bytes_count} bytes"), |b| {
                b.iter(|| in_a_loop(black_box(&bytes)));
            });
        }
        let mut copy = vec![0; bytes.len()];
        group.bench_function(format!("reference memcpy, {bytes_count} bytes"), |b| {
            b.iter(|| black_box(&mut copy).copy_from_slice(black_box(&bytes)));
        });
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
    lz4(c, &batch);
}

/// The same bytes through lz4_flex, which seals batches, and through LZ4's own C.
fn lz4(c: &mut Criterion, batch: &[u8]) {
    let mut group = c.benchmark_group("lz4");
    group.throughput(Throughput::Bytes(batch.len() as u64));
    let mut out = vec![0; lz4_flex::block::get_maximum_output_size(batch.len())];
    let bytes = lz4_flex::block::compress_into(batch, &mut out).expect("room");
    group.bench_function(format!("lz4_flex compresses a batch to {bytes} bytes"), |b| {
        b.iter(|| lz4_flex::block::compress_into(black_box(batch), &mut out));
    });
    let compressed = out[..bytes].to_vec();
    let mut plain = vec![0; batch.len()];
    group.bench_function("lz4_flex decompresses it", |b| {
        b.iter(|| lz4_flex::block::decompress_into(black_box(&compressed), &mut plain));
    });
    let bytes = lz4::block::compress_to_buffer(batch, None, false, &mut out).expect("room");
    group.bench_function(format!("reference C compresses it to {bytes} bytes"), |b| {
        b.iter(|| lz4::block::compress_to_buffer(black_box(batch), None, false, &mut out));
    });
    let size = Some(batch.len() as i32);
    group.bench_function("reference C decompresses it", |b| {
        b.iter(|| lz4::block::decompress_to_buffer(black_box(&compressed), size, &mut plain));
    });
    group.bench_function("reference memcpy", |b| {
        b.iter(|| black_box(&mut plain).copy_from_slice(black_box(batch)));
    });
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
        table: "",
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
    targets = decode, crc, append_and_seal, whole_path, fetch_at_the_tail
}
criterion_main!(stations);
