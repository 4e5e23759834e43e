//! The log under a simulated disk that tears what is not flushed: whatever happens, what was
//! acknowledged is there, at its offset, unchanged, in order, once.
//!
//! `PROPTEST_CASES` sets how many histories are tried; a failing one is shrunk and printed.

mod disk;
mod engine;
mod model;
#[path = "../shards/random.rs"]
mod random;
mod repairing;

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tidegate::log::clean::Tally;
use tidegate::log::{Request, StreamOptions};
use tidegate::record::{Compression, Durability};

use engine::{Engine, Failed, Setup};
use model::{End, Model, make_record};

#[derive(Debug, Clone)]
enum Op {
    /// Records of one size to one partition.
    Append {
        stream: usize,
        partition: u32,
        bytes: usize,
        count: usize,
        seed: u64,
    },
    Seal(usize),
    Write(usize),
    Flush(usize),
    /// A whole commit of every shard.
    Commit,
    /// One of the requests is answered, whichever.
    Answer {
        shard: usize,
        pick: usize,
    },
    Read {
        stream: usize,
        partition: u32,
        pick: u64,
        bytes_max: usize,
    },
    FindTime {
        stream: usize,
        partition: u32,
        ago_ms: i64,
    },
    Expire,
    Clean,
    /// Both clocks go on; the wall clock may step, backwards too.
    Time {
        passed_ms: u64,
        step_ms: i64,
    },
    DiskFull(bool),
    Retry(usize),
    Settle,
    Restart {
        end: End,
        shards: u32,
        interruptions: Vec<usize>,
    },
}

fn appends() -> impl Strategy<Value = Op> {
    let size = prop_oneof![6 => 0..200_usize, 3 => 200..5_000_usize, 1 => 5_000..65_536_usize];
    (0..3_usize, 0..5_u32, size, 1..12_usize, any::<u64>()).prop_map(
        |(stream, partition, bytes, count, seed)| Op::Append {
            stream,
            partition,
            bytes,
            count,
            seed,
        },
    )
}

fn ops() -> impl Strategy<Value = Op> {
    let shard = 0..4_usize;
    let place = (0..3_usize, 0..5_u32);
    let end = prop_oneof![
        1 => Just(End::Clean),
        2 => Just(End::Killed),
        4 => Just(End::PowerLoss),
    ];
    let restart = (end, 1..=4_u32, prop::collection::vec(0..12_usize, 0..3));
    let restart =
        restart.prop_map(|(end, shards, interruptions)| Op::Restart { end, shards, interruptions });
    prop_oneof![
        20 => appends(),
        5 => shard.clone().prop_map(Op::Seal),
        5 => shard.clone().prop_map(Op::Write),
        4 => shard.clone().prop_map(Op::Flush),
        16 => Just(Op::Commit),
        12 => (shard.clone(), 0..8_usize).prop_map(|(shard, pick)| Op::Answer { shard, pick }),
        6 => (place.clone(), any::<u64>(), prop_oneof![0..300_usize, 0..200_000_usize]).prop_map(
            |((stream, partition), pick, bytes_max)| Op::Read { stream, partition, pick, bytes_max }
        ),
        2 => (place, -100..30_000_i64).prop_map(
            |((stream, partition), ago_ms)| Op::FindTime { stream, partition, ago_ms }
        ),
        2 => Just(Op::Expire),
        3 => Just(Op::Clean),
        4 => (0..5_000_u64, prop_oneof![3 => Just(0), 1 => -9_000..9_000_i64])
            .prop_map(|(passed_ms, step_ms)| Op::Time { passed_ms, step_ms }),
        1 => any::<bool>().prop_map(Op::DiskFull),
        1 => shard.prop_map(Op::Retry),
        1 => Just(Op::Settle),
        1 => restart,
    ]
}

fn streams() -> impl Strategy<Value = Vec<StreamOptions>> {
    let compression = prop_oneof![Just(Compression::None), Just(Compression::Lz4)];
    let retention_bytes = prop_oneof![3 => Just(u64::MAX), 1 => 0..300_000_u64];
    let retention_ms = prop_oneof![2 => Just(u64::MAX), 1 => 0..20_000_u64];
    let compaction = prop_oneof![2 => Just(None), 1 => (0..20_000_u64).prop_map(Some)];
    let retention = (retention_bytes, retention_ms, compaction).prop_map(|kept| match kept {
        (_, _, Some(tombstones_ms)) => (u64::MAX, u64::MAX, Some(tombstones_ms)),
        other => other,
    });
    let one = move |durability| {
        (compression.clone(), retention.clone()).prop_map(
            move |(compression, (retention_bytes, retention_ms, compaction))| StreamOptions {
                durability,
                compression,
                retention_bytes,
                retention_ms,
                compaction,
            },
        )
    };
    [one(Durability::Fsync), one(Durability::Write), one(Durability::Memory)]
        .prop_map(Vec::from)
        .prop_shuffle()
}

