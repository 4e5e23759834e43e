//! Repair: a directory that holds what is sound of a damaged one, and nothing else.
//!
//! Comes in: a directory and what is left in it (`examine`). Goes out: its sound segments as they are;
//! of the others every batch that holds, copied as the cleaner copies, into moved segments; and a
//! manifest that seals them all. Offsets and ages stay; what damage took is lost for good and stays
//! fenced. The next start goes on from that. The invariant: what could be read before can be read at
//! any moment, also after a crash: until the new manifest gets its name nothing that the old one
//! names is changed, and nothing is ever deleted that held something. Deliberately absent: I/O of its
//! own, and any judgement on what is damaged.

use std::collections::{BTreeMap, BTreeSet};

use super::clean::{self, Run, clean};
use super::examine::Examination;
use super::files::{Files, IoError, failed};
use super::inspect::read_index;
use super::manifest::Manifest;
use super::misplaced::Placed;
use super::recovery::{Recovered, RecoveredSegment};
use super::segment::{SegmentKey, generation_dir, identity, log_dir};
use super::start::{Error, MANIFEST, sealed_manifest, write_manifest};

/// What frames of copied batches are aligned to: enough for every disk.
const BLOCK: usize = 4096;

/// What a repair goes by.
#[derive(Debug)]
pub struct Job<'a> {
    /// The manifest of the damaged directory.
    pub manifest: &'a Manifest,
    /// What is in it.
    pub examined: &'a Examination,
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: i64,
}

