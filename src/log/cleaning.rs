//! What a log has cleaned, and what it does when a moved segment is there.
//!
//! Comes in: what each segment still holds, now and then the time, and what the cleaner reports.
//! Goes out: one [`Job`] at a time. Two things are worth one: a compacted partition with as much new
//! as was compacted before, and segments of which little is alive (`clean::policy`), of this
//! generation and of older ones, where every shard moves what is its own. While a job is under way
//! its sources are held, whatever retention lets go of; when a moved segment is durable its runs
//! take the places of their sources in one step, between two reads. Deliberately absent: I/O; what a
//! crash leaves of a job is recovery's.

use std::collections::{BTreeMap, BTreeSet};

use super::clean::policy::{Fill, is_worth, stretch};
use super::clean::{Compaction, Ended, Error, Job, Moved, Run};
use super::partition::Row;
use super::read::{MetDamage, Records};
use super::retention::Held;
use super::segment::SegmentKey;
use super::{Log, Needs, Request, active};
use crate::record::{Offset, PartitionId, StreamId};

/// How long the cleaner rests after a job that failed, milliseconds of the age clock.
const REST_MS: u64 = 30_000;

/// The state of cleaning.
#[derive(Default)]
pub struct Cleaning {
    under_way: Option<UnderWay>,
    /// The number of the next moved segment.
    next: u64,
    /// Runs that cannot be read: they stay where they are until retention lets go of them.
    harmed: BTreeSet<(SegmentKey, Offset)>,
    /// Age clock before which nothing is tried again.
    rests_until_ms: u64,
    /// The row that was compacted last: the others have their turn first.
    last_row: usize,
}

struct UnderWay {
    /// Held until it ends.
    sources: BTreeSet<SegmentKey>,
    /// The row that is compacted.
    row: Option<usize>,
    age_ms: u64,
}

impl Log {
    /// Asks for what is worth cleaning, if nothing is being cleaned. To be called now and then.
    pub fn clean(&mut self, wall_ms: i64, age_ms: u64, needs: &Needs) {
        if self.cleaning.under_way.is_some() || age_ms < self.cleaning.rests_until_ms {
            return;
        }
        let row = self.row_to_compact(age_ms);
        let (runs, compaction) = match row {
            Some(index) => {
                let row = &self.rows[index];
                self.cleaning.last_row = index;
                (row.spans.iter().copied().collect(), self.compaction_of(row))
            }
            None => (self.runs_to_move(needs), None),
        };
        if runs.is_empty() {
            return;
        }
        let sources: BTreeSet<_> = runs.iter().map(|(key, _)| *key).collect();
        sources.iter().for_each(|key| self.hold((*key, 0)));
        self.cleaning.under_way = Some(UnderWay { sources, row, age_ms });
        let chain = active::first_key(&self.options);
        self.requests.push(Request::Clean(Box::new(Job {
            first: SegmentKey::moved(chain.generation, chain.log, self.cleaning.next),
            seed: self.active.seed(),
            block: self.options.block,
            segment_bytes: self.options.segment_bytes,
            wall_ms,
            age_ms,
            runs,
            compaction,
        })));
    }

    fn compaction_of(&self, row: &Row) -> Option<Compaction> {
        let tombstone_retention_ms = self.options.streams[row.stream.index()].compaction?;
        let (dirty_from, keys_max) = (row.compacted_to, self.options.compact_keys_max);
        Some(Compaction { dirty_from, keys_max, tombstone_retention_ms })
    }

