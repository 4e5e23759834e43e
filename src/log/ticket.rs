//! Tickets: what must have happened before a message may be acknowledged.
//!
//! Commits count from 1. A ticket names the commit that must have been written and the one that
//! must have been flushed, apart from one another: a commit that needs no flush gets none, and who
//! waits for an earlier flush does not wait for the next one.

use crate::record::Durability;

/// When an appended record may be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The commit that must have been written, 0 for none.
    written: u64,
    /// The commit that must have been flushed, 0 for none.
    flushed: u64,
}

impl Ticket {
    /// What is due at once: nothing was appended.
    pub const NOTHING: Self = Self { written: 0, flushed: 0 };

    pub(super) fn new(commit: u64, durability: Durability) -> Self {
        match durability {
            Durability::Memory => Self::NOTHING,
            Durability::Write => Self { written: commit, flushed: 0 },
            Durability::Fsync => Self { written: commit, flushed: commit },
        }
    }

    /// The later of two: a message that went to several streams waits for all of them.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { written: self.written.max(other.written), flushed: self.flushed.max(other.flushed) }
    }
}

/// Which commits reached which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The commit that takes new records.
    pub(super) filling: u64,
    pub(super) written: u64,
    pub(super) flushed: u64,
}

impl Default for Progress {
    fn default() -> Self {
        Self { filling: 1, written: 0, flushed: 0 }
    }
}

impl Progress {
    /// Whether what `ticket` stands for has the durability that it was promised.
    pub fn reached(&self, ticket: Ticket) -> bool {
        let early = mutated!(AcknowledgedWhenWritten);
        let flushed = if early { self.written } else { self.flushed };
        ticket.written <= self.written && ticket.flushed <= flushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_waits_for_its_own_commits_only() {
        let check = |ticket: Ticket, written, flushed, expected| {
            let progress = Progress { filling: 9, written, flushed };
            assert_eq!(progress.reached(ticket), expected, "{ticket:?} at {progress:?}");
        };
        let [memory, write, fsync] =
            [Durability::Memory, Durability::Write, Durability::Fsync].map(|d| Ticket::new(3, d));
        check(Ticket::NOTHING, 0, 0, true);
        check(memory, 0, 0, true);
        check(write, 2, 2, false);
        check(write, 3, 0, true);
        check(fsync, 3, 2, false);
        check(fsync, 3, 3, true);
        // Written in a later commit that is not flushed: the earlier flush is enough.
        let mixed = fsync.and(Ticket::new(4, Durability::Write)).and(Ticket::NOTHING);
        check(mixed, 3, 3, false);
        check(mixed, 4, 2, false);
        check(mixed, 4, 3, true);
    }
}
