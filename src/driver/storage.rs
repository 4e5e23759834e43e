//! The log's files: commits written and flushed, segments made ready, batches read, through glommio.
//!
//! In: what the log asks for. Out: [`Event`]s, and the signal that there are some. Each piece of
//! work is a task of the shard's executor; one commit is under way at a time. A commit that cannot
//! be written or flushed ends the process on the spot, before anything more is acknowledged: after a
//! failed flush nobody knows what the device holds, so that nothing is tried again.

mod segments;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use glommio::io::{DmaBuffer, DmaFile, OpenOptions, ReadResult};

pub use segments::Spare;
use segments::Spares;

use super::cleaner::{News, Order};
use super::commits::{Commits, Done};
use super::data_dir::{index_path, log_dir, segment_path};
use super::give_up::give_up;
use super::signal::Signal;
use crate::config::Prepare;
use crate::log::clean::{Ended, Moved};
use crate::log::{Commit, FileKey, ReadRequest, Request, SegmentKey, starts};
use crate::record::{SharedBytes, StableBytes};

/// How long a failed index or deletion waits for another try.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often a delayed commit looks whether its delay has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Files kept open for reading.
const OPEN_FILES_MAX: usize = 64;

/// A commit's bytes, as readers at the tail share them with the write.
pub struct SealedBuffer {
    buffer: Rc<DmaBuffer>,
    /// Bytes that were allocated; compression leaves some of them unused.
    capacity: usize,
}

impl SealedBuffer {
    /// The first `bytes` of `buffer`.
    pub fn new(mut buffer: DmaBuffer, bytes: usize) -> Self {
        let capacity = buffer.len();
        buffer.trim_to_size(bytes);
        Self { buffer: Rc::new(buffer), capacity }
    }
}

impl StableBytes for SealedBuffer {
    fn as_bytes(&self) -> &[u8] {
        self.buffer.as_bytes()
    }

    fn held_bytes(&self) -> usize {
        self.capacity
    }
}

/// What was read from a file, as the log keeps it.
struct Extent(ReadResult);

impl StableBytes for Extent {
    fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What became of something that the log asked for.
pub enum Event {
    /// The commit is written, or flushed.
    Committed(Done),
    /// A read ended.
    Read(ReadRequest, Option<SharedBytes>),
    /// A segment is ready.
    SegmentReady(SegmentKey),
    /// A segment could not be made.
    SegmentRefused(io::Error),
    /// An index file is durable.
    IndexWritten(SegmentKey),
    /// The log starts that were asked for are durable.
    StartsSaved,
    /// A moved segment is durable.
    Moved(Moved),
    /// What was to be cleaned is, or not.
    Cleaned(Ended),
}

/// What a shard's storage is told once.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data directory.
    pub dir: PathBuf,
    /// The directory of this shard's log.
    pub log_dir: PathBuf,
    /// Where files wait for being used again, and which of them are this shard's.
    pub spare: Spare,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// How segments are made ready; `Auto` is decided by now.
    pub prepare: Prepare,
    /// Bytes of the file system left free.
    pub reserve_bytes: u64,
    /// Where the cleaner takes jobs.
    pub cleaner: mpsc::Sender<Order>,
    /// Tests: every commit's write is preceded by a wait.
    pub commit_delay: Option<Delay>,
}

/// A wait before each commit, so that tests see what a slow disk does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub time: Duration,
    /// The delay ends, also for the commit that waits, when this file is gone.
    pub while_there: Option<PathBuf>,
}

impl Delay {
    async fn wait(&self) {
        let since = Instant::now();
        loop {
            let left = self.time.saturating_sub(since.elapsed());
            let step = match &self.while_there {
                Some(file) if file.exists() => left.min(LOOK_EVERY),
                Some(_) => return,
                None => left,
            };
            if step.is_zero() {
                return;
            }
            glommio::timer::sleep(step).await;
        }
    }
}

struct Shared {
    options: Options,
    /// Segments that are written, or ready to be.
    writable: RefCell<HashMap<SegmentKey, Rc<DmaFile>>>,
    /// Files that were opened to be read, in the order in which that happened.
    opened: RefCell<VecDeque<(FileKey, Rc<DmaFile>)>>,
    /// Segments to be deleted, in order, and whether a task is at it.
    deletions: RefCell<VecDeque<SegmentKey>>,
    deleting: Cell<bool>,
    /// No segment is ready: the one that is made is wanted now.
    hurry: Cell<bool>,
    /// Files of segments that are used again.
    spares: RefCell<Spares>,
    /// What the cleaner has to tell, and whether it is asked.
    news: (mpsc::Sender<News>, mpsc::Receiver<News>),
    cleaning: Cell<bool>,
    /// Tasks that have not ended.
    tasks: Cell<usize>,
    events: RefCell<Vec<Event>>,
    /// Tests: a commit whose delay is over.
    delayed: RefCell<Option<(Commit, Rc<DmaBuffer>)>>,
    signal: Rc<Signal>,
}

