//! What the index of a harmed segment still knows of it.
//!
//! Comes in: a segment that was scanned, with its index file. Goes out: every batch of it that holds,
//! whatever became of the frame around it, as a reader that goes by the index gets it; and how many
//! offsets it gave. Deliberately absent: guesses without an index, as the CRC of a batch does not
//! cover its offset.

use super::super::frame::Range;
use super::super::index::{IndexEntry, IndexRow, Span, decode_directory, entries_of};
use super::super::segment::SegmentKey;
use super::{Found, LogScan};
use crate::record::batch;

impl LogScan {
    /// Whether something was found that does not hold in the segment that was scanned last.
    pub fn is_harmed(&self, key: SegmentKey) -> bool {
        self.damages.iter().any(|damage| damage.key == key)
    }

    /// Adds to a segment that was just scanned, whose file holds `file`, what `index_file` knows of it.
    pub fn recall(&mut self, key: SegmentKey, identity: u64, file: &[u8], index_file: &[u8]) {
        let directory = decode_directory(index_file).filter(|(end, _)| end.identity == identity);
        let Some((end, spans)) = directory else { return };
        let (mut rows, mut known) = (Vec::new(), Vec::new());
        for span in &spans {
            self.move_next(span.stream, span.partition, span.next);
            self.raise_ceiling(span.stream, span.partition, span.ceiling);
            if let Some(entries) = entries_of(index_file, span) {
                rows.extend(self.sound_rows(key, span, &entries, file));
                known.push(*span);
            }
        }
        // Of every partition the index says how far it came.
        let Self { uncertain, uncertain_before, .. } = self;
        uncertain.retain(|place| uncertain_before.contains(place));
        if let Some(at) = self.segments.iter().position(|(scanned, ..)| *scanned == key)
            && let (.., Found::Scanned(scanned)) = self.segments.remove(at)
        {
            let is_known = |row: &IndexRow| {
                let span = row.span(0);
                span.is_none_or(|span| known.iter().any(|k| is_of(k, row) && k.covers(&span)))
            };
            rows.extend(scanned.into_iter().filter(|row| !is_known(row)));
        }
        if !rows.is_empty() {
            rows.sort_by_key(|row| (row.stream, row.partition, row.span(0).map(|span| span.base)));
            self.segments.push((key, end, Found::Scanned(rows)));
        }
    }

    /// A run without what was lost of it: that is a hole between what is left.
    fn sound_rows(
        &mut self,
        key: SegmentKey,
        span: &Span,
        entries: &[IndexEntry],
        file: &[u8],
    ) -> Vec<IndexRow> {
        let begin = |from: u64, to: u64| IndexRow {
            stream: span.stream,
            partition: span.partition,
            range: key.moved.then_some(Range { from, to, age_ms: span.age_ms }),
            ..IndexRow::default()
        };
        let mut rows = vec![begin(span.base.0, span.next.0)];
        for entry in entries {
            let batch = entry.batch_of((span.stream, span.partition), file);
            let holds = batch.is_some_and(|found| batch::check(found, &mut self.scratch).is_ok());
            match rows.last_mut() {
                Some(row) if holds => row.entries.push(*entry),
                Some(row) => {
                    if let Some(range) = &mut row.range {
                        range.to = entry.base.0;
                    }
                    rows.push(begin(entry.next().0, span.next.0));
                }
                None => {}
            }
        }
        if key.moved && rows.len() > 1 {
            self.split.push((key, *span));
        }
        let stands_for_something =
            |row: &IndexRow| row.span(0).is_some_and(|span| span.base < span.next);
        rows.retain(stands_for_something);
        rows
    }
}

fn is_of(span: &Span, row: &IndexRow) -> bool {
    (span.stream, span.partition) == (row.stream, row.partition)
}
