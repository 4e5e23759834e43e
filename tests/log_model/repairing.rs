//! `repair`, whatever happened to a directory: what could be read before can be read afterwards, byte
//! for byte, also when power is lost in the middle; nothing is made up; the engine goes on from it.
//!
//! Logs and harm follow from a seed, which a failure names: `TIDEGATE_REPAIR=SEED` does it again, and
//! `TIDEGATE_REPAIRS=N` tries N seeds.

use std::collections::{BTreeMap, BTreeSet};

use tidegate::log::examine::Examination;
use tidegate::log::frame::Entry;
use tidegate::log::manifest::Manifest;
use tidegate::log::repair::Job;
use tidegate::log::scan::frames_over_damage;
use tidegate::log::segment::SegmentHeader;
use tidegate::log::start::{Error, read_manifest, read_manifest_copy};
use tidegate::log::{Outcome, Request, StreamOptions, misplaced};
use tidegate::record::batch::{BatchHeader, RecordParts};
use tidegate::record::{Compression, Durability, Offset};

use crate::disk::{Attempt, Disk};
use crate::engine::{Engine, Setup};
use crate::model::{End, Model};
use crate::random::Random;
use crate::{Op, apply, restart};

const SEEDS: u64 = 40;
const WALL_MS: i64 = 1_700_000_100_000;

/// Stream, partition, and the first offset of a batch.
type Place = (usize, u32, u64);

/// Batches as a reader gets them.
type Batches = BTreeSet<(Place, Vec<u8>)>;

fn setup(random: &mut Random) -> Setup {
    let durabilities = [Durability::Fsync, Durability::Write, Durability::Fsync];
    let stream = |durability, compacted| StreamOptions {
        durability,
        compression: if random.one_in(2) { Compression::Lz4 } else { Compression::None },
        retention_bytes: u64::MAX,
        retention_ms: u64::MAX,
        compaction: if compacted { Some(3_000) } else { None },
    };
    let streams = durabilities.into_iter().zip([false, false, true]);
    let streams = streams.map({
        let mut stream = stream;
        move |(durability, compacted)| stream(durability, compacted)
    });
    let mut setup = Setup {
        streams: streams.collect(),
        partitions: 4,
        block: if random.one_in(3) { 4096 } else { 512 },
        segment_bytes: 0,
        buffer_bytes: 9_000,
        batch_bytes_max: [200, 4_000][random.below(2)],
        tail_cache_bytes: 0,
        read_cache_bytes: 100_000,
        read_bytes: 4096,
        segments_ahead: 1,
        clean_live_max_percent: 90,
        compact_keys_max: 20,
        appending: random.one_in(2),
        reserved: None,
    };
    setup.segment_bytes = setup.options(1, 0, 1).segment_bytes_min().next_multiple_of(4096);
    setup
}

/// A disk with some generations, left as a stop of some kind leaves it.
fn written(setup: &Setup, random: &mut Random) -> Disk {
    let mut model = Model::new(setup.streams.len(), setup.partitions);
    let mut engine = Engine::new(setup.clone(), random.next());
    engine.start(1 + random.below(3) as u32, None).expect("an empty directory");
    for generation in 0..1 + random.below(3) {
        if generation > 0 {
            let end = [End::Clean, End::Killed, End::PowerLoss][random.below(3)];
            restart(&mut engine, &mut model, end, 1 + random.below(3) as u32, &[]);
        }
        for _ in 0..10 + random.below(60) {
            let (stream, partition) = (random.below(setup.streams.len()), random.below(4) as u32);
            let bytes = [40, 900, 3_000][random.below(3)];
            let (count, seed) = (1 + random.below(8), random.next());
            let op = match random.below(12) {
                0..7 => Op::Append { stream, partition, bytes, count, seed },
                7..10 => Op::Commit,
                10 => Op::Clean,
                _ => Op::Settle,
            };
            apply(&mut engine, &mut model, &op);
        }
    }
    match random.below(3) {
        0 => engine.stop_cleanly(),
        1 => engine.settle(),
        _ => {}
    }
    engine.crash(true);
    engine.disk
}

/// No checksum but the frame's covers the leader epoch of a batch.
fn without_epoch(mut batch: Vec<u8>) -> Vec<u8> {
    batch[12..16].fill(0);
    batch
}

/// Every batch that is in a segment's file, by what its frame says.
fn batches_in(disk: &Disk) -> Batches {
    let mut found = Batches::new();
    for (path, bytes) in disk.files() {
        let file = disk.read(&path, 0, bytes).expect("there");
        let Some((header, ..)) = SegmentHeader::read(&file) else { continue };
        let frames = frames_over_damage(header.key, header.identity, &file);
        for entry in frames.flatten().flat_map(|(_, frame)| frame.entries()) {
            if let Some(Entry::Batch { stream, partition, batch, .. }) = entry {
                let header = BatchHeader::read(batch).expect("whole");
                let place = (stream as usize, partition, header.base_offset.0);
                found.insert((place, without_epoch(batch.to_vec())));
            }
        }
    }
    found
}

