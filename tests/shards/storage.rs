//! The storage of a shard over the simulated disk: what `src/driver/storage.rs` does, in the same
//! order, a step at a time; which piece of work takes its next step is up to the schedule.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;

use tidegate::log::clean::{Ended, Job, Moved, clean};
use tidegate::log::segment::log_dir;
use tidegate::log::start::SPARE_DIR;
use tidegate::log::{Commit, FileKey, ReadRequest, Request, SegmentKey, starts};
use tidegate::record::SharedBytes;

use crate::disk::{Disk, Inode, SECTOR};
use crate::disk_files::DiskFiles;
use crate::random::Random;

/// Files that are kept open for reading.
const OPEN_FILES_MAX: usize = 4;
/// Calls after which a job of the cleaner ends with the process, at the most.
const CLEAN_CALLS_MAX: usize = 40;
/// Bytes that are wiped of a file that is used again.
const WIPED_BYTES: usize = 2 * SECTOR;

/// What became of something that the log asked for.
pub enum Event {
    Written,
    Flushed,
    Read(ReadRequest, Option<SharedBytes>),
    SegmentReady(SegmentKey),
    SegmentRefused,
    IndexWritten(SegmentKey),
    StartsSaved,
    Moved(Moved),
    Cleaned(Ended),
}

/// What a step did to the commit that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Nothing,
    Written,
    Flushed,
    /// It failed: the process ends.
    Died,
}

enum Task {
    Commit { commit: Commit, bytes: SharedBytes, written: bool },
    Read(ReadRequest),
    Make { key: SegmentKey, making: Making },
    Index { key: SegmentKey, bytes: Vec<u8>, step: usize },
    Starts { bytes: Vec<u8>, step: usize },
    Clean(Box<Job>),
    Delete,
}

/// How far a segment is made.
enum Making {
    Begin,
    Fill(Inode),
    Flush(Inode),
    FlushDir(Inode),
    Again { spare: String, step: usize },
}

/// What a shard's storage is told once.
#[derive(Debug, Clone)]
pub struct Options {
    pub shard: u32,
    pub shards: u32,
    pub generation: u32,
    pub segment_bytes: u64,
    /// Segments are filled with zeros ahead, and used again.
    pub zeros: bool,
    pub spares_max: usize,
}

pub struct Storage {
    options: Options,
    writable: BTreeMap<SegmentKey, Inode>,
    opened: VecDeque<(FileKey, Inode)>,
    tasks: Vec<Task>,
    deletions: VecDeque<SegmentKey>,
    spares: VecDeque<String>,
    next_spare: u64,
    pub events: Vec<Event>,
    /// The shard is to be woken.
    pub raised: bool,
    /// No segment can be made.
    pub full: bool,
    /// Index files that were written, segments that were deleted, used again, and moved.
    pub counts: [u64; 4],
}

impl Storage {
    pub fn new(options: Options, disk: &mut Disk) -> Self {
        let mut storage = Self {
            writable: BTreeMap::new(),
            opened: VecDeque::new(),
            tasks: Vec::new(),
            deletions: VecDeque::new(),
            spares: VecDeque::new(),
            next_spare: u64::from(options.shard),
            events: Vec::new(),
            raised: false,
            full: false,
            counts: [0; 4],
            options,
        };
        storage.find_spares(disk);
        storage
    }

