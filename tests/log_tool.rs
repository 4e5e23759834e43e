//! `tidegate log` from outside: the real binary over a small directory that the real log wrote.
//!
//! The directory is made with the stations and the start-up code of the engine, with clocks and
//! random bits of the test, so that what is printed is the same each time. It has two generations:
//! the first with two shards, sealed; the second with one, left as a stop leaves it.

#![allow(clippy::unwrap_used)] // a test's panic is its report

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;
use tidegate::driver::data_dir::{self, DataDir};
use tidegate::log::start::{StreamWanted, Wanted};
use tidegate::log::{Log, Needs, Options, Request, SegmentKey, StreamOptions};
use tidegate::record::batch::RecordParts;
use tidegate::record::{Compression, Durability, PartitionId, ShardId, StreamId, StreamName};

const WALL_MS: i64 = 1_700_000_000_000;
const BLOCK: usize = 512;
const SEGMENT_BYTES: usize = 16 << 10;
const PLAIN: StreamId = StreamId(0);
const PACKED: StreamId = StreamId(1);

fn durability(stream: StreamId) -> Durability {
    if stream == PLAIN { Durability::Fsync } else { Durability::Write }
}

/// Held while a process is made, and while a lock is given back: between fork and exec a child holds
/// every descriptor of this process, and with them the locks of other tests.
static FORKING: Mutex<()> = Mutex::new(());

/// Drops what holds a lock, so that the lock is free afterwards.
fn give_back<T>(lock: T) {
    let _guard = FORKING.lock().unwrap();
    drop(lock);
}

/// The process has begun to run its own program when this returns.
fn spawn(command: &mut Command) -> Child {
    let _guard = FORKING.lock().unwrap();
    command.spawn().unwrap()
}

/// Opens the directory for a start with `shards`.
fn open(dir: &Path, shards: u32, wall_ms: i64) -> DataDir {
    fs::create_dir_all(dir).unwrap();
    let stream = |name: &str, id| StreamWanted {
        name: StreamName::try_from(name.to_owned()).unwrap(),
        durability: durability(id),
    };
    let wanted = Wanted {
        shards,
        partitions: None,
        partitions_of_new: 2,
        streams: vec![stream("plain", PLAIN), stream("packed", PACKED)],
        block: BLOCK,
        wall_ms,
    };
    data_dir::open(dir, data_dir::lock(dir).unwrap(), &wanted).unwrap()
}

/// One shard's log over real files.
struct Shard<'a> {
    data: &'a DataDir,
    log: Log,
    wall_ms: i64,
}

impl<'a> Shard<'a> {
    fn new(data: &'a DataDir, shard: u32, wall_ms: i64) -> Self {
        let stream = |id, compression| StreamOptions {
            durability: durability(id),
            compression,
            retention_bytes: u64::MAX,
            retention_ms: u64::MAX,
        };
        let options = Options {
            generation: data.manifest.current.generation,
            shard: ShardId(shard),
            shards: data.manifest.current.shards,
            partitions: 2,
            leader_epoch: data.manifest.starts,
            block: BLOCK,
            segment_bytes: SEGMENT_BYTES as u64,
            buffer_bytes: 8 << 10,
            batch_bytes_max: 4 << 10,
            tail_cache_bytes: 0,
            read_cache_bytes: 0,
            read_bytes: 4 << 10,
            segments_ahead: 1,
            streams: vec![stream(PLAIN, Compression::None), stream(PACKED, Compression::Lz4)],
        };
        let mut shard = Self {
            data,
            log: Log::new(options, &data.recovered, &Needs::default(), data.manifest.current.seed),
            wall_ms,
        };
        shard.answer();
        shard
    }

    fn answer(&mut self) {
        let mut requests = Vec::new();
        self.log.take_requests(&mut requests);
        for request in requests.drain(..) {
            match request {
                Request::MakeSegment(key) => {
                    let path = data_dir::segment_path(&self.data.path, key);
                    fs::write(path, vec![0; SEGMENT_BYTES]).unwrap();
                    self.log.on_segment_ready(key);
                }
                Request::WriteIndex { key, bytes } => {
                    fs::write(data_dir::index_path(&self.data.path, key), bytes).unwrap();
                    self.log.on_index_written(key);
                }
                other => panic!("nobody reads or deletes here: {other:?}"),
            }
        }
    }

