//! Lookup tables: mapped from private files, and watched for new versions on a thread of their own.
//!
//! Comes in: a plan with its tables compiled in memory, and what becomes of their files. Goes out: the
//! tables in maps that all shards read, and each new version in the place of the old one. A file is
//! taken when it looked the same twice; one that is wrong changes nothing but a counter and the log.
//! The user's own files are never mapped: whoever cuts one would end the engine with SIGBUS.
#![allow(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memmap2::{Mmap, MmapOptions};

use super::cores::{self, CoreSet};
use crate::config::rules::{read_table, stamp};
use crate::observe::{Registry, TableMetrics};
use crate::transform::rules::Plan;
use crate::transform::rules::tables::{LookupTable, Stamp, Table};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Private files have a name in the data directory until they are open: `table-N.tmp`, as the tables of
/// rules that are read again are mapped while the others are watched.
static NEXT_FILE: AtomicU32 = AtomicU32::new(0);
/// The stamp of a file that is not there.
const GONE: Stamp = [0; 5];

/// The thread that watches.
pub struct Watcher {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

/// Maps the tables of a plan, and watches their files, where it has any. `dir` is the data directory,
/// which this process has locked.
///
/// # Errors
/// The system's, of writing and mapping and of making a thread.
pub fn start(
    dir: &Path,
    plan: &Arc<Plan>,
    registry: &Registry,
    cores: &CoreSet,
) -> io::Result<Option<Watcher>> {
    let (plan, cores) = (Arc::clone(plan), cores.clone());
    let metrics = registry.set_tables(plan.tables.all.iter().map(|table| &*table.name));
    if metrics.is_empty() {
        return Ok(None);
    }
    let mut watch = Watch::new(dir, plan, metrics);
    for index in 0..watch.files.len() {
        let table = Arc::clone(&watch.plan.tables.current()[index]);
        watch.put(index, &table)?;
    }
    let (stop, stopped) = mpsc::channel();
    let run = move || {
        if let Err(error) = cores::confine(&cores) {
            tracing::warn!("the thread that watches tables may run on any core: {error}");
        }
        while stopped.recv_timeout(LOOK_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
            watch.look();
        }
    };
    let thread = std::thread::Builder::new().name("tables".to_owned()).spawn(run)?;
    Ok(Some(Watcher { stop, thread }))
}

impl Watcher {
    /// Ends the thread.
    pub fn stop(self) {
        drop(self.stop);
        // A panic there was reported when it happened.
        let _ = self.thread.join();
    }
}

/// A file as it was last looked at.
struct Watched {
    /// Of the version that was last taken or refused.
    done: Stamp,
    /// Of another version, seen once.
    seen: Option<Stamp>,
}

struct Watch {
    dir: PathBuf,
    plan: Arc<Plan>,
    /// By table.
    metrics: Vec<Arc<TableMetrics>>,
    files: Vec<Watched>,
    /// Versions that shards may still look into: freeing a large one takes too long for a shard.
    replaced: Vec<Arc<Table>>,
}

impl Watch {
    fn new(dir: &Path, plan: Arc<Plan>, metrics: Vec<Arc<TableMetrics>>) -> Self {
        let watched = |table: &LookupTable| Watched { done: table.stamp, seen: None };
        let files = plan.tables.all.iter().map(watched).collect();
        Self { dir: dir.to_owned(), plan, metrics, files, replaced: Vec::new() }
    }

    /// Looks at every file, and takes what is new.
    fn look(&mut self) {
        self.replaced.retain(|table| Arc::strong_count(table) > 1);
        for index in 0..self.files.len() {
            let about = &self.plan.tables.all[index];
            let now = fs::metadata(&about.path).map_or(GONE, |found| stamp(&found));
            let file = &mut self.files[index];
            if now == file.done {
                file.seen = None;
            } else if file.seen != Some(now) {
                // It may still be being written.
                file.seen = Some(now);
            } else {
                file.seen = None;
                self.take(index, now);
            }
        }
    }

    /// Takes a new version of a file over, or says why not.
    fn take(&mut self, index: usize, now: Stamp) {
        let plan = Arc::clone(&self.plan);
        let about = &plan.tables.all[index];
        let path = about.path.display();
        let read = read_table(&about.path, about.bytes_max);
        let read = read.map_err(|why| format!("{path} cannot be read: {why}"));
        if read.as_ref().is_ok_and(|text| text.stamp != now) {
            return;
        }
        let table =
            read.and_then(|text| about.compile(&text.bytes).map_err(|problem| problem.to_string()));
        // What was written meanwhile may be half of the new and half of the next version.
        if fs::metadata(&about.path).map_or(GONE, |found| stamp(&found)) != now {
            return;
        }
        self.files[index].done = now;
        let put = table.and_then(|table| {
            self.put(index, &table).map_err(|error| format!("mapping {path}: {error}"))
        });
        match put {
            Ok(()) => tracing::info!("table {}: {} rows of {path}", about.name, self.rows(index)),
            Err(why) => {
                self.metrics[index].failures.increment();
                tracing::warn!("table {} stays as it was: {why}", about.name);
            }
        }
    }

    /// Maps a table and puts it in the place of the version before it.
    fn put(&mut self, index: usize, table: &Table) -> io::Result<()> {
        let map = map(&self.dir, table.bytes())?;
        let old = self.plan.tables.replace(index, table.moved_to(Box::new(map)));
        self.replaced.push(old);
        let metrics = &self.metrics[index];
        metrics.rows.set(u64::from(table.rows()));
        metrics.bytes.set(table.bytes().len() as u64);
        metrics.loads.increment();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics.loaded_s.set(now.as_secs());
        Ok(())
    }

    fn rows(&self, index: usize) -> u64 {
        self.metrics[index].rows.value()
    }
}

/// Bytes in a private file in `dir`, mapped, all of its pages brought in.
fn map(dir: &Path, bytes: &[u8]) -> io::Result<Mmap> {
    let number = NEXT_FILE.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("table-{number}.tmp"));
    // What a crash may have left behind.
    let _ = fs::remove_file(&path);
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    file.write_all(bytes)?;
    // SAFETY: the bytes behind a shared slice must not change. The file is new and has no name any
    // more, nobody else had time to open it in a directory that this process has locked, and its one
    // descriptor ends with this function: nobody can write it, nor cut it. A device that fails a read
    // ends this process with SIGBUS: nothing wrong is read.
    unsafe { MmapOptions::new().populate().map(&file) }
}
