//! Commits on their way to the disk: the write and the flush of one at a time, on a ring of its own.
//!
//! In: a sealed commit and the file that it goes to. Out: when it is written, and when it is flushed.
//! Both are submitted at once, linked: the kernel begins the flush when the write has ended, without
//! a turn of the loop in between. The ring is not that of the sockets, so that the thread can wait
//! for the disk alone while sockets gather; and it is not glommio's, whose reactor takes a dozen
//! system calls where one does.
//!
//! The invariant: file and bytes of what is under way are kept until the last completion, or for ever.
//! A write or flush that fails or falls short ends the process, see `give_up`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use glommio::io::{DmaBuffer, DmaFile};
use io_uring::types::{CancelBuilder, Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

use super::data_dir::segment_path;
use super::give_up::give_up;
use super::socket_ring::explain;
use crate::log::Commit;

/// A write and a flush; the kernel rounds up.
const ENTRIES: u32 = 4;
const WRITE: u64 = 0;
const FLUSH: u64 = 1;
/// How long the end of a shard waits for the disk.
const END_MAX: Duration = Duration::from_secs(5);

/// Of so many commits one has its write and its flush waited for apart, so that both times are known.
/// The others are waited for as a whole, which is one time less to wake up.
const APART_EVERY: u64 = 16;

/// A part of the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its write.
    Write,
    /// Its flush.
    Flush,
}

/// A part of the commit is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Which.
    pub part: Part,
    /// How long the part took, where it was seen apart from the other.
    pub took: Option<Duration>,
    /// Since the commit began.
    pub since_begun: Duration,
}

struct UnderWay {
    commit: Commit,
    file: Rc<DmaFile>,
    bytes: Rc<DmaBuffer>,
    begun: Instant,
    /// When the write was seen to have ended, before the flush had.
    written: Option<Instant>,
    /// Completions that have not been taken.
    left: usize,
}

/// The ring and what is under way on it. One thread.
pub struct Commits {
    ring: IoUring,
    under_way: Option<UnderWay>,
    /// Commits so far.
    count: u64,
    /// The data directory, for messages.
    dir: PathBuf,
}

impl Commits {
    /// A ring; the calling thread is the only one that can use it.
    ///
    /// # Errors
    /// The kernel's, with its remedy where it has one.
    pub fn new(dir: PathBuf) -> io::Result<Self> {
        // Completions wait for the thread's next system call, which each turn makes.
        let ring = IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(ENTRIES);
        Ok(Self { ring: ring.map_err(explain)?, under_way: None, count: 0, dir })
    }

    /// Begins a commit: the kernel learns of it at the next [`submit`](Self::submit) or
    /// [`wait`](Self::wait).
    ///
    /// # Panics
    /// When one is under way.
    pub fn begin(&mut self, commit: Commit, bytes: Rc<DmaBuffer>, file: Rc<DmaFile>) {
        assert!(self.under_way.is_none(), "one commit is under way at a time");
        self.count += 1;
        let left = if commit.flush { 2 } else { 1 };
        let kept = UnderWay { commit, file, bytes, begun: Instant::now(), written: None, left };
        let UnderWay { file, bytes, .. } = self.under_way.insert(kept);
        let fd = Fd(file.as_raw_fd());
        let mut write = opcode::Write::new(fd, bytes.as_bytes().as_ptr(), bytes.len() as u32)
            .offset(commit.position)
            .build()
            .user_data(WRITE);
        let flush = opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build().user_data(FLUSH);
        if commit.flush {
            write = write.flags(squeue::Flags::IO_LINK);
        }
        // SAFETY: `under_way` keeps the file open and the bytes unchanged until the completions were
        // taken, and `drop` ends the requests before it frees them, or frees nothing.
        let pushed = unsafe { self.ring.submission().push_multiple(&[write, flush][..left]) };
        assert!(pushed.is_ok(), "a ring with nothing under way has room for a write and a flush");
    }

    /// Lets the kernel begin what is to begin.
    ///
    /// # Errors
    /// Those of a ring that cannot be used.
    pub fn submit(&mut self) -> io::Result<()> {
        if self.ring.submission().is_empty() {
            return Ok(());
        }
        early_ends(self.ring.submitter().submit())
    }

    /// Waits for what is next to be told, `limit` at the most; a signal ends it early.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn wait(&mut self, limit: Duration) -> io::Result<()> {
        let apart = self.count.is_multiple_of(APART_EVERY);
        let count = match &self.under_way {
            // Nobody waits for the write alone.
            Some(under_way) if !under_way.commit.tell_written && !apart => under_way.left,
            _ => 1,
        };
        let limit = Timespec::from(limit);
        let arguments = SubmitArgs::new().timespec(&limit);
        early_ends(self.ring.submitter().submit_with_args(count, &arguments))
    }

    /// The descriptor of the ring, which is readable when there is news, while there will be some.
    pub fn waited_for(&self) -> Option<RawFd> {
        self.under_way.as_ref().map(|_| self.ring.as_raw_fd())
    }

    /// Whether [`next_done`](Self::next_done) has something.
    pub fn has_news(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// What happened since the last call, one after the other.
    pub fn next_done(&mut self) -> Option<Done> {
        let mut completions = self.ring.completion();
        let completion = completions.next()?;
        let is_last = completions.is_empty();
        drop(completions);
        let part = if completion.user_data() == WRITE { Part::Write } else { Part::Flush };
        let under_way = self.under_way.as_mut()?;
        let (expected, doing) = match part {
            Part::Write => (under_way.bytes.len(), "writing"),
            Part::Flush => (0, "flushing"),
        };
        let path = || segment_path(&self.dir, under_way.commit.segment);
        match completion.result() {
            errno if errno < 0 => {
                give_up(doing, &path(), io::Error::from_raw_os_error(-errno));
            }
            bytes if bytes as usize != expected => {
                give_up(doing, &path(), format!("{bytes} of {expected} bytes"));
            }
            _ => {}
        }
        let now = Instant::now();
        let since_begun = now - under_way.begun;
        let took = match part {
            Part::Write => is_last.then_some(since_begun),
            Part::Flush => under_way.written.map(|written| now - written),
        };
        under_way.written = (part == Part::Write && is_last).then_some(now);
        under_way.left -= 1;
        if under_way.left == 0 {
            self.under_way = None;
        }
        Some(Done { part, took, since_begun })
    }

    /// Lets the kernel signal `eventfd` when there is news.
    ///
    /// # Errors
    /// The kernel's.
    pub fn register_eventfd(&mut self, eventfd: RawFd) -> io::Result<()> {
        self.ring.submitter().register_eventfd(eventfd)?;
        self.disable_eventfd();
        Ok(())
    }

    /// Signals from now on. What came before raised none: look at [`has_news`](Self::has_news), then
    /// sleep.
    pub fn enable_eventfd(&mut self) {
        self.ring.completion().enable_eventfd();
    }

    /// No more signals.
    pub fn disable_eventfd(&mut self) {
        self.ring.completion().disable_eventfd();
    }
}

fn early_ends(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(cause) => match cause.raw_os_error() {
            Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY) => Ok(()),
            _ => Err(cause),
        },
    }
}

impl Drop for Commits {
    /// Ends what is under way first: the kernel must not read bytes that are used for something else.
    fn drop(&mut self) {
        let timeout = Timespec::from(END_MAX);
        let ended = self.ring.submitter().register_sync_cancel(Some(timeout), CancelBuilder::any());
        if ended.is_err_and(|cause| cause.kind() != io::ErrorKind::NotFound) {
            std::mem::forget(self.under_way.take());
        }
    }
}
