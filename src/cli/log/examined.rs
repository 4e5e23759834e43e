//! Everything that is wrong with a data directory, found by reading all of it.
//!
//! Comes in: a locked directory. Goes out: what the next start would go on from, judged by the
//! segments alone, and each fault with its file, its byte and the offsets that it took. Files are
//! read one ahead of the one that is checked. Nothing is changed.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::{fmt, thread};

use serde::Serialize;

use super::inventory::Directory;
use super::progress::Progress;
use super::{Error, beside};
use crate::driver::data_dir;
use crate::driver::disk_files::DiskFiles;
use crate::driver::read_ahead::{ReadAhead, Unreadable};
use crate::log::examine::Examination;
use crate::log::index::{Span, decode, entries_of};
use crate::log::inspect;
use crate::log::manifest::{OffsetRange, SealedSegment};
use crate::log::misplaced::{self, Placed};
use crate::log::scan::{Damage, HOLDS_ANOTHER, UNCERTAIN_OFFSETS};
use crate::log::start::MANIFEST;
use crate::log::{Files, SegmentKey};
use crate::record::{PartitionId, StreamId};

const PUT_BACK: &str = "`tidegate log repair` puts it back";

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
    /// What is there.
    pub found: Examination,
    /// What is wrong, by file and byte.
    pub faults: Vec<Fault>,
    /// Everything that damage took, also what the directory itself knows of.
    pub lost: Vec<Lost>,
    /// Bytes that were read.
    pub bytes: u64,
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
        let misplaced = misplaced::find(&files, manifest).map_err(failed)?;
        let placed = Placed::new(&files, &files, &misplaced);
        let keys = inspect::segments(&placed, manifest).map_err(failed)?;
        let paths: Vec<_> = keys.iter().map(|key| placed.path(&key.path()).to_owned()).collect();
        let mut bytes = 0;
        for path in &paths {
            bytes += size(&files, directory, path)?;
        }
        let mut progress = Progress::new(bytes);
        let (found, unreadable) = thread::scope(|scope| {
            let ahead = ReadAhead::start(scope, (&files, directory.lock()), paths, |bytes| {
                progress.advance(bytes);
            });
            let found = Examination::of(&ahead, manifest, misplaced.clone());
            found.map(|found| (found, ahead.into_unreadable()))
        })
        .map_err(failed)?;
        drop(progress);
        let recovered = &found.recovery.recovered;
        let lost: Vec<_> = recovered.holes().map(|hole| named(directory, &hole)).collect();
        let finding = Finding { directory, files: &files, found: &found };
        let mut faults = finding.damages(&unreadable);
        faults.extend(finding.misplaced());
        faults.extend(finding.indexes_that_disagree());
        faults.extend(unknown_segments(&found.foreign, &keys));
        faults.extend(beside::faults(&files, manifest).map_err(|cause| Error::Io {
            what: "reading a file in",
            path: directory.path.clone(),
            cause,
        })?);
        faults.sort_by(|a, b| (&a.file, a.byte).cmp(&(&b.file, b.byte)));
        Ok(Self { found, faults, lost, bytes })
    }
}

struct Finding<'a> {
    directory: &'a Directory,
    files: &'a DiskFiles,
    found: &'a Examination,
}

impl Finding<'_> {
    /// What does not hold, each with what it took.
    fn damages(&self, unreadable: &[Unreadable]) -> Vec<Fault> {
        let recovered = &self.found.recovery.recovered;
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
            && let Ok(Some(other)) = inspect::read_header(self.files, damage.key)
        {
            let _ = write!(fault, ", {} by its header", other.key.stem());
            if self.found.misplaced.get(&other.key) == Some(&damage.key) {
                let _ = write!(fault, "; {PUT_BACK}");
            }
        }
        Fault { fault, ..Fault::at(damage.key, damage.at) }
    }

    /// Segments whose bytes are under another one's name, where that one is no worse for it.
    fn misplaced(&self) -> impl Iterator<Item = Fault> {
        let harmed = self.found.harmed();
        let foreign = &self.found.foreign;
        let misplaced = self.found.misplaced.iter();
        let misplaced =
            misplaced.filter(move |(_, at)| !harmed.contains(at) && !foreign.contains(at));
        misplaced.map(|(key, holder)| {
            let what = format!("{HOLDS_ANOTHER}, {} by its header; {PUT_BACK}", key.stem());
            Fault::of_file(holder.path(), what)
        })
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
        let spans = self.found.recovery.recovered.layout(place.0, place.1).spans;
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
            && self.may_miss(hole, key, fault.byte)
    }

    /// Whether what is missing of a partition may be missing at byte `at` of a segment: what stands
    /// before has lower offsets, what stands behind higher ones.
    fn may_miss(&self, hole: &OffsetRange, key: SegmentKey, at: u64) -> bool {
        let index = self.found.indexes.get(&key).map(Vec::as_slice).unwrap_or_default();
        let spans = decode(index).map(|(_, spans)| spans).unwrap_or_default();
        let place = (hole.stream, hole.partition);
        let mine = spans.iter().filter(|span| (span.stream, span.partition) == place);
        mine.filter_map(|span| entries_of(index, span)).flatten().all(|entry| {
            if u64::from(entry.position) < at {
                entry.base.0 < hole.to
            } else {
                entry.next().0 > hole.from
            }
        })
    }

    /// Index files that say something else than their segments, which are sound themselves.
    fn indexes_that_disagree(&self) -> Vec<Fault> {
        let harmed = self.found.harmed();
        let sound = self.found.misindexed.difference(&harmed);
        sound
            .map(|key| {
                let what = "it does not agree with its segment; delete it, and the next start makes \
                            it anew";
                Fault::of_file(key.index_path(), what.to_owned())
            })
            .collect()
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
