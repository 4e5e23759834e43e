//! The log's own work, next to what nobody gets around: the CRC-32C of the same bytes, copying them,
//! and plain reads and writes of as many bytes of a file.
//!
//! `cargo bench --bench log` (`-- --quick` for a first look). Throughput in bytes of the segments; in
//! `compaction` in bytes that were read. `append` and `recovery` do no I/O, their references do, in
//! the page cache. `verify` and `cold read` read files whose pages were given back to the kernel
//! before each pass; what `cleaning` and `durable append` write is flushed. These belong to the machine's disk, and only
//! the ratios say something. `tidegate log verify` and a Kafka consumer against plain reads of
//! gigabytes are scripts/read-speed.sh.

use std::cell::RefCell;
use std::fs::File;
use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::rc::Rc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate::driver::disk_files::DiskFiles;
use tidegate::driver::read_ahead::ReadAhead;
use tidegate::log::clean::{Compaction, Job, clean};
use tidegate::log::inspect::examine;
use tidegate::log::manifest::{FEATURES, FORMAT, Generation, Manifest};
use tidegate::log::recovery::Recovered;
use tidegate::log::scan::LogScan;
use tidegate::log::segment::log_dir;
use tidegate::log::{
    FileKey, Files, Log, Needs, Options, Outcome, Request, SegmentKey, StreamOptions, index,
};
use tidegate::record::batch::RecordParts;
use tidegate::record::{Compression, Durability, Offset, PartitionId, ShardId, StreamId};

const SEED: u64 = 7;
const STREAMS: usize = 10;
const PARTITIONS: u32 = 8;
const SEGMENT_BYTES: u64 = 64 << 20;
const PAYLOAD: [u8; 256] = [0x5a; 256];
const VERIFIED_SEGMENTS: usize = 4;
/// Records of a commit.
const COMMIT_RECORDS: usize = 1_000;

fn options() -> Options {
    let stream = StreamOptions {
        durability: Durability::Fsync,
        compression: Compression::None,
        retention_bytes: u64::MAX,
        retention_ms: u64::MAX,
        compaction: None,
    };
    Options {
        generation: 1,
        shard: ShardId(0),
        shards: 1,
        partitions: PARTITIONS,
        leader_epoch: 1,
        block: 4096,
        segment_bytes: SEGMENT_BYTES,
        buffer_bytes: 4 << 20,
        batch_bytes_max: 1 << 20,
        tail_cache_bytes: 0,
        read_cache_bytes: 16 << 20,
        read_bytes: 256 << 10,
        segments_ahead: 2,
        clean_live_max_percent: 0,
        compact_keys_max: 1,
        streams: vec![stream; STREAMS],
    }
}

/// A log whose commits go into memory that is there already.
struct Writer {
    log: Log,
    commit: Vec<u8>,
    requests: Vec<Request>,
    number: usize,
    /// The first segments and their indexes, as they would lie on disk: as many as are to be kept.
    segments: Vec<Vec<u8>>,
    indexes: Vec<Vec<u8>>,
}

impl Writer {
    /// One that keeps the first `kept` segments.
    fn new(kept: usize) -> Self {
        let options = options();
        let mut recovered = fresh();
        recovered.settle();
        let mut writer = Self {
            log: Log::new(options, &recovered, &Needs::default(), SEED),
            commit: vec![0; 8 << 20],
            requests: Vec::new(),
            number: 0,
            segments: vec![vec![0; SEGMENT_BYTES as usize]; kept],
            indexes: Vec::new(),
        };
        writer.answer();
        writer
    }

    fn answer(&mut self) {
        loop {
            self.log.take_requests(&mut self.requests);
            if self.requests.is_empty() {
                return;
            }
            for request in self.requests.drain(..) {
                match request {
                    Request::MakeSegment(key) => self.log.on_segment_ready(key),
                    Request::WriteIndex { key, bytes } => {
                        if self.indexes.len() < self.segments.len() {
                            self.indexes.push(bytes);
                        }
                        self.log.on_index_written(key);
                    }
                    other => panic!("nobody reads or expires: {other:?}"),
                }
            }
        }
    }