/// One or two files harmed. Returns what was done.
fn harm(disk: &mut Disk, random: &mut Random) -> String {
    let files: Vec<_> = disk.files().into_iter().map(|(path, _)| path).collect();
    let wanted = match random.below(20) {
        0..12 => ".log",
        12..18 => ".idx",
        18 => "starts",
        _ => "manifest.json",
    };
    let choices: Vec<_> = files.iter().filter(|path| path.ends_with(wanted)).collect();
    let Some(path) = choices.get(random.below(choices.len())) else { return String::new() };
    let bytes = disk.read(path, 0, usize::MAX).expect("there");
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    let at = random.below(used + 1);
    // A manifest that holds is taken at its word, also an older one.
    match random.below(if wanted == "manifest.json" { 6 } else { 9 }) {
        0..3 => {
            disk.harm(path, at, |bytes| bytes[0] ^= 1 << (at % 8));
            format!("a bit of {path} at {at} flipped")
        }
        3 => {
            let sector = at / 512 * 512;
            disk.harm(path, sector, |bytes| {
                let end = bytes.len().min(512);
                bytes[..end].fill(0);
            });
            format!("{path} zeroed from {sector}")
        }
        4 => {
            disk.shorten(path, at);
            format!("{path} cut to {at}")
        }
        5 => {
            disk.delete(path);
            disk.flush_dir();
            format!("{path} removed")
        }
        kind => {
            let other = choices[random.below(choices.len())];
            if kind == 6 {
                disk.replace(path, &disk.read(other, 0, usize::MAX).expect("there"));
                return format!("{path} replaced by {other}");
            }
            swap(disk, path, other);
            if kind == 7 || wanted != ".log" {
                return format!("{path} and {other} swapped");
            }
            let index = |path: &str| path.replace(".log", ".idx");
            swap(disk, &index(path), &index(other));
            format!("{path} and {other} swapped, with their indexes")
        }
    }
}

fn swap(disk: &mut Disk, one: &str, other: &str) {
    let read = |path| disk.read(path, 0, usize::MAX);
    if let (Some(first), Some(second)) = (read(one), read(other)) {
        disk.replace(one, &second);
        disk.replace(other, &first);
    }
}

/// An engine that starts from what is on `disk`, if it does.
fn started(setup: &Setup, disk: &Disk) -> Option<Engine> {
    let mut engine = Engine::new(setup.clone(), 1);
    engine.disk = disk.clone();
    engine.wall_ms = WALL_MS;
    engine.start(2, None).ok().map(|()| engine)
}

/// Of the batches that are known, those that the engine serves, at their offsets.
fn served(engine: &mut Engine, known: &Batches) -> Batches {
    let mut found = Batches::new();
    for &((stream, partition, base), _) in known {
        let place = Engine::place(stream, partition);
        let shard = partition as usize % engine.shards.len();
        loop {
            let mut batches = Vec::new();
            let log = &mut engine.shards[shard].log;
            match log.read(place, Offset(base), 1, true, |batch| batches.push(batch.to_vec())) {
                Outcome::Pending => {
                    assert!(engine.answer(shard, 0, |r| matches!(r, Request::Read(_))));
                    continue;
                }
                Outcome::Data(..) | Outcome::End | Outcome::OutOfRange | Outcome::Damaged => {}
            }
            for batch in batches {
                let base = BatchHeader::read(&batch).expect("a batch").base_offset.0;
                let served = ((stream, partition, base), without_epoch(batch));
                assert!(known.contains(&served), "made up: {:?}", served.0);
                found.insert(served);
            }
            break;
        }
    }
    found
}

fn readable(setup: &Setup, disk: &Disk, known: &Batches) -> Batches {
    started(setup, disk).map(|mut engine| served(&mut engine, known)).unwrap_or_default()
}

fn manifest_of(files: &Attempt) -> Option<Manifest> {
    let manifest = read_manifest(files).ok().flatten();
    manifest.or_else(|| read_manifest_copy(files).ok().map(|(manifest, _)| manifest))
}

fn examined(files: &Attempt, manifest: &Manifest) -> Examination {
    let misplaced = misplaced::find(files, manifest).expect("readable");
    Examination::of(files, manifest, misplaced).expect("readable")
}

/// Repairs into `to`, or in place until power is lost after so many changes.
fn repair(disk: &Disk, to: Option<&Attempt>, left: Option<usize>) -> (Disk, Result<(), Error>) {
    let files = Attempt::new(disk.clone(), None);
    let manifest = manifest_of(&files).expect("there, or its copy");
    let examined = examined(&files, &manifest);
    files.left.set(left);
    let job = Job { manifest: &manifest, examined: &examined, wall_ms: WALL_MS };
    let aside = (0..).map(|number| format!("damaged-{number}"));
    let is_free = |aside: &String| !disk.files().iter().any(|(path, _)| path.starts_with(aside));
    let aside = aside.into_iter().find(is_free).expect("one is free");
    let repaired = match to {
        Some(to) => job.copy(&files, to),
        None => job.in_place(&files, &files, &aside),
    };
    (files.disk.into_inner(), repaired.map(drop))
}

