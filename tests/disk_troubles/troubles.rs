//! What the engine makes of a disk that fails, hangs, shortens, is full or lies: it ends before it
//! acknowledges what is not durable, or waits and goes on; and what a disk that lied has lost is
//! fenced and told.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::clients::{Consumer, Passage, any_consumer, has_python, read_through};
use crate::engine::{Engine, Setup, scratch, wait_until};
use crate::faulty_disk::{FaultyDisk, Trouble, Troubles};
use crate::sender::{Sender, numbers};

/// One log, so that one request is the next commit's.
const CONFIG: &str = r##"
shards = 1
partitions = 1

[mqtt]
packet_bytes_max = "16KiB"

[log]
segment_bytes = "1MiB"
segments_ahead = 1
buffer_bytes = "256KiB"
batch_bytes_max = "128KiB"
reserve_bytes = 0
"##;

/// The exit code of an engine whose disk failed.
const IO_ERROR: i32 = 74;

/// Whether segments are filled with zeros, or grow.
const PREPARES: [&str; 2] = ["zero", "append"];

fn writes(writes: Trouble) -> Troubles {
    Troubles { writes, ..Troubles::default() }
}

fn flushes(flushes: Trouble) -> Troubles {
    Troubles { flushes, ..Troubles::default() }
}

fn disk(scratch: &Path, prepare: &str) -> Option<(FaultyDisk, Setup)> {
    let disk = FaultyDisk::mount_or_skip(scratch, 1)?;
    let setup = disk.setup(CONFIG).argument(&["--log-prepare", prepare]);
    Some((disk, setup))
}

/// The segment ahead is there: nothing but commits is written.
fn await_quiet(disk: &FaultyDisk) {
    let (mut requests, mut looks) = (disk.requests(), 0);
    wait_until("the disk to be quiet", || {
        let now = disk.requests();
        looks = if now == requests { looks + 1 } else { 0 };
        requests = now;
        (looks >= 20).then_some(())
    });
}

/// A commit meets the trouble: it is not acknowledged, the engine says so and ends, and what it had
/// acknowledged is there when the disk is well again, even if it lost its power.
fn ends_the_engine(troubles: Troubles, expected: &str) {
    let Some(consumer) = any_consumer() else { return };
    for prepare in PREPARES {
        let scratch = scratch();
        let Some((disk, setup)) = disk(scratch.path(), prepare) else { return };
        let mut engine = setup.start();
        let mut device = Sender::new(engine.ports.mqtt, 1);
        device.publish(20);
        await_quiet(&disk);
        disk.trouble(troubles);
        device.send();
        assert!(!device.hears(Duration::from_secs(20)), "{prepare}: acknowledged, not durable");
        let status = engine.await_exit();
        let said = engine.said();
        assert_eq!(status.code(), Some(IO_ERROR), "{prepare}: {status}: {said}");
        let told = said.lines().find(|line| line.contains("failed: ")).unwrap_or_default();
        assert!(told.contains(expected) && told.contains("0000000000.log"), "{prepare}: {said}");
        // Of a write that is cut short the kernel asks for the rest by itself, until nothing is done.
        let once = disk.troubled() == 1 || troubles.writes == Trouble::Short;
        assert!(once, "{prepare}: it was tried {} times", disk.troubled());

        disk.trouble(Troubles::default());
        disk.cut();
        disk.power_on();
        let engine = setup.start();
        let found = numbers(consumer, &engine);
        assert!(found.len() >= 20, "{prepare}: {found:?}");
        assert!(found.iter().copied().eq(1..=found.len() as u16), "{prepare}: {found:?}");
        device.reconnect(engine.ports.mqtt);
        device.publish(20);
        assert!(!engine.said().contains("damage"), "{prepare}: {}", engine.said());
        engine.stop();
    }
}

#[test]
fn a_write_that_fails_ends_the_engine() {
    ends_the_engine(writes(Trouble::Fails), "writing ");
}

#[test]
fn a_write_that_is_cut_short_ends_the_engine() {
    ends_the_engine(writes(Trouble::Short), "writing ");
}

#[test]
fn a_flush_that_fails_ends_the_engine_and_is_not_tried_again() {
    ends_the_engine(flushes(Trouble::Fails), "flushing ");
}

/// From some request on everything fails, at each place of a start: the engine ends with a message,
/// no panic, and the next one has everything.
#[test]
fn a_disk_that_fails_in_a_start_ends_it_clearly() {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let Some((disk, setup)) = disk(scratch.path(), "zero") else { return };
    let engine = setup.start();
    Sender::new(engine.ports.mqtt, 1).publish(20);
    engine.kill();
    let mut ended = 0;
    for requests in (0..).step_by(11) {
        disk.cut_after(requests);
        let mut engine = setup.spawn();
        let status = wait_until("the engine to end, or to be ready", || {
            if let Some(status) = engine.exited() {
                return Some(Some(status));
            }
            engine.get("/readyz").is_ok_and(|(status, _)| status == 200).then_some(None)
        });
        disk.cut();
        let said = engine.said();
        assert!(!said.contains("panicked"), "after {requests} requests: {said}");
        let Some(status) = status else {
            engine.kill();
            break;
        };
        ended += 1;
        assert_eq!(status.code(), Some(1), "after {requests} requests, {status}: {said}");
        let told =
            said.lines().any(|line| line.starts_with("tidegate: ") && line.contains("os error 5"));
        assert!(told, "after {requests} requests: {said}");
        disk.power_on();
    }
    disk.power_on();
    assert!(ended > 5, "a start asks for more than {ended} things");
    let engine = setup.start();
    assert_eq!(numbers(consumer, &engine), (1..=20).collect::<Vec<_>>());
    engine.stop();
}