impl Job<'_> {
    /// Writes into `to`, an empty directory, what is sound in `from`. Returns the manifest of `to`.
    ///
    /// # Errors
    /// The file system's; then `to` has no manifest.
    pub fn copy(&self, from: &dyn Files, to: &dyn Files) -> Result<Manifest, Error> {
        let mut recovered = self.examined.recovery.recovered.clone();
        let mut harmed = self.examined.harmed();
        harmed.extend(recovered.half_superseded());
        let placed = self.placed(from, to);
        for segment in recovered.segments.iter().filter(|segment| !harmed.contains(&segment.key)) {
            let RecoveredSegment { key, end, .. } = segment;
            let dir = log_dir(key.generation, key.log);
            to.make_dir(&dir).map_err(failed("creating", &dir))?;
            copy(&placed, to, &key.path(), usize::try_from(end.end).unwrap_or(usize::MAX))?;
            if self.examined.indexed.contains(key) {
                copy(from, to, &key.index_path(), usize::MAX)?;
            }
        }
        self.rewrite(&placed, to, &harmed, &mut recovered)?;
        self.finish(to, &recovered)
    }

    /// Mends the directory `files`, which is read through `from`. What the new manifest does not name
    /// any more goes into `aside`, a directory that is made for it. Returns the new manifest.
    ///
    /// # Errors
    /// The file system's; then it can be begun again.
    pub fn in_place(
        &self,
        from: &dyn Files,
        files: &dyn Files,
        aside: &str,
    ) -> Result<Manifest, Error> {
        let Examination { recovery, misplaced, misindexed, foreign, .. } = self.examined;
        let mut recovered = recovery.recovered.clone();
        files.make_dir(aside).map_err(failed("creating", aside))?;
        if files.size(MANIFEST).map_err(failed("reading", MANIFEST))?.is_some() {
            let manifest = files.read(MANIFEST, 0, usize::MAX);
            let manifest = manifest.map_err(failed("reading", MANIFEST))?;
            write(files, &format!("{aside}/{MANIFEST}"), &manifest)?;
        }
        for dir in [aside, ""] {
            files.flush_dir(dir).map_err(failed("flushing", dir))?;
        }
        let mut unnamed = self.examined.harmed();
        unnamed.extend(misplaced.keys().copied().chain(recovered.half_superseded()));
        let placed = self.placed(from, files);
        self.rewrite(&placed, files, &unnamed, &mut recovered)?;
        for key in misindexed.difference(&unnamed) {
            // The next start makes it anew.
            remove_index(files, *key)?;
        }
        let manifest = self.finish(files, &recovered)?;
        unnamed.extend(misplaced.values().chain(foreign));
        let named: BTreeSet<_> = recovered.segments.iter().map(|segment| segment.key).collect();
        set_aside(files, aside, unnamed.difference(&named))?;
        Ok(manifest)
    }

    /// The directory as the examination saw it.
    fn placed<'a>(&'a self, from: &'a dyn Files, to: &'a dyn Files) -> Placed<'a> {
        Placed::new(from, to, &self.examined.misplaced).with_indexes(&self.examined.indexes)
    }

    /// Copies what is needed of the segments `keys` into new segments, which then stand for them in
    /// `recovered`.
    fn rewrite(
        &self,
        files: &Placed<'_>,
        to: &dyn Files,
        keys: &BTreeSet<SegmentKey>,
        recovered: &mut Recovered,
    ) -> Result<(), Error> {
        let mut logs: BTreeMap<(u32, u32), Vec<Run>> = BTreeMap::new();
        for &(key, span) in recovered.runs().filter(|(key, _)| keys.contains(key)) {
            logs.entry((key.generation, key.log)).or_default().push((key, span));
        }
        let (replaced, mut segments): (Vec<_>, Vec<_>) =
            recovered.segments.drain(..).partition(|segment| keys.contains(&segment.key));
        for ((generation, log), mut runs) in logs {
            runs.sort_by_key(|(key, span)| (*key, span.stream, span.partition, span.base));
            let ends = || {
                let mine =
                    replaced.iter().filter(|s| (s.key.generation, s.key.log) == (generation, log));
                mine.map(|segment| segment.end)
            };
            let named = self.manifest.sealed.iter().map(|sealed| sealed.key());
            let named =
                named.chain(self.examined.recovery.recovered.segments.iter().map(|s| s.key));
            let taken = named.filter(|k| k.moved && (k.generation, k.log) == (generation, log));
            let next = taken.map(|key| key.sequence + 1).max().unwrap_or(0);
            let (age_ms, wall_ms) =
                ends().map(|end| (end.age_ms, end.wall_ms)).max().unwrap_or_default();
            let job = clean::Job {
                first: SegmentKey::moved(generation, log, next),
                seed: self.manifest.current.seed,
                block: BLOCK,
                segment_bytes: ends().map(|end| end.end).max().unwrap_or_default(),
                wall_ms,
                age_ms,
                runs,
                compaction: None,
            };
            segments.extend(copy_runs(files, to, &job)?);
        }
        recovered.segments = segments;
        recovered.settle();
        Ok(())
    }

    fn finish(&self, files: &dyn Files, recovered: &Recovered) -> Result<Manifest, Error> {
        let dirs: BTreeSet<_> =
            recovered.segments.iter().map(|s| log_dir(s.key.generation, s.key.log)).collect();
        let generations: BTreeSet<_> =
            recovered.segments.iter().map(|s| generation_dir(s.key.generation)).collect();
        let manifest = sealed_manifest(self.manifest, recovered, self.wall_ms);
        let newest = generation_dir(manifest.current.generation);
        files.make_dir(&newest).map_err(failed("creating", &newest))?;
        write_manifest(files, &newest, &manifest)?;
        for dir in dirs.iter().chain(&generations).map(String::as_str).chain([""]) {
            files.flush_dir(dir).map_err(failed("flushing", dir))?;
        }
        write_manifest(files, "", &manifest)?;
        Ok(manifest)
    }
}

