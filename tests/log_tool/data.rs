//! A small data directory, and the tools over it.
//!
//! The directory is made with the stations and the start-up code of the engine, with clocks and
//! random bits of the test, so that what is printed is the same each time. It has two generations:
//! the first with two shards, sealed; the second with one, left as a stop leaves it.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;
use tidegate::driver::data_dir;
use tidegate::driver::disk_files::DiskFiles;
use tidegate::log::manifest::Manifest;
use tidegate::log::recovery::Recovered;
use tidegate::log::start::{Started, StreamWanted, Wanted, start};
use tidegate::log::{Log, Needs, Options, Request, SegmentKey, StreamOptions};
use tidegate::record::batch::RecordParts;
use tidegate::record::{Compression, Durability, PartitionId, ShardId, StreamId, StreamName};

pub const WALL_MS: i64 = 1_700_000_000_000;
pub const BLOCK: usize = 512;
pub const SEGMENT_BYTES: usize = 16 << 10;
pub const PLAIN: StreamId = StreamId(0);
pub const PACKED: StreamId = StreamId(1);

pub fn durability(stream: StreamId) -> Durability {
    if stream == PLAIN { Durability::Fsync } else { Durability::Write }
}

/// Held while a process is made, and while a lock is given back: between fork and exec a child holds
/// every descriptor of this process, and with them the locks of other tests.
pub static FORKING: Mutex<()> = Mutex::new(());

/// Drops what holds a lock, so that the lock is free afterwards.
pub fn give_back<T>(lock: T) {
    let _guard = FORKING.lock().unwrap();
    drop(lock);
}

/// The process has begun to run its own program when this returns.
pub fn spawn(command: &mut Command) -> Child {
    let _guard = FORKING.lock().unwrap();
    command.spawn().unwrap()
}

/// A directory that was started from; its lock is held.
pub struct Opened {
    pub path: PathBuf,
    pub manifest: Manifest,
    pub recovered: Recovered,
    _lock: fs::File,
}

/// Opens the directory for a start with `shards`, with the random bits of engine 1.
pub fn open(dir: &Path, shards: u32, wall_ms: i64) -> Opened {
    open_by(1, dir, shards, wall_ms)
}

/// Locks the directory. A tool that another test starts just now has a copy of every descriptor of this
/// process, that of a lock let go of among them, until it is executed.
fn lock(dir: &Path) -> fs::File {
    let since = std::time::Instant::now();
    loop {
        match data_dir::lock(dir) {
            Ok(lock) => return lock,
            Err(cause) => assert!(since.elapsed().as_secs() < 10, "{cause}"),
        }
        std::thread::yield_now();
    }
}

/// Opens the directory for a start with `shards`; what is random follows from `engine` and the time.
pub fn open_by(engine: u64, dir: &Path, shards: u32, wall_ms: i64) -> Opened {
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
    let lock = lock(dir);
    let mut state = (wall_ms as u64) ^ (engine << 56);
    let mut random = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let started = start(&DiskFiles::new(dir), &wanted, &mut random).unwrap();
    let Started { manifest, recovered, .. } = started;
    Opened { path: dir.to_owned(), manifest, recovered, _lock: lock }
}

/// One shard's log over real files.
pub struct Shard<'a> {
    data: &'a Opened,
    log: Log,
    wall_ms: i64,
}

impl<'a> Shard<'a> {
    pub fn new(data: &'a Opened, shard: u32, wall_ms: i64) -> Self {
        let stream = |id, compression| StreamOptions {
            durability: durability(id),
            compression,
            retention_bytes: u64::MAX,
            retention_ms: u64::MAX,
            compaction: None,
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
            clean_live_max_percent: 0,
            compact_keys_max: 1,
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

    pub fn append(&mut self, stream: StreamId, partition: u32, value: &[u8]) {
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

    /// The engine stops cleanly.
    pub fn end_cleanly(&mut self) {
        self.log.end_cleanly();
        self.commit();
    }

    /// Commits what waits, and flushes it.
    pub fn commit(&mut self) {
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
pub fn written() -> (TempDir, PathBuf) {
    written_by(1)
}

/// The same, but for what is random.
pub fn written_by(engine: u64) -> (TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    let data = open_by(engine, &dir, 2, WALL_MS);
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
    let data = open_by(engine, &dir, 1, WALL_MS + 60_000);
    let mut shard = Shard::new(&data, 0, WALL_MS + 60_000);
    shard.append(PLAIN, 1, b"later");
    shard.commit();
    give_back(data);
    (scratch, dir)
}

/// Exit code, stdout and stderr of `tidegate log …`.
pub fn log(command: &str, dir: &Path, more: &[&str]) -> (i32, String, String) {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    tool.args(["log", command]).arg(dir).args(more);
    tool.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawn(&mut tool).wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Everything below a directory with its bytes, but for the lock.
pub fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
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

pub fn segment(dir: &Path, generation: u32, log: u32, sequence: u64) -> PathBuf {
    data_dir::segment_path(dir, SegmentKey::chain(generation, log, sequence))
}

pub fn index(dir: &Path, generation: u32, log: u32, sequence: u64) -> PathBuf {
    data_dir::index_path(dir, SegmentKey::chain(generation, log, sequence))
}

pub fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}