    /// Appends and commits. Returns the commit's bytes.
    fn commit(&mut self) -> usize {
        for _ in 0..COMMIT_RECORDS {
            self.number += 1;
            let record = RecordParts {
                key: Some(b"device-4711".as_slice()),
                value: Some(&PAYLOAD),
                timestamp_ms: 1_700_000_000_000,
                headers: [(b"mqtt.topic".as_slice(), b"plant/7/temperature".as_slice())]
                    .into_iter(),
            };
            let stream = StreamId((self.number % STREAMS) as u32);
            let partition = PartitionId((self.number / STREAMS) as u32 % PARTITIONS);
            self.log.append(stream, partition, &record).expect("room");
        }
        let commit =
            self.log.seal(&mut self.commit, 1_700_000_000_000, 1).expect("something waits");
        if let Some(segment) = self.segments.get_mut(commit.segment.sequence as usize) {
            let at = commit.position as usize;
            segment[at..at + commit.bytes].copy_from_slice(&self.commit[..commit.bytes]);
        }
        if !self.log.on_written() {
            self.log.on_flushed();
        }
        self.answer();
        commit.bytes
    }

    /// One whose first `kept` segments are full.
    fn filled(kept: usize) -> Self {
        let mut writer = Self::new(kept);
        while writer.indexes.len() < kept {
            writer.commit();
        }
        writer
    }

    /// Puts the segments and their indexes into a data directory.
    fn store(&self) -> (tempfile::TempDir, DiskFiles, Vec<SegmentKey>) {
        let dir =
            tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory on the disk");
        let files = DiskFiles::new(dir.path());
        files.make_dir(&log_dir(1, 0)).expect("made");
        let keys: Vec<_> =
            (0..self.segments.len() as u64).map(|n| SegmentKey::chain(1, 0, n)).collect();
        for (key, (segment, index)) in
            std::iter::zip(&keys, std::iter::zip(&self.segments, &self.indexes))
        {
            files.create(&key.path(), segment).expect("written");
            files.create(&key.index_path(), index).expect("written");
        }
        (dir, files, keys)
    }
}

/// What a start from an empty directory recovers.
fn fresh() -> Recovered {
    let mut recovered = Recovered::default();
    recovered.reserve(&[Durability::Fsync; STREAMS], PARTITIONS);
    recovered
}

fn append(c: &mut Criterion) {
    let mut writer = Writer::new(0);
    let bytes = writer.commit();
    let source = vec![0x5a_u8; bytes];
    let mut copy = vec![0_u8; bytes];
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function(format!("{COMMIT_RECORDS} records to a commit"), |b| {
        b.iter(|| writer.commit());
    });
    group.bench_function("reference memcpy", |b| {
        b.iter(|| black_box(&mut copy).copy_from_slice(black_box(&source)));
    });
    group.bench_function("reference crc32c", |b| b.iter(|| crc32c::crc32c(black_box(&source))));
    let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).expect("a file on the disk");
    group.bench_function("reference: the same bytes written to a file, not flushed", |b| {
        b.iter(|| file.write_all_at(black_box(&source), 0).expect("written"));
    });
    group.finish();
}

/// Commits that are written and flushed as the driver does it, and a loop that only writes and
/// flushes as many bytes. Belongs to the machine's disk; the ratio is what the log adds.
fn durable_append(c: &mut Criterion) {
    const FILE_BYTES: usize = 16 << 20;
    let mut group = c.benchmark_group("durable append");
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory on the disk");
    let path = dir.path().join("segment");
    std::fs::write(&path, vec![0; FILE_BYTES]).expect("written");
    let file = File::options().write(true).custom_flags(libc::O_DIRECT).open(&path);
    let file = file.expect("a file system with O_DIRECT");
    file.sync_all().expect("flushed");
    let mut writer = Writer::new(0);
    let commit_bytes = writer.commit();
    let memory = vec![0x5a_u8; commit_bytes + 4096];
    let aligned = memory.as_ptr().align_offset(4096);
    let block = &memory[aligned..][..commit_bytes];
    let mut position = 0;
    let mut write_and_flush = || {
        if position + commit_bytes > FILE_BYTES {
            position = 0;
        }
        file.write_all_at(black_box(block), position as u64).expect("written");
        file.sync_data().expect("flushed");
        position += commit_bytes;
    };
    group.throughput(Throughput::Elements(COMMIT_RECORDS as u64));
    group.bench_function(format!("{COMMIT_RECORDS} records, {commit_bytes} bytes"), |b| {
        b.iter(|| {
            black_box(writer.commit());
            write_and_flush();
        });
    });
    group.bench_function("reference: a bare write and flush", |b| b.iter(&mut write_and_flush));
    group.finish();
}

