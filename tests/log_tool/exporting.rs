//! `export`: Kafka's own tool reads what is written, and it is what is there.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tidegate::record::batch::{BatchHeader, check, for_each_record};

use crate::data::{flip, log, segment, written};

/// A directory, and where to export it.
fn exported(arguments: &[&str]) -> (TempDir, PathBuf, (i32, String, String)) {
    let (scratch, dir) = written();
    let out = scratch.path().join("kafka");
    let to = ["--kafka-segment", out.to_str().unwrap()];
    let result = log("export", &dir, &[&to[..], arguments].concat());
    (scratch, out, result)
}

/// Names of the files below a directory.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for partition in fs::read_dir(dir).unwrap() {
        let partition = partition.unwrap().path();
        for file in fs::read_dir(&partition).unwrap() {
            let path = file.unwrap().path();
            found.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
        }
    }
    found.sort();
    found
}

/// Offset and value of each record in a file of whole batches.
fn records(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let bytes = fs::read(path).unwrap();
    let mut found = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let header = BatchHeader::read(rest).unwrap();
        let (batch, after) = rest.split_at(header.batch_bytes as usize);
        assert_eq!(check(batch, &mut Vec::new()), Ok(()));
        for_each_record(batch, &mut Vec::new(), |record| {
            found.push((record.offset.0, record.value.unwrap().to_vec()));
            true
        })
        .unwrap();
        rest = after;
    }
    found
}

#[test]
fn each_partition_is_a_log_of_kafka() {
    let (_scratch, out, (code, told, err)) = exported(&[]);
    assert_eq!((code, err.as_str()), (0, ""));
    let expected = "plain-0: 7 records in 6 batches, 15683 bytes
plain-1: 3 records in 2 batches, 262 bytes
packed-0: 1 records in 1 batches, 129 bytes
packed-1: 1 records in 1 batches, 129 bytes
";
    assert_eq!(told, expected);
    let name = "00000000000000000000.log";
    let names = ["packed-0", "packed-1", "plain-0", "plain-1"];
    assert_eq!(files(&out), names.map(|partition| format!("{partition}/{name}")));
    let expected: Vec<(u64, Vec<u8>)> =
        vec![(0, b"21.5".into()), (1, vec![0, 255]), (2, b"later".into())];
    assert_eq!(records(&out.join("plain-1").join(name)), expected);
    assert_eq!(records(&out.join("packed-0").join(name)), [(0, vec![b'a'; 100])]);
}

#[test]
fn what_is_asked_for_is_exported_and_nothing_written_over() {
    let (scratch, out, (code, ..)) = exported(&["--stream", "plain", "--partition", "1"]);
    assert_eq!((code, files(&out)), (0, vec!["plain-1/00000000000000000000.log".to_owned()]));
    let dir = scratch.path().join("data");
    let (code, _, err) = log("export", &dir, &["--kafka-segment", out.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(err.contains("is there and not empty"), "{err}");
    let (code, _, err) = log("export", &dir, &["--kafka-segment", "x", "--stream", "plane"]);
    assert_eq!(code, 2);
    assert!(err.contains("it has: plain, packed"), "{err}");
}

#[test]
fn what_is_damaged_is_left_out_and_named() {
    let (scratch, dir) = written();
    flip(&segment(&dir, 1, 0, 0), 1024 + 500);
    let out = scratch.path().join("kafka");
    let (code, _, err) = log("export", &dir, &["--kafka-segment", out.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(err.contains("segment g000001/s0000/0000000000 is damaged at byte 1104: "), "{err}");
    // Places of a segment are counted, not listed.
    flip(&segment(&dir, 1, 0, 0), 8192 + 300);
    let again = scratch.path().join("again");
    let (_, _, err) = log("export", &dir, &["--kafka-segment", again.to_str().unwrap()]);
    assert!(err.contains("does not hold, and at 1 more place\n"), "{err}");
    let offsets = records(&out.join("plain-0/00000000000000000000.log"));
    let offsets: Vec<_> = offsets.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [0, 1, 3, 4, 5, 6]);
}

/// The jars that `scripts/kafka-tools.sh` fetches.
fn kafka_tools() -> Option<PathBuf> {
    let jars = std::env::var_os("TIDEGATE_KAFKA_TOOLS").filter(|jars| !jars.is_empty());
    if jars.is_none() {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let reason = "TIDEGATE_KAFKA_TOOLS is not set (scripts/kafka-tools.sh)";
        // Past the harness's capture, because a skipped test must be seen.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
    }
    jars.map(PathBuf::from)
}

#[test]
fn kafka_reads_it() {
    let Some(jars) = kafka_tools() else { return };
    let (_scratch, out, (code, ..)) = exported(&[]);
    assert_eq!(code, 0);
    let paths: Vec<_> = files(&out).iter().map(|name| out.join(name)).collect();
    let list: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
    let dumped = Command::new("java")
        .arg("-cp")
        .arg(jars.join("*"))
        .args(["kafka.tools.DumpLogSegments", "--deep-iteration", "--print-data-log", "--files"])
        .arg(list.join(","))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&dumped.stdout).into_owned();
    let errors = String::from_utf8_lossy(&dumped.stderr).into_owned();
    assert!(dumped.status.success(), "{text}{errors}");
    assert_eq!(text.matches("isvalid: true").count(), 10, "a line a batch\n{text}");
    assert!(!text.contains("isvalid: false") && !text.contains("Found"), "{text}");
    let payloads = text.lines().filter(|line| line.contains("payload: ")).count();
    assert_eq!(payloads, 12, "a line a record\n{text}");
    assert!(text.contains("payload: 21.5") && text.contains("payload: later"), "{text}");
    assert_eq!(text.matches("compresscodec: lz4").count(), 2, "{text}");
}