fn setup() -> impl Strategy<Value = Setup> {
    let sizes = (
        4..=5_u32,
        prop_oneof![Just(512_usize), Just(4096)],
        prop_oneof![Just(9_000_usize), Just(70_000)],
        prop_oneof![3 => 0..4096_u64, 1 => 0..100_000_u64],
        prop_oneof![Just(200_usize), Just(4_000), Just(1 << 20)],
        1..=3_usize,
    );
    let caches = (
        prop_oneof![Just(0_usize), 0..200_000_usize],
        prop_oneof![Just(0_usize), 0..200_000_usize],
        prop_oneof![Just(512_usize), Just(16_384)],
    );
    let cleaning = (prop_oneof![Just(0_u32), Just(50), Just(90)], 1..40_usize);
    let reserved = prop_oneof![2 => Just(None), 1 => (1..40_u64).prop_map(Some)];
    (sizes, caches, any::<bool>(), reserved, streams(), cleaning).prop_map(
        |(sizes, caches, appending, reserved, streams, cleaning)| {
            let (partitions, block, buffer_bytes, spare, batch_bytes_max, segments_ahead) = sizes;
            let (tail_cache_bytes, read_cache_bytes, read_bytes) = caches;
            let mut setup = Setup {
                partitions,
                block,
                segment_bytes: 0,
                buffer_bytes,
                batch_bytes_max,
                tail_cache_bytes,
                read_cache_bytes,
                read_bytes,
                segments_ahead,
                clean_live_max_percent: cleaning.0,
                compact_keys_max: cleaning.1,
                appending,
                reserved,
                streams,
            };
            let most = setup.options(1, 0, 1).segment_bytes_min();
            setup.segment_bytes = (most + spare).next_multiple_of(4096);
            setup
        },
    )
}

fn apply(engine: &mut Engine, model: &mut Model, op: &Op) {
    let shard_of = |engine: &Engine, shard: usize| shard % engine.shards.len();
    let partitions = engine.setup.partitions;
    match *op {
        Op::Append { stream, partition, bytes, count, seed } => {
            for i in 0..count as u64 {
                let record = make_record(seed ^ i, bytes, engine.wall_ms);
                if !model.append(engine, (stream, partition % partitions), record) {
                    break;
                }
            }
        }
        Op::Seal(shard) => {
            engine.seal(shard_of(engine, shard));
        }
        Op::Write(shard) => {
            engine.write(shard_of(engine, shard));
        }
        Op::Flush(shard) => {
            engine.flush(shard_of(engine, shard));
        }
        Op::Commit => {
            for shard in 0..engine.shards.len() {
                engine.answer(shard, 0, |r| matches!(r, Request::MakeSegment(_)));
                engine.write(shard);
                engine.flush(shard);
                engine.seal(shard);
                engine.write(shard);
                engine.flush(shard);
            }
        }
        Op::Answer { shard, pick } => {
            engine.answer(shard_of(engine, shard), pick, |_| true);
        }
        Op::Read { stream, partition, pick, bytes_max } => {
            model.observe(engine);
            let place = (stream, partition % partitions);
            let from = model.some_offset(place, pick);
            model.read(engine, place, from, bytes_max);
        }
        Op::FindTime { stream, partition, ago_ms } => {
            model.observe(engine);
            let timestamp_ms = engine.wall_ms - ago_ms;
            model.find_time(engine, (stream, partition % partitions), timestamp_ms);
        }
        Op::Expire => {
            model.observe(engine);
            model.expire(engine);
        }
        Op::Clean => model.clean(engine),
        Op::Time { passed_ms, step_ms } => {
            engine.age_ms += passed_ms;
            engine.wall_ms += passed_ms as i64 + step_ms;
        }
        Op::DiskFull(full) => engine.disk_full = full,
        Op::Retry(shard) => {
            let shard = shard_of(engine, shard);
            engine.shards[shard].log.retry_segment();
        }
        Op::Settle => engine.settle(),
        Op::Restart { end, shards, ref interruptions } => {
            restart(engine, model, end, shards, interruptions);
        }
    }
    model.observe(engine);
    engine.check_memory();
}

