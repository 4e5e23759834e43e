//! What is due when: one heap for the timeouts of all connections.
//!
//! A connection is checked when its entry comes up and set again if it was not yet due; activity
//! itself touches nothing here. Entries of connections that are gone are recognised by their serial
//! number.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::ConnId;

#[derive(Debug, Default)]
pub struct Timers {
    due: BinaryHeap<Reverse<(u64, ConnId, u64)>>,
}

impl Timers {
    /// Looks at connection `id` at `due_ns`.
    pub fn set(&mut self, due_ns: u64, id: ConnId, serial: u64) {
        self.due.push(Reverse((due_ns, id, serial)));
    }

    /// When the next look is due.
    pub fn next_ns(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due, _, _))| *due)
    }

    /// The next connection to look at, if its time has come: when that was, and its serial number.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<(u64, ConnId, u64)> {
        if self.next_ns()? > now_ns {
            return None;
        }
        self.due.pop().map(|Reverse(entry)| entry)
    }
}