    /// A row of which at least half is new since it was compacted, or that has tombstones whose time
    /// is over. Rows take turns.
    fn row_to_compact(&self, age_ms: u64) -> Option<usize> {
        let count = self.rows.len();
        let turns = (1..=count).map(|turn| (self.cleaning.last_row + turn) % count);
        turns.into_iter().find(|index| {
            let row = &self.rows[*index];
            let Some(retention_ms) = self.options.streams[row.stream.index()].compaction else {
                return false;
            };
            let (mut dirty, mut total) = (0, 0);
            for (_, span) in &row.spans {
                total += span.stored_bytes;
                if span.next > row.compacted_to {
                    dirty += span.stored_bytes;
                }
            }
            let over = row.tombstones_ms.is_some_and(|ms| age_ms.saturating_sub(ms) > retention_ms);
            (over || (dirty > 0 && dirty * 2 >= total))
                && row.spans.iter().all(|run| self.is_readable(run))
        })
    }

    fn is_readable(&self, (key, span): &Run) -> bool {
        !self.cleaning.harmed.contains(&(*key, span.base))
    }

    /// What is alive in segments of which little is: about a segment full of it.
    fn runs_to_move(&self, needs: &Needs) -> Vec<Run> {
        let worth = self.segments_worth_cleaning(needs);
        if worth.is_empty() {
            return Vec::new();
        }
        let mut found: BTreeMap<SegmentKey, Vec<Run>> = BTreeMap::new();
        for run in self.rows.iter().flat_map(|row| &row.spans) {
            if worth.contains(&run.0) && self.is_readable(run) {
                found.entry(run.0).or_default().push(*run);
            }
        }
        let (mut bytes, mut runs) = (0, Vec::new());
        for more in found.into_values() {
            bytes += more.iter().map(|(_, span)| span.stored_bytes).sum::<u64>();
            if bytes > self.options.segment_bytes && !runs.is_empty() {
                break;
            }
            runs.extend(more);
        }
        runs
    }

    fn segments_worth_cleaning(&self, needs: &Needs) -> BTreeSet<SegmentKey> {
        // What is still written, or waits for its index, is not looked at.
        let first_open = self.indexes.front().map(|(key, _)| *key);
        let ours = self.held.iter().filter(|(key, _)| {
            key.generation == self.options.generation
                && (key.moved || first_open.is_none_or(|open| **key < open))
        });
        let fill = |held: &Held| Fill { live: held.live_bytes, total: held.stored_bytes };
        let all = needs.fills().chain(ours.map(|(key, held)| (*key, fill(held))));
        let mut chains: BTreeMap<(u32, u32), Vec<(SegmentKey, Fill)>> = BTreeMap::new();
        let mut worth = BTreeSet::new();
        let percent = self.options.clean_live_max_percent;
        for (key, fill) in all {
            if !key.moved {
                chains.entry((key.generation, key.log)).or_default().push((key, fill));
            } else if fill.live > 0 && is_worth(fill, percent) {
                worth.insert(key);
            }
        }
        for chain in chains.into_values() {
            let fills: Vec<_> = chain.iter().map(|(_, fill)| *fill).collect();
            worth.extend(chain[..stretch(&fills, percent)].iter().map(|(key, _)| *key));
        }
        worth
    }

    /// A moved segment is durable: its runs take the places of what they were copied from, as far as
    /// that is still needed.
    pub fn on_moved(&mut self, moved: &Moved) {
        self.note_stored(moved.key, &moved.spans);
        for span in &moved.spans {
            let place = (StreamId(span.stream), PartitionId(span.partition));
            let Some(index) = self.row_index(place.0, place.1) else { continue };
            let spans = &mut self.rows[index].spans;
            let at = spans.partition_point(|(_, there)| there.next <= span.base);
            let is_source = |(key, run): &Run| {
                let same = |(k, source): &Run| (*k, source.base) == (*key, run.base);
                span.covers(run) && moved.sources.iter().any(same)
            };
            let count = spans.iter().skip(at).take_while(|run| is_source(run)).count();
            if count == 0 {
                continue;
            }
            self.unneeded.extend(spans.drain(at..at + count).map(super::retention::part));
            spans.insert(at, (moved.key, *span));
            self.hold((moved.key, span.stored_bytes));
        }
    }

