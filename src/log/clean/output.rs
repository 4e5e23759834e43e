//! Writing a moved segment: aside, flushed, with its index, and then under its name.
//!
//! In: ranges and their batches. Out: a file that is whole under its own name or not there at all,
//! and the index beside it. The order is what crashes are met with: the bytes of both are flushed
//! before either gets its name, and the directory is flushed before anyone is told.

use super::super::files::Files;
use super::super::frame::{
    ENTRY_ALIGN, ENTRY_HEADER_BYTES, FrameHeader, FrameWriter, HEADER_BYTES,
};
use super::super::index::{self, IndexEntry, IndexRow, SegmentEnd};
use super::super::segment::{self, SegmentHeader, SegmentKey, log_dir};
use super::{Error, Job, Moved, Part, Run};
use crate::log::files::failed;
use crate::record::Offset;
use crate::record::batch::BatchHeader;

/// Bytes at which a frame is written and the next begun.
const FRAME_BYTES: usize = 256 << 10;

/// What the frame that is being gathered holds.
enum Entry {
    Range,
    /// Of so many bytes.
    Batch(usize),
}

/// A moved segment that is being written.
pub struct Output<'a> {
    files: &'a dyn Files,
    job: &'a Job,
    key: SegmentKey,
    identity: u64,
    /// Bytes of the file so far.
    at: u64,
    /// CRC of the last frame, or the header.
    crc: u32,
    /// Of the frame that is being gathered: its entries, each of a row, its batches, its size.
    entries: Vec<(usize, Entry)>,
    batches: Vec<u8>,
    frame_bytes: usize,
    rows: Vec<IndexRow>,
    sources: Vec<Run>,
}

impl<'a> Output<'a> {
    /// Begins the file of `key`, under another name.
    pub fn begin(files: &'a dyn Files, job: &'a Job, key: SegmentKey) -> Result<Self, Error> {
        let identity = segment::identity(job.seed, key);
        let header = SegmentHeader {
            key,
            block: job.block as u32,
            identity,
            previous_identity: 0,
            base_position: 0,
            previous_crc: 0,
            partitions: Vec::new(),
        };
        let mut bytes = vec![0; segment::header_bytes(0, job.block)];
        let (written, crc) = header.write(&mut bytes);
        let output = Self {
            files,
            job,
            key,
            identity,
            at: written as u64,
            crc,
            entries: Vec::new(),
            batches: Vec::new(),
            frame_bytes: HEADER_BYTES,
            rows: Vec::new(),
            sources: Vec::new(),
        };
        let path = output.aside();
        files.create(&path, &bytes).map_err(failed("writing", &path))?;
        Ok(output)
    }

    fn aside(&self) -> String {
        format!("{}.new", self.key.path())
    }

    fn index_aside(&self) -> String {
        format!("{}.new", self.key.index_path())
    }

    /// Whether batches of `bytes` still fit, what frames cost apart.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.at + self.frame_bytes as u64 + bytes <= self.job.segment_bytes
    }

    /// Begins a range; its batches follow. Returns its row.
    pub fn begin_range(&mut self, part: &Part) -> usize {
        let (_, (_, span)) = part.runs[0];
        self.rows.push(IndexRow {
            stream: span.stream,
            partition: span.partition,
            // Reservations stay with the chain: its newest header has them all.
            ceiling: Offset(0),
            range: Some(part.range),
            entries: Vec::new(),
        });
        self.entries.push((self.rows.len() - 1, Entry::Range));
        self.frame_bytes += ENTRY_HEADER_BYTES + 24;
        self.rows.len() - 1
    }

    /// Adds a batch to the range of `row`.
    pub fn batch(&mut self, row: usize, batch: &[u8]) -> Result<(), Error> {
        self.entries.push((row, Entry::Batch(batch.len())));
        self.batches.extend_from_slice(batch);
        self.frame_bytes += (ENTRY_HEADER_BYTES + batch.len()).next_multiple_of(ENTRY_ALIGN);
        if self.frame_bytes >= FRAME_BYTES { self.write_frame() } else { Ok(()) }
    }

    /// Notes runs that it stands for.
    pub fn stands_for(&mut self, runs: impl Iterator<Item = Run>) {
        self.sources.extend(runs);
    }

    fn write_frame(&mut self) -> Result<(), Error> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let mut out = vec![0; self.frame_bytes.next_multiple_of(self.job.block)];
        let mut writer = FrameWriter::new(&mut out);
        let mut rest = self.batches.as_slice();
        for (row, entry) in self.entries.drain(..) {
            let row = &mut self.rows[row];
            match entry {
                Entry::Range => {
                    if let Some(range) = row.range {
                        writer.range(row.stream, row.partition, range);
                    }
                }
                Entry::Batch(bytes) => {
                    let (batch, behind) = rest.split_at(bytes);
                    rest = behind;
                    let (at, _) = writer.batch(row.stream, row.partition, |out| {
                        out[..bytes].copy_from_slice(batch);
                        bytes
                    });
                    let position = self.at as u32 + at as u32;
                    let header = BatchHeader::read(batch);
                    row.entries.extend(header.map(|header| IndexEntry::of(&header, position)));
                }
            }
        }
        let header = FrameHeader {
            previous_crc: self.crc,
            segment_identity: self.identity,
            position: self.at,
            durable: 0,
            wall_ms: self.job.wall_ms,
            age_ms: self.job.age_ms,
            entry_count: 0,
            flags: 0,
        };
        let (bytes, crc) = writer.finish(&header, self.job.block);
        let path = self.aside();
        self.files.append(&path, &out[..bytes]).map_err(failed("writing", &path))?;
        self.at += bytes as u64;
        self.crc = crc;
        self.batches.clear();
        self.frame_bytes = HEADER_BYTES;
        Ok(())
    }

    /// Makes it durable under its name.
    pub fn finish(mut self) -> Result<Moved, Error> {
        match self.try_finish() {
            Ok(moved) => Ok(moved),
            Err(error) => {
                self.abandon();
                Err(error)
            }
        }
    }

    fn try_finish(&mut self) -> Result<Moved, Error> {
        self.write_frame()?;
        let end = SegmentEnd {
            identity: self.identity,
            end: self.at,
            last_crc: self.crc,
            clean: false,
            wall_ms: self.job.wall_ms,
            age_ms: self.job.age_ms,
        };
        // As a start would find them that had to look through the segment.
        self.rows.sort_by_key(|row| (row.stream, row.partition));
        let (bytes, spans) = index::encode(&end, &self.rows, self.job.block);
        let (segment, index) = (self.aside(), self.index_aside());
        let files = self.files;
        files.create(&index, &bytes).map_err(failed("writing", &index))?;
        for path in [&segment, &index] {
            if !mutated!(MovedUnflushed) {
                files.flush(path).map_err(failed("flushing", path))?;
            }
        }
        files.rename(&segment, &self.key.path()).map_err(failed("renaming", &segment))?;
        files.rename(&index, &self.key.index_path()).map_err(failed("renaming", &index))?;
        let dir = log_dir(self.key.generation, self.key.log);
        files.flush_dir(&dir).map_err(failed("flushing", &dir))?;
        let sources = std::mem::take(&mut self.sources);
        Ok(Moved { key: self.key, bytes: self.at + bytes.len() as u64, spans, sources })
    }

    /// Removes what there is of it. Where that fails as well, a start does: what is left is either
    /// not whole, and goes, or a whole copy, and counts.
    pub fn abandon(self) {
        let key = self.key;
        for path in [self.aside(), self.index_aside(), key.path(), key.index_path()] {
            let _ = self.files.remove(&path);
        }
    }
}
