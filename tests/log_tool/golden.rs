//! The format on disk, to the byte: what is written is what is committed under `golden`, and what is
//! committed is read, by the tools and by a reader that shares no code with them.
//!
//! A change of the format shows here. If it is meant, count the format up where it is incompatible,
//! say so in docs/format.md, and write the files anew: `TIDEGATE_GOLDEN=write cargo test --test
//! log_tool golden -- --test-threads 1`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tidegate::driver::disk_files::DiskFiles;
use tidegate::log::clean::{Job, clean};
use tidegate::log::{SegmentKey, starts};
use tidegate::record::{Offset, PartitionId};

use crate::data::{
    BLOCK, PACKED, PLAIN, SEGMENT_BYTES, Shard, WALL_MS, contents, flip, give_back, log, open,
    segment, written,
};

/// Everything that the format has: several generations and shards, LZ4, reservations and gaps, a clean
/// end, a moved segment, log starts, holes that are known.
pub fn everything() -> (TempDir, PathBuf) {
    let (scratch, dir) = written();
    flip(&segment(&dir, 1, 0, 0), 4608 + 100);
    fs::remove_file(dir.join("g000001/s0000/0000000000.idx")).unwrap();
    let data = open(&dir, 1, WALL_MS + 120_000);
    let mut shard = Shard::new(&data, 0, WALL_MS + 120_000);
    shard.append(PACKED, 1, &[b'c'; 200]);
    shard.append(PLAIN, 1, "grün\n".as_bytes());
    shard.end_cleanly();
    let job = Job {
        first: SegmentKey::moved(3, 0, 0),
        seed: data.manifest.current.seed,
        block: BLOCK,
        segment_bytes: SEGMENT_BYTES as u64,
        wall_ms: WALL_MS + 130_000,
        age_ms: 130_000,
        runs: data.recovered.layout(PLAIN, PartitionId(1)).spans.into(),
        compaction: None,
    };
    let ended = clean(&DiskFiles::new(&dir), &job, &mut |_| ());
    assert!(ended.failed.is_none() && ended.tally.segments == 1, "{ended:?}");
    let row = (PLAIN.0, 0, Offset(1));
    fs::write(dir.join("g000003/s0000/starts"), starts::encode([row].into_iter())).unwrap();
    give_back(data);
    (scratch, dir)
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format").join(name)
}

/// Files below a directory by their paths in it.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let inside = |path: PathBuf| path.strip_prefix(dir).unwrap().to_owned();
    contents(dir).into_iter().map(|(path, bytes)| (inside(path), bytes)).collect()
}

fn copy_to(files: &BTreeMap<PathBuf, Vec<u8>>, dir: &Path) {
    for (path, bytes) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn is_to_be_written() -> bool {
    std::env::var_os("TIDEGATE_GOLDEN").is_some_and(|value| value == "write")
}

/// The committed files, in a directory that may be locked.
fn committed() -> (TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    copy_to(&tree(&golden("data")), &dir);
    (scratch, dir)
}

fn check_text(name: &str, text: &str) {
    let path = golden(name);
    if is_to_be_written() {
        fs::write(&path, text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&path).unwrap(), "{name}");
}

/// What the independent reader prints of a directory.
pub fn read(dir: &Path) -> (i32, String, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/read_log.py");
    let output = Command::new("python3").arg(script).arg(dir).output().expect("python3 is there");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn what_is_written_is_what_is_committed() {
    let (_scratch, dir) = everything();
    let written = tree(&dir);
    if is_to_be_written() {
        // They may not be there yet.
        let _ = fs::remove_dir_all(golden("data"));
        copy_to(&written, &golden("data"));
    }
    let committed = tree(&golden("data"));
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&written), names(&committed));
    for (path, bytes) in &written {
        let other = &committed[path];
        let differs = bytes.iter().zip(other).position(|(one, two)| one != two);
        assert_eq!((differs, bytes.len()), (None, other.len()), "{}", path.display());
    }
}

#[test]
fn what_is_committed_is_read() {
    let (_scratch, dir) = committed();
    let (code, text, err) = log("dump", &dir, &[]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("segment g000001/s0000/0000000000 is damaged at byte 4608: "), "{err}");
    check_text("dump.txt", &text);
    let (code, out, _) = log("verify", &dir, &[]);
    assert_eq!(code, 1);
    let (faults, _) = out.rsplit_once("fault: ").unwrap();
    check_text("verify.txt", faults);
}

#[test]
fn another_program_reads_the_same() {
    let (_scratch, dir) = committed();
    let (code, read_lines, err) = read(&dir);
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    assert!(err.starts_with("g000001/s0000/0000000000.log, byte 4608: "), "{err}");
    check_text("records.jsonl", &read_lines);
    check_same_records(
        &read_lines,
        &log("dump", &dir, &["--json"]).1,
        "\"plain\",\"partition\":0,\"offset\":0,",
    );
    // Of a sound directory as well, and one with a torn tail.
    let (_scratch, dir) = written();
    let (code, read_lines, err) = read(&dir);
    assert_eq!((code, err.as_str()), (0, ""));
    check_same_records(&read_lines, &log("dump", &dir, &["--json"]).1, "none");
    flip(&segment(&dir, 2, 0, 0), BLOCK + 100);
    let (code, read_lines, err) = read(&dir);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("g000002/s0000/0000000000.log, byte 512: a torn tail"), "{err}");
    check_same_records(&read_lines, &log("dump", &dir, &["--json"]).1, "none");
}

/// The reader goes by offset and prints what was moved once; it leaves out what was let go of, whose
/// lines hold `let_go`.
pub fn check_same_records(read: &str, dumped: &str, let_go: &str) {
    let mut read: Vec<_> = read.lines().collect();
    let kept = dumped.lines().filter(|line| !line.contains(let_go));
    let mut dumped: Vec<_> = kept.collect();
    read.sort_unstable();
    dumped.sort_unstable();
    dumped.dedup();
    assert_eq!(read, dumped);
}
