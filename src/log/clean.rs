//! Cleaning: batches are copied forward, out of segments that little else is needed of, and of
//! compacted streams the newest record of each key is kept.
//!
//! Comes in: a [`Job`], made by the log (`cleaning`), and the files. Goes out: *moved* segments, each
//! reported when it and its index are durable under their names; only then may the log let go of
//! what they were copied from. So a crash leaves the sources, or the sources and the whole copy, of
//! which recovery takes the copy (`recovery`), or the copy alone: nothing is lost, nothing doubled.
//! A moved segment is written aside and renamed: under its own name it is whole or not there. Each
//! run is in one moved segment as a whole, with a range that says which offsets it accounts for.
//! It runs apart from the shard, on a thread that may block. Deliberately absent: I/O but through
//! `Files`, which also keeps to the I/O budget and ends a job that is to be stopped.

mod compact;
mod output;
pub mod policy;
mod source;

use super::cache::FileKey;
use super::files::{Files, IoError};
use super::frame::Range;
use super::index::Span;
use super::segment::SegmentKey;
use crate::record::Offset;
use crate::record::batch::{Rest, Retainer};
use compact::Dead;
use output::Output;
use source::{Place, Source};

/// What a segment holds of one partition, and which segment.
pub type Run = (SegmentKey, Span);

/// What is to be cleaned.
#[derive(Debug, Clone)]
pub struct Job {
    /// The moved segment to be written; more take the numbers after it.
    pub first: SegmentKey,
    /// The random bits of the start, of which identities are made.
    pub seed: u64,
    /// Bytes that frames are aligned to.
    pub block: usize,
    /// Bytes at which another moved segment is begun.
    pub segment_bytes: u64,
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: i64,
    /// Age clock, milliseconds.
    pub age_ms: u64,
    /// What is to be moved, by segment; of a compaction all runs of one partition, by offset.
    pub runs: Vec<Run>,
    /// Only the newest record of each key is to be kept.
    pub compaction: Option<Compaction>,
}

/// How a partition is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// What lies below was compacted before.
    pub dirty_from: Offset,
    /// Keys that are kept in memory at a time.
    pub keys_max: usize,
    /// Age above which a tombstone that is the newest record of its key goes too, milliseconds.
    pub tombstone_retention_ms: u64,
}

/// A moved segment that is durable.
#[derive(Debug, Clone)]
pub struct Moved {
    /// Which.
    pub key: SegmentKey,
    /// Bytes of its file.
    pub bytes: u64,
    /// What it holds.
    pub spans: Vec<Span>,
    /// What it stands for: these runs are needed no more.
    pub sources: Vec<Run>,
}

/// How a job ended.
#[derive(Debug)]
pub struct Ended {
    /// The first moved segment whose number was not used.
    pub next: SegmentKey,
    /// What it came to.
    pub tally: Tally,
    /// Of a compaction that is complete.
    pub compacted: Option<Compacted>,
    /// Why it ended early, and of which run if it is that run's fault.
    pub failed: Option<(Error, Option<Run>)>,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Moved segments written.
    pub segments: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Keys that were looked at.
    pub keys: u64,
    /// Records that compaction took out.
    pub removed: u64,
}

/// What is known of a partition once it is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Below this offset it is.
    pub end: Offset,
    /// Age clock of the oldest tombstones that are still there.
    pub tombstones_ms: Option<u64>,
}

/// Why a job ended early. The sources are as they were.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The bytes on disk are not what was written.
    #[error("{file} is damaged at byte {at}")]
    Harmed {
        /// Which file.
        file: FileKey,
        /// Where.
        at: u64,
    },
}

/// Runs of one partition that become one, and the offsets that it accounts for.
#[derive(Debug, Clone)]
struct Part {
    range: Range,
    /// The runs, with their numbers in the job.
    runs: Vec<(usize, Run)>,
}

impl Part {
    /// A run as it is.
    fn of(number: usize, run: Run) -> Self {
        let (_, span) = run;
        let range = Range { from: span.base.0, to: span.next.0, age_ms: span.age_ms };
        Self { range, runs: vec![(number, run)] }
    }

    /// Bytes of its batches at the most.
    fn bytes(&self) -> u64 {
        self.runs.iter().map(|(_, (_, span))| span.stored_bytes).sum()
    }
}

struct Cleaner<'a> {
    files: &'a dyn Files,
    job: &'a Job,
    source: Source<'a>,
    output: Option<Output<'a>>,
    next: SegmentKey,
    retainer: Retainer,
    tally: Tally,
    /// The run that is being read.
    at_run: Option<Run>,
    report: &'a mut dyn FnMut(Moved),
}