/// Copies runs into new segments, which are durable when this returns.
fn copy_runs(
    files: &Placed<'_>,
    to: &dyn Files,
    job: &clean::Job,
) -> Result<Vec<RecoveredSegment>, Error> {
    let dir = log_dir(job.first.generation, job.first.log);
    to.make_dir(&dir).map_err(failed("creating", &dir))?;
    let mut made = Vec::new();
    let ended = clean(files, job, &mut |moved| made.push(moved));
    match ended.failed {
        None => {}
        Some((clean::Error::Io(cause), _)) => return Err(cause.into()),
        Some((harmed, _)) => {
            let changed = std::io::Error::other(harmed);
            return Err(failed("copying out of", &dir)(changed).into());
        }
    }
    let mut segments = Vec::new();
    for moved in made {
        let (key, path) = (moved.key, moved.key.index_path());
        let written = read_index(to, key, identity(job.seed, key))?;
        let Some((end, spans)) = written else {
            let gone = std::io::ErrorKind::InvalidData.into();
            return Err(failed("reading", &path)(gone).into());
        };
        segments.push(RecoveredSegment { key, end, spans });
    }
    Ok(segments)
}

/// Puts files that nothing points to any more out of the way: a segment after its index, so that one
/// that is still there shows.
fn set_aside<'a>(
    files: &dyn Files,
    aside: &str,
    keys: impl Iterator<Item = &'a SegmentKey>,
) -> Result<(), IoError> {
    let mut dirs = BTreeSet::from([aside.to_owned()]);
    for key in keys {
        dirs.insert(log_dir(key.generation, key.log));
        for path in [key.index_path(), key.path()] {
            if files.size(&path).map_err(failed("reading", &path))?.is_some() {
                let kept = format!("{aside}/{}", path.replace('/', "-"));
                files.rename(&path, &kept).map_err(failed("renaming", &path))?;
            }
        }
    }
    for dir in &dirs {
        files.flush_dir(dir).map_err(failed("flushing", dir))?;
    }
    Ok(())
}

fn copy(from: &dyn Files, to: &dyn Files, path: &str, bytes: usize) -> Result<(), IoError> {
    let bytes = from.read(path, 0, bytes).map_err(failed("reading", path))?;
    write(to, path, &bytes)
}

fn write(files: &dyn Files, path: &str, bytes: &[u8]) -> Result<(), IoError> {
    files.create(path, bytes).map_err(failed("writing", path))?;
    files.flush(path).map_err(failed("flushing", path))
}

fn remove_index(files: &dyn Files, key: SegmentKey) -> Result<(), IoError> {
    let (path, dir) = (key.index_path(), log_dir(key.generation, key.log));
    files.remove(&path).map_err(failed("removing", &path))?;
    files.flush_dir(&dir).map_err(failed("flushing", &dir))
}

#[cfg(test)]
mod tests {
    use super::super::index;
    use super::super::inspect::examine;
    use super::super::memory::MemoryFiles;
    use super::super::misplaced;
    use super::super::rig::{FLUSHED, Rig, WRITTEN, manifest, options};
    use super::super::start::read_manifest;
    use super::*;
    use crate::record::batch::for_each_record;
    use crate::record::{PartitionId, StreamId};

    /// A log of some segments, of which two are harmed: a frame of one, the header of the other.
    fn harmed() -> MemoryFiles {
        let mut rig = Rig::new(options());
        for number in 0..12_u8 {
            rig.put(FLUSHED, 0, &[number; 3000]);
            rig.put(FLUSHED, 1, &[number; 100]);
            rig.put(WRITTEN, 0, &[number; 100]);
        }
        let files = MemoryFiles::of(&rig.files);
        write_manifest(&files, "", &manifest(&options())).expect("no limit");
        assert!(rig.key(2).sequence == 2 && rig.files.len() > 4, "some segments");
        let at = rig.segment(0).windows(64).position(|bytes| bytes == [2; 64]);
        files.harm(&rig.key(0).path(), at.expect("the third value"));
        files.harm(&rig.key(1).path(), 20);
        for key in [rig.key(0), rig.key(1)] {
            files.flush(&key.path()).expect("no limit");
        }
        files
    }

    /// Stream, partition, offset, and the value's bytes and first byte, of everything that is there.
    type Contents = BTreeSet<(u32, u32, u64, usize, u8)>;

