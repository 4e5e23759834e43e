//! The commits of a process: how far each came, and what is left of them on the disk that shows how
//! far the log was durable. Comes in: what was sealed, written and flushed, and the disk after a
//! crash. Goes out: which commits outlive it, and which no start may take for a torn tail.

use tidegate::log::segment::SegmentHeader;
use tidegate::log::{SegmentKey, frame};

use crate::disk::Disk;
use crate::ledger::Loss;

/// A commit: its shard, and its number among those of this start.
pub type Number = (usize, usize);

/// The frame of a commit.
#[derive(Debug, Clone, Copy)]
pub struct Sealed {
    /// In which file; a flush concerns one.
    pub segment: SegmentKey,
    /// The frame's first byte in it, behind the header if there is one.
    pub at: usize,
    pub bytes: usize,
    pub crc: u32,
    /// CRC of the header in front of it.
    pub header: Option<u32>,
}

#[derive(Debug)]
struct Commit {
    sealed: Sealed,
    /// The commits of its shard that were flushed when it was sealed, as its frame says.
    proves: usize,
    written: bool,
    flushed: bool,
    /// What it proves can be read on the disk, as the last crash left it.
    whole: bool,
}

/// By shard.
#[derive(Debug, Default)]
pub struct Commits {
    commits: Vec<Vec<Commit>>,
    /// So many of each shard are shown to have been durable by what is left on the disk.
    proven: Vec<usize>,
}

impl Commits {
    /// Of a process with so many shards.
    pub fn new(shards: u32) -> Self {
        let commits = (0..shards).map(|_| Vec::new()).collect();
        Self { commits, proven: vec![0; shards as usize] }
    }

    pub fn count(&self) -> usize {
        self.commits.iter().map(Vec::len).sum()
    }

    pub fn sealed(&mut self, shard: usize, sealed: Sealed) -> Number {
        let commits = &mut self.commits[shard];
        let proves = commits.iter().rposition(|commit| commit.flushed).map_or(0, |last| last + 1);
        commits.push(Commit { sealed, proves, written: false, flushed: false, whole: false });
        (shard, commits.len() - 1)
    }

    /// The last commit of a shard is on the device.
    pub fn written(&mut self, shard: usize) {
        self.commits[shard].last_mut().expect("a commit").written = true;
    }

    /// The last commit of a shard is flushed, and with it what its file held before.
    pub fn flushed(&mut self, shard: usize) {
        let segment = self.commits[shard].last().expect("a commit").sealed.segment;
        let of_file = self.commits[shard].iter_mut().rev();
        of_file.take_while(|c| c.sealed.segment == segment).for_each(|c| c.flushed = true);
    }

    /// Whether a commit outlives a loss on a disk that does what it says.
    pub fn outlives(&self, (shard, commit): Number, loss: Loss) -> bool {
        let commit = &self.commits[shard][commit];
        commit.flushed || (commit.written && loss == Loss::Process)
    }

    /// The process has ended: this is what it left.
    pub fn look_at(&mut self, disk: &Disk) {
        for (commits, proven) in self.commits.iter_mut().zip(&mut self.proven) {
            commits.iter_mut().for_each(|commit| commit.whole = commit.is_whole(disk));
            let whole = commits.iter().filter(|commit| commit.whole);
            *proven = whole.map(|commit| commit.proves).max().unwrap_or(0);
        }
    }

    /// Whether a frame that is left shows that a commit was durable.
    pub fn is_proven(&self, (shard, commit): Number) -> bool {
        commit < self.proven[shard]
    }

    /// What is left of the commits of a segment, and of those behind it.
    pub fn describe(&self, (shard, commit): Number) -> String {
        let behind = self.commits[shard].iter().enumerate().skip(commit.saturating_sub(2));
        behind.take(8).map(|(number, commit)| format!("\n  {number}: {commit:?}")).collect()
    }
}

impl Commit {
    /// Whether the frame is as it was written. Of the first commit of a file it is the header that
    /// counts: only that knows how the file before ended. The two are one write, of which a power cut
    /// may leave the frame alone, and then the file was as good as never begun; were it damage, the
    /// offsets of every partition would jump after an honest power cut.
    fn is_whole(&self, disk: &Disk) -> bool {
        let Sealed { segment, at, bytes, crc, header } = self.sealed;
        let Some(file) = disk.find(&segment.path()) else { return false };
        match header {
            Some(crc) => SegmentHeader::read(&disk.peek(file, 0, at)).is_some_and(|h| h.2 == crc),
            None => frame::read(&disk.peek(file, at, bytes)).is_some_and(|f| f.crc == crc),
        }
    }
}
