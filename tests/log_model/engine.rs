//! The driver's part, simulated: commits, requests, recovery, the manifest.

use std::rc::Rc;

use tidegate::log::clean::{Job, Tally, clean};
use tidegate::log::recovery::Recovered;
use tidegate::log::segment::log_dir;
use tidegate::log::start::{self, StreamWanted, Wanted};
use tidegate::log::{Commit, Log, Needs, Options, Request, StreamOptions};
use tidegate::record::{PartitionId, ShardId, StreamId, StreamName};

use crate::disk::{Attempt, Disk};
use crate::random::Random;

/// What stays the same from start to start.
#[derive(Debug, Clone)]
pub struct Setup {
    pub partitions: u32,
    pub block: usize,
    pub segment_bytes: u64,
    pub buffer_bytes: usize,
    pub batch_bytes_max: usize,
    pub tail_cache_bytes: usize,
    pub read_cache_bytes: usize,
    pub read_bytes: usize,
    pub segments_ahead: usize,
    pub clean_live_max_percent: u32,
    pub compact_keys_max: usize,
    /// Segments are made empty and grow, instead of being filled with zeros.
    pub appending: bool,
    /// Offsets reserved at a start instead of the log's own number, so that they run out.
    pub reserved: Option<u64>,
    pub streams: Vec<StreamOptions>,
}

impl Setup {
    pub fn options(&self, generation: u32, shard: u32, shards: u32) -> Options {
        Options {
            generation,
            shard: ShardId(shard),
            shards,
            partitions: self.partitions,
            leader_epoch: generation,
            block: self.block,
            segment_bytes: self.segment_bytes,
            buffer_bytes: self.buffer_bytes,
            batch_bytes_max: self.batch_bytes_max,
            tail_cache_bytes: self.tail_cache_bytes,
            read_cache_bytes: self.read_cache_bytes,
            read_bytes: self.read_bytes,
            segments_ahead: self.segments_ahead,
            clean_live_max_percent: self.clean_live_max_percent,
            compact_keys_max: self.compact_keys_max,
            streams: self.streams.clone(),
        }
    }
}

/// A commit on its way.
struct Sealed {
    commit: Commit,
    bytes: Rc<Vec<u8>>,
    written: bool,
}

pub struct Shard {
    pub log: Log,
    sealed: Option<Sealed>,
    /// The commit sealed last.
    pub last: Option<Commit>,
    outstanding: Vec<Request>,
}

pub struct Engine {
    pub setup: Setup,
    pub disk: Disk,
    pub shards: Vec<Shard>,
    pub needs: Needs,
    pub disk_full: bool,
    pub wall_ms: i64,
    pub age_ms: u64,
    generation: u32,
    /// What the last start lost to damage.
    pub lost: usize,
    /// What the cleaner did.
    pub cleaned: Tally,
}

/// Why a recovery did not end.
#[derive(Debug)]
pub enum Failed {
    Interrupted,
    Start(start::Error),
}

impl Engine {
    /// An engine that has not been started.
    pub fn new(setup: Setup, seed: u64) -> Self {
        Self {
            needs: Needs::default(),
            setup,
            disk: Disk::new(seed),
            shards: Vec::new(),
            disk_full: false,
            wall_ms: 1_700_000_000_000,
            age_ms: 0,
            generation: 0,
            lost: 0,
            cleaned: Tally::default(),
        }
    }

    pub fn random(&mut self) -> &mut Random {
        &mut self.disk.random
    }

    pub fn owner(&mut self, partition: u32) -> &mut Shard {
        let shards = self.shards.len() as u32;
        &mut self.shards[(partition % shards) as usize]
    }

    pub fn log(&mut self, partition: u32) -> &mut Log {
        &mut self.owner(partition).log
    }

    /// Seals a commit, if there is anything to seal.
    pub fn seal(&mut self, shard: usize) -> bool {
        let (wall_ms, age_ms) = (self.wall_ms, self.age_ms);
        let Shard { log, sealed, last, .. } = &mut self.shards[shard];
        let Some(room) = log.commit_bytes() else { return false };
        let mut bytes = vec![0xa5; room];
        let waiting = log.waiting_bytes();
        let commit = log.seal(&mut bytes, wall_ms, age_ms).expect("commit_bytes said so");
        assert!(sealed.is_none(), "two commits under way");
        assert!(commit.bytes <= room && commit.bytes.is_multiple_of(self.setup.block));
        assert!(commit.position + commit.bytes as u64 <= self.setup.segment_bytes);
        assert!(waiting <= self.setup.buffer_bytes);
        bytes.truncate(commit.bytes);
        let bytes = Rc::new(bytes);
        log.keep_sealed(bytes.clone());
        *last = Some(commit);
        *sealed = Some(Sealed { commit, bytes, written: false });
        true
    }

