//! Everything that a directory holds, judged by reading all of it: for the tools.
//!
//! Comes in: the files and their manifest. Goes out: what a start would go on from, with what is harmed;
//! which index files agree with their segments; which segments are misplaced, and which nobody knows.
//! An index is taken at its word only for batches that hold themselves, in a segment that is harmed.
//! Nothing is changed. Deliberately absent: I/O of its own, and words for people.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::SegmentKey;
use super::files::{Files, IoError};
use super::index;
use super::inspect::{self, Recovery, examine, is_blank};
use super::manifest::Manifest;
use super::misplaced::{Misplaced, Placed};
use super::start::Error;

/// What reading everything came to.
#[derive(Debug, Default)]
pub struct Examination {
    /// What the next start would go on from, each misplaced segment being where it belongs.
    pub recovery: Recovery,
    /// Segments whose bytes are under another one's name.
    pub misplaced: Misplaced,
    /// Segments that hold something, whose index files are there and agree with them.
    pub indexed: BTreeSet<SegmentKey>,
    /// Those whose index files say something else.
    pub misindexed: BTreeSet<SegmentKey>,
    /// What the index files of the others should hold, and of those in which something may be missing.
    pub indexes: BTreeMap<SegmentKey, Vec<u8>>,
    /// Segments that are in no log, or hold nothing that was acknowledged.
    pub foreign: Vec<SegmentKey>,
    /// Record batches that hold.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
}

impl Examination {
    /// Reads everything in `files`, whose `misplaced` segments were found before.
    ///
    /// # Errors
    /// The file system's; that something is harmed is none.
    pub fn of(files: &dyn Files, manifest: &Manifest, misplaced: Misplaced) -> Result<Self, Error> {
        let mut found = Self { misplaced: misplaced.clone(), ..Self::default() };
        let placed = Placed::new(files, files, &misplaced);
        let mut failed = None;
        found.recovery = examine(&placed, manifest, &mut |key, index| {
            failed = found.take_index(files, key, index).err().or(failed.take());
        })?;
        if let Some(cause) = failed {
            let (what, path) = ("reading", "an index".to_owned());
            return Err(IoError { what, path, cause }.into());
        }
        let held: BTreeSet<_> = found.recovery.recovered.segments.iter().map(|s| s.key).collect();
        for (generation, log) in inspect::log_dirs(files)? {
            for key in inspect::keys(files, generation, log)? {
                if !held.contains(&key) && !is_blank(files, key)? {
                    found.foreign.push(key);
                }
            }
        }
        Ok(found)
    }

    /// Segments in which something does not hold.
    pub fn harmed(&self) -> BTreeSet<SegmentKey> {
        self.recovery.recovered.damages.iter().map(|damage| damage.key).collect()
    }

    fn take_index(&mut self, files: &dyn Files, key: SegmentKey, index: Vec<u8>) -> io::Result<()> {
        let mut runs = BTreeSet::new();
        let mut has_jumps = false;
        for span in index::decode(&index).map(|(_, spans)| spans).unwrap_or_default() {
            has_jumps |= !runs.insert((span.stream, span.partition));
            let entries = index::entries_of(&index, &span).unwrap_or_default();
            self.batches += entries.len() as u64;
            self.records += entries.iter().map(|entry| u64::from(entry.record_count)).sum::<u64>();
        }
        let path = key.index_path();
        let there = match files.size(&path)? {
            Some(bytes) => Some(files.read(&path, 0, bytes as usize)?),
            None => None,
        };
        let agrees = there.as_ref().map(|file| is_same(file, &index));
        match agrees {
            Some(true) => _ = self.indexed.insert(key),
            Some(false) => _ = self.misindexed.insert(key),
            None => {}
        }
        if agrees != Some(true) || has_jumps {
            self.indexes.insert(key, index);
        }
        Ok(())
    }
}

/// Whether two index files hold the same, whatever they are padded to.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
    long.starts_with(short) && long[short.len()..].iter().all(|byte| *byte == 0)
}