/// Nothing is acknowledged as long as a commit hangs, the connection lives, and then all goes on.
fn holds(troubles: Troubles) {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let Some((disk, setup)) = disk(scratch.path(), "zero") else { return };
    let engine = setup.start();
    let mut device = Sender::new(engine.ports.mqtt, 100);
    device.publish(20);
    disk.trouble(troubles);
    (0..50).for_each(|_| device.send());
    wait_until("a commit to hang", || (disk.hanging() > 0).then_some(()));
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        device.ping();
        assert!(!device.hears(Duration::from_millis(50)), "acknowledged what is not durable");
    }
    assert_eq!(numbers(consumer, &engine), (1..=20).collect::<Vec<_>>(), "only what is durable");
    goes_on(&disk, engine, &mut device);
}

/// The trouble ends: the device gets on, and what was acknowledged to it outlives a power cut.
fn goes_on(disk: &FaultyDisk, engine: Engine, device: &mut Sender) {
    disk.trouble(Troubles::default());
    device.catch_up();
    device.publish(20);
    let setup = engine.kill();
    disk.cut();
    disk.power_on();
    let engine = setup.start();
    let consumer = any_consumer().expect("the test asked for one");
    assert_eq!(numbers(consumer, &engine), (1..=device.acknowledged).collect::<Vec<_>>());
    engine.stop();
}

#[test]
fn writes_that_hang_hold_what_waits_and_nothing_else() {
    holds(writes(Trouble::Hangs));
}

#[test]
fn flushes_that_hang_hold_what_waits_and_nothing_else() {
    holds(flushes(Trouble::Hangs));
}

/// A quota, or a file system that promises more than it has: the first to notice is the file that is
/// made, not the look at the free space.
#[test]
fn a_disk_that_is_full_though_it_says_otherwise_holds_publishers() {
    let Some(consumer) = any_consumer() else { return };
    for prepare in PREPARES {
        let scratch = scratch();
        let Some((disk, setup)) = disk(scratch.path(), prepare) else { return };
        let engine = setup.start();
        let mut device = Sender::new(engine.ports.mqtt, 8 << 10);
        device.publish(5);
        disk.trouble(Troubles { is_full: true, ..Troubles::default() });
        device.send();
        device.fill(&engine);
        device.ping();
        assert_eq!(engine.get("/healthz").unwrap().0, 503);
        let acknowledged: Vec<_> = (1..=device.acknowledged).collect();
        assert_eq!(numbers(consumer, &engine), acknowledged, "{prepare}");
        goes_on(&disk, engine, &mut device);
    }
}

/// Publishes before, while and after the disk lies, then lets it lose its power. Returns the engine
/// that is started on what is left.
fn lie(disk: &FaultyDisk, setup: &Setup, [before, lied, after]: [u16; 3]) -> (Engine, Sender) {
    let engine = setup.start();
    let mut device = Sender::new(engine.ports.mqtt, 4 << 10);
    device.publish(before);
    disk.trouble(flushes(Trouble::Lies));
    device.publish(lied);
    disk.trouble(Troubles::default());
    device.publish(after);
    disk.cut();
    engine.kill();
    disk.power_on();
    let engine = setup.start();
    device.reconnect(engine.ports.mqtt);
    (engine, device)
}

/// All that was acknowledged is there, or fenced: a consumer meets an error at each lost offset, and
/// goes on behind. One message is one offset here.
fn what_is_lost_is_fenced([before, lied, after]: [u16; 3]) {
    if !has_python() {
        return;
    }
    for prepare in PREPARES {
        let scratch = scratch();
        let Some((disk, setup)) = disk(scratch.path(), prepare) else { return };
        let (engine, mut device) = lie(&disk, &setup, [before, lied, after]);
        let passages = read_through(Consumer::Confluent, &engine, "telemetry", 0, 1);
        let lost: Vec<_> = passages.iter().filter_map(Passage::error).collect();
        let expected: Vec<_> = (before..before + lied).map(|at| (2, u64::from(at))).collect();
        assert_eq!(lost, expected, "{prepare}: CORRUPT_MESSAGE where the disk lied");
        assert_eq!(passages.len(), usize::from(before + lied + after), "{prepare}");
        assert_eq!(engine.metric("partition_fenced_offsets", ""), f64::from(lied), "{prepare}");
        let said = engine.said();
        let told = said.lines().any(|line| line.contains("of telemetry, partition 0, are lost"));
        assert!(told, "{prepare}: {said}");
        device.publish(10);
        let passages = read_through(Consumer::Confluent, &engine, "telemetry", 0, 1);
        assert_eq!(passages.len(), usize::from(before + lied + after + 10), "{prepare}");
        engine.stop();
    }
}

#[test]
fn what_a_disk_lost_that_lied_for_some_commits_is_fenced() {
    what_is_lost_is_fenced([20, 20, 20]);
}

#[test]
fn what_a_disk_lost_that_lied_for_whole_segments_is_fenced() {
    what_is_lost_is_fenced([20, 800, 20]);
}

/// Of the last messages that it lost a disk that lied to the end leaves no trace: nobody can tell.
/// Everything before is there, and in order.
#[test]
fn a_disk_that_lied_to_the_end_loses_the_end_and_nothing_else() {
    let Some(consumer) = any_consumer() else { return };
    for prepare in PREPARES {
        for lied in [20, 800] {
            let scratch = scratch();
            let Some((disk, setup)) = disk(scratch.path(), prepare) else { return };
            let (engine, mut device) = lie(&disk, &setup, [20, lied, 0]);
            assert_eq!(numbers(consumer, &engine), (1..=20).collect::<Vec<_>>(), "{prepare}");
            device.publish(20);
            assert_eq!(numbers(consumer, &engine).len(), 40, "{prepare}");
            engine.stop();
        }
    }
}
