//! A log on a disk that does at once what it is asked, for the unit tests of this station.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::clean::{Ended, Job, clean};
use super::index::decode;
use super::manifest::{FEATURES, FORMAT, Generation, Manifest};
use super::memory::MemoryFiles;
use super::recovery::Recovered;
use super::scan::{LogEnd, LogScan};
use super::segment::{SegmentHeader, identity};
use super::starts::decode as decode_starts;
use super::{
    Commit, FileKey, Full, Log, Needs, Options, Outcome, Request, SegmentKey, StreamOptions, Ticket,
};
use crate::record::batch::{RecordParts, for_each_record};
use crate::record::{Compression, Durability, Offset, PartitionId, ShardId, StreamId};

pub const FLUSHED: StreamId = StreamId(0);
pub const WRITTEN: StreamId = StreamId(1);
pub const NO_HEADERS: std::iter::Empty<(&[u8], &[u8])> = std::iter::empty();

/// Two streams, flushed and written, of two partitions; small segments.
pub fn options() -> Options {
    let stream = |durability| StreamOptions {
        durability,
        compression: Compression::None,
        retention_bytes: u64::MAX,
        retention_ms: u64::MAX,
        compaction: None,
    };
    Options {
        generation: 1,
        shard: ShardId(0),
        shards: 1,
        partitions: 2,
        leader_epoch: 1,
        block: 512,
        segment_bytes: 16 << 10,
        buffer_bytes: 8 << 10,
        batch_bytes_max: 4 << 10,
        tail_cache_bytes: 0,
        read_cache_bytes: 1 << 20,
        read_bytes: 4 << 10,
        segments_ahead: 1,
        clean_live_max_percent: 0,
        compact_keys_max: 1,
        streams: vec![stream(Durability::Fsync), stream(Durability::Write)],
    }
}

pub fn durabilities(streams: &[StreamOptions]) -> Vec<Durability> {
    streams.iter().map(|stream| stream.durability).collect()
}

pub const SEED: u64 = 0x1234_5678;

/// Of a directory in which nothing was written yet.
pub fn manifest(options: &Options) -> Manifest {
    let mut recovered = Recovered::default();
    recovered.reserve(&durabilities(&options.streams), options.partitions);
    Manifest {
        format: FORMAT,
        features: FEATURES,
        cluster_id: String::new(),
        partitions: options.partitions,
        starts: 1,
        streams: vec![],
        current: Generation { generation: 1, shards: 1, seed: SEED },
        sealed: vec![],
        offsets: recovered.offsets.values().map(|row| (*row).into()).collect(),
        gaps: vec![],
        lost: vec![],
        age_ms: 0,
        wall_ms: 0,
    }
}

pub struct Rig {
    pub log: Log,
    pub files: BTreeMap<FileKey, Vec<u8>>,
    pub deleted: Vec<SegmentKey>,
    pub saved_starts: Vec<(u32, u32, Offset)>,
    pub needs: Needs,
    pub wall_ms: i64,
    pub age_ms: u64,
    /// Requests are kept instead of answered.
    pub holds: bool,
    pub held: Vec<Request>,
    pub commits: Vec<Commit>,
    /// Jobs of the cleaner that were done.
    pub cleaned: Vec<(Job, Ended)>,
}

impl Rig {
    pub fn new(options: Options) -> Self {
        let mut recovered = Recovered::default();
        recovered.reserve(&durabilities(&options.streams), options.partitions);
        Self::after(options, &recovered, BTreeMap::new())
    }

    pub fn after(
        options: Options,
        recovered: &Recovered,
        files: BTreeMap<FileKey, Vec<u8>>,
    ) -> Self {
        let needs = recovered.needs(options.shards);
        let mut rig = Self {
            log: Log::new(options, recovered, &needs, SEED),
            needs,
            files,
            deleted: Vec::new(),
            saved_starts: Vec::new(),
            wall_ms: 1_000_000,
            age_ms: 0,
            holds: false,
            held: Vec::new(),
            commits: Vec::new(),
            cleaned: Vec::new(),
        };
        rig.answer();
        rig
    }

    pub fn append(
        &mut self,
        stream: StreamId,
        partition: u32,
        value: &[u8],
    ) -> Result<Ticket, Full> {
        let record = RecordParts {
            key: None,
            value: Some(value),
            timestamp_ms: self.wall_ms,
            headers: NO_HEADERS,
        };
        self.log.append(stream, PartitionId(partition), &record)
    }

    /// Does what the log asks for.
    pub fn answer(&mut self) {
        self.log.take_requests(&mut self.held);
        while !self.holds && !self.held.is_empty() {
            for request in std::mem::take(&mut self.held) {
                self.answer_one(request);
            }
            self.log.take_requests(&mut self.held);
        }
    }

