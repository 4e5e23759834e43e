//! `verify`: every fault is named, by file, byte, stream, partition and offsets.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tidegate::log::starts;
use tidegate::record::Offset;

use crate::data::{BLOCK, contents, flip, index, log, segment, written, written_by};

/// The report of `verify --json` of a directory to which `harm` was done; nothing was changed.
fn report(harm: impl Fn(&Path)) -> (i32, Value, String) {
    let (_scratch, dir) = written();
    harm(&dir);
    let before = contents(&dir);
    let (code, out, err) = log("verify", &dir, &["--json"]);
    assert_eq!(contents(&dir), before, "a tool changed something");
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}")), err)
}

fn lost(stream: &str, partition: u32, from: u64, to: u64) -> Value {
    json!({ "stream": stream, "partition": partition, "from": from, "to": to })
}

/// Exactly these faults: file, byte, the beginning of what is said, what is lost.
fn check(harm: impl Fn(&Path), expected: &[(&str, u64, &str, &[Value])]) {
    let (code, report, err) = report(harm);
    let faults = report["faults"].as_array().unwrap();
    let told = serde_json::to_string_pretty(&report).unwrap();
    assert_eq!(faults.len(), expected.len(), "{told}");
    for (fault, (file, byte, what, lost)) in faults.iter().zip(expected) {
        assert_eq!((fault["file"].as_str(), fault["byte"].as_u64()), (Some(*file), Some(*byte)));
        assert!(fault["fault"].as_str().unwrap().starts_with(what), "{told}");
        assert_eq!(fault["lost"].as_array().unwrap(), lost, "{told}");
    }
    assert_eq!((code, report["sound"].as_bool()), (1, Some(false)), "{err}");
    assert!(err.contains("fault"), "{err}");
}

#[test]
fn a_sound_directory_is_sound() {
    let (code, report, err) = report(|_| ());
    assert_eq!((code, err.as_str()), (0, ""), "{report}");
    let seconds = report["seconds"].clone();
    let expected = json!({
        "sound": true, "segments": 4, "bytes": 54272, "batches": 10, "records": 12,
        "seconds": seconds, "faults": [], "lost": [], "torn_tails": [],
    });
    assert_eq!(report, expected);
    let (_scratch, dir) = written();
    let (code, out, _) = log("verify", &dir, &[]);
    assert_eq!(code, 0);
    let told = "sound: 12 records in 10 batches in 4 segments; 54.3 kB read in ";
    assert!(out.starts_with(told), "{out}");
}

#[test]
fn damage_is_named_with_what_it_took() {
    let first = "g000001/s0000/0000000000.log";
    let second = "g000001/s0000/0000000001.log";
    let other = "g000001/s0001/0000000000.log";
    let no_frame = "a frame does not hold";
    // Of the two batches in the frame one holds itself, as the index knows.
    let flipped = |dir: &Path| flip(&segment(dir, 1, 0, 0), BLOCK + 200);
    check(flipped, &[(first, 512, no_frame, &[lost("plain", 0, 0, 2)])]);
    let without_index = |dir: &Path| {
        flipped(dir);
        fs::remove_file(index(dir, 1, 0, 0)).unwrap();
    };
    let both = [lost("plain", 0, 0, 2), lost("packed", 0, 0, 1)];
    check(without_index, &[(first, 512, no_frame, &both)]);
    // Two places of one segment, and each is told what it took.
    check(
        |dir| {
            flip(&segment(dir, 1, 0, 0), 1024 + 300);
            flip(&segment(dir, 1, 0, 0), 8192 + 300);
        },
        &[
            (first, 1024, no_frame, &[lost("plain", 0, 2, 3)]),
            (first, 8192, no_frame, &[lost("plain", 0, 4, 5)]),
        ],
    );
    check(|dir| flip(&segment(dir, 1, 1, 0), 20), &[(other, 0, "its header does not hold", &[])]);
    let cut = |dir: &Path| {
        let file = fs::File::options().write(true).open(segment(dir, 1, 0, 1)).unwrap();
        file.set_len(BLOCK as u64).unwrap();
    };
    check(cut, &[(second, 512, "it ends before its end", &[lost("plain", 0, 6, 7)])]);
    let zeroed = |dir: &Path| {
        let mut bytes = fs::read(segment(dir, 1, 0, 0)).unwrap();
        bytes[2048..2560].fill(0);
        fs::write(segment(dir, 1, 0, 0), bytes).unwrap();
    };
    check(zeroed, &[(first, 1024, no_frame, &[lost("plain", 0, 2, 3)])]);
}