fn recovery(c: &mut Criterion) {
    let writer = Writer::filled(1);
    let (dir, _, keys) = writer.store();
    let (key, segment, index) = (keys[0], &writer.segments[0], &writer.indexes[0]);
    let mut group = c.benchmark_group("recovery");
    group.sample_size(20);
    group.throughput(Throughput::Bytes(SEGMENT_BYTES));
    group.bench_function("a segment without an index", |b| {
        b.iter(|| {
            let mut scan = LogScan::new(SEED, Recovered::default().offsets);
            scan.scan(key, black_box(segment), false);
            let end = scan.finish();
            assert_eq!((end.segments.len(), end.damages.len()), (1, 0));
        });
    });
    group.bench_function("reference crc32c of the segment", |b| {
        b.iter(|| crc32c::crc32c(black_box(segment)));
    });
    let file = File::open(dir.path().join(key.path())).expect("there");
    let mut buffer = vec![0; 1 << 20];
    group.bench_function("reference: the same file read, warm", |b| {
        b.iter(|| read_plainly(&file, &mut buffer));
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("a segment with an index", |b| {
        b.iter(|| index::decode_directory(black_box(index)).expect("whole"));
    });
    group.finish();
}

/// Reads a file from one end to the other.
fn read_plainly(file: &File, buffer: &mut [u8]) {
    let mut at = 0;
    loop {
        match file.read_at(black_box(&mut *buffer), at).expect("read") {
            0 => return,
            bytes => at += bytes as u64,
        }
    }
}

/// What `tidegate log verify` does, over several cold files.
fn verify(c: &mut Criterion) {
    let (dir, files, keys) = Writer::filled(VERIFIED_SEGMENTS).store();
    let lock = File::create(dir.path().join("lock")).expect("made");
    let manifest = Manifest {
        format: FORMAT,
        features: FEATURES,
        cluster_id: String::new(),
        partitions: PARTITIONS,
        starts: 1,
        streams: Vec::new(),
        current: Generation { generation: 1, shards: 1, seed: SEED },
        sealed: Vec::new(),
        offsets: fresh().offsets.values().map(|row| (*row).into()).collect(),
        gaps: Vec::new(),
        lost: Vec::new(),
        age_ms: 0,
        wall_ms: 0,
    };
    let paths: Vec<_> = keys.iter().map(SegmentKey::path).collect();
    let open: Vec<_> =
        paths.iter().map(|path| File::open(dir.path().join(path)).expect("there")).collect();
    let forget = || open.iter().for_each(forget_pages);
    let mut group = c.benchmark_group("verify");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(SEGMENT_BYTES * VERIFIED_SEGMENTS as u64));
    group.bench_function("every frame, batch and record", |b| {
        b.iter_batched(
            forget,
            |()| {
                std::thread::scope(|scope| {
                    let ahead = ReadAhead::start(scope, (&files, &lock), paths.clone(), |_| ());
                    let found = examine(&ahead, &manifest, &mut |_, _| ()).expect("readable");
                    let found = found.recovered;
                    assert_eq!((found.segments.len(), found.damages.len()), (keys.len(), 0));
                });
            },
            criterion::BatchSize::PerIteration,
        );
    });
    let mut buffer = vec![0; 1 << 20];
    group.bench_function("reference: the same files read, cold", |b| {
        b.iter_batched(
            forget,
            |()| open.iter().for_each(|file| read_plainly(file, &mut buffer)),
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Gives the pages of a file back.
fn forget_pages(file: &File) {
    file.sync_all().expect("flushed");
    #[allow(unsafe_code)]
    // SAFETY: the descriptor is open; the call only advises the kernel.
    let refused = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(refused, 0);
}

/// Reads the first segment as Fetches for all partitions do: each partition in turn takes what is at
/// hand, and the reads that were asked for are answered between two rounds.
fn read_all(log: &mut Log, segment: &File, index: &[u8], requests: &mut Vec<Request>) -> usize {
    let mut places: Vec<_> = (0..STREAMS as u32 * PARTITIONS)
        .map(|n| ((StreamId(n / PARTITIONS), PartitionId(n % PARTITIONS)), Offset(0)))
        .collect();
    let mut bytes = 0;
    // Each round brings somebody on, or the cache is too small for so many readers.
    for round in 0.. {
        if places.is_empty() {
            break;
        }
        assert!(round < 100_000, "{} readers do not get on", places.len());
        places.retain_mut(|(place, from)| {
            match log.read(*place, *from, 1 << 20, true, |batch| _ = black_box(batch)) {
                Outcome::Data(read, next) => {
                    bytes += read;
                    *from = next;
                    true
                }
                Outcome::Pending => true,
                // The last commit is in the segment behind the one that is measured.
                Outcome::End | Outcome::Damaged => false,
                Outcome::OutOfRange => panic!("{place:?} at {from}"),
            }
        });
        log.take_requests(requests);
        for request in requests.drain(..) {
            let Request::Read(read) = request else { continue };
            let bytes = match read.file {
                FileKey::Index(key) | FileKey::Segment(key) if key.sequence > 0 => None,
                FileKey::Index(_) => {
                    let at = read.position as usize;
                    Some(index[at..index.len().min(at + read.bytes)].to_vec())
                }
                FileKey::Segment(_) => {
                    let mut bytes = vec![0; read.bytes];
                    let got = segment.read_at(&mut bytes, read.position).expect("read");
                    bytes.truncate(got);
                    Some(bytes)
                }
            };
            log.on_read(read, bytes.map(|bytes| Rc::new(bytes) as _));
        }
    }
    assert!(bytes as u64 > SEGMENT_BYTES / 4 * 3, "{bytes} bytes of batches");
    bytes
}

fn cold_read(c: &mut Criterion) {
    let writer = Writer::filled(1);
    let (dir, _, keys) = writer.store();
    let file = File::open(dir.path().join(keys[0].path())).expect("there");
    let Writer { log, indexes, mut requests, .. } = writer;
    let (log, index) = (RefCell::new(log), &indexes[0]);

    let mut group = c.benchmark_group("cold read");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(SEGMENT_BYTES));
    group.bench_function("a segment, all of its 80 partitions side by side", |b| {
        b.iter_batched(
            || forget_pages(&file),
            |()| read_all(&mut log.borrow_mut(), &file, index, &mut requests),
            criterion::BatchSize::PerIteration,
        );
    });
    let mut buffer = vec![0; 1 << 20];
    group.bench_function("reference: the same file read, cold", |b| {
        b.iter_batched(
            || forget_pages(&file),
            |()| read_plainly(&file, &mut buffer),
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// The cleaner with warm pages and no budget: all of a segment is copied, and one partition of it
/// compacted; each next to reading and writing as many bytes of a file, with one flush.
fn cleaning(c: &mut Criterion) {
    let writer = Writer::filled(1);
    let (dir, files, keys) = writer.store();
    let key = keys[0];
    let (_, spans) = index::decode_directory(&writer.indexes[0]).expect("whole");
    let runs: Vec<_> = spans.into_iter().map(|span| (key, span)).collect();
    let job = |runs, compaction| Job {
        first: SegmentKey::moved(1, 0, 0),
        seed: SEED,
        block: 4096,
        segment_bytes: 2 * SEGMENT_BYTES,
        wall_ms: 0,
        age_ms: 0,
        runs,
        compaction,
    };
    let compaction =
        Compaction { dirty_from: Offset(0), keys_max: 1000, tombstone_retention_ms: 0 };
    let one = vec![runs[0]];
    let source = File::open(dir.path().join(key.path())).expect("there");
    let copy = dir.path().join("copy");
    for (name, job) in [
        ("cleaning: a segment copied", job(runs, None)),
        ("cleaning: a partition compacted to one key", job(one, Some(compaction))),
    ] {
        let tally = clean(&files, &job, &mut |_| ()).tally;
        let mut group = c.benchmark_group(name);
        group.sample_size(10);
        group.throughput(Throughput::Bytes(tally.read_bytes));
        group.bench_function("by the cleaner", |b| {
            b.iter(|| {
                let ended = clean(&files, &job, &mut |_| ());
                assert!(ended.failed.is_none() && ended.tally.segments == 1);
            });
        });
        // Runs that lie between others are read with their neighbours: more than the file in all.
        let file_bytes = source.metadata().expect("there").len();
        let mut buffer = vec![0; file_bytes.max(tally.written_bytes) as usize];
        group.bench_function("reference: as many bytes read, written and flushed", |b| {
            b.iter(|| {
                let mut left = tally.read_bytes;
                while left > 0 {
                    let bytes = left.min(file_bytes);
                    source.read_exact_at(&mut buffer[..bytes as usize], 0).expect("read");
                    left -= bytes;
                }
                let file = File::create(&copy).expect("made");
                file.write_all_at(&buffer[..tally.written_bytes as usize], 0).expect("written");
                file.sync_all().expect("flushed");
            });
        });
        group.finish();
    }
}

criterion_group!(benches, append, durable_append, recovery, verify, cold_read, cleaning);
criterion_main!(benches);
