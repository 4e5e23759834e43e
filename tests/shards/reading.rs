//! Reading what the logs hold: as consumers do, whose reads wait for the disk, and all of it at once
//! after a start, against the ledger.

use tidegate::log::{Outcome, Request};
use tidegate::record::{Offset, PartitionId, StreamId};

use crate::disk::Disk;
use crate::ledger::{Found, Ledger, Loss};
use crate::node::Node;
use crate::setup::Place;
use crate::storage::Event;
use crate::world::World;

/// Bytes that a consumer asks for.
const FETCH_BYTES: usize = 4096;

impl Node {
    /// What the log gives a consumer from an offset on: offsets and messages.
    fn read(
        &mut self,
        place: Place,
        from: u64,
        ledger: &mut Ledger,
        into: &mut Vec<(u64, usize)>,
    ) -> Outcome {
        let at = (StreamId(place.stream as u32), PartitionId(place.partition));
        let log = self.shard().log();
        log.read(at, Offset(from), FETCH_BYTES, true, |batch| ledger.take_batch(place, batch, into))
    }

    /// As [`Node::read`], with the disk answering at once.
    fn read_now(
        &mut self,
        place: Place,
        from: u64,
        disk: &mut Disk,
        ledger: &mut Ledger,
        into: &mut Vec<(u64, usize)>,
    ) -> Outcome {
        loop {
            let outcome = self.read(place, from, ledger, into);
            let mut requests = Vec::new();
            self.shard().log().take_requests(&mut requests);
            for request in requests {
                match request {
                    Request::Read(read) => {
                        let bytes = self.storage.read(disk, &read);
                        self.on_event(Event::Read(read, bytes));
                    }
                    other => self.storage.start(other),
                }
            }
            if outcome != Outcome::Pending {
                return outcome;
            }
        }
    }

    fn bounds(&mut self, place: Place) -> (u64, u64, u64) {
        let (stream, partition) = (StreamId(place.stream as u32), PartitionId(place.partition));
        let bounds = self.shard().log().bounds(stream, partition).expect("its own");
        (bounds.start.0, bounds.committed.end().0, bounds.next.0)
    }
}

impl World {
    fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let partitions = self.setup.partitions();
        let streams = 0..self.setup.streams.len();
        streams.flat_map(move |stream| {
            (0..partitions).map(move |partition| Place { stream, partition })
        })
    }

    /// What a start found is what had to be there after `loss`.
    pub fn take_stock(&mut self, loss: Loss) {
        let calm = std::mem::replace(&mut self.disk.calm, true);
        for place in self.places() {
            let found = self.find(place);
            self.ledger.restarted(place, &found, loss);
        }
        self.disk.calm = calm;
    }

    /// Everything that a place offers.
    fn find(&mut self, place: Place) -> Found {
        let node = &mut self.nodes[self.setup.owner(place)];
        let (start, committed, next) = node.bounds(place);
        let mut found = Found { start, committed, next, ..Found::default() };
        let known = self.ledger.offsets(place, start, committed);
        let mut known = known.into_iter().peekable();
        let mut from = start;
        loop {
            let ledger = &mut self.ledger;
            match node.read_now(place, from, &mut self.disk, ledger, &mut found.records) {
                Outcome::Data(_, next) => from = next.0,
                Outcome::Damaged => {
                    // On behind it: whatever is known to stand there.
                    while known.next_if(|offset| *offset < from).is_some() {}
                    if let Some(offset) = known.next_if_eq(&from) {
                        found.fenced.push(offset);
                    }
                    let Some(next) = known.peek() else { return found };
                    from = *next;
                }
                Outcome::End => return found,
                Outcome::Pending | Outcome::OutOfRange => {
                    panic!("{place:?} from {from}: {start}..{committed}..{next}")
                }
            }
        }
    }

    /// Everything that can be read is what was written; all of it can be.
    pub fn read_all(&mut self) {
        for place in self.places() {
            let found = self.find(place);
            let read = |offset: &u64| found.records.binary_search_by_key(offset, |r| r.0).is_ok();
            let compacted = self.ledger.compacted(place, &found);
            for offset in self.ledger.offsets(place, found.start, found.committed) {
                let there = read(&offset)
                    || compacted.contains(&offset)
                    || self.ledger.harmed && found.fenced.contains(&offset);
                assert!(there, "{place:?} cannot be read at {offset}");
            }
        }
    }

    /// A consumer reads from somewhere in a place. Whether it was given something.
    pub fn consume(&mut self, place: Place) -> bool {
        let node = &mut self.nodes[self.setup.owner(place)];
        if node.shard.is_none() {
            return false;
        }
        let (start, committed, _) = node.bounds(place);
        let known = self.ledger.offsets(place, start, committed);
        let from = match known.get(self.random.below(known.len())) {
            Some(offset) => *offset,
            None => start,
        };
        let mut records = Vec::new();
        let outcome = node.read(place, from, &mut self.ledger, &mut records);
        node.ask_storage();
        match outcome {
            Outcome::Data(_, end) => self.ledger.check_read(place, from, end.0, &records),
            Outcome::End => self.ledger.check_read(place, from, committed, &[]),
            Outcome::Pending => return false,
            Outcome::Damaged => {
                let may = self.ledger.harmed || self.disk.failed_reads > 0;
                assert!(may, "{place:?} cannot be read from {from} on");
            }
            Outcome::OutOfRange => panic!("{place:?} from {from}: {start}..{committed}"),
        }
        true
    }
}
