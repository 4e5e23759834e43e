//! `dump` and `stat`: what is there, and what is not.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tidegate::driver::data_dir;

use crate::data::{
    BLOCK, PLAIN, Shard, WALL_MS, contents, flip, give_back, log, open, segment, spawn, written,
};

#[test]
fn dump_prints_batches_and_records() {
    let (_scratch, dir) = written();
    let before = contents(&dir);
    let (code, out, err) = log("dump", &dir, &[]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let short = out.replace(&"a".repeat(100), "a…").replace(&"b".repeat(3000), "b…");
    assert_eq!(short, include_str!("dump.txt"), "\n{short}");
    assert_eq!(contents(&dir), before, "a tool changed something");
}

#[test]
fn dump_prints_json_of_what_is_asked_for() {
    let (_scratch, dir) = written();
    let check = |arguments: &[&str], expected: &str| {
        let (code, out, err) = log("dump", &dir, arguments);
        assert_eq!((code, err.as_str(), out.as_str()), (0, "", expected), "{arguments:?}");
    };
    let record = |offset: u64, timestamp: i64, value: &str| {
        format!(
            "{{\"stream\":\"plain\",\"partition\":1,\"offset\":{offset},\"timestamp\":{timestamp},\
             \"key\":\"press-7\",\"value\":{value},\
             \"headers\":[[\"mqtt.topic\",\"plant/temp\"],[\"raw\",{{\"hex\":\"ff22\"}}]]}}\n"
        )
    };
    let of = ["--json", "--stream", "plain", "--partition", "1"];
    let first = record(0, WALL_MS + 1, "\"21.5\"");
    let second = record(1, WALL_MS + 2, "{\"hex\":\"00ff\"}");
    let third = record(2, WALL_MS + 60_001, "\"later\"");
    check(&of, &format!("{first}{second}{third}"));
    check(&[&of[..], &["--from", "1"]].concat(), &format!("{second}{third}"));
    check(&[&of[..], &["--from", "1", "--limit", "1"]].concat(), &second);
    check(&[&of[..], &["--from", "3"]].concat(), "");
    check(&[&of[..], &["--limit", "0"]].concat(), "");
    check(&[&of[..], &["--to", "1"]].concat(), &first);
    check(&[&of[..], &["--from", "1", "--to", "2"]].concat(), &second);
    check(
        &[&of[..], &["--since", "2023-11-14T22:13:20.002Z"]].concat(),
        &format!("{second}{third}"),
    );
    let until = (WALL_MS + 2).to_string();
    check(&[&of[..], &["--until", &until]].concat(), &first);
    let window = ["--since", &until, "--until", "2023-11-14T23:14:20.001+01:00"];
    check(&[&of[..], &window].concat(), &second);
    // Of a batch of which nothing is asked for nothing is printed, its own line neither.
    let (_, text, _) =
        log("dump", &dir, &["--stream", "plain", "--since", &until, "--until", &until]);
    assert_eq!(text, "");
}

#[test]
fn stat_tells_what_is_there() {
    let (_scratch, dir) = written();
    let before = contents(&dir);
    let (code, out, err) = log("stat", &dir, &[]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    // The first lines have the directory's name and random bits.
    let told: String = out
        .lines()
        .filter(|line| !line.starts_with("cluster"))
        .skip(1)
        .fold(String::new(), |told, line| told + line + "\n");
    assert_eq!(told, include_str!("stat.txt"), "\n{told}");
    assert_eq!(contents(&dir), before, "a tool changed something");
}

#[test]
fn a_missing_index_is_made_up_for() {
    let (_scratch, dir) = written();
    let whole = log("stat", &dir, &[]).1;
    for (path, _) in
        contents(&dir).iter().filter(|(path, _)| path.extension() == Some("idx".as_ref()))
    {
        fs::remove_file(path).unwrap();
    }
    let (code, out, _) = log("stat", &dir, &[]);
    let tables = |text: &str| text.lines().skip(8).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((code, tables(&out)), (0, tables(&whole)));
    assert_eq!(log("dump", &dir, &["--from", "4"]).0, 0);
}

#[test]
fn a_directory_in_use_is_refused_and_left_alone() {
    let (_scratch, dir) = written();
    let lock = data_dir::lock(&dir).unwrap();
    let locked = fs::read(dir.join("lock")).unwrap();
    let before = contents(&dir);
    let none: &[&str] = &[];
    let mend = &["--in-place"][..];
    for (command, arguments) in [("dump", none), ("stat", none), ("verify", none), ("repair", mend)]
    {
        let (code, out, err) = log(command, &dir, arguments);
        assert_eq!((code, out.as_str()), (1, ""));
        let expected = format!("is in use by process {}", std::process::id());
        assert!(
            err.starts_with("tidegate: the data directory ") && err.contains(&expected),
            "{err}"
        );
    }
    assert_eq!(fs::read(dir.join("lock")).unwrap(), locked);
    assert_eq!(contents(&dir), before);
    give_back(lock);
    assert_eq!(log("stat", &dir, &[]).0, 0);
}

#[test]
fn what_is_no_data_directory_is_refused_and_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let place = |name: &str| scratch.path().join(name);
    fs::create_dir(place("empty")).unwrap();
    fs::create_dir(place("other")).unwrap();
    fs::write(place("other/file"), "x").unwrap();
    let before = contents(scratch.path());
    let none: &[&str] = &[];
    for (name, expected) in [
        ("nowhere", "nowhere does not exist\nName the directory that `tidegate serve` has"),
        ("empty", "empty is empty: no engine has started from it yet\nName the "),
        ("other", "other holds no Tidegate data: it has no manifest.json\nName the "),
        ("other/file", "other/file is no directory\nName the "),
    ] {
        let mend = &["--in-place"][..];
        for (command, arguments) in
            [("dump", none), ("stat", none), ("verify", none), ("repair", mend)]
        {
            let (code, _, err) = log(command, &place(name), arguments);
            assert_eq!(code, 1, "{err}");
            assert!(err.contains(expected), "{command}: {err}");
        }
    }
    assert_eq!(contents(scratch.path()), before);
    assert!(["other", "empty"].iter().all(|name| !place(name).join("lock").exists()));
}

#[test]
fn a_directory_that_cannot_be_read_says_what_to_do() {
    let check = |harm: &dyn Fn(&Path), command: &str, arguments: &[&str], expected: &str| {
        let (_scratch, dir) = written();
        harm(&dir);
        let (code, _, err) = log(command, &dir, arguments);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains(expected), "{command}: {err}");
    };
    let manifest = |dir: &Path| dir.join("manifest.json");
    let newer = |dir: &Path| {
        let text = fs::read_to_string(manifest(dir)).unwrap();
        let (json, _) = text.rsplit_once("\ncrc32c ").unwrap();
        let json = json.replace("\"format\": 2", "\"format\": 3");
        let crc = crc32c::crc32c(json.as_bytes());
        fs::write(manifest(dir), format!("{json}\ncrc32c {crc:08x}\n")).unwrap();
    };
    let gone = |dir: &Path| fs::remove_file(manifest(dir)).unwrap();
    let both = |dir: &Path| {
        gone(dir);
        flip(&dir.join("g000002/manifest.json"), 100);
    };
    let in_place = &["--in-place"];
    let newer_told = "the data is of format 3 (features 0x0); this engine knows format 2 (features \
                      0x0)\nStart the version of Tidegate that wrote it, or a newer one.";
    check(&newer, "verify", &[], newer_told);
    check(&newer, "repair", in_place, newer_told);
    check(
        &gone,
        "verify",
        &[],
        "has segments, but its manifest.json is gone\n`tidegate log repair` ",
    );
    check(
        &both,
        "repair",
        in_place,
        "is gone or damaged, and so is the copy that the last start left\nBring",
    );
}