/// The files of one shard's log.
pub struct Storage {
    shared: Rc<Shared>,
    commits: Commits,
}

impl Shared {
    /// Runs `work` as a task of the executor, and counts it until it ends.
    fn spawn(self: &Rc<Self>, work: impl Future<Output = ()> + 'static) {
        let shared = Rc::clone(self);
        shared.tasks.set(shared.tasks.get() + 1);
        glommio::spawn_local(async move {
            work.await;
            shared.tasks.set(shared.tasks.get() - 1);
            shared.signal.raise();
        })
        .detach();
    }

    fn report(&self, event: Event) {
        self.events.borrow_mut().push(event);
        self.signal.raise();
    }
}

impl Storage {
    /// Storage whose tasks raise `signal`.
    ///
    /// # Errors
    /// Those of [`Commits::new`].
    pub fn new(options: Options, signal: Rc<Signal>) -> io::Result<Self> {
        let commits = Commits::new(options.dir.clone())?;
        let shared = Shared {
            spares: RefCell::new(Spares::find(&options)),
            options,
            writable: RefCell::default(),
            opened: RefCell::default(),
            deletions: RefCell::default(),
            deleting: Cell::default(),
            hurry: Cell::new(true),
            news: mpsc::channel(),
            cleaning: Cell::default(),
            tasks: Cell::default(),
            events: RefCell::default(),
            delayed: RefCell::default(),
            signal,
        };
        Ok(Self { shared: Rc::new(shared), commits })
    }

    /// Lets glommio find out whether the device can be polled for completions, which it does with the
    /// first file that it opens on a device: with a file that is not empty. From an empty one it
    /// would learn that every device can, spin during each write, and fail each read.
    ///
    /// # Errors
    /// Those of opening `file`, which is on the log's file system and not empty.
    pub async fn probe_polling(file: &Path) -> io::Result<()> {
        let file = DmaFile::open(file).await?;
        Ok(file.close().await?)
    }

    /// Whether the segment that is made is wanted now, or may take its time.
    pub fn hurry(&self, wanted_now: bool) {
        self.shared.hurry.set(wanted_now);
    }

    /// Whether no task of glommio's is under way: an executor that is dropped under one would fail it.
    pub fn is_idle(&self) -> bool {
        self.shared.tasks.get() == 0
    }

    /// Commits on their way to the disk, which are no tasks.
    pub fn commits(&mut self) -> &mut Commits {
        &mut self.commits
    }

    /// Moves what happened since the last call into `into`.
    pub fn take_events(&mut self, into: &mut Vec<Event>) {
        into.append(&mut self.shared.events.borrow_mut());
        let delayed = self.shared.delayed.borrow_mut().take();
        if let Some((commit, buffer)) = delayed {
            self.begin(commit, buffer);
        }
        into.extend(std::iter::from_fn(|| self.commits.next_done()).map(Event::Committed));
        while self.shared.cleaning.get()
            && let Ok(news) = self.shared.news.1.try_recv()
        {
            into.push(match news {
                News::Moved(moved) => Event::Moved(moved),
                News::Ended(ended) => {
                    self.shared.cleaning.set(false);
                    Event::Cleaned(ended)
                }
            });
        }
    }

    /// An aligned buffer for a commit of at most `bytes` bytes.
    pub fn buffer(&self, bytes: usize) -> Option<DmaBuffer> {
        // glommio gives out buffers through a file; any will do.
        self.shared.writable.borrow().values().next().map(|file| file.alloc_dma_buffer(bytes))
    }

    /// Writes a sealed commit, and flushes where it asks for it.
    pub fn commit(&mut self, commit: Commit, sealed: &SealedBuffer) {
        let buffer = Rc::clone(&sealed.buffer);
        if self.shared.options.commit_delay.is_none() {
            return self.begin(commit, buffer);
        }
        let shared = Rc::clone(&self.shared);
        self.shared.spawn(async move {
            if let Some(delay) = &shared.options.commit_delay {
                delay.wait().await;
            }
            shared.delayed.replace(Some((commit, buffer)));
        });
    }

    fn begin(&mut self, commit: Commit, buffer: Rc<DmaBuffer>) {
        let file = self.shared.writable.borrow().get(&commit.segment).cloned();
        let Some(file) = file else {
            let path = segment_path(&self.shared.options.dir, commit.segment);
            give_up("finding", &path, "it is not open")
        };
        self.commits.begin(commit, buffer, file);
    }

