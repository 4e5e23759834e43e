//! `repair`: what is sound is kept, with its offsets; what is lost is told and stays lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::data::{
    BLOCK, PLAIN, Shard, WALL_MS, contents, flip, give_back, log, open, segment, written,
};

fn zero_in_the_middle(dir: &Path) {
    let mut bytes = fs::read(segment(dir, 1, 0, 0)).unwrap();
    bytes[4608..5120].fill(0);
    fs::write(segment(dir, 1, 0, 0), bytes).unwrap();
}

fn lose_a_segment(dir: &Path) {
    fs::remove_file(segment(dir, 1, 0, 1)).unwrap();
}

fn replace_a_segment(dir: &Path) {
    fs::copy(segment(dir, 1, 0, 1), segment(dir, 1, 1, 0)).unwrap();
}

/// The frames of the first two batches stay, the first batch does not.
fn harm_one_of_two_batches(dir: &Path) {
    flip(&segment(dir, 1, 0, 0), BLOCK + 200);
}

fn harm_a_header(dir: &Path) {
    flip(&segment(dir, 1, 1, 0), 20);
}

fn tear_the_tail(dir: &Path) {
    flip(&segment(dir, 2, 0, 0), BLOCK + 100);
}

/// What is done, what is told to be lost, and whether `verify` finds anything.
type Harm = (fn(&Path), &'static str, bool);

const HARMS: [Harm; 7] = [
    (|_| (), "nothing is lost; ", false),
    (zero_in_the_middle, "lost: plain, partition 0, offsets 3 to 3\n", true),
    (lose_a_segment, "lost: plain, partition 0, offsets 6 to 6\n", true),
    (harm_one_of_two_batches, "lost: plain, partition 0, offsets 0 to 1\n", true),
    (
        replace_a_segment,
        "lost: plain, partition 1, offsets 0 to 1\nlost: packed, partition 1, offsets 0 to 0\n",
        true,
    ),
    (harm_a_header, "nothing is lost; ", true),
    (tear_the_tail, "nothing is lost; ", false),
];

/// Records that are in frames that hold.
fn dumped(dir: &Path) -> BTreeSet<String> {
    log("dump", dir, &["--json"]).1.lines().map(str::to_owned).collect()
}

/// Whether nothing of `sound` is gone, and a batch more is there where only its index knew of it.
fn check_records(dir: &Path, sound: &BTreeSet<String>, lost: &str) {
    let more: Vec<_> = dumped(dir).difference(sound).cloned().collect();
    assert!(sound.is_subset(&dumped(dir)), "{lost}");
    let known_by_index = usize::from(lost.contains("offsets 0 to 1\n") && !lost.contains("packed"));
    assert_eq!(more.len(), known_by_index, "{lost}: {more:?}");
}

/// A start goes on from a directory: it finds no damage, the offsets where they were, and holes where
/// something was lost.
fn check_start(dir: &Path, lost: &str) {
    let data = open(dir, 1, WALL_MS + 120_000);
    assert_eq!(data.recovered.damages, []);
    let holes = lost.lines().filter(|line| line.starts_with("lost: ")).count();
    assert_eq!(data.manifest.lost.len(), holes, "{lost}");
    let mut shard = Shard::new(&data, 0, WALL_MS + 120_000);
    shard.append(PLAIN, 0, b"goes on");
    shard.commit();
    give_back(data);
    let (code, out, err) =
        log("dump", dir, &["--json", "--stream", "plain", "--partition", "0", "--from", "7"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("\"offset\":7,") && out.contains("goes on"), "{out}");
    assert_eq!(log("verify", dir, &[]).0, 0);
}

#[test]
fn what_is_sound_is_copied() {
    for (harm, lost, _) in HARMS {
        let (scratch, dir) = written();
        harm(&dir);
        let before = contents(&dir);
        let sound = dumped(&dir);
        let to = scratch.path().join("mended");
        let (code, out, err) = log("repair", &dir, &["--to", to.to_str().unwrap()]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(out.contains(lost), "{out}");
        assert_eq!(contents(&dir), before, "the damaged directory was changed");
        let (code, report, _) = log("verify", &to, &[]);
        assert_eq!(code, 0, "{report}");
        check_records(&to, &sound, lost);
        check_start(&to, lost);
    }
}

#[test]
fn a_directory_is_mended_in_place_and_what_was_there_is_kept() {
    for (harm, lost, found) in HARMS {
        let (_scratch, dir) = written();
        harm(&dir);
        let sound = dumped(&dir);
        let before = contents(&dir);
        assert_eq!(log("verify", &dir, &[]).0, i32::from(found));
        let (code, out, err) = log("repair", &dir, &["--in-place"]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        if out.contains("nothing was written") {
            assert_eq!(contents(&dir), before);
        } else {
            assert!(out.contains(lost), "{out}");
            let aside = contents(&dir.join("damaged-0"));
            // Whatever is not as it was before is there, and the manifest.
            let after = contents(&dir);
            let is_kept = |bytes: &Vec<u8>| aside.iter().any(|(_, kept)| kept == bytes);
            for (path, bytes) in &before {
                let replaced = !after.iter().any(|(now, held)| now == path && held == bytes);
                let is_index = path.extension().is_some_and(|end| end == "idx");
                assert!(!replaced || is_index || is_kept(bytes), "{} is gone", path.display());
            }
        }
        let (code, report, _) = log("verify", &dir, &[]);
        assert_eq!(code, 0, "{report}");
        check_records(&dir, &sound, lost);
        let mended = contents(&dir);
        let (_, out, _) = log("repair", &dir, &["--in-place"]);
        assert!(out.ends_with("nothing was written\n"), "{out}");
        assert_eq!(contents(&dir), mended, "a second repair changes nothing");
        check_start(&dir, lost);
    }
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let (_scratch, dir) = written();
    zero_in_the_middle(&dir);
    let before = contents(&dir);
    let (code, out, err) = log("repair", &dir, &["--dry-run"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let expected = "g000001/s0000/0000000000.log, byte 4608: a frame does not hold
  lost there: plain, partition 0, offsets 3 to 3
lost: plain, partition 0, offsets 3 to 3
nothing was written
";
    assert_eq!(out, expected);
    assert_eq!(contents(&dir), before);
}

#[test]
fn a_manifest_that_is_gone_is_made_of_its_copy() {
    let gone = |dir: &Path| fs::remove_file(dir.join("manifest.json")).unwrap();
    let harmed = |dir: &Path| flip(&dir.join("manifest.json"), 100);
    for harm in [&gone as &dyn Fn(&Path), &harmed] {
        let (scratch, dir) = written();
        let sound = dumped(&dir);
        harm(&dir);
        let to = scratch.path().join("mended");
        for arguments in [&["--to", to.to_str().unwrap()][..], &["--in-place"]] {
            let (code, out, err) = log("repair", &dir, arguments);
            assert_eq!((code, err.as_str()), (0, ""), "{out}");
            let told = "g000002/manifest.json stands for it";
            assert!(out.contains(told) && out.contains("nothing is lost; "), "{out}");
        }
        for dir in [&dir, &to] {
            assert_eq!((log("verify", dir, &[]).0, dumped(dir)), (0, sound.clone()));
            check_start(dir, "");
        }
    }
}

/// Nothing of either could be read while they had one another's names.
#[test]
fn segments_that_changed_places_are_put_back() {
    let (scratch, dir) = written();
    let all = dumped(&dir);
    let (one, two) = (segment(&dir, 1, 0, 0), segment(&dir, 1, 1, 0));
    let first = fs::read(&one).unwrap();
    fs::copy(&two, &one).unwrap();
    fs::write(&two, first).unwrap();
    assert!(dumped(&dir).len() < all.len());
    let to = scratch.path().join("mended");
    for arguments in [&["--to", to.to_str().unwrap()][..], &["--in-place"]] {
        let (code, out, err) = log("repair", &dir, arguments);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(out.contains("puts it back") && out.contains("nothing is lost; "), "{out}");
    }
    for dir in [&dir, &to] {
        let (code, report, _) = log("verify", dir, &[]);
        assert_eq!((code, dumped(dir)), (0, all.clone()), "{report}");
        check_start(dir, "");
    }
}

#[test]
fn nothing_is_written_over() {
    let (scratch, dir) = written();
    let check = |arguments: &[&str], expected: &str| {
        let (code, _, err) = log("repair", &dir, arguments);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(expected), "{err}");
    };
    check(&[], "--to");
    check(&["--to", dir.to_str().unwrap()], "is there and not empty");
    check(&["--to", scratch.path().to_str().unwrap()], "is there and not empty");
    check(&["--to", dir.join("mended").to_str().unwrap()], "lies in the data directory itself");
    check(&["--to", "x", "--in-place"], "cannot be used with");
}