    /// The write of a sealed commit ends.
    pub fn write(&mut self, shard: usize) -> bool {
        let Shard { log, sealed, .. } = &mut self.shards[shard];
        let Some(under_way) = sealed.as_mut().filter(|sealed| !sealed.written) else {
            return false;
        };
        let file = &under_way.commit.segment.path();
        let position = under_way.commit.position as usize;
        assert!(self.disk.exists(file), "segments are made before they are written");
        assert!(self.disk.is_blank(file, position, under_way.commit.bytes), "written twice");
        self.disk.write(file, position, &under_way.bytes);
        under_way.written = true;
        if log.on_written() {
            assert!(!under_way.commit.flush);
            *sealed = None;
        } else {
            assert!(under_way.commit.flush);
        }
        true
    }

    /// The flush of a written commit ends.
    pub fn flush(&mut self, shard: usize) -> bool {
        let Shard { log, sealed, .. } = &mut self.shards[shard];
        let Some(under_way) = sealed.take_if(|sealed| sealed.written) else { return false };
        self.disk.flush(&under_way.commit.segment.path());
        log.on_flushed();
        true
    }

    fn collect(&mut self, shard: usize) {
        let Shard { log, outstanding, .. } = &mut self.shards[shard];
        log.take_requests(outstanding);
        log.take_advanced(&mut Vec::new());
    }

    /// Answers one request, chosen by `pick` among those that `wanted` wants.
    pub fn answer(&mut self, shard: usize, pick: usize, wanted: impl Fn(&Request) -> bool) -> bool {
        self.collect(shard);
        let outstanding = &mut self.shards[shard].outstanding;
        // Whatever order, but for deletions: those keep theirs.
        let is_delete = |i: &usize| matches!(outstanding[*i], Request::Delete(_));
        let first_delete = (0..outstanding.len()).find(is_delete);
        let choices: Vec<_> = (0..outstanding.len())
            .filter(|i| wanted(&outstanding[*i]) && (!is_delete(i) || first_delete == Some(*i)))
            .collect();
        if choices.is_empty() {
            return false;
        }
        let request = outstanding.remove(choices[pick % choices.len()]);
        if let Request::Clean(job) = request {
            self.clean(shard, &job);
            return true;
        }
        let log = &mut self.shards[shard].log;
        match request {
            Request::Read(read) => {
                assert!(read.position.is_multiple_of(self.setup.block as u64));
                let bytes = self.disk.read(&read.file.path(), read.position as usize, read.bytes);
                log.on_read(read, bytes.map(|bytes| Rc::new(bytes) as _));
            }
            Request::MakeSegment(_) if self.disk_full => log.on_segment_refused(),
            Request::MakeSegment(key) => {
                let bytes = if self.setup.appending { 0 } else { self.setup.segment_bytes };
                assert!(!self.disk.exists(&key.path()), "made twice");
                self.disk.make(&key.path(), bytes as usize);
                log.on_segment_ready(key);
            }
            Request::WriteIndex { key, bytes } => {
                self.disk.replace(&key.index_path(), &bytes);
                log.on_index_written(key);
            }
            Request::SaveStarts(bytes) => {
                let dir = log_dir(self.generation, shard as u32);
                self.disk.replace(&format!("{dir}/starts"), &bytes);
                log.on_starts_saved();
            }
            Request::Clean(_) => unreachable!("see above"),
            Request::Delete(key) => {
                assert!(self.disk.exists(&key.path()), "deleted twice");
                self.disk.delete(&key.path());
                self.disk.delete(&key.index_path());
            }
        }
        true
    }

    /// The cleaner does a job to its end.
    fn clean(&mut self, shard: usize, job: &Job) {
        let files = Attempt::new(std::mem::take(&mut self.disk), None);
        let log = &mut self.shards[shard].log;
        let ended = clean(&files, job, &mut |moved| log.on_moved(&moved));
        self.disk = files.disk.into_inner();
        assert!(ended.failed.is_none(), "{:?}", ended.failed);
        log.on_cleaned(&ended);
        self.cleaned.segments += ended.tally.segments;
        self.cleaned.removed += ended.tally.removed;
    }

    /// The process ends while the cleaner is at a job.
    fn clean_in_part(disk: &mut Disk, job: &Job) {
        let left = disk.random.below(40);
        let files = Attempt::new(std::mem::take(disk), Some(left));
        clean(&files, job, &mut |_| ());
        *disk = files.disk.into_inner();
    }

    /// Goes on until nothing waits and nothing is under way.
    pub fn settle(&mut self) {
        self.disk_full = false;
        for shard in 0..self.shards.len() {
            self.shards[shard].log.retry_segment();
            for turn in 0.. {
                assert!(turn < 10_000, "shard {shard} makes no progress");
                let pick = self.random().below(7);
                let moved = self.answer(shard, pick, |_| true)
                    | self.write(shard)
                    | self.flush(shard)
                    | self.seal(shard);
                if !moved {
                    break;
                }
            }
            let log = &self.shards[shard].log;
            assert!(log.is_quiet() && !log.is_starved(), "shard {shard} did not come to rest");
        }
    }