    fn answer_one(&mut self, request: Request) {
        match request {
            Request::Read(read) => {
                let bytes = self.files.get(&read.file).map(|file| {
                    let start = (read.position as usize).min(file.len());
                    file[start..(start + read.bytes).min(file.len())].to_vec()
                });
                self.log.on_read(read, bytes.map(|bytes| Rc::new(bytes) as _));
            }
            Request::MakeSegment(key) => {
                let zeros = vec![0; self.log.options().segment_bytes as usize];
                self.files.insert(FileKey::Segment(key), zeros);
                self.log.on_segment_ready(key);
            }
            Request::WriteIndex { key, bytes } => {
                self.files.insert(FileKey::Index(key), bytes);
                self.log.on_index_written(key);
            }
            Request::SaveStarts(bytes) => {
                self.saved_starts = decode_starts(&bytes).expect("whole");
                self.log.on_starts_saved();
            }
            Request::Clean(job) => {
                let files = MemoryFiles::of(&self.files);
                let mut moved = Vec::new();
                let ended = clean(&files, &job, &mut |m| moved.push(m));
                self.files = files.segments();
                moved.iter().for_each(|moved| self.log.on_moved(moved));
                self.log.on_cleaned(&ended);
                self.cleaned.push((*job, ended));
            }
            Request::Delete(key) => {
                self.files.remove(&FileKey::Segment(key));
                self.files.remove(&FileKey::Index(key));
                self.deleted.push(key);
            }
        }
    }

    /// Seals and writes one commit into its file.
    pub fn seal(&mut self) -> Option<Commit> {
        let mut bytes = vec![0xa5; self.log.commit_bytes()?];
        let commit = self.log.seal(&mut bytes, self.wall_ms, self.age_ms)?;
        bytes.truncate(commit.bytes);
        let end = commit.position + commit.bytes as u64;
        assert!(end <= self.log.options().segment_bytes, "beyond the segment");
        let file = self.files.get_mut(&FileKey::Segment(commit.segment)).expect("made before");
        file[commit.position as usize..end as usize].copy_from_slice(&bytes);
        self.log.keep_sealed(Rc::new(bytes));
        self.commits.push(commit);
        Some(commit)
    }

    /// Commits until nothing waits.
    pub fn commit(&mut self) {
        while self.seal().is_some() {
            if !self.log.on_written() {
                self.log.on_flushed();
            }
            self.answer();
        }
    }

    /// Appends one record and commits it.
    pub fn put(&mut self, stream: StreamId, partition: u32, value: &[u8]) -> Commit {
        self.append(stream, partition, value).expect("room");
        self.commit();
        *self.commits.last().expect("committed")
    }

    /// Appends a flushed record and commits it, if a segment is ready.
    pub fn put_if_ready(&mut self) -> bool {
        self.append(FLUSHED, 0, &[7; 3000]).is_ok() && self.log.commit_bytes().is_some() && {
            self.commit();
            true
        }
    }

    /// Fills segments with flushed records until the active one is the `sequence`th.
    pub fn fill_to(&mut self, sequence: u64) {
        while self.put(FLUSHED, 0, &[7; 3000]).segment.sequence < sequence {}
    }

    pub fn key(&self, sequence: u64) -> SegmentKey {
        let options = self.log.options();
        SegmentKey::chain(options.generation, options.shard.0, sequence)
    }

    pub fn segment(&mut self, sequence: u64) -> &mut Vec<u8> {
        let key = FileKey::Segment(self.key(sequence));
        self.files.get_mut(&key).expect("there")
    }

    pub fn drop_index(&mut self, sequence: u64) {
        self.files.remove(&FileKey::Index(self.key(sequence)));
    }

    /// Looks through the log's files as after a crash; nothing is damaged.
    pub fn sound(&self) -> LogEnd {
        let end = self.recover();
        assert_eq!(end.damages, []);
        end
    }

    /// Looks through the log's files as after a crash.
    pub fn recover(&self) -> LogEnd {
        let options = self.log.options();
        let mut recovered = Recovered::default();
        recovered.reserve(&durabilities(&options.streams), options.partitions);
        let mut scan = LogScan::new(SEED, recovered.offsets);
        let chain: Vec<_> = self
            .files
            .iter()
            .filter_map(|(file, bytes)| match file {
                FileKey::Segment(key)
                    if !key.moved
                        && (key.generation, key.log) == (options.generation, options.shard.0) =>
                {
                    Some((*key, bytes))
                }
                _ => None,
            })
            .collect();
        let header = |(key, bytes): (SegmentKey, &Vec<u8>)| {
            let header = SegmentHeader::read(bytes).map(|(header, ..)| header);
            header.filter(|header| header.key == key && header.identity == identity(SEED, key))
        };
        for (at, &(key, file)) in chain.iter().enumerate() {
            let followed = chain[at + 1..].iter().any(|later| header(*later).is_some());
            let index = self.files.get(&FileKey::Index(key)).and_then(|file| decode(file));
            match index.filter(|(end, _)| end.identity == identity(SEED, key)) {
                Some((end, spans)) => {
                    scan.indexed(key, header((key, file)).as_ref(), end, spans);
                }
                None => scan.scan(key, file, followed),
            }
        }
        scan.finish()
    }

    /// Reads with the disk answering: the values, or how it ended otherwise.
    pub fn read(
        &mut self,
        stream: StreamId,
        partition: u32,
        from: u64,
    ) -> Result<Vec<(u64, Vec<u8>)>, Outcome> {
        for _ in 0..20 {
            let mut found = Vec::new();
            let place = (stream, PartitionId(partition));
            let outcome = self.log.read(place, Offset(from), 1 << 20, true, |batch| {
                let whole = for_each_record(batch, &mut Vec::new(), |record| {
                    let value = record.value.expect("no tombstones").to_vec();
                    found.push((record.offset.0, value));
                    true
                });
                whole.expect("a whole batch");
            });
            match outcome {
                Outcome::Data(..) | Outcome::End => return Ok(found),
                Outcome::Pending => self.answer(),
                other => return Err(other),
            }
        }
        panic!("a read never ends");
    }
}