    /// What an earlier start left: each shard takes its share.
    fn find_spares(&mut self, disk: &mut Disk) {
        let (shard, shards) = (u64::from(self.options.shard), u64::from(self.options.shards));
        for name in disk.list(SPARE_DIR) {
            let number = name.strip_suffix(".log").and_then(|number| number.parse::<u64>().ok());
            let Some(number) = number.filter(|n| n % shards == shard) else { continue };
            self.next_spare = self.next_spare.max(number + shards);
            let path = format!("{SPARE_DIR}/{name}");
            let bytes = disk.find(&path).map_or(0, |file| disk.bytes(file)) as u64;
            if bytes == self.options.segment_bytes && self.spares.len() < self.options.spares_max {
                self.spares.push_back(path);
            } else {
                disk.remove(&path);
            }
        }
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// What is under way.
    pub fn describe(&self) -> Vec<String> {
        let tasks = self.tasks.iter().map(|task| match task {
            Task::Commit { commit, written, .. } => format!("{commit:?}, written {written}"),
            Task::Read(request) => format!("{request:?}"),
            Task::Make { key, .. } => format!("making {key:?}"),
            Task::Index { key, step, .. } => format!("step {step} of the index of {key:?}"),
            Task::Starts { step, .. } => format!("step {step} of the log starts"),
            Task::Clean(job) => format!("cleaning {} runs into {:?}", job.runs.len(), job.first),
            Task::Delete => format!("deleting {:?}", self.deletions),
        });
        tasks.collect()
    }

    /// Begins to write a sealed commit.
    pub fn commit(&mut self, commit: Commit, bytes: SharedBytes) {
        assert!(!self.is_committing(), "two commits under way");
        self.tasks.push(Task::Commit { commit, bytes, written: false });
    }

    fn is_committing(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task, Task::Commit { .. }))
    }

    /// Begins what the log asks for.
    pub fn start(&mut self, request: Request) {
        match request {
            Request::Read(request) => self.tasks.push(Task::Read(request)),
            Request::MakeSegment(key) => {
                self.tasks.push(Task::Make { key, making: Making::Begin });
            }
            Request::WriteIndex { key, bytes } => {
                self.tasks.push(Task::Index { key, bytes, step: 0 });
            }
            Request::SaveStarts(bytes) => self.tasks.push(Task::Starts { bytes, step: 0 }),
            Request::Clean(job) => self.tasks.push(Task::Clean(job)),
            Request::Delete(key) => {
                self.deletions.push_back(key);
                if self.deletions.len() == 1 {
                    self.tasks.push(Task::Delete);
                }
            }
        }
    }

    /// The process ends in the middle of it: of a write that is under way some sectors are there, of
    /// what is cleaned as much as was done by then.
    pub fn crash(&mut self, disk: &mut Disk) {
        for task in &self.tasks {
            if let Task::Clean(job) = task {
                let calls = 1 + disk.below(CLEAN_CALLS_MAX);
                clean(&DiskFiles::new(disk, calls), job, &mut |_| ());
            }
            if let Task::Commit { commit, bytes, written: false } = task
                && let Some(&file) = self.writable.get(&commit.segment)
            {
                disk.tear(file, commit.position as usize, &bytes.as_bytes()[..commit.bytes]);
            }
        }
    }

    /// Some piece of work takes its next step.
    pub fn step(&mut self, disk: &mut Disk, random: &mut Random) -> Step {
        if self.tasks.is_empty() {
            return Step::Nothing;
        }
        let mut task = self.tasks.swap_remove(random.below(self.tasks.len()));
        let (step, over) = match &mut task {
            Task::Commit { commit, bytes, written } => {
                self.step_commit(disk, *commit, bytes, written)
            }
            Task::Read(request) => {
                let bytes = self.read(disk, request);
                self.report(Event::Read(*request, bytes));
                (Step::Nothing, true)
            }
            Task::Make { key, making } => (Step::Nothing, self.step_make(disk, *key, making)),
            Task::Index { key, bytes, step } => {
                (Step::Nothing, self.step_index(disk, *key, bytes, step))
            }
            Task::Starts { bytes, step } => (Step::Nothing, self.step_starts(disk, bytes, step)),
            // The cleaner takes its time, and what it does is seen when it is done.
            Task::Clean(_) if random.below(3) > 0 => (Step::Nothing, false),
            Task::Clean(job) => {
                let events = &mut self.events;
                let files = DiskFiles::new(disk, usize::MAX);
                let ended = clean(&files, job, &mut |moved| events.push(Event::Moved(moved)));
                self.counts[3] += ended.tally.segments;
                self.report(Event::Cleaned(ended));
                (Step::Nothing, true)
            }
            Task::Delete => (Step::Nothing, self.step_delete(disk)),
        };
        if !over {
            self.tasks.push(task);
        }
        step
    }

    fn report(&mut self, event: Event) {
        self.events.push(event);
        self.raised = true;
    }

    fn step_commit(
        &mut self,
        disk: &mut Disk,
        commit: Commit,
        bytes: &SharedBytes,
        written: &mut bool,
    ) -> (Step, bool) {
        let Some(&file) = self.writable.get(&commit.segment) else {
            panic!("the segment of {commit:?} is not open");
        };
        if !*written {
            *written = true;
            let bytes = &bytes.as_bytes()[..commit.bytes];
            if disk.write_commit(file, commit.position as usize, bytes).is_err() {
                return (Step::Died, true);
            }
            self.events.push(Event::Written);
            // As the driver's storage: it goes with the news of the flush, where nobody waits.
            self.raised |= !commit.flush || commit.tell_written;
            return (Step::Written, !commit.flush);
        }
        if disk.flush(file).is_err() {
            return (Step::Died, true);
        }
        self.report(Event::Flushed);
        (Step::Flushed, true)
    }

    /// Reads what the log asks for.
    pub fn read(&mut self, disk: &mut Disk, request: &ReadRequest) -> Option<SharedBytes> {
        let file = self.open(disk, request.file)?;
        let bytes = disk.read(file, request.position as usize, request.bytes).ok()?;
        Some(Rc::new(bytes))
    }

    fn open(&mut self, disk: &Disk, key: FileKey) -> Option<Inode> {
        if let FileKey::Segment(segment) = key
            && let Some(file) = self.writable.get(&segment)
        {
            return Some(*file);
        }
        if let Some((_, file)) = self.opened.iter().find(|(opened, _)| *opened == key) {
            return Some(*file);
        }
        let file = disk.find(&key.path())?;
        if self.opened.len() >= OPEN_FILES_MAX {
            self.opened.pop_front();
        }
        self.opened.push_back((key, file));
        Some(file)
    }

    fn step_make(&mut self, disk: &mut Disk, key: SegmentKey, making: &mut Making) -> bool {
        match self.try_make(disk, key, making) {
            Ok(None) => false,
            Ok(Some(file)) => {
                self.writable.insert(key, file);
                self.report(Event::SegmentReady(key));
                true
            }
            Err(_) => {
                if let Making::Again { spare, .. } = making {
                    disk.remove(spare);
                    *making = Making::Begin;
                    return false;
                }
                disk.remove(&key.path());
                self.report(Event::SegmentRefused);
                true
            }
        }
    }

    /// The next step of making a segment; its file, when it is ready.
    fn try_make(
        &mut self,
        disk: &mut Disk,
        key: SegmentKey,
        making: &mut Making,
    ) -> io::Result<Option<Inode>> {
        disk.try_other()?;
        let dir = log_dir(key.generation, key.log);
        let bytes = self.options.segment_bytes as usize;
        *making = match &*making {
            Making::Begin if self.full => return Err(io::ErrorKind::StorageFull.into()),
            Making::Begin => match self.spares.pop_front() {
                Some(spare) => Making::Again { spare, step: 0 },
                None => Making::Fill(disk.create(&key.path())),
            },
            Making::Fill(file) => {
                if self.options.zeros {
                    disk.fill(*file, bytes);
                }
                Making::Flush(*file)
            }
            Making::Flush(file) => {
                disk.flush(*file)?;
                Making::FlushDir(*file)
            }
            Making::FlushDir(file) => {
                disk.flush_dir(&dir);
                return Ok(Some(*file));
            }
            Making::Again { spare, step } => {
                let path = key.path();
                let file = disk.find(if *step < 4 { spare } else { &path });
                let file = file.ok_or(io::ErrorKind::NotFound)?;
                match step {
                    // Before it is wiped it must be gone under its old name, also after a crash.
                    0 => disk.flush_dir(SPARE_DIR),
                    1 => disk.write(file, 0, &vec![0; WIPED_BYTES.min(bytes)]),
                    2 => disk.flush(file)?,
                    3 => disk.rename(spare, &path)?,
                    _ => {
                        disk.flush_dir(&dir);
                        self.counts[2] += 1;
                        return Ok(Some(file));
                    }
                }
                Making::Again { spare: spare.clone(), step: step + 1 }
            }
        };
        Ok(None)
    }

    fn step_index(
        &mut self,
        disk: &mut Disk,
        key: SegmentKey,
        bytes: &[u8],
        step: &mut usize,
    ) -> bool {
        let path = key.index_path();
        let dir = log_dir(key.generation, key.log);
        let over = replace(disk, (&format!("{path}.new"), &path, &dir), bytes, step);
        if over {
            // The segment is full: from now on it is only read.
            self.writable.remove(&key);
            self.counts[0] += 1;
            self.report(Event::IndexWritten(key));
        }
        over
    }

    fn step_starts(&mut self, disk: &mut Disk, bytes: &[u8], step: &mut usize) -> bool {
        let dir = log_dir(self.options.generation, self.options.shard);
        let aside = format!("{dir}/{}", starts::ASIDE);
        let over = replace(disk, (&aside, &format!("{dir}/{}", starts::FILE), &dir), bytes, step);
        if over {
            self.report(Event::StartsSaved);
        }
        over
    }

    /// Deletes in the order that was asked for, segment before index.
    fn step_delete(&mut self, disk: &mut Disk) -> bool {
        let Some(&key) = self.deletions.front() else { return true };
        if disk.try_other().is_err() {
            return false;
        }
        self.writable.remove(&key);
        let path = key.path();
        if disk.find(&path).is_some() {
            self.opened
                .retain(|(open, _)| ![FileKey::Segment(key), FileKey::Index(key)].contains(open));
            if !self.keep_spare(disk, &path) {
                disk.remove(&path);
            }
            return false;
        }
        disk.remove(&key.index_path());
        self.counts[1] += 1;
        self.deletions.pop_front();
        self.deletions.is_empty()
    }

    /// Puts the file of a segment aside for being used again, if it is of use and few are.
    fn keep_spare(&mut self, disk: &mut Disk, path: &str) -> bool {
        let bytes = disk.find(path).map_or(0, |file| disk.bytes(file)) as u64;
        if !self.options.zeros
            || self.spares.len() >= self.options.spares_max
            || bytes != self.options.segment_bytes
        {
            return false;
        }
        disk.make_dir(SPARE_DIR);
        let spare = format!("{SPARE_DIR}/{:010}.log", self.next_spare);
        if disk.rename(path, &spare).is_err() {
            return false;
        }
        self.next_spare += u64::from(self.options.shards);
        self.spares.push_back(spare);
        true
    }
}

/// The next step of writing a file aside, flushing it, renaming it and flushing its directory. Whether
/// that was the last; what fails is begun again.
fn replace(
    disk: &mut Disk,
    (aside, path, dir): (&str, &str, &str),
    bytes: &[u8],
    step: &mut usize,
) -> bool {
    let done = disk.try_other().and_then(|()| match *step {
        0 => {
            let file = disk.create(aside);
            disk.write(file, 0, bytes);
            Ok(())
        }
        1 => disk.flush(disk.find(aside).ok_or(io::ErrorKind::NotFound)?),
        2 => disk.rename(aside, path),
        _ => {
            disk.flush_dir(dir);
            Ok(())
        }
    });
    *step = if done.is_ok() { *step + 1 } else { 0 };
    *step == 4
}
