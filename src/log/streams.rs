//! Streams of a running log: more of them, and what they keep from now on.
//!
//! A stream's id is its place, and its partitions' rows stand behind those of the streams before it:
//! what is new stands behind everything, and no row changes its place. Headers of segments that were
//! begun before do not name the new rows; the manifest does, which is durable before a log is told.

use super::recovery::Recovered;
use super::{Log, StreamOptions, partition};

impl Log {
    /// Takes over what each stream keeps and how it is stored, and begins the partitions of those
    /// that are new at offset 0. Each is in the manifest by now, durably, with as many offsets
    /// reserved as [`Recovered::reserve`] says.
    ///
    /// # Panics
    /// When a stream is missing, or one that is there would promise something else or keep its
    /// records in another way: whoever reloads is to refuse that.
    pub fn set_streams(&mut self, streams: Vec<StreamOptions>) {
        let same = |(old, new): (&StreamOptions, &StreamOptions)| {
            old.durability == new.durability && old.compaction.is_some() == new.compaction.is_some()
        };
        assert!(streams.len() >= self.options.streams.len(), "a stream is missing");
        assert!(self.options.streams.iter().zip(&streams).all(same), "a stream is another one");
        let known = self.rows.len();
        let mut new = Recovered::default();
        let durabilities: Vec<_> = streams.iter().map(|stream| stream.durability).collect();
        new.reserve(&durabilities, self.options.partitions);
        self.stored_bytes.resize(streams.len(), 0);
        self.options.streams = streams;
        self.rows.extend(partition::rows(&self.options, &new).drain(known..));
        for (_, index) in &mut self.indexes {
            index.extend(partition::index_rows(&self.rows[known..], &[]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::partition::RESERVED_AHEAD;
    use super::super::rig::{FLUSHED, Rig, WRITTEN, options};
    use super::*;
    use crate::record::{Durability, Offset, PartitionId, StreamId};

    const ADDED: [StreamId; 2] = [StreamId(2), StreamId(3)];

    fn grown() -> Vec<StreamOptions> {
        let streams = options().streams;
        streams.iter().chain(&streams).copied().collect()
    }

    /// Records before, in the commit under way, and after.
    #[test]
    fn streams_come_between_two_records_of_a_commit() {
        let mut rig = Rig::new(options());
        rig.put(FLUSHED, 0, b"before");
        rig.append(FLUSHED, 0, b"waits").expect("room");
        rig.append(WRITTEN, 0, b"waits").expect("room");
        assert!(rig.append(ADDED[0], 0, b"unknown").is_err());
        rig.log.set_streams(grown());
        for stream in [FLUSHED, WRITTEN, ADDED[0], ADDED[1]] {
            rig.put(stream, 0, b"after");
        }
        let end = |stream| rig.log.bounds(stream, PartitionId(0)).expect("owned").committed.end().0;
        assert_eq!([FLUSHED, WRITTEN, ADDED[0], ADDED[1]].map(end), [3, 2, 1, 1]);
        let row = |stream| &rig.log.rows[rig.log.row_index(stream, PartitionId(0)).expect("owned")];
        assert_eq!(row(ADDED[0]).ceiling, None);
        assert_eq!(row(ADDED[1]).ceiling, Some(Offset(RESERVED_AHEAD)));
        let found = rig.sound();
        assert_eq!(found.offsets[&(2, 0)].next, Offset(1));
    }

    /// The segments' indexes have the new rows, those of full segments too.
    #[test]
    fn new_streams_are_read_from_memory_and_from_index_files() {
        let mut rig = Rig::new(options());
        rig.fill_to(1);
        rig.log.set_streams(grown());
        rig.put(ADDED[0], 1, b"new");
        rig.fill_to(3);
        rig.put(ADDED[0], 1, b"newer");
        let expected = vec![(0, b"new".to_vec()), (1, b"newer".to_vec())];
        assert_eq!(rig.read(ADDED[0], 1, 0), Ok(expected));
    }

    #[test]
    fn what_is_kept_may_change_and_what_is_promised_may_not() {
        let mut rig = Rig::new(options());
        let mut streams = grown();
        streams[0].retention_bytes = 7;
        rig.log.set_streams(streams.clone());
        assert_eq!(rig.log.options().streams[0].retention_bytes, 7);
        streams[0].durability = Durability::Memory;
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            rig.log.set_streams(streams);
        }));
        assert!(refused.is_err());
    }
}