/// Does `job`, and tells `report` of each moved segment as soon as it is durable.
pub fn clean(files: &dyn Files, job: &Job, report: &mut dyn FnMut(Moved)) -> Ended {
    let mut cleaner = Cleaner {
        files,
        job,
        source: Source::new(files),
        output: None,
        next: job.first,
        retainer: Retainer::default(),
        tally: Tally::default(),
        at_run: None,
        report,
    };
    let done = match job.compaction {
        None => cleaner.copy().map(|()| None),
        Some(compaction) => cleaner.compact(compaction).map(Some),
    };
    let done = done.and_then(|compacted| cleaner.finish_output().map(|()| compacted));
    if let Some(output) = cleaner.output.take() {
        output.abandon();
    }
    cleaner.tally.read_bytes = cleaner.source.read_bytes();
    let at_run = cleaner.at_run;
    let (compacted, failed) = match done {
        Ok(compacted) => (compacted, None),
        Err(error @ Error::Harmed { .. }) => (None, Some((error, at_run))),
        Err(error) => (None, Some((error, None))),
    };
    Ended { next: cleaner.next, tally: cleaner.tally, compacted, failed }
}

impl<'a> Cleaner<'a> {
    /// Copies every run as it is, all of one segment in one pass over it.
    fn copy(&mut self) -> Result<(), Error> {
        let mut number = 0;
        for group in self.job.runs.chunk_by(|(a, _), (b, _)| a == b) {
            let parts: Vec<_> =
                group.iter().enumerate().map(|(at, run)| Part::of(number + at, *run)).collect();
            number += group.len();
            self.write(&parts, None)?;
        }
        Ok(())
    }

    /// Keeps of a partition the newest record of each key. Runs of which nothing goes stay where
    /// they are. Older runs are written before newer ones, so that a tombstone never goes before
    /// what it deletes.
    fn compact(&mut self, compaction: Compaction) -> Result<Compacted, Error> {
        let job = self.job;
        let dead = Dead::find(&mut self.source, job, compaction, &mut self.at_run)?;
        self.tally.keys = dead.keys();
        for part in compact::parts(job, &dead, compaction) {
            self.tally.removed += part.runs.iter().map(|(n, _)| dead.count(*n)).sum::<u64>();
            self.write(&[part], Some(&dead))?;
        }
        let end = job.runs.last().map_or(Offset(0), |(_, span)| span.next);
        Ok(Compacted { end, tombstones_ms: dead.tombstones_ms() })
    }

    /// Writes what is alive of `parts`, which are of one segment or one part alone, into one moved
    /// segment.
    fn write(&mut self, parts: &[Part], dead: Option<&Dead>) -> Result<(), Error> {
        let mut places = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            for (of_part, &(number, run)) in part.runs.iter().enumerate() {
                self.at_run = Some(run);
                let first = dead.map_or(0, |dead| dead.first(number));
                self.source.places(&run, (at, of_part), first, &mut places)?;
            }
        }
        if parts.len() > 1 {
            places.sort_by_key(|place: &Place| place.entry.position);
        }
        if mutated!(MovedCutShort) {
            places.pop();
        }
        let bytes = parts.iter().map(Part::bytes).sum();
        if self.output.as_ref().is_some_and(|output| !output.has_room(bytes)) {
            self.finish_output()?;
        }
        let output = match &mut self.output {
            Some(output) => output,
            vacant => {
                let key = self.next;
                self.next = SegmentKey { sequence: key.sequence + 1, ..key };
                vacant.insert(Output::begin(self.files, self.job, key)?)
            }
        };
        let mut rows = vec![None; parts.len()];
        for at in 0..places.len() {
            let place = places[at];
            let part = &parts[place.part];
            self.at_run = Some(part.runs[place.run].1);
            let batch = self.source.batch(&places, at)?;
            let rest = match dead {
                None => Rest::All,
                Some(dead) => {
                    dead.rest(&mut self.retainer, batch, place.ordinal).ok_or_else(|| {
                        Error::Harmed {
                            file: FileKey::Segment(place.key),
                            at: u64::from(place.entry.position),
                        }
                    })?
                }
            };
            let left = match &rest {
                Rest::All => batch,
                Rest::Some(left) => left,
                Rest::Nothing => continue,
            };
            let row = *rows[place.part].get_or_insert_with(|| output.begin_range(part));
            output.batch(row, left)?;
        }
        for (part, row) in parts.iter().zip(rows) {
            if row.is_none() {
                output.begin_range(part);
            }
            output.stands_for(part.runs.iter().map(|(_, run)| *run));
        }
        Ok(())
    }

    /// Makes the moved segment that is being written durable, and reports it.
    fn finish_output(&mut self) -> Result<(), Error> {
        if let Some(output) = self.output.take() {
            let moved = output.finish()?;
            self.tally.segments += 1;
            self.tally.written_bytes += moved.bytes;
            (self.report)(moved);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