#[test]
fn segments_that_are_gone_or_not_their_own_are_named() {
    let first = "g000001/s0000/0000000000.log";
    let second = "g000001/s0000/0000000001.log";
    let other = "g000001/s0001/0000000000.log";
    let missing = "its file is missing";
    check(
        |dir| fs::remove_file(segment(dir, 1, 0, 1)).unwrap(),
        &[(second, 0, missing, &[lost("plain", 0, 6, 7)])],
    );
    // In front of a log that is damage as well, as retention let go of nothing.
    check(
        |dir| fs::remove_file(segment(dir, 1, 0, 0)).unwrap(),
        &[(first, 0, missing, &[lost("plain", 0, 0, 6), lost("packed", 0, 0, 1)])],
    );
    let twice = |dir: &Path| {
        fs::copy(segment(dir, 1, 0, 1), segment(dir, 1, 1, 0)).unwrap();
    };
    check(
        twice,
        &[(
            other,
            0,
            "it holds another segment, g000001/s0000/0000000001 by its header",
            &[lost("plain", 1, 0, 2), lost("packed", 1, 0, 1)],
        )],
    );
    let swapped = |dir: &Path| {
        let (one, two) = (segment(dir, 1, 0, 0), segment(dir, 1, 1, 0));
        let first = fs::read(&one).unwrap();
        fs::copy(&two, &one).unwrap();
        fs::write(&two, first).unwrap();
    };
    let put_back = |stem| {
        format!(
            "it holds another segment, {stem} by its header; `tidegate log repair` puts it back"
        )
    };
    let (of_second, of_first) =
        (put_back("g000001/s0001/0000000000"), put_back("g000001/s0000/0000000000"));
    check(swapped, &[(first, 0, &of_second, &[]), (other, 0, &of_first, &[])]);
    let stray = |dir: &Path| {
        fs::copy(segment(dir, 1, 0, 1), segment(dir, 1, 0, 9)).unwrap();
    };
    let unknown = "no start of this directory knows this segment";
    check(stray, &[("g000001/s0000/0000000009.log", 0, unknown, &[])]);
    // Another engine's file of the same name, in the log that was written last.
    let foreign = |dir: &Path| {
        let (_scratch, elsewhere) = written_by(2);
        fs::copy(segment(&elsewhere, 2, 0, 0), segment(dir, 2, 0, 0)).unwrap();
    };
    // Of none of its partitions it is known how many offsets it held.
    let unknown =
        |stream, partition, from, next| lost(stream, partition, from, next + (1_u64 << 32));
    let all = [
        unknown("plain", 0, 7, 7),
        unknown("plain", 1, 2, 2),
        unknown("packed", 0, 1 << 20, 2 << 20),
        unknown("packed", 1, 1 << 20, 2 << 20),
    ];
    check(foreign, &[("g000002/s0000/0000000000.log", 0, "it holds another segment", &all)]);
}

#[test]
fn an_index_that_says_something_else_is_named() {
    let file = "g000001/s0000/0000000000.idx";
    let what = "it does not agree with its segment";
    check(|dir| flip(&index(dir, 1, 0, 0), 60), &[(file, 0, what, &[])]);
    let swapped = |dir: &Path| {
        fs::copy(index(dir, 1, 0, 1), index(dir, 1, 0, 0)).unwrap();
    };
    check(swapped, &[(file, 0, what, &[])]);
    // Where there is none there is nothing wrong.
    let (code, ..) = report(|dir| fs::remove_file(index(dir, 1, 0, 0)).unwrap());
    assert_eq!(code, 0);
}

#[test]
fn the_small_files_of_the_last_generation_are_named() {
    let (starts, copy) = ("g000002/s0000/starts", "g000002/manifest.json");
    let let_go = |dir: &Path| {
        let rows = [(0, 0, Offset(0)), (0, 1, Offset(0))];
        fs::write(dir.join(starts), starts::encode(rows.into_iter())).unwrap();
    };
    let (code, ..) = report(let_go);
    assert_eq!(code, 0);
    let harmed = |dir: &Path| {
        let_go(dir);
        flip(&dir.join(starts), 20);
    };
    let what = "it does not hold: what retention let go of since the last start cannot be told";
    check(harmed, &[(starts, 0, what, &[])]);
    let what = "it does not hold, or is not the manifest: if manifest.json is lost nothing stands";
    check(|dir| flip(&dir.join(copy), 100), &[(copy, 0, what, &[])]);
    let older = |dir: &Path| drop(fs::copy(dir.join("g000001/manifest.json"), dir.join(copy)));
    check(older, &[(copy, 0, what, &[])]);
    let what =
        "the copy of the manifest is missing: if manifest.json is lost nothing stands for it";
    check(|dir| fs::remove_file(dir.join(copy)).unwrap(), &[(copy, 0, what, &[])]);
    // Those of older generations mean nothing any more.
    let (code, ..) = report(|dir| flip(&dir.join("g000001/manifest.json"), 100));
    assert_eq!(code, 0);
    let (_scratch, dir) = written();
    harmed(&dir);
    flip(&dir.join(copy), 100);
    let (code, told, err) = log("repair", &dir, &["--in-place"]);
    assert_eq!(code, 0, "{told}{err}");
    let (code, told, err) = log("verify", &dir, &[]);
    assert_eq!(code, 0, "{told}{err}");
}

/// A frame proves what was written; what was wrong before it was written it cannot.
#[test]
fn a_batch_that_was_written_wrongly_is_named() {
    let harm = |dir: &Path| {
        let path = segment(dir, 2, 0, 0);
        let mut bytes = fs::read(&path).unwrap();
        let frame_bytes = u32::from_le_bytes(bytes[BLOCK + 12..BLOCK + 16].try_into().unwrap());
        let frame = &mut bytes[BLOCK..BLOCK + frame_bytes as usize];
        frame[64 + 16 + 100] ^= 1;
        let crc = crc32c::crc32c(&frame[8..]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        fs::write(&path, bytes).unwrap();
    };
    let what = "the CRC of a record batch does not hold";
    check(harm, &[("g000002/s0000/0000000000.log", 512 + 80, what, &[lost("plain", 1, 2, 3)])]);
}

#[test]
fn a_manifest_that_does_not_hold_is_named() {
    let (_scratch, dir) = written();
    flip(&dir.join("manifest.json"), 100);
    let (code, out, err) = log("verify", &dir, &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("the manifest is damaged: its CRC does not hold"), "{err}");
}

#[test]
fn a_torn_tail_is_no_fault() {
    let (code, report, _) = report(|dir| flip(&segment(dir, 2, 0, 0), BLOCK + 100));
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["torn_tails"], json!([["g000002/s0000/0000000000.log", 512]]));
}
