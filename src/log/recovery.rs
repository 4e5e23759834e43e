//! What a start goes on from: the offsets of every partition, where its records lie, and where they
//! are missing.
//!
//! Comes in: what looking through each log and each sealed segment found (`scan`). Goes out: for
//! each partition its runs in the order of their offsets, and its *holes*: offsets that were given,
//! and are in no run and in no known gap. Only damage makes holes. They are fenced: a reader gets an
//! error there, never other records, and can go on behind them. Deliberately absent: I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::index::{self, SegmentEnd, Span};
use super::manifest::OffsetRange;
use super::partition::RESERVED_AHEAD;
use super::retention::{Need, Needs};
use super::scan::{Damage, Found, LogEnd};
use super::segment::{PartitionOffsets, SegmentKey};
use crate::record::{Durability, Offset, PartitionId, StreamId};

/// A segment that is kept, never to be appended to again.
#[derive(Debug, Clone)]
pub struct RecoveredSegment {
    /// Which.
    pub key: SegmentKey,
    /// How it ended.
    pub end: SegmentEnd,
    /// What it holds.
    pub spans: Vec<Span>,
}

/// Offsets from the first to before the second.
pub type Range = (Offset, Offset);

/// Where the records of one partition lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Its runs, by offset.
    pub spans: VecDeque<(SegmentKey, Span)>,
    /// Offsets that damage took, in order.
    pub holes: VecDeque<Range>,
}

/// Everything that the shards of a new start continue from.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Offsets by (stream, partition).
    pub offsets: BTreeMap<(u32, u32), PartitionOffsets>,
    /// Segments of all generations and logs, by key.
    pub segments: Vec<RecoveredSegment>,
    /// Offsets that were reserved and hold nothing that was promised, by (stream, partition).
    pub gaps: BTreeMap<(u32, u32), Vec<Range>>,
    /// What is harmed.
    pub damages: Vec<Damage>,
    /// Runs of moved segments of which a part is lost. What is left of them supersedes what they did.
    pub split: Vec<(SegmentKey, Span)>,
    /// Made by [`Recovered::settle`].
    layouts: BTreeMap<(u32, u32), Layout>,
}

impl Recovered {
    /// Where a partition continues; at 0 when it is new.
    pub fn offsets(&self, stream: StreamId, partition: PartitionId) -> PartitionOffsets {
        let new = PartitionOffsets::new(stream.0, partition.0);
        self.offsets.get(&(stream.0, partition.0)).copied().unwrap_or(new)
    }

    /// Where the records of a partition lie; known once all is settled.
    pub fn layout(&self, stream: StreamId, partition: PartitionId) -> Layout {
        self.layouts.get(&(stream.0, partition.0)).cloned().unwrap_or_default()
    }

    /// What is needed of segments, by partition.
    pub fn runs(&self) -> impl Iterator<Item = &(SegmentKey, Span)> {
        self.layouts.values().flat_map(|layout| &layout.spans)
    }

    /// Segments with a run that is needed no more, and would come back: no run that is needed covers
    /// all of it.
    pub fn half_superseded(&self) -> BTreeSet<SegmentKey> {
        let would_come_back = |key: SegmentKey, span: &Span| {
            let Some(layout) = self.layouts.get(&(span.stream, span.partition)) else {
                return false;
            };
            let first = layout.spans.partition_point(|(_, needed)| needed.next <= span.base);
            let mut meets = layout.spans.range(first..).take_while(|(_, s)| s.base < span.next);
            meets.clone().next().is_some()
                && !meets
                    .any(|(of, needed)| needed.covers(span) && (*of != key || span.covers(needed)))
        };
        let found = self.segments.iter();
        let found = found.filter(|s| s.spans.iter().any(|span| would_come_back(s.key, span)));
        found.map(|segment| segment.key).collect()
    }

    /// Holes of all partitions.
    pub fn holes(&self) -> impl Iterator<Item = OffsetRange> {
        self.layouts.iter().flat_map(|(&(stream, partition), layout)| {
            layout.holes.iter().map(move |&(from, to)| OffsetRange {
                stream,
                partition,
                from: from.0,
                to: to.0,
            })
        })
    }

    /// Adds what a log of the last generation came to. A log that did not end cleanly may have
    /// given out every offset below its ceilings. Returns the index files that have yet to be
    /// written, each padded to `block`.
    pub fn add_log(&mut self, log: LogEnd, block: usize) -> Vec<(SegmentKey, Vec<u8>)> {
        for (place, mut offsets) in log.offsets {
            if !log.clean && offsets.ceiling > offsets.next {
                // Where damage hides the end nobody knows what was promised.
                if !log.uncertain.contains(&place) {
                    self.gaps.entry(place).or_default().push((offsets.next, offsets.ceiling));
                }
                if !mutated!(CeilingForgotten) {
                    offsets.next = offsets.ceiling;
                }
            }
            self.offsets.insert(place, offsets);
        }
        self.damages.extend(log.damages);
        self.add_segments(log.segments, block)
    }