    /// Begins what the log asks for.
    pub fn start(&self, request: Request) {
        let shared = Rc::clone(&self.shared);
        match request {
            Request::Read(request) => self.shared.spawn(async move {
                let bytes = shared.read(request).await;
                shared.report(Event::Read(request, bytes));
            }),
            Request::MakeSegment(key) => self.shared.spawn(async move {
                let event = match shared.make_segment(key).await {
                    Ok(()) => Event::SegmentReady(key),
                    Err(cause) => Event::SegmentRefused(cause),
                };
                shared.report(event);
            }),
            Request::WriteIndex { key, bytes } => {
                self.shared.spawn(async move { shared.write_index(key, bytes).await });
            }
            Request::SaveStarts(bytes) => {
                self.shared.spawn(async move { shared.save_starts(bytes).await });
            }
            Request::Clean(job) => {
                let order = Order { job: *job, tell: shared.news.0.clone() };
                // Where the thread is gone nothing is cleaned any more, and nothing lost.
                shared.cleaning.set(shared.options.cleaner.send(order).is_ok());
            }
            Request::Delete(key) => {
                shared.deletions.borrow_mut().push_back(key);
                if !shared.deleting.replace(true) {
                    self.shared.spawn(async move { shared.delete_all().await });
                }
            }
        }
    }
}

impl Shared {
    async fn read(&self, request: ReadRequest) -> Option<SharedBytes> {
        let path = match request.file {
            FileKey::Segment(key) => segment_path(&self.options.dir, key),
            FileKey::Index(key) => index_path(&self.options.dir, key),
        };
        let file = match self.open(request.file, &path).await {
            Ok(file) => file,
            Err(cause) => {
                tracing::error!("opening {} failed: {cause}", path.display());
                return None;
            }
        };
        match file.read_at_aligned(request.position, request.bytes).await {
            Ok(bytes) => Some(Rc::new(Extent(bytes))),
            Err(cause) => {
                tracing::error!("reading {} failed: {cause}", path.display());
                None
            }
        }
    }

    async fn open(&self, key: FileKey, path: &Path) -> io::Result<Rc<DmaFile>> {
        if let FileKey::Segment(segment) = key
            && let Some(file) = self.writable.borrow().get(&segment)
        {
            return Ok(Rc::clone(file));
        }
        if let Some((_, file)) = self.opened.borrow().iter().find(|(opened, _)| *opened == key) {
            return Ok(Rc::clone(file));
        }
        let file = Rc::new(DmaFile::open(path).await?);
        let mut opened = self.opened.borrow_mut();
        if opened.len() >= OPEN_FILES_MAX {
            // Reads that are under way keep their own reference.
            opened.pop_front();
        }
        opened.push_back((key, Rc::clone(&file)));
        Ok(file)
    }

    /// Writes an index file; it is tried again until it is there, as memory holds it until then.
    async fn write_index(&self, key: SegmentKey, bytes: Vec<u8>) {
        let path = index_path(&self.options.dir, key);
        loop {
            match self.try_write_index(key, &path, &bytes).await {
                Ok(()) => {
                    // The segment is full: from now on it is only read.
                    self.writable.borrow_mut().remove(&key);
                    return self.report(Event::IndexWritten(key));
                }
                Err(cause) => {
                    tracing::warn!("writing {} failed, trying again: {cause}", path.display());
                    glommio::timer::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    async fn try_write_index(&self, key: SegmentKey, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let aside = path.with_extension("idx.new");
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).dma_open(&aside).await?;
        let mut buffer = file.alloc_dma_buffer(bytes.len());
        buffer.as_bytes_mut().copy_from_slice(bytes);
        let written = file.write_at(buffer, 0).await?;
        if written != bytes.len() {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        file.fdatasync().await?;
        file.rename(path).await?;
        file.close().await?;
        sync_dir(log_dir(&self.options.dir, key.generation, key.log)).await
    }

    /// Writes the file of log starts; it is tried again until it is there, as deletions wait for it.
    /// It is small and written seldom: on a thread that may block.
    async fn save_starts(&self, bytes: Vec<u8>) {
        loop {
            let (dir, bytes) = (self.options.log_dir.clone(), bytes.clone());
            let saved =
                glommio::executor().spawn_blocking(move || write_starts(&dir, &bytes)).await;
            match saved {
                Ok(()) => return self.report(Event::StartsSaved),
                Err(cause) => {
                    let dir = self.options.log_dir.display();
                    tracing::warn!("writing the log starts in {dir} failed, trying again: {cause}");
                    glommio::timer::sleep(RETRY_AFTER).await;
                }
            }
        }
    }
}

fn write_starts(dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = dir.join(starts::ASIDE);
    let mut file = std::fs::File::create(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&aside, dir.join(starts::FILE))?;
    std::fs::File::open(dir)?.sync_all()
}

/// Flushes a directory, so that the names in it are durable. On a thread that may block: glommio's
/// own directories are opened with O_PATH and cannot be flushed.
async fn sync_dir(dir: PathBuf) -> io::Result<()> {
    glommio::executor().spawn_blocking(move || std::fs::File::open(dir)?.sync_all()).await
}