    fn append(&mut self, stream: StreamId, partition: u32, value: &[u8]) {
        self.wall_ms += 1;
        let headers: [(&[u8], &[u8]); 2] = [(b"mqtt.topic", b"plant/temp"), (b"raw", b"\xff\"")];
        let record = RecordParts {
            key: Some(b"press-7"),
            value: Some(value),
            timestamp_ms: self.wall_ms,
            headers: headers.into_iter(),
        };
        self.log.append(stream, PartitionId(partition), &record).unwrap();
    }

    /// Commits what waits, and flushes it.
    fn commit(&mut self) {
        while let Some(bytes) = self.log.commit_bytes() {
            let mut buffer = vec![0; bytes];
            let commit = self.log.seal(&mut buffer, self.wall_ms, 0).unwrap();
            let path = data_dir::segment_path(&self.data.path, commit.segment);
            let file = fs::File::options().write(true).open(path).unwrap();
            file.write_all_at(&buffer[..commit.bytes], commit.position).unwrap();
            if !self.log.on_written() {
                self.log.on_flushed();
            }
            self.answer();
        }
    }
}

/// A directory with two generations, and its lock given back.
fn written() -> (TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    let data = open(&dir, 2, WALL_MS);
    for number in [1, 0] {
        let mut shard = Shard::new(&data, number, WALL_MS);
        shard.append(PLAIN, number, b"21.5");
        shard.append(PLAIN, number, b"\x00\xff");
        shard.append(PACKED, number, &[b'a'; 100]);
        shard.commit();
        // The first log goes on in a second segment.
        for _ in 0..if number == 0 { 5 } else { 0 } {
            shard.append(PLAIN, 0, &[b'b'; 3000]);
            shard.commit();
        }
    }
    give_back(data);
    let data = open(&dir, 1, WALL_MS + 60_000);
    let mut shard = Shard::new(&data, 0, WALL_MS + 60_000);
    shard.append(PLAIN, 1, b"later");
    shard.commit();
    give_back(data);
    (scratch, dir)
}

/// Exit code, stdout and stderr of `tidegate log …`.
fn log(command: &str, dir: &Path, more: &[&str]) -> (i32, String, String) {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    tool.args(["log", command]).arg(dir).args(more);
    tool.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawn(&mut tool).wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Everything below a directory with its bytes, but for the lock.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false if path.ends_with("lock") => {}
            false => found.push((path.clone(), fs::read(path).unwrap())),
        }
    }
    found.sort();
    found
}

fn segment(dir: &Path, generation: u32, log: u32, sequence: u64) -> PathBuf {
    data_dir::segment_path(dir, SegmentKey::chain(generation, log, sequence))
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn dump_prints_batches_and_records() {
    let (_scratch, dir) = written();
    let before = contents(&dir);
    let (code, out, err) = log("dump", &dir, &[]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let short = out.replace(&"a".repeat(100), "a…").replace(&"b".repeat(3000), "b…");
    assert_eq!(short, include_str!("log_tool/dump.txt"), "\n{short}");
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
    assert_eq!(told, include_str!("log_tool/stat.txt"), "\n{told}");
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
    let tables = |text: &str| text.lines().skip(7).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((code, tables(&out)), (0, tables(&whole)));
    assert_eq!(log("dump", &dir, &["--from", "4"]).0, 0);
}

#[test]
fn a_directory_in_use_is_refused_and_left_alone() {
    let (_scratch, dir) = written();
    let lock = data_dir::lock(&dir).unwrap();
    let locked = fs::read(dir.join("lock")).unwrap();
    let before = contents(&dir);
    for command in ["dump", "stat"] {
        let (code, out, err) = log(command, &dir, &[]);
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
    for dir in [scratch.path().to_owned(), scratch.path().join("nowhere")] {
        let (code, _, err) = log("dump", &dir, &[]);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("holds no Tidegate data"), "{err}");
    }
    assert!(contents(scratch.path()).is_empty() && !scratch.path().join("lock").exists());
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
    for (command, told) in [("dump", "\"three\""), ("stat", "plain 0 0 3 2 2 216 ")] {
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