    /// Adds segments; see [`Recovered::add_log`].
    pub fn add_segments(
        &mut self,
        segments: Vec<(SegmentKey, SegmentEnd, Found)>,
        block: usize,
    ) -> Vec<(SegmentKey, Vec<u8>)> {
        let mut files = Vec::new();
        for (key, end, found) in segments {
            let spans = match found {
                Found::Indexed(spans) => spans,
                Found::Scanned(rows) => {
                    let (file, spans) = index::encode(&end, &rows, block);
                    files.push((key, file));
                    spans
                }
            };
            self.segments.push(RecoveredSegment { key, end, spans });
        }
        files
    }

    /// Sets the ceilings of the start that follows: ahead of the next offset for streams that are
    /// not flushed. They must be durable, in the manifest, before the first record is appended.
    pub fn reserve(&mut self, streams: &[Durability], partitions: u32) {
        for (stream, durability) in streams.iter().enumerate() {
            for partition in 0..partitions {
                let (stream, partition) = (StreamId(stream as u32), PartitionId(partition));
                let mut offsets = self.offsets(stream, partition);
                let flushed = *durability == Durability::Fsync || mutated!(NoReservation);
                let ahead = if flushed { 0 } else { RESERVED_AHEAD };
                offsets.ceiling = offsets.next.plus(ahead);
                self.offsets.insert((stream.0, partition.0), offsets);
            }
        }
    }

    /// Lays out every partition, once all segments are known.
    pub fn settle(&mut self) {
        self.segments.sort_unstable_by_key(|segment| segment.key);
        let mut runs: BTreeMap<(u32, u32), Vec<(SegmentKey, Span)>> = BTreeMap::new();
        for segment in &self.segments {
            for span in &segment.spans {
                runs.entry((span.stream, span.partition)).or_default().push((segment.key, *span));
            }
        }
        self.layouts.clear();
        for (&place, offsets) in &mut self.offsets {
            let gaps = self.gaps.entry(place).or_default();
            gaps.retain(|(_, to)| *to > offsets.start);
            gaps.sort_unstable();
            let runs = runs.remove(&place).unwrap_or_default();
            let layout = lay_out(runs, offsets, (gaps, &self.split), &mut self.damages);
            // A gap in front has nothing to be read: the log starts behind it.
            let first = layout.spans.front().map(|(_, span)| span.base);
            let hole = layout.holes.front().map(|(from, _)| *from);
            let there = first.into_iter().chain(hole).min().unwrap_or(offsets.next);
            offsets.start = offsets.start.max(there);
            gaps.retain(|(_, to)| *to > offsets.start);
            self.layouts.insert(place, layout);
        }
        self.gaps.retain(|_, gaps| !gaps.is_empty());
    }

    /// Which segments how many of `shards` shards still need, and who deletes each.
    pub fn needs(&self, shards: u32) -> Needs {
        let mut users: BTreeMap<SegmentKey, (BTreeSet<u32>, u64)> = BTreeMap::new();
        for (&(_, partition), layout) in &self.layouts {
            for (key, span) in &layout.spans {
                let (shards_in_need, live_bytes) = users.entry(*key).or_default();
                shards_in_need.insert(partition % shards);
                *live_bytes += span.stored_bytes;
            }
        }
        let need = |segment: &RecoveredSegment| {
            let (shards_in_need, live_bytes) = users.remove(&segment.key).unwrap_or_default();
            let need = Need {
                shards: AtomicU32::new(shards_in_need.len() as u32),
                live_bytes: AtomicU64::new(live_bytes),
                stored_bytes: segment.spans.iter().map(|span| span.stored_bytes).sum(),
            };
            (segment.key, need)
        };
        Needs::new(self.segments.iter().map(need).collect())
    }
}

/// The runs of a partition by offset, and what is missing between them.
fn lay_out(
    mut runs: Vec<(SegmentKey, Span)>,
    offsets: &PartitionOffsets,
    (gaps, split): (&[Range], &[(SegmentKey, Span)]),
    damages: &mut Vec<Damage>,
) -> Layout {
    // In the order in which they were written: what was moved last stands for what it covers.
    runs.sort_unstable_by_key(|(key, span)| {
        (key.moved, key.generation, key.sequence, span.base, span.next)
    });
    let mut kept: Vec<(SegmentKey, Span)> = Vec::new();
    for (key, span) in runs {
        if key.moved {
            let was = split
                .iter()
                .find(|(of, was)| *of == key && was.is_of_partition(&span) && was.covers(&span));
            let whole = was.map_or(span, |(_, was)| *was);
            kept.retain(|(of, other)| *of == key || !whole.covers(other));
        }
        let apart = kept.iter().all(|(_, o)| o.next <= span.base || span.next <= o.base);
        if apart {
            kept.push((key, span));
        } else if !kept.iter().any(|(_, other)| other.covers(&span)) {
            damages.push(Damage { key, at: 0, what: "it holds offsets that others hold as well" });
        }
    }
    kept.sort_unstable_by_key(|(_, span)| span.base);
    kept.retain(|(_, span)| span.next > offsets.start);
    let mut covered: Vec<Range> = kept.iter().map(|(_, span)| (span.base, span.next)).collect();
    covered.extend(gaps);
    covered.sort_unstable();
    let mut holes = VecDeque::new();
    let mut at = offsets.start;
    for (from, to) in covered.into_iter().chain([(offsets.next, offsets.next)]) {
        if from > at {
            holes.push_back((at, from));
        }
        at = at.max(to);
    }
    Layout { spans: kept.into(), holes }
}
