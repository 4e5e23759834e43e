//! What was redriven already: a file, so that nothing is redriven twice.
//!
//! In: offsets of dead letters. Out: the same, after a stop of any kind. The file is written aside and
//! renamed into place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Offsets of dead letters that were redriven, of one data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redriven {
    /// Kafka's cluster id: of whom they are.
    cluster_id: String,
    /// By partition: ranges from the first to before the second, in order, none of which touch.
    done: BTreeMap<i32, Vec<(i64, i64)>>,
}

impl Redriven {
    /// Reads the file; nothing was redriven where there is none.
    ///
    /// # Errors
    /// As a line for a person: it cannot be read, or is of other data.
    pub fn load(path: &Path, cluster_id: &str) -> Result<Self, String> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { cluster_id: cluster_id.to_owned(), done: BTreeMap::new() });
            }
            Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
        };
        let found: Self = serde_json::from_str(&text)
            .map_err(|error| format!("{} is no file of --state: {error}", path.display()))?;
        if found.cluster_id == cluster_id {
            return Ok(found);
        }
        Err(format!(
            "{} is of another engine's data (cluster id {}, and here {cluster_id})\n  help: name \
             another file with --state",
            path.display(),
            found.cluster_id
        ))
    }

    /// Writes the file, durably.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".new");
        let aside = PathBuf::from(aside);
        let mut file = File::create(&aside)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&aside, path)
    }

    /// Whether a dead letter was redriven.
    pub fn has(&self, partition: i32, offset: i64) -> bool {
        let ranges = self.done.get(&partition).map_or(&[][..], Vec::as_slice);
        let at = ranges.partition_point(|(_, to)| *to <= offset);
        ranges.get(at).is_some_and(|(from, _)| *from <= offset)
    }

    /// A dead letter was redriven.
    pub fn add(&mut self, partition: i32, offset: i64) {
        if self.has(partition, offset) {
            return;
        }
        let ranges = self.done.entry(partition).or_default();
        let at = ranges.partition_point(|(_, to)| *to < offset);
        match ranges.get_mut(at) {
            Some((_, to)) if *to == offset => *to += 1,
            Some((from, _)) if *from == offset + 1 => *from = offset,
            _ => ranges.insert(at, (offset, offset + 1)),
        }
        if let (Some(left), Some(right)) = (ranges.get(at).copied(), ranges.get(at + 1).copied())
            && left.1 == right.0
        {
            ranges[at].1 = right.1;
            ranges.remove(at + 1);
        }
    }

    /// Forgets what retention has let go of.
    pub fn forget_before(&mut self, partition: i32, start: i64) {
        if let Some(ranges) = self.done.get_mut(&partition) {
            ranges.retain(|(_, to)| *to > start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_and_meet() {
        let mut done = Redriven::default();
        let check = |done: &Redriven, expected: &[(i64, i64)]| {
            assert_eq!(done.done[&0], expected);
            let has = |offset| expected.iter().any(|(from, to)| (*from..*to).contains(&offset));
            assert!((0..20).all(|offset| done.has(0, offset) == has(offset)), "{expected:?}");
        };
        for (offset, expected) in [
            (5, &[(5, 6)][..]),
            (7, &[(5, 6), (7, 8)]),
            (5, &[(5, 6), (7, 8)]),
            (6, &[(5, 8)]),
            (10, &[(5, 8), (10, 11)]),
            (9, &[(5, 8), (9, 11)]),
            (1, &[(1, 2), (5, 8), (9, 11)]),
            (8, &[(1, 2), (5, 11)]),
        ] {
            done.add(0, offset);
            check(&done, expected);
        }
        done.forget_before(0, 2);
        check(&done, &[(5, 11)]);
    }

    #[test]
    fn the_file_says_of_whom_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut done = Redriven::load(&path, "a").unwrap();
        done.add(3, 4);
        done.save(&path).unwrap();
        assert_eq!(Redriven::load(&path, "a"), Ok(done));
        assert!(Redriven::load(&path, "b").unwrap_err().contains("of another engine's data"));
        fs::write(&path, "x").unwrap();
        assert!(Redriven::load(&path, "a").unwrap_err().contains("is no file of --state"));
    }
}