fn restart(engine: &mut Engine, model: &mut Model, end: End, shards: u32, interruptions: &[usize]) {
    match end {
        End::Clean => {
            engine.settle();
            model.observe(engine);
            engine.stop_cleanly();
            // Whatever comes after it, power loss included.
            engine.crash(true);
        }
        End::Killed => engine.crash(false),
        End::PowerLoss => engine.crash(true),
    }
    let mut end = end;
    for &after in interruptions {
        match engine.start(shards, Some(after)) {
            Ok(()) => break,
            Err(Failed::Interrupted) if end == End::Killed => end = End::PowerLoss,
            Err(Failed::Interrupted) => {}
            Err(Failed::Start(cause)) => panic!("{cause}"),
        }
    }
    if engine.shards.is_empty() {
        engine.start(shards, None).unwrap_or_else(|failed| panic!("{failed:?}"));
    }
    model.restarted(engine, end);
}

/// An engine that started from an empty directory and went through all of it, and what it holds.
fn after(setup: Setup, shards: u32, seed: u64, ops: &[Op]) -> (Engine, Model) {
    let mut model = Model::new(setup.streams.len(), setup.partitions);
    let mut engine = Engine::new(setup, seed);
    engine.start(shards, None).expect("an empty directory");
    for op in ops {
        apply(&mut engine, &mut model, op);
    }
    engine.settle();
    model.observe(&mut engine);
    (engine, model)
}

/// Returns what the cleaner did.
fn run(setup: Setup, shards: u32, seed: u64, ops: &[Op]) -> Tally {
    let (mut engine, mut model) = after(setup, shards, seed, ops);
    model.read_all(&mut engine, 10_000);
    model.check_compacted(&mut engine);
    restart(&mut engine, &mut model, End::PowerLoss, shards, &[]);
    engine.cleaned
}

/// A disk that does what it says, and then one sector that is not what was written.
fn harm(setup: Setup, shards: u32, seed: u64, ops: &[Op], place: (usize, usize), lost: bool) {
    let (mut engine, model) = after(setup, shards, seed, ops);
    let last: Vec<_> = engine.shards.iter().filter_map(|shard| shard.last).collect();
    engine.crash(true);
    let files = engine.disk.files();
    let Some((key, bytes)) = files.get(place.0 % files.len().max(1)).cloned() else { return };
    let at = place.1 % bytes;
    let in_last = last
        .iter()
        .any(|commit| key == commit.segment.path() && at / 512 * 512 >= commit.position as usize);
    if lost {
        engine.disk.harm(&key, at / 512 * 512, |bytes| {
            let end = bytes.len().min(512);
            bytes[..end].fill(0);
        });
    } else {
        engine.disk.harm(&key, at, |bytes| bytes[0] ^= 0x10);
    }
    match engine.start(shards, None) {
        Err(Failed::Start(cause)) => {
            assert!(key.ends_with("manifest.json"), "{key}: {cause}");
        }
        Err(Failed::Interrupted) => unreachable!("nothing interrupts"),
        Ok(()) => {
            let missing = model.count_missing(&mut engine);
            assert!(missing == 0 || in_last, "{missing} records went without a word");
        }
    }
}

fn runner() -> TestRunner {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    TestRunner::new(ProptestConfig {
        cases: cases.unwrap_or(48),
        max_shrink_iters: 20_000,
        source_file: Some(file!()),
        ..ProptestConfig::default()
    })
}

