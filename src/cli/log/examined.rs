//! Everything that is wrong with a data directory, found by reading all of it.
//!
//! Comes in: a locked directory. Goes out: what the next start would go on from, judged by the
//! segments alone, and each fault with its file, its byte and the offsets that it took. Files are
//! read one ahead of the one that is checked. Nothing is changed.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::{fmt, io, thread};

use serde::Serialize;

use super::inventory::Directory;
use super::progress::Progress;
use super::{Error, beside};
use crate::driver::data_dir;
use crate::driver::disk_files::DiskFiles;
use crate::driver::read_ahead::{ReadAhead, Unreadable};
use crate::log::index::{IndexEntry, Span, decode};
use crate::log::inspect::{self, Recovery};
use crate::log::manifest::{OffsetRange, SealedSegment};
use crate::log::scan::{Damage, HOLDS_ANOTHER, UNCERTAIN_OFFSETS};
use crate::log::segment::SegmentHeader;
use crate::log::start::{self, MANIFEST};
use crate::log::{Files, SegmentKey};
use crate::record::{PartitionId, StreamId};

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// In which file, relative to the data directory.
    pub file: String,
    /// From which byte of it on.
    pub byte: u64,
    /// What was found.
    pub fault: String,
    /// Offsets that it took, as far as that can be told.
    pub lost: Vec<Lost>,
    /// The segment, where it is one that is harmed.
    #[serde(skip)]
    pub key: Option<SegmentKey>,
}

/// Offsets of a partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Lost {
    /// The stream's name.
    pub stream: String,
    /// Partition.
    pub partition: u32,
    /// The first offset.
    pub from: u64,
    /// The offset after the last.
    pub to: u64,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, partition, from, to } = self;
        write!(f, "{stream}, partition {partition}, offsets {from} to {}", to - 1)?;
        if to - from >= UNCERTAIN_OFFSETS {
            write!(f, " (nobody knows how many of them were given)")?;
        }
        Ok(())
    }
}

/// What reading everything came to.
#[derive(Debug)]
pub struct Examined {
    /// What the next start would go on from.
    pub recovery: Recovery,
    /// What is wrong, by file and byte.
    pub faults: Vec<Fault>,
    /// Everything that damage took, also what the directory itself knows of.
    pub lost: Vec<Lost>,
    /// Segments whose index files are there and agree with them.
    pub indexed: BTreeSet<SegmentKey>,
    /// Segments that are in no log, or hold nothing that was acknowledged.
    pub foreign: Vec<SegmentKey>,
    /// Bytes that were read.
    pub bytes: u64,
    /// Record batches that hold, and records in them.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
}

impl Examined {
    /// Reads everything in `directory`.
    ///
    /// # Errors
    /// The system's; faults are none.
    pub fn take(directory: &Directory) -> Result<Self, Error> {
        let files = DiskFiles::new(&directory.path);
        let failed = |cause| Error::from(data_dir::Error::new(&directory.path, cause));
        let manifest = &directory.manifest;
        let keys = inspect::segments(&files, manifest).map_err(failed)?;
        let mut bytes = 0;
        for key in &keys {
            bytes += size(&files, directory, &key.path())?;
        }
        let paths = keys.iter().map(SegmentKey::path).collect();
        let mut progress = Progress::new(bytes);
        let mut indexes = Indexes::default();
        let (recovery, unreadable) = thread::scope(|scope| {
            let ahead = ReadAhead::start(scope, (&files, directory.lock()), paths, |bytes| {
                progress.advance(bytes);
            });
            let recovery = inspect::examine(&ahead, manifest, &mut |key, index| {
                indexes.take(&ahead, key, index)
            });
            recovery.map(|recovery| (recovery, ahead.into_unreadable()))
        })
        .map_err(failed)?;
        drop(progress);
        if let Some(cause) = indexes.failed.take() {
            return Err(Error::Io {
                what: "reading an index in",
                path: directory.path.clone(),
                cause,
            });
        }
        let finding = Finding { directory, files: &files, recovery: &recovery, indexes: &indexes };
        let lost: Vec<_> = recovery.recovered.holes().map(|hole| named(directory, &hole)).collect();
        let mut faults = finding.damages(&unreadable);
        faults.extend(finding.indexes_that_disagree());
        let foreign = finding.foreign().map_err(failed)?;
        faults.extend(unknown_segments(&foreign, &keys));
        faults.extend(beside::faults(&files, manifest).map_err(|cause| Error::Io {
            what: "reading a file in",
            path: directory.path.clone(),
            cause,
        })?);
        faults.sort_by(|a, b| (&a.file, a.byte).cmp(&(&b.file, b.byte)));
        let Indexes { agree, batches, records, .. } = indexes;
        let indexed = agree;
        Ok(Self { recovery, faults, lost, indexed, foreign, bytes, batches, records })
    }

