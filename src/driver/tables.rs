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
/// Private files have a name in the data directory until they are open: `table-N.new` (docs/format.md),
/// as the tables of rules that are read again are mapped while the others are watched.
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
    let path = dir.join(format!("table-{number}.new"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::rules::plan_with;
    use crate::transform::rules::value::Value;

    /// A watch of one table, whose file has `text`.
    fn watch(dir: &Path, text: &str) -> Watch {
        fs::write(dir.join("d.csv"), text).unwrap();
        let file = dir.join("r.sql").display().to_string();
        let sql = "CREATE TABLE d FROM 'd.csv' KEY id".to_owned();
        let plan = plan_with(&[(file, sql)], &[], &read_table).unwrap();
        let data = dir.join("data");
        fs::create_dir(&data).unwrap();
        Watch::new(&data, Arc::new(plan), vec![Arc::default()])
    }

    fn has(watch: &Watch, key: &str) -> bool {
        watch.plan.tables.current()[0].find(&Value::Text(key)).is_some()
    }

    #[test]
    fn a_version_is_taken_once_it_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = watch(dir.path(), "id\na\n");
        let path = dir.path().join("d.csv");
        let counts = |watch: &Watch| {
            let metrics = &watch.metrics[0];
            (metrics.loads.value(), metrics.failures.value(), metrics.rows.value())
        };
        watch.look();
        assert_eq!(counts(&watch), (0, 0, 0), "it was loaded with the plan");
        fs::write(&path, "id\na\nb").unwrap();
        watch.look();
        fs::write(&path, "id\na\nbcd\n").unwrap();
        watch.look();
        assert!(!has(&watch, "bcd"), "it may still be being written");
        watch.look();
        assert_eq!(counts(&watch), (1, 0, 2));
        assert!(has(&watch, "bcd") && !has(&watch, "b"));
        fs::write(&path, "id\na\na\n").unwrap();
        (0..5).for_each(|_| watch.look());
        assert_eq!(counts(&watch), (1, 1, 2), "it is refused once");
        fs::remove_file(&path).unwrap();
        (0..5).for_each(|_| watch.look());
        assert_eq!(counts(&watch), (1, 2, 2));
        assert!(has(&watch, "bcd"));
        fs::write(&path, "id\nx\n").unwrap();
        (0..2).for_each(|_| watch.look());
        assert_eq!(counts(&watch), (2, 2, 1));
        assert_eq!(
            fs::read_dir(dir.path().join("data")).unwrap().count(),
            0,
            "files have no names"
        );
    }

    #[test]
    fn versions_that_a_shard_looks_into_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = watch(dir.path(), "id\na\n");
        let shard = watch.plan.tables.current();
        fs::write(dir.path().join("d.csv"), "id\nbcd\n").unwrap();
        (0..3).for_each(|_| watch.look());
        assert_eq!(watch.replaced.len(), 1);
        assert!(shard[0].find(&Value::Text("a")).is_some() && has(&watch, "bcd"));
        drop(shard);
        watch.look();
        assert!(watch.replaced.is_empty());
    }

    #[test]
    fn a_map_holds_what_it_was_given_and_nobody_else_has_its_file() {
        let dir = tempfile::tempdir().unwrap();
        // Other tests take numbers, too.
        let next = NEXT_FILE.load(Ordering::Relaxed);
        let left = (next..next + 64).map(|number| dir.path().join(format!("table-{number}.new")));
        left.for_each(|path| fs::write(path, "left behind by a crash").unwrap());
        for bytes in [vec![7; 3], vec![9; 1 << 20]] {
            assert_eq!(*map(dir.path(), &bytes).unwrap(), *bytes);
        }
        assert!(fs::read_dir(dir.path()).unwrap().count() <= 62);
        let gone = map(&dir.path().join("gone"), b"x").unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }
}
