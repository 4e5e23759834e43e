//! Records that arrive from other shards: granted ahead, appended, settled.
//!
//! What is granted to another shard is room kept in the buffer that gathers the next commit, so that
//! whatever arrives is appended at once; it is settled when its commit has reached what its stream
//! promises. The invariant: credits above the standing one are granted whole, and half of the buffer
//! is never granted.

use std::collections::VecDeque;

use super::crossing::Crossing;
use crate::log::{Log, Ticket};
use crate::record::ShardId;
use crate::ring::Inbound;

struct Receiving {
    lane: Inbound<Crossing>,
    arrived: u64,
    /// What is appended and not settled: the ticket, and the count of arrivals up to which it
    /// stands, oldest first.
    due: VecDeque<(Ticket, u64)>,
    /// The record in front found no room.
    blocked: bool,
    /// More than the standing credit was granted, and the sender does not know yet.
    generous: bool,
}

/// The lanes that lead to a shard, by the other shard's number.
pub struct Arriving {
    receiving: Vec<Option<Receiving>>,
    /// Credit that every lane has at least.
    standing: u64,
    /// The lane that comes first at the next turn.
    first: usize,
}

impl Arriving {
    pub fn new(from: Vec<(ShardId, Inbound<Crossing>)>, shards: usize, standing: u64) -> Self {
        let mut receiving: Vec<_> = (0..shards).map(|_| None).collect();
        for (peer, lane) in from {
            let due = VecDeque::new();
            let receiving = &mut receiving[peer.index()];
            *receiving = Some(Receiving { lane, arrived: 0, due, blocked: false, generous: false });
        }
        Self { receiving, standing, first: 0 }
    }

    /// Appends what has arrived from other shards, while there is room, and grants anew. `append`
    /// gets each record. Returns how many were taken.
    pub fn take_arrived(
        &mut self,
        log: &mut Log,
        mut append: impl FnMut(&mut Log, &Crossing) -> Option<(Ticket, u64)>,
    ) -> u64 {
        let lanes = self.receiving.len();
        let mut taken = 0;
        for turn in 0..lanes {
            let index = (self.first + turn) % lanes;
            let Some(receiving) = self.receiving[index].as_mut() else { continue };
            let Receiving { lane, arrived, due, blocked, .. } = receiving;
            *blocked = false;
            taken += lane.take_while(|crossing| {
                let Some((ticket, bytes)) = append(log, crossing) else {
                    *blocked = true;
                    return None;
                };
                *arrived += 1;
                match due.back_mut() {
                    Some((last, upto)) if *last == ticket => *upto = *arrived,
                    _ => due.push_back((ticket, *arrived)),
                }
                Some(bytes)
            });
        }
        self.settle(log);
        self.grant(log);
        taken
    }

    /// Settles what has reached what its stream promises.
    pub fn settle(&mut self, log: &Log) {
        for receiving in self.receiving.iter_mut().flatten() {
            let mut upto = None;
            while let Some((ticket, count)) = receiving.due.front() {
                if !log.progress().reached(*ticket) && !mutated!(SettledWhenAppended) {
                    break;
                }
                upto = Some(*count);
                receiving.due.pop_front();
            }
            if let Some(upto) = upto {
                receiving.lane.settle(upto);
            }
        }
    }

    /// Grants every lane its standing credit, or what its sender waits for, while the log has room
    /// that is not granted yet; others than lanes always have half of the buffer.
    pub fn grant(&mut self, log: &mut Log) {
        let lanes = self.receiving.len();
        let mut kept = self.outstanding();
        for turn in 0..lanes {
            let index = (self.first + turn) % lanes;
            let Some(receiving) = self.receiving[index].as_mut() else { continue };
            let (outstanding, wanted) = (receiving.lane.outstanding(), receiving.lane.wanted());
            // A little at a time would cost more than it brings.
            if outstanding >= wanted && outstanding > self.standing / 2 {
                continue;
            }
            let target = self.standing.max(wanted);
            let more = target - outstanding;
            if log.may_keep(kept + more) {
                receiving.lane.grant(more);
                receiving.generous |= target > self.standing;
                kept += more;
            }
        }
        self.first = (self.first + 1) % lanes.max(1);
        log.keep_room(kept);
    }

    /// Bytes granted to others that have not arrived.
    pub fn outstanding(&mut self) -> u64 {
        self.receiving.iter_mut().flatten().map(|receiving| receiving.lane.outstanding()).sum()
    }

    /// Lets the others see what was granted, given back and settled; adds those who must be told to
    /// `into`. Who was granted more than the standing credit is told even if it wants nothing any
    /// more: it gives back what it does not need.
    pub fn publish(&mut self, into: &mut Vec<ShardId>) {
        for (index, receiving) in self.receiving.iter_mut().enumerate() {
            let Some(receiving) = receiving else { continue };
            let news = receiving.lane.publish() | std::mem::take(&mut receiving.generous);
            if news && !mutated!(SettledUntold) {
                into.push(ShardId(index as u32));
            }
        }
    }

    /// Whether something has arrived that can be taken, or a want that can be met.
    pub fn has_news(&mut self, log: &Log) -> bool {
        let (kept, standing) = (self.outstanding(), self.standing);
        self.receiving.iter_mut().flatten().any(|receiving| {
            let (outstanding, wanted) = (receiving.lane.outstanding(), receiving.lane.wanted());
            let more = standing.max(wanted).saturating_sub(outstanding);
            (!receiving.blocked && !receiving.lane.is_empty())
                || (wanted > outstanding && log.may_keep(kept + more))
        })
    }

    /// Nothing more will be taken. Everybody must be told; adds them to `into`.
    pub fn abandon(&mut self, into: &mut Vec<ShardId>) {
        for (index, receiving) in self.receiving.iter_mut().enumerate() {
            let Some(mut receiving) = receiving.take() else { continue };
            receiving.lane.publish();
            receiving.lane.abandon();
            into.push(ShardId(index as u32));
        }
    }

    /// Whether all others have closed their lanes, and everything that came is settled.
    pub fn is_drained(&mut self) -> bool {
        self.receiving
            .iter_mut()
            .flatten()
            .all(|receiving| receiving.lane.is_finished() && receiving.due.is_empty())
    }
}