    /// Segments in which something does not hold.
    pub fn harmed(&self) -> BTreeSet<SegmentKey> {
        self.faults.iter().filter_map(|fault| fault.key).collect()
    }
}

/// What each segment's index file should hold, against what it holds.
#[derive(Debug, Default)]
struct Indexes {
    agree: BTreeSet<SegmentKey>,
    disagree: BTreeSet<SegmentKey>,
    /// Indexes of segments in which something may be missing.
    kept: BTreeMap<SegmentKey, Vec<u8>>,
    batches: u64,
    records: u64,
    failed: Option<io::Error>,
}

impl Indexes {
    fn take(&mut self, files: &dyn Files, key: SegmentKey, index: Vec<u8>) {
        let mut runs = BTreeSet::new();
        let mut has_jumps = false;
        for (span, entries) in runs_of(&index) {
            has_jumps |= !runs.insert((span.stream, span.partition));
            self.batches += entries.len() as u64;
            self.records += entries.iter().map(|entry| u64::from(entry.record_count)).sum::<u64>();
        }
        let path = key.index_path();
        let there = files.size(&path).and_then(|size| match size {
            Some(bytes) => files.read(&path, 0, bytes as usize).map(Some),
            None => Ok(None),
        });
        match there {
            Ok(Some(file)) if is_same(&file, &index) => {
                self.agree.insert(key);
                if !has_jumps {
                    return;
                }
            }
            Ok(Some(_)) => _ = self.disagree.insert(key),
            Ok(None) => {}
            Err(cause) => self.failed = Some(cause),
        }
        self.kept.insert(key, index);
    }

    /// Whether what is missing of a partition may be missing at byte `at` of a segment: what stands
    /// before has lower offsets, what stands behind higher ones.
    fn may_miss(&self, hole: &OffsetRange, key: SegmentKey, at: u64) -> bool {
        let runs = self.kept.get(&key).into_iter().flat_map(|index| runs_of(index));
        let mine =
            runs.filter(|(span, _)| (span.stream, span.partition) == (hole.stream, hole.partition));
        mine.flat_map(|(_, entries)| entries).all(|entry| {
            if u64::from(entry.position) < at {
                entry.base.0 < hole.to
            } else {
                entry.next().0 > hole.from
            }
        })
    }
}

/// Whether two index files hold the same, whatever they are padded to.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
    long.starts_with(short) && long[short.len()..].iter().all(|byte| *byte == 0)
}

fn runs_of(index: &[u8]) -> Vec<(Span, Vec<IndexEntry>)> {
    let spans = decode(index).map(|(_, spans)| spans).unwrap_or_default();
    let entries = |span: &Span| -> Option<Vec<IndexEntry>> {
        let located = span.entries?;
        let bytes = index.get(located.at as usize..)?;
        (0..located.count as usize).map(|number| IndexEntry::read(bytes, number)).collect()
    };
    spans.into_iter().map(|span| (span, entries(&span).unwrap_or_default())).collect()
}

struct Finding<'a> {
    directory: &'a Directory,
    files: &'a DiskFiles,
    recovery: &'a Recovery,
    indexes: &'a Indexes,
}