fn check_holds(before: &Batches, after: &Batches, context: &str) {
    let gone: Vec<_> = before.difference(after).map(|(place, _)| place).collect();
    assert!(gone.is_empty(), "{context}: {} of {} gone: {gone:?}", gone.len(), before.len());
}

/// A repaired directory holds what it held, nothing in it is harmed, and an engine goes on from it.
fn check_mended(setup: &Setup, disk: &Disk, (known, before): (&Batches, &Batches), context: &str) {
    let files = Attempt::new(disk.clone(), None);
    let manifest = read_manifest(&files).expect("sound").expect("there");
    let left = examined(&files, &manifest);
    let recovered = &left.recovery.recovered;
    assert_eq!(recovered.damages, [], "{context}");
    assert_eq!(manifest.lost, recovered.holes().collect::<Vec<_>>(), "{context}");
    assert!(left.misplaced.is_empty() && left.foreign.is_empty(), "{context}: {left:?}");
    assert!(left.misindexed.is_empty() && left.recovery.torn.is_empty(), "{context}: {left:?}");

    let mut engine = started(setup, disk).unwrap_or_else(|| panic!("{context}: no start"));
    check_holds(before, &served(&mut engine, known), context);
    let mut nexts = BTreeMap::new();
    for place in (0..setup.streams.len()).flat_map(|s| (0..setup.partitions).map(move |p| (s, p))) {
        let (stream, partition) = Engine::place(place.0, place.1);
        let next = engine.log(place.1).bounds(stream, partition).expect("owned").next;
        let none = std::iter::empty();
        let record = RecordParts { key: None, value: Some(b"x"), timestamp_ms: 1, headers: none };
        engine.log(place.1).append(stream, partition, &record).expect("room");
        nexts.insert(place, next);
    }
    engine.settle();
    for (place, next) in nexts {
        let (stream, partition) = Engine::place(place.0, place.1);
        let shard = place.1 as usize % engine.shards.len();
        let log = &mut engine.shards[shard].log;
        let mut bases = Vec::new();
        let outcome = log.read((stream, partition), next, 1 << 20, true, |batch| {
            bases.push(BatchHeader::read(batch).expect("a batch").base_offset);
        });
        // From the tail, or from the disk.
        assert!(
            outcome == Outcome::Pending || bases == [next],
            "{context}: {place:?}: {outcome:?}"
        );
    }
    engine.stop_cleanly();
    let with_new = known | &batches_in(&engine.disk);
    check_holds(before, &readable(setup, &engine.disk, &with_new), context);
}

/// Names the seed, whatever fails.
struct Trying(u64);

impl Drop for Trying {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

fn check(seed: u64) {
    let _trying = Trying(seed);
    let mut random = Random(seed);
    let setup = setup(&mut random);
    let mut disk = written(&setup, &mut random);
    let known = batches_in(&disk);
    let sound = readable(&setup, &disk, &known);
    let harms: Vec<_> = (0..1 + random.below(3)).map(|_| harm(&mut disk, &mut random)).collect();
    let files = Attempt::new(disk.clone(), None);
    // Where the manifest is gone, and its copy, nothing is repaired.
    if manifest_of(&files).is_none() {
        return;
    }
    // What compaction had taken out, and the loss of its work brings back, may go again.
    let before = &readable(&setup, &disk, &known) & &sound;
    let context =
        format!("seed {seed}, {} of {} batches, {}", before.len(), sound.len(), harms.join("; "));

    let to = Attempt::new(Disk::new(seed), None);
    let (same, copied) = repair(&disk, Some(&to), None);
    copied.unwrap_or_else(|cause| panic!("{context}: {cause}"));
    assert_eq!(same.files(), disk.files(), "{context}: the damaged directory was changed");
    let mut copy = to.disk.into_inner();
    copy.crash();
    check_mended(&setup, &copy, (&known, &before), &format!("{context}, copied"));

    let mut in_place = disk;
    for time in 0.. {
        let left = (time < 2).then(|| random.below(if time == 0 { 60 } else { 20 }));
        let (mended, done) = repair(&in_place, None, left);
        in_place = mended;
        in_place.crash();
        let context = format!("{context}, in place, power lost after {left:?} changes");
        if done.is_ok() {
            check_mended(&setup, &in_place, (&known, &before), &context);
            break;
        }
        assert!(left.is_some(), "{context}: {done:?}");
        check_holds(&before, &readable(&setup, &in_place, &known), &context);
    }
}

#[test]
fn what_could_be_read_before_a_repair_can_be_read_after_it() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match number("TIDEGATE_REPAIR") {
        Some(seed) => check(seed),
        None => (0..number("TIDEGATE_REPAIRS").unwrap_or(SEEDS)).for_each(check),
    }
}

/// What is left of a moved run that lost a batch supersedes all that the run did.
#[test]
fn a_moved_run_that_lost_a_batch_does_not_give_way_to_what_it_was_made_of() {
    check(241);
}

/// Nor in the directory that a repair makes, where nobody knows of the lost batch any more.
#[test]
fn what_a_harmed_moved_run_superseded_does_not_come_back_later() {
    check(124);
}
