//! Segments as files: made ready, deleted, used again.
//!
//! A segment that was filled with zeros once, and written, costs nothing to be written again: its
//! space is there. So what would be deleted is renamed into the directory of spare files, as long as
//! there are few, and the next segment to be made takes one of those. Its first block is wiped
//! before, durably: a start so knows a segment that was never begun. The frames behind it are of
//! another identity, and mean nothing.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use glommio::io::{DmaFile, OpenOptions, remove};

use super::{Options, RETRY_AFTER, Shared, sync_dir};
use crate::config::Prepare;
use crate::driver::data_dir::{index_path, log_dir, segment_path};
use crate::driver::disk;
use crate::log::{FileKey, SegmentKey};

/// Bytes of zeros written at once when a segment is made.
const ZEROS_BYTES: usize = 128 << 10;
/// How long the zeros pause between two writes while another segment is ready: commits go between.
const ZEROS_PAUSE: Duration = Duration::from_millis(1);

/// Where files wait for being used again.
#[derive(Debug, Clone)]
pub struct Spare {
    /// The directory.
    pub dir: PathBuf,
    /// This shard, and all shards: of what an earlier start left each takes its share.
    pub shard: u32,
    /// Shards of this run.
    pub shards: u32,
    /// Files that wait at the most.
    pub files_max: usize,
}

/// The files of one shard that wait for being used again.
pub struct Spares {
    waiting: VecDeque<PathBuf>,
    /// The number in the name of the next one.
    next: u64,
}

impl Spares {
    /// What an earlier start left: files of the right size are this shard's if their numbers are;
    /// others are deleted.
    pub fn find(options: &Options) -> Self {
        let spare = &options.spare;
        let mut found = Self { waiting: VecDeque::new(), next: u64::from(spare.shard) };
        // A directory that cannot be read has nothing to offer.
        for entry in fs::read_dir(&spare.dir).into_iter().flatten().filter_map(Result::ok) {
            let name = entry.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok());
            let Some(number) =
                number.filter(|n| n % u64::from(spare.shards) == u64::from(spare.shard))
            else {
                continue;
            };
            found.next = found.next.max(number + u64::from(spare.shards));
            let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
            if bytes == options.segment_bytes && found.waiting.len() < spare.files_max {
                found.waiting.push_back(entry.path());
            } else if let Err(cause) = fs::remove_file(entry.path()) {
                tracing::warn!("deleting {} failed: {cause}", entry.path().display());
            }
        }
        found
    }
}

impl Shared {
    fn take_spare(&self) -> Option<PathBuf> {
        self.spares.borrow_mut().waiting.pop_front()
    }

    /// Puts the file of a segment aside for being used again, if it is of use and few are. Whether
    /// it did.
    fn keep_spare(&self, segment: &Path) -> bool {
        let (spares, spare) = (&mut *self.spares.borrow_mut(), &self.options.spare);
        let bytes = fs::metadata(segment).map_or(0, |metadata| metadata.len());
        if self.options.prepare == Prepare::Append
            || spares.waiting.len() >= spare.files_max
            || bytes != self.options.segment_bytes
        {
            return false;
        }
        let path = spare.dir.join(format!("{:010}.log", spares.next));
        // Where it does not work the segment is deleted instead.
        let moved = fs::create_dir_all(&spare.dir).and_then(|()| fs::rename(segment, &path));
        if moved.is_ok() {
            spares.next += u64::from(spare.shards);
            spares.waiting.push_back(path);
        }
        moved.is_ok()
    }

    /// Makes a spare file the file of segment `key`: its first block is wiped, and only then it gets
    /// its name.
    async fn use_again(&self, spare: &Path, key: SegmentKey) -> io::Result<DmaFile> {
        // Before it is wiped it must be gone under its old name, also after a crash.
        sync_dir(self.options.spare.dir.clone()).await?;
        let file = OpenOptions::new().read(true).write(true).dma_open(spare).await?;
        let mut block = file.alloc_dma_buffer(ZEROS_BYTES.min(self.options.segment_bytes as usize));
        block.as_bytes_mut().fill(0);
        let bytes = block.len();
        if file.write_at(block, 0).await? != bytes {
            return Err(io::ErrorKind::WriteZero.into());
        }
        file.fdatasync().await?;
        let path = segment_path(&self.options.dir, key);
        file.rename(&path).await?;
        sync_dir(log_dir(&self.options.dir, key.generation, key.log)).await?;
        Ok(file)
    }