#[test]
fn names_that_are_not_there_are_refused() {
    let (_scratch, dir) = written();
    let check = |arguments: &[&str], expected: &str| {
        let (code, _, err) = log("dump", &dir, arguments);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(expected), "{err}");
    };
    check(&["--stream", "plane"], "it has: plain, packed");
    check(&["--partition", "2"], "it has 0 to 1");
    check(&["--since", "yesterday"], "expected milliseconds since 1970 or RFC 3339");
}

#[test]
fn damage_is_named_and_the_sound_part_printed() {
    let check = |harm: &dyn Fn(&Path), place: &str, records: usize| {
        let (_scratch, dir) = written();
        harm(&dir);
        let (code, out, err) = log("dump", &dir, &["--json"]);
        assert_eq!(code, 1, "{out}{err}");
        assert!(err.contains(place), "{err}");
        assert_eq!(out.lines().count(), records, "{err}");
    };
    // Of the 12 records 7 stand in the first segment, 3 of them in its first frame; 1 stands in the
    // second, 3 in the second log.
    let in_frame = |dir: &Path| flip(&segment(dir, 1, 0, 0), BLOCK + 200);
    check(&in_frame, "segment g000001/s0000/0000000000 is damaged at byte 512:", 9);
    let in_header = |dir: &Path| flip(&segment(dir, 1, 1, 0), 20);
    check(&in_header, "segment g000001/s0001/0000000000 is damaged at byte 0:", 12);
    let cut = |dir: &Path| {
        let file = fs::File::options().write(true).open(segment(dir, 1, 0, 1)).unwrap();
        file.set_len(BLOCK as u64).unwrap();
    };
    check(&cut, "segment g000001/s0000/0000000001 is damaged at byte 512:", 11);
    let gone = |dir: &Path| fs::remove_file(segment(dir, 1, 0, 1)).unwrap();
    check(&gone, "segment g000001/s0000/0000000001 is damaged at byte 0: its file is missing", 11);
    let swapped = |dir: &Path| {
        fs::copy(segment(dir, 1, 0, 1), segment(dir, 1, 1, 0)).unwrap();
    };
    check(&swapped, "segment g000001/s0001/0000000000 is damaged at byte 0:", 9);
}

