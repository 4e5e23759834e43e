//! The cleaner's thread: one for the engine, beside the shards, within an I/O budget.
//!
//! In: jobs of the shards' logs. Out: to the shard that sent it, each moved segment when it is
//! durable, and how the job ended. The thread is made by the engine's own, which is not pinned: one
//! made by a shard would inherit the shard's core. It keeps off the shards' cores where there is
//! room, and gives way where there is none. Shards are not woken for it: they look once a second.
//! Absent: what is cleaned, which is the log's to decide, and how, which is `log::clean`.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::cores::{self, CoreSet};
use super::disk_files::DiskFiles;
use crate::log::Files;
use crate::log::clean::{self, Ended, Job, Moved};

/// How long the thread sleeps before it looks again whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How much the thread gives way to others on its core, as `nice` counts it.
const NICE: i32 = 10;

/// A job, and whom to tell.
pub struct Order {
    /// What is to be done.
    pub job: Job,
    /// Who asked for it.
    pub tell: mpsc::Sender<News>,
}

/// What became of a job.
pub enum News {
    /// A moved segment is durable.
    Moved(Moved),
    /// The job has ended.
    Ended(Ended),
}

/// The thread.
pub struct Cleaner {
    orders: mpsc::Sender<Order>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Starts the thread for the data directory at `dir`. It reads and writes `bytes_per_second` at the
/// most, in all.
///
/// # Errors
/// The system's, when it gives no thread.
pub fn start(dir: &Path, bytes_per_second: u64, cores: CoreSet) -> io::Result<Cleaner> {
    let (orders, jobs) = mpsc::channel::<Order>();
    let stop = Arc::new(AtomicBool::new(false));
    let files = Budgeted {
        files: DiskFiles::new(dir),
        bytes_per_second,
        free_at: Cell::new(Instant::now()),
        stop: Arc::clone(&stop),
    };
    let run = move || {
        if let Err(error) = cores::confine(&cores) {
            tracing::warn!("the cleaner may run on any core: {error}");
        }
        // SAFETY: no memory is involved; 0 is this thread. Where it is refused nothing is lost.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
        while let Ok(Order { job, tell }) = jobs.recv() {
            // A shard that is gone wants to know nothing.
            let ended = clean::clean(&files, &job, &mut |moved| {
                let _ = tell.send(News::Moved(moved));
            });
            let _ = tell.send(News::Ended(ended));
        }
    };
    let thread = std::thread::Builder::new().name("cleaner".to_owned()).spawn(run)?;
    Ok(Cleaner { orders, stop, thread })
}

impl Cleaner {
    /// Where jobs are sent to.
    pub fn orders(&self) -> mpsc::Sender<Order> {
        self.orders.clone()
    }

    /// Ends the thread, once the shards are gone. A job under way ends early.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.orders);
        // A panic there was reported when it happened.
        let _ = self.thread.join();
    }
}

/// Files that take their time: what is read and written keeps to a budget, and where the engine
/// stops everything fails.
struct Budgeted {
    files: DiskFiles,
    bytes_per_second: u64,
    /// When what was read and written so far is paid for.
    free_at: Cell<Instant>,
    stop: Arc<AtomicBool>,
}

impl Budgeted {
    /// Waits until something may be done again.
    fn wait(&self) -> io::Result<()> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "the engine stops"));
            }
            let left = self.free_at.get().saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }

    fn pay(&self, bytes: usize) {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        self.free_at.set(self.free_at.get().max(Instant::now()) + cost);
    }
}

impl Files for Budgeted {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.files.list(dir)
    }

    fn size(&self, path: &str) -> io::Result<Option<u64>> {
        self.files.size(path)
    }

    fn read(&self, path: &str, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        self.wait()?;
        let read = self.files.read(path, at, bytes)?;
        self.pay(read.len());
        Ok(read)
    }

    fn create(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.wait()?;
        self.pay(bytes.len());
        self.files.create(path, bytes)
    }

    fn append(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.wait()?;
        self.pay(bytes.len());
        self.files.append(path, bytes)
    }

    fn resize(&self, path: &str, bytes: u64) -> io::Result<()> {
        self.files.resize(path, bytes)
    }

    fn flush(&self, path: &str) -> io::Result<()> {
        self.files.flush(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.files.remove(path)
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.files.make_dir(dir)
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.files.remove_dir(dir)
    }

    fn flush_dir(&self, dir: &str) -> io::Result<()> {
        self.files.flush_dir(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_holds_and_a_stop_ends_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let files = |bytes_per_second| Budgeted {
            files: DiskFiles::new(dir.path()),
            bytes_per_second,
            free_at: Cell::new(Instant::now()),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let quick = files(1 << 20);
        let since = Instant::now();
        quick.create("a", &vec![1; 100_000]).unwrap();
        quick.append("a", &vec![1; 100_000]).unwrap();
        assert_eq!(quick.read("a", 0, 1 << 20).unwrap().len(), 200_000);
        quick.create("b", b"").unwrap();
        let least = Duration::from_secs_f64(400_000.0 / f64::from(1 << 20));
        assert!(since.elapsed() >= least, "{:?}", since.elapsed());
        let slow = files(1);
        slow.create("c", &[1; 1000]).unwrap();
        slow.stop.store(true, Ordering::Relaxed);
        let error = slow.read("c", 0, 9).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }
}
