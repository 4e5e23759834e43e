//! The log's own work, next to what nobody gets around: the CRC-32C of the same bytes, copying them,
//! and reading the same file from one end to the other.
//!
//! `cargo bench --bench log` (`-- --quick` for a first look). One thread; throughput in bytes of the
//! segment. `append` and `recovery` do no I/O. `cold read` reads a file whose pages were given back
//! to the kernel before each pass, through `Log::read` and plainly; it belongs to the machine's disk,
//! and only the ratio says something. `tidegate log verify` against plain reads and a Kafka consumer
//! against both is scripts/read-speed.sh.

use std::cell::RefCell;
use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate::driver::disk_files::DiskFiles;
use tidegate::log::clean::{Compaction, Job, clean};
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
    /// The first segment and its index, as they would lie on disk.
    segment: Vec<u8>,
    index: Option<Vec<u8>>,
}

impl Writer {
    fn new() -> Self {
        let options = options();
        let mut recovered = Recovered::default();
        recovered.reserve(&[Durability::Fsync; STREAMS], PARTITIONS);
        recovered.settle();
        let mut writer = Self {
            log: Log::new(options, &recovered, &Needs::default(), SEED),
            commit: vec![0; 8 << 20],
            requests: Vec::new(),
            number: 0,
            segment: vec![0; SEGMENT_BYTES as usize],
            index: None,
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
                        if key.sequence == 0 {
                            self.index = Some(bytes);
                        }
                        self.log.on_index_written(key);
                    }
                    other => panic!("nobody reads or expires: {other:?}"),
                }
            }
        }
    }

    /// Appends and commits. Returns the commit's bytes.
    fn commit(&mut self, keep: bool) -> usize {
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
        if keep && commit.segment.sequence == 0 {
            let at = commit.position as usize;
            self.segment[at..at + commit.bytes].copy_from_slice(&self.commit[..commit.bytes]);
        }
        if !self.log.on_written() {
            self.log.on_flushed();
        }
        self.answer();
        commit.bytes
    }

    /// A full segment with its index.
    fn fill() -> (Vec<u8>, Vec<u8>) {
        let mut writer = Self::new();
        while writer.index.is_none() {
            writer.commit(true);
        }
        (writer.segment, writer.index.expect("written"))
    }
}

fn append(c: &mut Criterion) {
    let mut writer = Writer::new();
    let bytes = writer.commit(false);
    let source = vec![0x5a_u8; bytes];
    let mut copy = vec![0_u8; bytes];
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function(format!("{COMMIT_RECORDS} records to a commit"), |b| {
        b.iter(|| writer.commit(false));
    });
    group.bench_function("reference memcpy", |b| {
        b.iter(|| black_box(&mut copy).copy_from_slice(black_box(&source)));
    });
    group.bench_function("reference crc32c", |b| b.iter(|| crc32c::crc32c(black_box(&source))));
    group.finish();
}

fn recovery(c: &mut Criterion) {
    let (segment, index) = Writer::fill();
    let key = SegmentKey::chain(1, 0, 0);
    let mut group = c.benchmark_group("recovery");
    group.sample_size(20);
    group.throughput(Throughput::Bytes(SEGMENT_BYTES));
    group.bench_function("a segment without an index", |b| {
        b.iter(|| {
            let mut scan = LogScan::new(SEED, Recovered::default().offsets);
            scan.scan(key, black_box(&segment), false);
            let end = scan.finish();
            assert_eq!((end.segments.len(), end.damages.len()), (1, 0));
        });
    });
    group.bench_function("reference crc32c of the segment", |b| {
        b.iter(|| crc32c::crc32c(black_box(&segment)));
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("a segment with an index", |b| {
        b.iter(|| index::decode_directory(black_box(&index)).expect("whole"));
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
    let mut writer = Writer::new();
    while writer.index.is_none() {
        writer.commit(true);
    }
    let Writer { log, segment, index, mut requests, .. } = writer;
    let (log, index) = (RefCell::new(log), index.expect("written"));
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory on the disk");
    let path = dir.path().join("segment");
    std::fs::write(&path, &segment).expect("written");
    let file = File::open(&path).expect("there");

    let mut group = c.benchmark_group("cold read");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(SEGMENT_BYTES));
    group.bench_function("a segment, all of its 80 partitions side by side", |b| {
        b.iter_batched(
            || forget_pages(&file),
            |()| read_all(&mut log.borrow_mut(), &file, &index, &mut requests),
            criterion::BatchSize::PerIteration,
        );
    });
    let mut buffer = vec![0; 1 << 20];
    group.bench_function("reference: the file from one end to the other", |b| {
        b.iter_batched(
            || forget_pages(&file),
            |()| {
                let mut whole = File::open(&path).expect("there");
                while whole.read(black_box(&mut buffer)).expect("read") > 0 {}
            },
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// The cleaner with warm pages and no budget: all of a segment is copied, and one partition of it
/// compacted. Both make what they write durable, so that they belong to the machine's disk.
fn cleaning(c: &mut Criterion) {
    let (segment, index) = Writer::fill();
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory on the disk");
    let files = DiskFiles::new(dir.path());
    let key = SegmentKey::chain(1, 0, 0);
    files.make_dir(&log_dir(1, 0)).expect("made");
    files.create(&key.path(), &segment).expect("written");
    files.create(&key.index_path(), &index).expect("written");
    let (_, spans) = index::decode_directory(&index).expect("whole");
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
    let one_bytes = one[0].1.stored_bytes;
    let mut group = c.benchmark_group("cleaning");
    group.sample_size(10);
    for (name, bytes, job) in [
        ("a segment copied", SEGMENT_BYTES, job(runs, None)),
        ("a partition compacted to one key", one_bytes, job(one, Some(compaction))),
    ] {
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(name, |b| {
            b.iter(|| {
                let ended = clean(&files, &job, &mut |_| ());
                assert!(ended.failed.is_none() && ended.tally.segments == 1);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append, recovery, cold_read, cleaning);
criterion_main!(benches);