    /// The job has ended.
    pub fn on_cleaned(&mut self, ended: &Ended) {
        let Some(UnderWay { sources, row, age_ms }) = self.cleaning.under_way.take() else {
            return;
        };
        self.unneeded.extend(sources.into_iter().map(|key| (key, 0)));
        self.cleaning.next = ended.next.sequence;
        if let (Some(row), Some(compacted)) = (row, &ended.compacted) {
            let row = &mut self.rows[row];
            row.compacted_to = row.compacted_to.max(compacted.end);
            row.tombstones_ms = compacted.tombstones_ms;
        }
        match &ended.failed {
            Some((Error::Harmed { file, at }, Some((key, span)))) => {
                self.cleaning.harmed.insert((*key, span.base));
                let records = Records::of(span);
                self.damaged(MetDamage { file: *file, at: *at, records });
            }
            Some(_) => self.cleaning.rests_until_ms = age_ms + REST_MS,
            None => {}
        }
    }

    /// Whether something is being cleaned.
    pub fn is_cleaning(&self) -> bool {
        self.cleaning.under_way.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::super::clean::Moved;
    use super::super::rig::{FLUSHED, NO_HEADERS, Rig, WRITTEN, options};
    use super::*;
    use crate::record::batch::{RecordParts, for_each_record};

    /// The first stream is kept for a short time, the second for ever.
    fn two_retentions() -> Options {
        let mut options = Options { clean_live_max_percent: 50, ..options() };
        options.streams[0].retention_ms = 1000;
        options
    }

    /// What a shard does once a second, until there is nothing more to do.
    fn keep_house(rig: &mut Rig) {
        for _ in 0..20 {
            rig.log.expire(rig.age_ms, &rig.needs);
            rig.answer();
            rig.log.clean(rig.wall_ms, rig.age_ms, &rig.needs);
            rig.answer();
        }
    }

    fn chain_left(rig: &Rig) -> Vec<u64> {
        let segments = rig.files.keys().filter_map(|file| match file {
            super::super::FileKey::Segment(key) if !key.moved => Some(key.sequence),
            _ => None,
        });
        segments.collect()
    }

    #[test]
    fn a_little_of_a_stream_that_is_kept_longer_pins_no_segments() {
        let mut rig = Rig::new(two_retentions());
        for sequence in 1..=6 {
            rig.put(WRITTEN, 1, &[sequence as u8; 40]);
            rig.fill_to(sequence);
        }
        keep_house(&mut rig);
        assert!(rig.cleaned.is_empty(), "nothing is old yet");
        rig.age_ms = 5000;
        keep_house(&mut rig);
        assert_eq!(chain_left(&rig), [6, 7], "the one that is written and the next");
        assert_eq!(rig.cleaned.len(), 1, "all of it in one job");
        assert_eq!(rig.log.bounds(WRITTEN, PartitionId(1)).expect("owned").start, Offset(0));
        let kept = rig.read(WRITTEN, 1, 0).expect("there");
        let expected: Vec<_> = (1..=6).map(|i: u8| (u64::from(i) - 1, vec![i; 40])).collect();
        assert_eq!(kept, expected);
        assert!(!rig.log.is_cleaning());
        // Nothing is worth it any more, and nothing is done.
        keep_house(&mut rig);
        assert_eq!(rig.cleaned.len(), 1);
        // When the copy is let go of, it goes too.
        rig.log.trim(WRITTEN, PartitionId(1), Offset(6));
        keep_house(&mut rig);
        assert!(rig.files.keys().all(|file| !file.path().contains("/m")));
    }

    #[test]
    fn what_is_mostly_alive_stays_where_it_is() {
        let mut rig = Rig::new(Options { clean_live_max_percent: 10, ..two_retentions() });
        for sequence in 1..=3 {
            rig.put(WRITTEN, 1, &[1; 3000]);
            rig.fill_to(sequence);
        }
        rig.age_ms = 5000;
        keep_house(&mut rig);
        assert!(rig.cleaned.is_empty());
        assert_eq!(chain_left(&rig).first(), Some(&0));
    }

    /// A job that is not answered yet.
    fn job_of(rig: &mut Rig) -> Job {
        rig.holds = true;
        rig.log.clean(rig.wall_ms, rig.age_ms, &rig.needs);
        rig.answer();
        let at = rig.held.iter().position(|r| matches!(r, Request::Clean(_))).expect("asked for");
        let Request::Clean(job) = rig.held.remove(at) else { unreachable!("it is one") };
        rig.holds = false;
        *job
    }

    #[test]
    fn what_retention_takes_while_it_is_copied_is_gone() {
        let mut rig = Rig::new(two_retentions());
        for sequence in 1..=4 {
            rig.put(WRITTEN, 1, &[sequence as u8; 40]);
            rig.fill_to(sequence);
        }
        rig.age_ms = 5000;
        for _ in 0..2 {
            rig.log.expire(rig.age_ms, &rig.needs);
            rig.answer();
        }
        let job = job_of(&mut rig);
        assert!(job.runs.len() >= 3 && rig.log.is_cleaning());
        rig.log.trim(WRITTEN, PartitionId(1), Offset(2));
        for _ in 0..3 {
            rig.log.expire(rig.age_ms, &rig.needs);
            rig.answer();
        }
        let sources: BTreeSet<_> = job.runs.iter().map(|(key, _)| *key).collect();
        let there = |rig: &Rig, key: &SegmentKey| {
            rig.files.contains_key(&super::super::FileKey::Segment(*key))
        };
        assert!(sources.iter().all(|key| there(&rig, key)), "held as long as they are read");
        rig.held.push(Request::Clean(Box::new(job)));
        rig.answer();
        keep_house(&mut rig);
        assert!(sources.iter().all(|key| !there(&rig, key)));
        let kept = rig.read(WRITTEN, 1, 2).expect("there");
        assert_eq!(kept.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(rig.read(WRITTEN, 1, 1), Err(super::super::Outcome::OutOfRange));
    }

    #[test]
    fn a_job_that_fails_is_tried_again_later_and_damage_is_left_alone() {
        let mut rig = Rig::new(two_retentions());
        for sequence in 1..=3 {
            rig.put(WRITTEN, 1, &[sequence as u8; 40]);
            rig.fill_to(sequence);
        }
        rig.age_ms = 5000;
        for _ in 0..2 {
            rig.log.expire(rig.age_ms, &rig.needs);
            rig.answer();
        }
        let job = job_of(&mut rig);
        let full = std::io::ErrorKind::StorageFull.into();
        let error = Error::from(crate::log::files::failed("writing", "x")(full));
        let ended = |failed| Ended {
            next: SegmentKey { sequence: 4, ..job.first },
            tally: super::super::clean::Tally::default(),
            compacted: None,
            failed: Some(failed),
        };
        rig.log.on_cleaned(&ended((error, None)));
        rig.holds = true;
        rig.log.clean(rig.wall_ms, rig.age_ms, &rig.needs);
        assert!(!rig.log.is_cleaning(), "it rests");
        rig.age_ms += REST_MS;
        let again = job_of(&mut rig);
        assert_eq!(again.first.sequence, 4, "a number is used once");
        assert_eq!(again.runs, job.runs);
        let file = super::super::FileKey::Segment(job.runs[0].0);
        rig.log.on_cleaned(&ended((Error::Harmed { file, at: 77 }, Some(job.runs[0]))));
        let mut told = Vec::new();
        rig.log.take_damages(&mut told);
        let records = Records::of(&job.runs[0].1);
        assert_eq!(told, [MetDamage { file, at: 77, records }]);
        let third = job_of(&mut rig);
        assert_eq!(third.runs, job.runs[1..], "all but what cannot be read");
    }

    #[test]
    fn a_moved_run_that_nobody_has_any_more_is_not_taken_in() {
        let mut rig = Rig::new(two_retentions());
        rig.put(WRITTEN, 1, b"x");
        rig.fill_to(2);
        let key = SegmentKey::moved(1, 0, 0);
        let run = rig.log.rows[3].spans[0];
        let moved = Moved { key, bytes: 512, spans: vec![run.1], sources: vec![] };
        rig.log.on_moved(&moved);
        assert_eq!(rig.log.rows[3].spans[0], run);
        rig.log.expire(0, &rig.needs);
        rig.answer();
        assert_eq!(rig.deleted, [key]);
    }

    fn put_key(rig: &mut Rig, key: u64, value: Option<&[u8]>) {
        let key = key.to_be_bytes();
        let (key, headers) = (Some(key.as_slice()), NO_HEADERS);
        let record = RecordParts { key, value, timestamp_ms: rig.wall_ms, headers };
        rig.log.append(FLUSHED, PartitionId(0), &record).expect("room");
        rig.commit();
    }

    /// Offsets with their values' first bytes, from the log start on.
    fn found(rig: &mut Rig) -> Vec<(u64, Option<u8>)> {
        let mut found = Vec::new();
        let mut from = Offset(0);
        loop {
            let place = (FLUSHED, PartitionId(0));
            let outcome = rig.log.read(place, from, 1 << 20, true, |batch| {
                let whole = for_each_record(batch, &mut Vec::new(), |record| {
                    found.push((record.offset.0, record.value.map(|value| value[0])));
                    true
                });
                whole.expect("a whole batch");
            });
            match outcome {
                super::super::Outcome::Data(_, next) => from = next,
                super::super::Outcome::Pending => rig.answer(),
                _ => return found,
            }
        }
    }

    #[test]
    fn a_compacted_stream_keeps_the_newest_of_each_key() {
        let mut options = Options { compact_keys_max: 2, read_cache_bytes: 0, ..two_retentions() };
        options.streams[0].retention_ms = u64::MAX;
        options.streams[0].compaction = Some(1000);
        let mut rig = Rig::new(options);
        let mut next = 0_u8;
        let mut until = |rig: &mut Rig, sequence| {
            while rig.commits.last().is_none_or(|commit| commit.segment.sequence < sequence) {
                let value = [next; 900];
                put_key(rig, u64::from(next % 16), Some(&value));
                if next == 5 {
                    put_key(rig, 99, Some(b"gone"));
                    put_key(rig, 99, None);
                }
                next += 1;
                keep_house(rig);
            }
            u64::from(next) + 2
        };
        let end = until(&mut rig, 12);
        let compactions = rig.cleaned.iter().filter(|(job, _)| job.compaction.is_some()).count();
        assert!((3..10).contains(&compactions), "not at every segment: {compactions}");
        let left = found(&mut rig);
        assert!(left.contains(&(7, None)), "the tombstone is there: {left:?}");
        assert!(!left.iter().any(|(offset, _)| *offset == 6), "what it deletes is not");
        assert!(left.len() < end as usize / 2, "{} of {end}", left.len());
        assert_eq!(left.last().expect("some").0, end - 1);
        // When its time is over the tombstone goes, without anything new.
        rig.age_ms = 5000;
        keep_house(&mut rig);
        let left = found(&mut rig);
        assert!(!left.contains(&(7, None)), "{left:?}");
        let jobs = rig.cleaned.len();
        keep_house(&mut rig);
        assert_eq!(rig.cleaned.len(), jobs, "and then there is nothing to do");
        assert!(chain_left(&rig).len() <= 5, "{:?}", chain_left(&rig));
        // A start finds the same; what it compacted before it compacts again, and all is as it was.
        assert_eq!(rig.sound().damages, []);
    }
}