    /// Makes the file of a segment: space, zeros where commits are to overwrite, all of it and the
    /// directory entry flushed.
    pub(super) async fn make_segment(&self, key: SegmentKey) -> io::Result<()> {
        while let Some(spare) = self.take_spare() {
            match self.use_again(&spare, key).await {
                Ok(file) => {
                    self.writable.borrow_mut().insert(key, Rc::new(file));
                    return Ok(());
                }
                Err(cause) => {
                    tracing::warn!("{} cannot be used again: {cause}", spare.display());
                    delete(&spare).await?;
                }
            }
        }
        let bytes = self.options.segment_bytes;
        let (free, _) = disk::space(&self.options.dir)?;
        if free < bytes + self.options.reserve_bytes {
            let text = format!(
                "{} MiB are free, a segment takes {} MiB and {} MiB are kept free (log.reserve_bytes)",
                free >> 20,
                bytes >> 20,
                self.options.reserve_bytes >> 20
            );
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        let path = segment_path(&self.options.dir, key);
        let made = self.fill_segment(&path, bytes).await;
        match made {
            Ok(file) => {
                sync_dir(log_dir(&self.options.dir, key.generation, key.log)).await?;
                self.writable.borrow_mut().insert(key, Rc::new(file));
                Ok(())
            }
            Err(cause) => {
                // Half a segment only takes the space that is wanting; it holds nothing.
                let _ = remove(&path).await;
                Err(cause)
            }
        }
    }

    async fn fill_segment(&self, path: &Path, bytes: u64) -> io::Result<DmaFile> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .dma_open(path)
            .await?;
        let zeros = self.options.prepare != Prepare::Append;
        file.pre_allocate(bytes, !zeros).await?;
        if zeros {
            let mut buffer = file.alloc_dma_buffer(ZEROS_BYTES);
            buffer.as_bytes_mut().fill(0);
            let buffer = Rc::new(buffer);
            let mut at = 0;
            while at < bytes {
                // Segments are multiples of 4096, not of this buffer.
                let length = (bytes - at).min(ZEROS_BYTES as u64);
                let piece = if length == ZEROS_BYTES as u64 {
                    Rc::clone(&buffer)
                } else {
                    let mut rest = file.alloc_dma_buffer(length as usize);
                    rest.as_bytes_mut().fill(0);
                    Rc::new(rest)
                };
                let written = file.write_rc_at(piece, at).await?;
                if written as u64 != length {
                    return Err(io::Error::from_raw_os_error(libc::ENOSPC));
                }
                at += length;
                if !self.hurry.get() {
                    glommio::timer::sleep(ZEROS_PAUSE).await;
                }
            }
        }
        file.fdatasync().await?;
        Ok(file)
    }

    /// Deletes in the order that was asked for, segment before index, and goes on only when each is
    /// gone: a segment that is missing behind one that is there would be damage.
    pub(super) async fn delete_all(&self) {
        loop {
            let Some(key) = self.deletions.borrow().front().copied() else { break };
            self.writable.borrow_mut().remove(&key);
            let segment = segment_path(&self.options.dir, key);
            let index = index_path(&self.options.dir, key);
            for file in [FileKey::Segment(key), FileKey::Index(key)] {
                self.opened.borrow_mut().retain(|(opened, _)| *opened != file);
            }
            let again = self.keep_spare(&segment);
            for path in [segment, index] {
                while let Err(cause) = delete(&path).await {
                    tracing::warn!("deleting {} failed, trying again: {cause}", path.display());
                    glommio::timer::sleep(RETRY_AFTER).await;
                }
            }
            let how = if again { "is used again" } else { "deleted" };
            tracing::info!("segment {} {how}: nothing in it is kept any more", key.stem());
            self.deletions.borrow_mut().pop_front();
        }
        self.deleting.set(false);
    }
}

/// Deletes a file that may be gone already.
async fn delete(path: &Path) -> io::Result<()> {
    match remove(path).await.map_err(io::Error::from) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}
