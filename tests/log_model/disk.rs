//! A simulated directory: what is flushed survives, of the rest a crash keeps any sectors it likes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidegate::log::{FileKey, SegmentKey};

/// What a disk writes whole or not at all.
pub const SECTOR: usize = 512;

/// Small, seeded, good enough: splitmix64.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, 0 where that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug, Clone, Default)]
struct File {
    /// What is surely there after a crash; `None` while the directory entry is not durable.
    durable: Option<Vec<u8>>,
    live: Vec<u8>,
    /// Sectors of `live` that were written since the last flush.
    dirty: BTreeSet<usize>,
}

impl File {
    /// What a crash leaves of the file.
    fn crash(&mut self, random: &mut Random) -> bool {
        let entry_lost = self.durable.is_none() && random.one_in(2);
        let mut left = self.durable.take().unwrap_or_default();
        let sectors = (self.live.len().saturating_sub(left.len())).div_ceil(SECTOR);
        let length = (left.len() + random.below(sectors + 1) * SECTOR).min(self.live.len());
        if length > left.len() {
            left.resize(length, 0);
        }
        // All, none, or each by chance: the extremes are what happens most.
        let mode = random.below(4);
        for &sector in &self.dirty {
            let keep = match mode {
                0 => false,
                1 => true,
                _ => random.one_in(2),
            };
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(left.len()).min(self.live.len());
            if keep && start < end {
                left[start..end].copy_from_slice(&self.live[start..end]);
            }
        }
        self.live.clone_from(&left);
        self.durable = Some(left);
        self.dirty.clear();
        !entry_lost
    }
}

#[derive(Debug)]
pub struct Disk {
    files: BTreeMap<FileKey, File>,
    /// Deleted files whose deletion is not durable, oldest first; the journal keeps their order.
    deleted: VecDeque<(FileKey, File)>,
    pub random: Random,
}

impl Disk {
    pub fn new(seed: u64) -> Self {
        Self { files: BTreeMap::new(), deleted: VecDeque::new(), random: Random(seed) }
    }

    /// Makes a file of `bytes` zeros; durable when this returns.
    pub fn make(&mut self, key: FileKey, bytes: usize) {
        self.files.insert(
            key,
            File { durable: Some(vec![0; bytes]), live: vec![0; bytes], dirty: BTreeSet::new() },
        );
        // The directory was flushed.
        self.deleted.clear();
    }

    /// Begins to make a file; not durable.
    pub fn begin_to_make(&mut self, key: FileKey, bytes: usize) {
        self.files.insert(key, File { live: vec![0; bytes], ..File::default() });
    }

    pub fn exists(&self, key: FileKey) -> bool {
        self.files.contains_key(&key)
    }

    /// Writes; not durable before [`Disk::flush`].
    pub fn write(&mut self, key: FileKey, position: usize, bytes: &[u8]) {
        let file = self.files.entry(key).or_default();
        let end = position + bytes.len();
        if file.live.len() < end {
            file.live.resize(end, 0);
        }
        file.live[position..end].copy_from_slice(bytes);
        file.dirty.extend(position / SECTOR..end.div_ceil(SECTOR));
    }

    /// A log never writes a place twice: whether everything from `position` on is still zero.
    pub fn is_blank(&self, key: FileKey, position: usize, bytes: usize) -> bool {
        let Some(file) = self.files.get(&key) else { return true };
        file.live.iter().skip(position).take(bytes).all(|byte| *byte == 0)
    }

    pub fn flush(&mut self, key: FileKey) {
        let Some(file) = self.files.get_mut(&key) else { return };
        let durable = file.durable.get_or_insert_default();
        durable.resize(file.live.len(), 0);
        for sector in std::mem::take(&mut file.dirty) {
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(file.live.len());
            if start < end {
                durable[start..end].copy_from_slice(&file.live[start..end]);
            }
        }
    }

    /// Up to `bytes` from `position` on; `None` when there is no such file.
    pub fn read(&self, key: FileKey, position: usize, bytes: usize) -> Option<Vec<u8>> {
        let live = &self.files.get(&key)?.live;
        let start = position.min(live.len());
        Some(live[start..(position + bytes).min(live.len())].to_vec())
    }

    pub fn contents(&self, key: FileKey) -> Option<&[u8]> {
        self.files.get(&key).map(|file| file.live.as_slice())
    }

    /// Cuts a file; durable when this returns.
    pub fn cut(&mut self, key: FileKey, bytes: usize) {
        self.flush(key);
        if let Some(file) = self.files.get_mut(&key) {
            file.live.truncate(bytes);
            file.durable.get_or_insert_default().truncate(bytes);
        }
    }

    pub fn delete(&mut self, key: FileKey) {
        if let Some(file) = self.files.remove(&key) {
            self.deleted.push_back((key, file));
        }
    }

    /// Changes bytes behind everyone's back.
    pub fn harm(&mut self, key: FileKey, at: usize, change: impl Fn(&mut [u8])) {
        if let Some(file) = self.files.get_mut(&key) {
            change(&mut file.live[at..]);
            if let Some(durable) = &mut file.durable {
                change(&mut durable[at..]);
            }
        }
    }

    /// Power is lost.
    pub fn crash(&mut self) {
        let Self { files, deleted, random } = self;
        let persisted = random.below(deleted.len() + 1);
        files.extend(deleted.drain(persisted..));
        deleted.clear();
        files.retain(|_, file| file.crash(random));
    }

    /// Files that are not empty, with their bytes.
    pub fn files(&self) -> Vec<(FileKey, usize)> {
        let sizes = self.files.iter().map(|(key, file)| (*key, file.live.len()));
        sizes.filter(|(_, bytes)| *bytes > 0).collect()
    }

    /// Segments of a log, in order.
    pub fn segments(&self, generation: u32, log: u32) -> Vec<SegmentKey> {
        self.files
            .keys()
            .filter_map(|key| match key {
                FileKey::Segment(key) if (key.generation, key.log) == (generation, log) => {
                    Some(*key)
                }
                _ => None,
            })
            .collect()
    }
}