#[test]
fn damage_before_what_was_durable_is_no_torn_tail() {
    let scratch = tempfile::tempdir().unwrap();
    let data = open(scratch.path(), 1, WALL_MS);
    let mut shard = Shard::new(&data, 0, WALL_MS);
    for value in ["one", "two", "three"] {
        shard.append(PLAIN, 0, value.as_bytes());
        shard.commit();
    }
    give_back(data);
    // The third frame says that the second was durable.
    flip(&segment(scratch.path(), 1, 0, 0), 2 * BLOCK + 100);
    for (command, told) in [("dump", "\"three\""), ("stat", "plain 0 0 3 2 2 216 1 ")] {
        let (code, out, err) = log(command, scratch.path(), &[]);
        assert_eq!(code, 1, "{out}{err}");
        let out = out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(out.contains(told) && !out.contains("torn tail"), "{out}");
        assert!(
            err.contains("segment g000001/s0000/0000000000 is damaged at byte 1024: "),
            "{err}"
        );
    }
}

#[test]
fn a_torn_tail_is_told_and_is_no_damage() {
    let (_scratch, dir) = written();
    let last = segment(&dir, 2, 0, 0);
    // The only commit of the last generation, and nothing says that it was durable.
    flip(&last, BLOCK + 100);
    let (code, out, err) = log("dump", &dir, &["--json"]);
    assert_eq!((code, out.lines().count()), (0, 11), "{err}");
    assert!(err.contains("segment g000002/s0000/0000000000 has a torn tail at byte 512"), "{err}");
    let (code, out, _) = log("stat", &dir, &[]);
    assert_eq!(code, 0);
    assert!(out.contains("torn tail  segment g000002/s0000/0000000000 at byte 512"), "{out}");
}

#[test]
fn a_reader_that_has_enough_ends_it_quietly() {
    let (_scratch, dir) = written();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut tool = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    tool.args(["log", "dump"]).arg(&dir).stdout(writer).stderr(Stdio::piped());
    let output = spawn(&mut tool).wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
