//! Allocations in the steady state: none a message in the stations.
//!
//! A counting allocator counts what the test's own thread allocates while a shard is driven as the
//! driver drives it (`harness.rs`). Warm-up rounds let buffers grow; then whole rounds of messages,
//! with their commits and acknowledgements, must allocate nothing. What may allocate is named and
//! bounded: beginning a segment, and a Kafka request. A failure prints where the first allocation
//! came from.

#![allow(unsafe_code)] // a global allocator is an unsafe trait

mod functions;
mod harness;

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;

use harness::{PARTITIONS, Rig, Setup, fetch, properties, publish};
use tidegate::observe::HoldCause;
use tidegate::record::{Compression, Durability, StreamId, partition_of};
use tidegate::shard::{ConnId, Protocol};

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Ignored,
    Counted,
    /// Counted, and the first one says where it came from; for whoever looks for one.
    Traced,
}

thread_local! {
    // Constant and without destructors: reaching them allocates nothing.
    static MODE: Cell<Mode> = const { Cell::new(Mode::Ignored) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

impl Counting {
    fn note(bytes: usize) {
        let mode = MODE.get();
        if mode == Mode::Ignored {
            return;
        }
        COUNT.set(COUNT.get() + 1);
        if mode == Mode::Traced {
            // The report allocates too.
            MODE.set(Mode::Ignored);
            eprintln!("{bytes} bytes are allocated here:\n{}", Backtrace::force_capture());
            MODE.set(Mode::Counted);
        }
    }
}

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract;
// counting touches no memory that is being allocated and does not unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::note(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        Self::note(bytes);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(place, layout, bytes) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations and reallocations of this thread during `work`.
fn count(mode: Mode, work: impl FnOnce()) -> usize {
    COUNT.set(0);
    MODE.set(mode);
    work();
    MODE.set(Mode::Ignored);
    COUNT.get()
}

/// A client, and what it sends every round.
struct Device {
    id: ConnId,
    /// Whole packets, one behind the other.
    burst: Vec<u8>,
    /// Bytes of the receive buffers that they come in.
    buffer_bytes: usize,
    messages: u64,
    acknowledged: u64,
}

const ROUNDS: usize = 40;
const WARM_UP: usize = 10;

/// All devices publish, the log commits, everybody is acknowledged.
fn round(rig: &mut Rig, devices: &[Device]) {
    for device in devices {
        rig.receive(device.id, &device.burst, device.buffer_bytes);
    }
    rig.settle();
    rig.keep_house();
}

/// Goes on until buffers and index have grown to what the devices need: past the first segment,
/// whose index starts small.
fn warm_up(rig: &mut Rig, devices: &[Device]) {
    (0..WARM_UP).for_each(|_| round(rig, devices));
    let segments = rig.segments_begun.max(1) + 2;
    while rig.segments_begun < segments {
        round(rig, devices);
    }
}

/// Nothing may be allocated in rounds that begin no segment; and the messages did go through.
fn check(setup: &Setup, join: impl Fn(&mut Rig) -> Vec<Device>) {
    let mut rig = Rig::new(setup);
    let devices = join(&mut rig);
    warm_up(&mut rig, &devices);
    let before = rig.messages();
    let taken: u64 = devices.iter().map(|device| device.messages).sum();
    let acknowledged: u64 = devices.iter().map(|device| device.acknowledged).sum();
    let mut quiet_rounds = 0;
    for _ in 0..ROUNDS {
        let segments = rig.segments_begun;
        let allocations = count(Mode::Counted, || round(&mut rig, &devices));
        if rig.segments_begun == segments {
            quiet_rounds += 1;
            assert_eq!(allocations, 0, "allocations in a round of {taken} messages");
        }
    }
    assert!(quiet_rounds > ROUNDS / 2, "choose larger segments");
    let rounds = ROUNDS as u64;
    let expected = (before.0 + rounds * taken, before.1 + rounds * acknowledged);
    assert_eq!(rig.messages(), expected, "messages taken, messages acknowledged");
}

fn device(id: ConnId, packets: &[Vec<u8>], qos: u8, buffer_bytes: usize) -> Device {
    let messages = packets.len() as u64;
    let acknowledged = messages * u64::from(qos);
    Device { id, burst: packets.concat(), buffer_bytes, messages, acknowledged }
}

/// `count` clients of `version` that publish `messages` a round in buffers of `buffer_bytes`.
fn plain(
    rig: &mut Rig,
    count: usize,
    version: u8,
    qos: u8,
    (messages, buffer_bytes): (usize, usize),
) -> Vec<Device> {
    let properties = (version == 5).then_some([].as_slice());
    let client = |i| {
        let id = rig.connect(version, &format!("device-{version}-{qos}-{i}"));
        let topic = format!("plant/{i}/temperature");
        let packets = vec![publish(&topic, qos, properties, &[b'x'; 128]); messages];
        device(id, &packets, qos, buffer_bytes)
    };
    (0..count).map(client).collect()
}

#[test]
fn the_counter_counts() {
    assert_eq!(count(Mode::Counted, || drop(std::hint::black_box(Box::new(7_u64)))), 1);
    let mut list = Vec::new();
    let grown = count(Mode::Counted, || (0..1_000).for_each(|i| list.push(i)));
    assert!((2..20).contains(&grown), "{grown} for {} numbers", list.len());
    assert_eq!(count(Mode::Traced, || list.clear()), 0);
}

#[test]
fn versions_and_qualities_of_service() {
    for (version, qos) in [(4, 0), (4, 1), (5, 0), (5, 1)] {
        check(&Setup::default(), |rig| plain(rig, 50, version, qos, (16, usize::MAX)));
    }
}

#[test]
fn packets_split_over_receive_buffers() {
    for buffer_bytes in [1, 100, 163, 1_000] {
        check(&Setup::default(), |rig| {
            let mut devices = plain(rig, 8, 4, 1, (16, buffer_bytes));
            devices.extend(plain(rig, 8, 5, 1, (16, buffer_bytes)));
            devices
        });
    }
}

#[test]
fn aliases_and_properties() {
    check(&Setup::default(), |rig| {
        let client = |i| {
            let id = rig.connect(5, &format!("aliasing-{i}"));
            let named = publish("plant/7/line/3/temperature", 1, Some(&properties(1)), b"21.5");
            let alias = publish("", 1, Some(&properties(1)), b"21.6");
            let other = publish("plant/7/line/3/pressure", 1, Some(&properties(2)), b"998");
            let again = publish("", 1, Some(&properties(2)), b"997");
            device(id, &[named, alias, other, again], 1, 60)
        };
        (0..20).map(client).collect()
    });
}

#[test]
fn compression() {
    let lz4 = vec![("#", Durability::Fsync, Compression::Lz4)];
    // Batches below and above the 64 KiB of an LZ4 block.
    for messages in [4, 200] {
        check(&Setup { streams: lz4.clone(), ..Setup::default() }, |rig| {
            plain(rig, 16, 4, 1, (messages, 16 << 10))
        });
    }
}

/// Messages for one stream, for two, for none; of every durability; topics that change.
#[test]
fn several_streams_with_filters() {
    let streams = vec![
        ("plant/+/temperature", Durability::Fsync, Compression::None),
        ("plant/#", Durability::Write, Compression::Lz4),
        ("site/1/#", Durability::Memory, Compression::None),
    ];
    check(&Setup { streams, ..Setup::default() }, |rig| {
        let client = |i| {
            let id = rig.connect(5, &format!("filtered-{i}"));
            let topics = ["plant/1/temperature", "plant/2/pressure", "site/1/door", "nobody/asks"];
            let packets: Vec<_> =
                topics.iter().map(|topic| publish(topic, 1, Some(&[]), &[b'v'; 64])).collect();
            device(id, &packets, 1, 4096)
        };
        (0..20).map(client).collect()
    });
}

/// Filter, projection, several records of one message, chained rules, and what cannot be evaluated.
#[test]
fn rules() {
    const RULES: &str = "
        CREATE STREAM hot WITH (headers=(site)) AS
            SELECT clientid() AS device, topic(2) AS site, temp * 1.8 + 32 AS f, name || '!' AS n
            FROM 'plant/#' WHERE temp > 30 AND name LIKE 'a%' PARTITION BY device;
        CREATE STREAM rows WITH (key=r.id, timestamp=r.t) AS
            SELECT *, r.v AS v FROM 'plant/#', UNNEST(list) AS r WHERE r.v BETWEEN 1 AND 2;
        CREATE STREAM chained AS SELECT h.f + 1 AS g FROM hot AS h;
        CREATE TABLE names FROM 'names.csv' KEY name;
        CREATE STREAM owned AS SELECT t.*, n.owner || '!' AS o, n.limit, p.owner AS other
            FROM 'plant/#' AS t JOIN names AS n ON n.name = t.name
            LEFT JOIN names AS p ON p.name = n.parent WHERE n.limit > temp";
    const TABLE: &str = "name,owner,limit,parent\naä,\"Ann \"\"A\"\"\",99.50,b\nb,Bob,5,\n";
    let stream = |filter| (filter, Durability::Fsync, Compression::None);
    let of_rule = stream("");
    let streams = vec![stream("plant/1/#"), of_rule, of_rule, of_rule, of_rule, of_rule];
    let setup = Setup { streams, rules: RULES, table: TABLE, ..Setup::default() };
    let payloads = [
        r#"{"temp": 31.5, "name": "a\u00e4", "list": []}"#,
        r#"{"temp": 20, "name": "b", "list": [{"id":"x","t":1,"v":1},{"v":3},{"v":1.5,"id":7}]}"#,
        r#"{"temp": "hot", "list": 7}"#,
        "no JSON at all",
    ];
    check(&setup, |rig| {
        let client = |i| {
            let id = rig.connect(5, &format!("ruled-{i}"));
            let topics = ["plant/1/temperature", "plant/2", "nobody/asks"];
            let packets: Vec<_> = topics
                .iter()
                .flat_map(|topic| payloads.map(|p| publish(topic, 1, Some(&[]), p.as_bytes())))
                .collect();
            device(id, &packets, 1, 4096)
        };
        (0..20).map(client).collect()
    });
    let mut rig = Rig::new(&setup);
    let id = rig.connect(5, "ruled");
    let packets = payloads.map(|p| publish("plant/1", 1, Some(&[]), p.as_bytes()));
    round(&mut rig, &[device(id, &packets, 1, 4096)]);
    let records: Vec<u64> =
        (0..6).map(|s| rig.metrics.stream(StreamId(s)).records.value()).collect();
    // Of the four: one hot, two rows, one owned, one chained; two errors of each of two rules, and one
    // of `owned`: the third has no name.
    assert_eq!(records, [4, 1, 2, 1, 1, 5], "by stream");
}

/// More than the log's buffer takes: connections are held and go on, again and again.
#[test]
fn held_connections() {
    let setup = Setup { buffer_bytes: 32 << 10, batch_bytes_max: 8 << 10, ..Setup::default() };
    let held = |rig: &Rig| rig.metrics.mqtt.holds.value(HoldCause::LogBuffer);
    let mut rig = Rig::new(&setup);
    let devices = plain(&mut rig, 8, 4, 1, (50, 4096));
    round(&mut rig, &devices);
    assert!(held(&rig) > 0, "nobody is held");
    check(&setup, |rig| plain(rig, 8, 4, 1, (50, 4096)));
}

/// A segment begins with a table of all partitions, its predecessor is indexed: a constant a
/// segment and row. Commits that begin none allocate nothing, however many segments there were.
#[test]
fn what_a_segment_costs() {
    let setup = Setup { segment_bytes: 2 << 20, buffer_bytes: 256 << 10, ..Setup::default() };
    let mut rig = Rig::new(&setup);
    let devices = plain(&mut rig, 16, 4, 1, (10, usize::MAX));
    while rig.segments_begun < 3 {
        round(&mut rig, &devices);
    }
    let (mut begun, mut allocated) = (0, 0);
    for _ in 0..300 {
        let segments = rig.segments_begun;
        let allocations = count(Mode::Counted, || round(&mut rig, &devices));
        if rig.segments_begun == segments {
            assert_eq!(allocations, 0, "in a round that begins no segment");
        } else {
            begun += 1;
            allocated += allocations;
        }
    }
    println!("{allocated} allocations for {begun} segments of {PARTITIONS} rows");
    assert!(begun > 3, "segments are too large for this test");
    let bound = begun * (10 + 3 * PARTITIONS as usize);
    assert!(allocated <= bound, "{allocated} allocations for {begun} segments");
}

/// A consumer at the tail: a Fetch parks, a commit wakes it, it is answered from memory. What it
/// allocates does not grow with the messages that it brings.
#[test]
fn what_a_fetch_costs() {
    const A_FETCH: usize = 10;
    for messages in [1, 500] {
        let mut rig = Rig::new(&Setup::default());
        let devices = plain(&mut rig, 1, 4, 1, (messages, 16 << 10));
        let partition = partition_of(b"device-4-1-0", PARTITIONS).0;
        let consumer = rig.accept(Protocol::Kafka);
        warm_up(&mut rig, &devices);
        let mut most = 0;
        for turn in 0..WARM_UP + ROUNDS {
            let request = fetch(partition, rig.end(0, partition), 1 << 20);
            let (sent, segments) = (rig.sent_bytes(consumer), rig.segments_begun);
            let allocations = count(Mode::Counted, || {
                rig.receive(consumer, &request, usize::MAX);
                assert_eq!(rig.metrics.kafka.parked_fetches.value(), 1);
                round(&mut rig, &devices);
            });
            assert!(rig.sent_bytes(consumer) - sent > messages * 128, "too little came");
            // The first answers make the send buffers grow.
            if turn >= WARM_UP && rig.segments_begun == segments {
                most = most.max(allocations);
            }
        }
        println!("{most} allocations for a Fetch of {messages} messages");
        assert!(most <= A_FETCH, "{most} allocations for a Fetch of {messages} messages");
    }
}
