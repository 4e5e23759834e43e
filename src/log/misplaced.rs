//! Segments whose files have changed places: what the headers say against the names.
//!
//! Comes in: a directory and its manifest. Goes out: which segment's bytes are under which other one's
//! name; and a view of the directory in which each is under its own. Only a header that holds, of a
//! segment that this directory has, moves anything, and only to where nothing of that segment is.
//! Nothing is changed. Deliberately absent: use in a start, which would have to read more for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::files::{Files, failed};
use super::index::{decode_directory, entries_of};
use super::inspect::{keys, log_dirs, read_header};
use super::manifest::Manifest;
use super::scan::holds_frames_of;
use super::segment::{SegmentKey, identity, log_dir};
use super::start::Error;
use crate::record::StableBytes;

/// By segment: under whose name its bytes are.
pub type Misplaced = BTreeMap<SegmentKey, SegmentKey>;

/// Finds them.
///
/// # Errors
/// The file system's.
pub fn find(files: &dyn Files, manifest: &Manifest) -> Result<Misplaced, Error> {
    let identities: BTreeMap<_, _> =
        manifest.sealed.iter().map(|sealed| (sealed.key(), sealed.identity)).collect();
    let current = manifest.current;
    let identity_of = |key: SegmentKey| {
        let is_current = key.generation == current.generation && key.log < current.shards;
        identities.get(&key).copied().or(is_current.then(|| identity(current.seed, key)))
    };
    let (mut claims, mut at_home) = (Misplaced::new(), BTreeSet::new());
    for (generation, log) in log_dirs(files)? {
        for key in keys(files, generation, log)? {
            let Some(header) = read_header(files, key)? else { continue };
            if identity_of(header.key) != Some(header.identity) {
                continue;
            }
            match header.key == key {
                true => _ = at_home.insert(key),
                false => _ = claims.entry(header.key).or_insert(key),
            }
        }
    }
    claims.retain(|key, _| !at_home.contains(key));
    let mut found = Misplaced::new();
    for (key, holder) in claims {
        let Some(identity) = identity_of(key) else { continue };
        if !holds_something_of(files, key, identity)? {
            found.insert(key, holder);
        }
    }
    Ok(found)
}

/// Whether the file of a segment whose header is lost has anything of it: a frame, or a batch that
/// its index names.
fn holds_something_of(files: &dyn Files, key: SegmentKey, identity: u64) -> Result<bool, Error> {
    let (path, index_path) = (key.path(), key.index_path());
    if files.size(&path).map_err(failed("reading", &path))?.is_none() {
        return Ok(false);
    }
    let file = files.whole(&path).map_err(failed("reading", &path))?;
    if holds_frames_of(identity, file.as_bytes()) {
        return Ok(true);
    }
    if files.size(&index_path).map_err(failed("reading", &index_path))?.is_none() {
        return Ok(false);
    }
    let index = files.read(&index_path, 0, usize::MAX).map_err(failed("reading", &index_path))?;
    let directory = decode_directory(&index).filter(|(end, _)| end.identity == identity);
    let spans = directory.map(|(_, spans)| spans).unwrap_or_default();
    Ok(spans.iter().any(|span| {
        let entries = entries_of(&index, span).unwrap_or_default();
        entries.iter().any(|e| e.batch_of((span.stream, span.partition), file.as_bytes()).is_some())
    }))
}

/// A directory as it is read when each segment has its own name. What is written goes elsewhere.
pub struct Placed<'a> {
    from: &'a dyn Files,
    to: &'a dyn Files,
    misplaced: &'a Misplaced,
    /// Under whose path each misplaced segment's bytes are.
    paths: BTreeMap<String, String>,
    /// Contents of index files that stand for those on disk.
    indexes: BTreeMap<String, &'a [u8]>,
}

impl<'a> Placed<'a> {
    /// Reads `from`, writes `to`.
    pub fn new(from: &'a dyn Files, to: &'a dyn Files, misplaced: &'a Misplaced) -> Self {
        let paths = misplaced.iter().map(|(key, holder)| (key.path(), holder.path())).collect();
        Self { from, to, misplaced, paths, indexes: BTreeMap::new() }
    }

    /// With these indexes instead of the files.
    #[must_use]
    pub fn with_indexes(mut self, indexes: &'a BTreeMap<SegmentKey, Vec<u8>>) -> Self {
        self.indexes = indexes.iter().map(|(key, index)| (key.index_path(), &index[..])).collect();
        self
    }

    /// Where the bytes of `path` are.
    pub fn path<'b>(&'b self, path: &'b str) -> &'b str {
        self.paths.get(path).map_or(path, String::as_str)
    }
}

impl Files for Placed<'_> {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = self.from.list(dir)?;
        for key in self.misplaced.keys().filter(|key| log_dir(key.generation, key.log) == dir) {
            let path = key.path();
            let name = path.rsplit('/').next().unwrap_or_default();
            if names.iter().all(|there| there != name) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn size(&self, path: &str) -> io::Result<Option<u64>> {
        match self.indexes.get(path) {
            Some(index) => Ok(Some(index.len() as u64)),
            None => self.from.size(self.path(path)),
        }
    }

    fn read(&self, path: &str, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let Some(index) = self.indexes.get(path) else {
            return self.from.read(self.path(path), at, bytes);
        };
        let start = usize::try_from(at).unwrap_or(usize::MAX).min(index.len());
        Ok(index[start..start.saturating_add(bytes).min(index.len())].to_vec())
    }

    fn whole<'b>(&'b self, path: &str) -> io::Result<Box<dyn StableBytes + 'b>> {
        self.from.whole(self.path(path))
    }

    fn create(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.to.create(path, bytes)
    }

    fn append(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.to.append(path, bytes)
    }

    fn resize(&self, path: &str, bytes: u64) -> io::Result<()> {
        self.to.resize(path, bytes)
    }

    fn flush(&self, path: &str) -> io::Result<()> {
        self.to.flush(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.to.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.to.remove(path)
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.to.make_dir(dir)
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.to.remove_dir(dir)
    }

    fn flush_dir(&self, dir: &str) -> io::Result<()> {
        self.to.flush_dir(dir)
    }
}