    fn contents(files: &MemoryFiles) -> (Manifest, Recovered, Contents) {
        let manifest = read_manifest(files).expect("sound").expect("there");
        let mut indexes = BTreeMap::new();
        let found = examine(files, &manifest, &mut |key, index| _ = indexes.insert(key, index));
        let recovered = found.expect("readable").recovered;
        let mut contents = Contents::new();
        for (stream, partition) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let layout = recovered.layout(StreamId(stream), PartitionId(partition));
            for (key, span) in layout.spans {
                let index = &indexes[&key];
                let located = span.entries.expect("in a file");
                let entries = &index[located.at as usize..];
                let file = files.read(&key.path(), 0, usize::MAX).expect("there");
                for number in 0..located.count as usize {
                    let entry = index::IndexEntry::read(entries, number).expect("whole");
                    let batch = &file[entry.position as usize..][..entry.bytes as usize];
                    let whole = for_each_record(batch, &mut Vec::new(), |record| {
                        let value = record.value.expect("no tombstones");
                        let offset = record.offset.0;
                        contents.insert((stream, partition, offset, value.len(), value[0]))
                    });
                    whole.expect("a whole batch");
                }
            }
        }
        (manifest, recovered, contents)
    }

    fn repair(files: &MemoryFiles, to: Option<&MemoryFiles>) -> Result<Manifest, Error> {
        let manifest = read_manifest(files)?.expect("there");
        let misplaced = misplaced::find(files, &manifest)?;
        let examined = Examination::of(files, &manifest, misplaced)?;
        let job = Job { manifest: &manifest, examined: &examined, wall_ms: 5 };
        match to {
            Some(to) => job.copy(files, to),
            None => job.in_place(files, files, "damaged-0"),
        }
    }

    /// Nothing is damaged, the same is there, and what is not is known to be lost.
    fn check_mended(files: &MemoryFiles, before: &MemoryFiles, context: &str) {
        let (_, recovered_before, sound) = contents(before);
        let (manifest, recovered, found) = contents(files);
        assert_eq!(found, sound, "{context}");
        assert_eq!(recovered.damages, [], "{context}");
        assert_eq!(manifest.lost, recovered_before.holes().collect::<Vec<_>>(), "{context}");
        assert_eq!(manifest.lost, recovered.holes().collect::<Vec<_>>(), "{context}");
        for (place, offsets) in &recovered_before.offsets {
            let after = recovered.offsets[place];
            assert_eq!((after.start, after.next), (offsets.start, offsets.next), "{context}");
        }
    }

    #[test]
    fn what_is_sound_is_copied_and_the_rest_is_known_to_be_lost() {
        let files = harmed();
        let to = MemoryFiles::default();
        let manifest = repair(&files, Some(&to)).expect("no limit");
        let lost: Vec<_> =
            manifest.lost.iter().map(|l| (l.stream, l.partition, l.from, l.to)).collect();
        assert_eq!(lost, [(0, 0, 2, 3)]);
        check_mended(&to, &files, "copied");
        to.crash(true);
        check_mended(&to, &files, "after power was lost");
    }

    #[test]
    fn mending_in_place_never_takes_anything_away() {
        let before = harmed();
        let (_, _, sound) = contents(&before);
        for step in 0.. {
            let mut ended = false;
            for power in [false, true] {
                let files = before.clone();
                files.left.set(Some(step));
                ended = repair(&files, None).is_ok();
                files.crash(power);
                let context = format!("step {step}, power {power}");
                assert_eq!(contents(&files).2, sound, "{context}");
                if !ended {
                    repair(&files, None).expect("no limit any more");
                }
                check_mended(&files, &before, &context);
                let names = files.names();
                let kept = names.iter().filter(|name| name.starts_with("damaged-0/"));
                assert!(kept.count() >= 3, "{context}: {names:?}");
            }
            if ended {
                assert!(step > 10, "{step}");
                return;
            }
        }
    }
}