impl Finding<'_> {
    /// What does not hold, each with what it took.
    fn damages(&self, unreadable: &[Unreadable]) -> Vec<Fault> {
        let recovered = &self.recovery.recovered;
        let mut told = BTreeSet::new();
        let damages = recovered.damages.iter().filter(|d| told.insert((d.key, d.at)));
        let mut faults: Vec<_> = damages.map(|damage| self.damage(damage)).collect();
        // Segments that are gone in front of a log are a fault where nobody let go of them.
        let gone = self.gone(&faults);
        for hole in recovered.holes() {
            let known = self.directory.manifest.lost.iter().any(|lost| {
                (lost.stream, lost.partition) == (hole.stream, hole.partition)
                    && lost.from <= hole.from
                    && hole.to <= lost.to
            });
            let mut taken = false;
            for fault in faults.iter_mut().filter(|fault| self.may_take(&hole, fault)) {
                fault.lost.push(named(self.directory, &hole));
                taken = true;
            }
            if taken || known {
                continue;
            }
            let fault = gone.iter().find(|fault| self.may_take(&hole, fault));
            let mut fault = fault.cloned().unwrap_or_else(|| {
                let what = "offsets that were given are in no segment";
                Fault::of_file(MANIFEST.to_owned(), what.to_owned())
            });
            fault.lost.push(named(self.directory, &hole));
            faults.push(fault);
        }
        faults.extend(unreadable.iter().map(|place| Fault {
            file: place.path.clone(),
            byte: place.at,
            fault: format!("it cannot be read: {}", place.cause),
            lost: Vec::new(),
            key: None,
        }));
        faults
    }

    fn damage(&self, damage: &Damage) -> Fault {
        let mut fault = damage.what.to_owned();
        if damage.what == HOLDS_ANOTHER
            && let Some(other) = self.header_in(damage.key)
        {
            let name = other.stem();
            let _ = write!(fault, ", {name} by its header: if it belongs there, rename it first");
        }
        Fault { fault, ..Fault::at(damage.key, damage.at) }
    }

    fn header_in(&self, key: SegmentKey) -> Option<SegmentKey> {
        let front = self.files.read(&key.path(), 0, 1 << 20).ok()?;
        SegmentHeader::read(&front).map(|(header, ..)| header.key)
    }

    /// Sealed segments whose files are not there, but for those that are among `faults`.
    fn gone(&self, faults: &[Fault]) -> Vec<Fault> {
        let sealed = self.directory.manifest.sealed.iter().map(SealedSegment::key);
        sealed
            .filter(|key| faults.iter().all(|fault| fault.key != Some(*key)))
            .filter(|key| matches!(self.files.size(&key.path()), Ok(None)))
            .map(|key| Fault { fault: "its file is missing".to_owned(), ..Fault::at(key, 0) })
            .collect()
    }

    /// Whether `hole` may be of a fault: that lies between what is left of the partition before it
    /// and behind it.
    fn may_take(&self, hole: &OffsetRange, fault: &Fault) -> bool {
        let Some(key) = fault.key else { return false };
        let place = (StreamId(hole.stream), PartitionId(hole.partition));
        let spans = self.recovery.recovered.layout(place.0, place.1).spans;
        let before = spans.iter().rev().find(|(_, span)| span.next.0 <= hole.from);
        let after = spans.iter().find(|(_, span)| span.base.0 >= hole.to);
        let in_order = |of: &(SegmentKey, Span), is_before: bool| {
            let other = of.0;
            let (first, last) = if is_before { (other, key) } else { (key, other) };
            // A partition is in one log of a generation; moved segments keep no order.
            key.moved
                || other.moved
                || match first.generation.cmp(&last.generation) {
                    Ordering::Less => true,
                    Ordering::Equal => first.log == last.log && first.sequence <= last.sequence,
                    Ordering::Greater => false,
                }
        };
        before.is_none_or(|before| in_order(before, true))
            && after.is_none_or(|after| in_order(after, false))
            && self.indexes.may_miss(hole, key, fault.byte)
    }

    /// Index files that say something else than their segments, which are sound themselves.
    fn indexes_that_disagree(&self) -> Vec<Fault> {
        let harmed: BTreeSet<_> =
            self.recovery.recovered.damages.iter().map(|damage| damage.key).collect();
        let sound = self.indexes.disagree.difference(&harmed);
        sound
            .map(|key| {
                let what = "it does not agree with its segment; delete it, and the next start makes \
                            it anew";
                Fault::of_file(key.index_path(), what.to_owned())
            })
            .collect()
    }

    /// Segments that nothing was found in, though their files are there and not blank.
    fn foreign(&self) -> Result<Vec<SegmentKey>, start::Error> {
        let held: BTreeSet<_> = self.recovery.recovered.segments.iter().map(|s| s.key).collect();
        let mut foreign = Vec::new();
        for (generation, log) in inspect::log_dirs(self.files)? {
            for key in inspect::keys(self.files, generation, log)? {
                if !held.contains(&key) && !inspect::is_blank(self.files, key)? {
                    foreign.push(key);
                }
            }
        }
        Ok(foreign)
    }
}

/// Of `foreign` segments those that are in no log of this directory.
fn unknown_segments(foreign: &[SegmentKey], known: &[SegmentKey]) -> impl Iterator<Item = Fault> {
    foreign.iter().filter(|key| !known.contains(key)).map(|key| {
        let what = "no start of this directory knows this segment".to_owned();
        Fault { fault: what, key: None, ..Fault::at(*key, 0) }
    })
}

impl Fault {
    /// One of a whole file that is no segment.
    pub fn of_file(file: String, fault: String) -> Self {
        Self { file, byte: 0, fault, lost: Vec::new(), key: None }
    }

    /// One of a segment, without words yet.
    fn at(key: SegmentKey, byte: u64) -> Self {
        Self { file: key.path(), byte, fault: String::new(), lost: Vec::new(), key: Some(key) }
    }
}

/// A range with the name of its stream.
pub fn named(directory: &Directory, range: &OffsetRange) -> Lost {
    let stream = directory.manifest.streams.get(range.stream as usize);
    Lost {
        stream: stream.map_or_else(|| range.stream.to_string(), |stream| stream.name.to_string()),
        partition: range.partition,
        from: range.from,
        to: range.to,
    }
}

fn size(files: &DiskFiles, directory: &Directory, path: &str) -> Result<u64, Error> {
    let size = files.size(path).map_err(|cause| Error::Io {
        what: "reading",
        path: directory.path.join(path),
        cause,
    })?;
    Ok(size.unwrap_or(0))
}