    /// Everything is committed and a clean end written; then the process ends.
    pub fn stop_cleanly(&mut self) {
        self.settle();
        for shard in &mut self.shards {
            shard.log.end_cleanly();
        }
        self.settle();
        self.shards.clear();
    }

    /// The process ends at this moment. With `power` what was not flushed is lost too.
    pub fn crash(&mut self, power: bool) {
        for shard in 0..self.shards.len() {
            self.collect(shard);
        }
        let Self { shards, disk, setup, .. } = self;
        for Shard { sealed, outstanding, .. } in shards.drain(..) {
            if let Some(sealed) = sealed.filter(|sealed| !sealed.written) {
                let sectors = disk.random.below(sealed.commit.bytes / 512 + 1);
                let bytes = if power { sealed.commit.bytes } else { sectors * 512 };
                let file = sealed.commit.segment.path();
                disk.write(&file, sealed.commit.position as usize, &sealed.bytes[..bytes]);
            }
            let mut deletions = disk.random.below(3);
            for request in outstanding {
                match request {
                    Request::WriteIndex { key, bytes } if disk.random.one_in(2) => {
                        let sectors = disk.random.below(bytes.len() / 512 + 1);
                        let bytes = if power { bytes.len() } else { sectors * 512 };
                        disk.write(&format!("{}.new", key.index_path()), 0, &vec![0x5a; bytes]);
                    }
                    Request::MakeSegment(key) if disk.random.one_in(2) => {
                        let bytes = disk.random.below(setup.segment_bytes as usize / 512) * 512;
                        disk.begin_to_make(&key.path(), bytes);
                    }
                    Request::Clean(job) if !disk.random.one_in(4) => {
                        Self::clean_in_part(disk, &job);
                    }
                    Request::Delete(key) if deletions > 0 => {
                        deletions -= 1;
                        disk.delete(&key.path());
                        if deletions > 0 || disk.random.one_in(2) {
                            disk.delete(&key.index_path());
                        }
                    }
                    _ => {}
                }
            }
        }
        if power {
            disk.crash();
        }
    }

    /// Starts with `shards` shards. `interrupt_in`: so many changes of files and power is lost.
    pub fn start(&mut self, shards: u32, interrupt_in: Option<usize>) -> Result<(), Failed> {
        let streams = self.setup.streams.iter().enumerate().map(|(id, stream)| StreamWanted {
            name: StreamName::try_from(format!("s{id}")).expect("a valid name"),
            durability: stream.durability,
        });
        let wanted = Wanted {
            shards,
            partitions: None,
            partitions_of_new: self.setup.partitions,
            streams: streams.collect(),
            block: self.setup.block,
            wall_ms: self.wall_ms,
        };
        let mut random = self.random().clone();
        let files = Attempt::new(std::mem::take(&mut self.disk), interrupt_in);
        let started = start::start(&files, &wanted, &mut || random.next());
        self.disk = files.disk.into_inner();
        self.random().0 = random.0;
        let mut started = match started {
            Ok(started) => started,
            Err(_) if files.left.get() == Some(0) => {
                self.disk.crash();
                return Err(Failed::Interrupted);
            }
            Err(cause) => return Err(Failed::Start(cause)),
        };
        self.lost = started.manifest.lost.len() + started.torn.len();
        self.lower_ceilings(&mut started.recovered);
        self.needs = started.recovered.needs(shards);
        self.generation = started.manifest.current.generation;
        let (seed, generation) = (started.manifest.current.seed, self.generation);
        self.age_ms = self.age_ms.max(started.manifest.age_ms);
        self.shards = (0..shards)
            .map(|shard| {
                let options = self.setup.options(generation, shard, shards);
                Shard {
                    log: Log::new(options, &started.recovered, &self.needs, seed),
                    sealed: None,
                    last: None,
                    outstanding: Vec::new(),
                }
            })
            .collect();
        Ok(())
    }

    /// Fewer offsets than a start reserves, so that they run out.
    fn lower_ceilings(&self, recovered: &mut Recovered) {
        let Some(reserved) = self.setup.reserved else { return };
        for offsets in recovered.offsets.values_mut() {
            offsets.ceiling = offsets.ceiling.min(offsets.next.plus(reserved));
        }
    }

    /// Whether the caches keep to their limits; their newest pieces stay whatever their size.
    pub fn check_memory(&self) {
        for shard in &self.shards {
            let (tail, cached) = shard.log.cached_bytes();
            let setup = &self.setup;
            let newest = setup.segment_bytes as usize;
            assert!(tail <= setup.tail_cache_bytes.max(newest), "tail cache of {tail} bytes");
            let extents = 2 * setup.segment_bytes as usize;
            assert!(cached <= setup.read_cache_bytes.max(extents), "read cache of {cached} bytes");
            assert!(shard.log.waiting_bytes() <= setup.buffer_bytes);
        }
    }

    pub fn place(stream: usize, partition: u32) -> (StreamId, PartitionId) {
        (StreamId(stream as u32), PartitionId(partition))
    }
}