#[test]
fn harm_is_never_taken_for_a_torn_tail() {
    let steps = prop_oneof![
        3 => appends(),
        2 => Just(Op::Commit),
        1 => (0..4_usize, 0..8_usize).prop_map(|(shard, pick)| Op::Answer { shard, pick }),
    ];
    let histories = prop::collection::vec(steps, 1..150);
    let place = (any::<usize>(), any::<usize>());
    // What was only written may go with a crash: everything here is flushed.
    let setup = setup().prop_map(|mut setup| {
        for stream in &mut setup.streams {
            stream.durability = Durability::Fsync;
            stream.retention_bytes = u64::MAX;
            stream.retention_ms = u64::MAX;
            stream.compaction = None;
        }
        setup
    });
    let case = (setup, 1..=4_u32, any::<u64>(), histories, place, any::<bool>());
    runner()
        .run(&case, |(setup, shards, seed, ops, place, lost)| {
            harm(setup, shards, seed, &ops, place, lost);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn the_log_keeps_its_promises() {
    let histories = prop::collection::vec(ops(), 1..400);
    runner()
        .run(&(setup(), 1..=4_u32, any::<u64>(), histories), |(setup, shards, seed, ops)| {
            run(setup, shards, seed, &ops);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

/// A file that grows may end with the contents of its last frame: a sector is what a disk promises,
/// a block is what readers count on.
#[test]
fn padding_that_was_never_written_is_made_up_for() {
    let stream = StreamOptions {
        durability: Durability::Fsync,
        compression: Compression::None,
        retention_bytes: u64::MAX,
        retention_ms: u64::MAX,
        compaction: None,
    };
    let mut setup = Setup {
        partitions: 4,
        block: 4096,
        segment_bytes: 0,
        buffer_bytes: 70_000,
        batch_bytes_max: 4_000,
        tail_cache_bytes: 0,
        read_cache_bytes: 0,
        read_bytes: 16_384,
        segments_ahead: 1,
        clean_live_max_percent: 0,
        compact_keys_max: 1,
        appending: true,
        reserved: None,
        streams: vec![stream],
    };
    setup.segment_bytes = setup.options(1, 0, 1).segment_bytes_min().next_multiple_of(4096);
    let mut model = Model::new(1, 4);
    let mut engine = Engine::new(setup, 1);
    engine.start(1, None).expect("an empty directory");
    let append = Op::Append { stream: 0, partition: 0, bytes: 100, count: 1, seed: 1 };
    for op in [append, Op::Commit, Op::Settle] {
        apply(&mut engine, &mut model, &op);
    }
    engine.crash(false);
    let is_segment = |(path, _): &(String, usize)| path.ends_with(".log");
    let (path, bytes) = engine.disk.files().into_iter().find(is_segment).expect("a segment");
    engine.disk.shorten(&path, bytes - 512);
    for _ in 0..2 {
        engine.start(1, None).unwrap_or_else(|failed| panic!("{failed:?}"));
        model.restarted(&mut engine, End::PowerLoss);
        assert!(engine.disk.files().contains(&(path.clone(), bytes)), "whole blocks");
        engine.crash(false);
    }
}

/// Histories in which the cleaner has much to do: few keys, small segments, streams that are kept
/// for different times; and crashes between any two steps of it.
#[test]
fn what_is_cleaned_is_neither_lost_nor_doubled() {
    let shard = 0..4_usize;
    let restart = (prop_oneof![Just(End::Killed), Just(End::PowerLoss)], 1..=4_u32)
        .prop_map(|(end, shards)| Op::Restart { end, shards, interruptions: vec![] });
    let size = prop_oneof![1 => 0..300_usize, 2 => 300..3_000_usize];
    let append = (0..3_usize, 0..2_u32, size, 1..12_usize, any::<u64>()).prop_map(
        |(stream, partition, bytes, count, seed)| Op::Append {
            stream,
            partition,
            bytes,
            count,
            seed,
        },
    );
    let ops = prop_oneof![
        20 => append,
        20 => Just(Op::Commit),
        12 => (shard, 0..8_usize).prop_map(|(shard, pick)| Op::Answer { shard, pick }),
        6 => Just(Op::Expire),
        12 => Just(Op::Clean),
        4 => Just(Op::Settle),
        6 => (0..5_000_u64).prop_map(|passed_ms| Op::Time { passed_ms, step_ms: 0 }),
        1 => restart,
    ];
    let setup = setup().prop_map(|mut setup| {
        (setup.buffer_bytes, setup.clean_live_max_percent) = (9_000, 90);
        setup.segment_bytes = setup.options(1, 0, 1).segment_bytes_min().next_multiple_of(4096);
        (setup.streams[0].compaction, setup.streams[1].compaction) = (Some(3_000), None);
        for (stream, ms) in setup.streams.iter_mut().zip([u64::MAX, 2_000, 20_000]) {
            stream.retention_bytes = u64::MAX;
            stream.retention_ms = if stream.compaction.is_some() { u64::MAX } else { ms };
        }
        setup
    });
    let case = (setup, 1..=2_u32, any::<u64>(), prop::collection::vec(ops, 100..500));
    let (moved, removed) = (Cell::new(0), Cell::new(0));
    runner()
        .run(&case, |(setup, shards, seed, ops)| {
            let cleaned = run(setup, shards, seed, &ops);
            moved.set(moved.get() + cleaned.segments);
            removed.set(removed.get() + cleaned.removed);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(moved.get() > 0 && removed.get() > 0, "nothing was cleaned");
    println!("{} moved segments, {} records compacted away", moved.get(), removed.get());
}
