//! The simulator's test of itself: each bug on purpose must be found within a stated number of seeds.
//!
//! The numbers are at least four times what it took when they were written down: most were
//! found by one of the first twenty seeds.

use std::time::Instant;

use tidegate::mutation::Mutation::{self, *};

use crate::hunt::Hunt;

/// Each bug, and within how many seeds it is found.
pub const ALL: [(Mutation, u64); 29] = [
    (NoFlush, 100),
    (AcknowledgedWhenWritten, 100),
    (ShownWhenSealed, 100),
    (FirstCommitUnflushed, 100),
    (NoClosingFrame, 100),
    (DurableTooEarly, 100),
    (HeaderCountsWaiting, 100),
    (NoFrameCrc, 100),
    (CutTooFar, 100),
    (KeptUnflushed, 100),
    (RenamedUnflushed, 100),
    (NoReservation, 100),
    (CeilingForgotten, 100),
    (OneIdentity, 1400),
    (StartsNotAwaited, 2600),
    (DeletedOutOfOrder, 400),
    (DamageTakenForTail, 400),
    (IndexForgottenEarly, 700),
    (MovedUnflushed, 100),
    (MovedCutShort, 100),
    (TombstonesGoneAlone, 2000),
    (TombstonesGoneEarly, 500),
    (RoomPromisedTwice, 100),
    (AcknowledgedOutOfOrder, 100),
    (SettledWhenAppended, 100),
    (SettledUntold, 100),
    (CreditKept, 100),
    (BufferUsedEarly, 100),
    (OldConnectionStays, 100),
];

/// Looks for each bug, in what `hunt` says but for its seeds; whether all are found.
pub fn find_all(hunt: &Hunt) -> bool {
    let mut missed = 0;
    for (bug, within) in ALL {
        let begun = Instant::now();
        let (_, seeds, failure) = Hunt { bug: Some(bug), seeds: within, ..hunt.clone() }.search();
        let seconds = begun.elapsed().as_secs_f64();
        match failure {
            Some(failure) => {
                let what: Vec<_> = failure.what.lines().skip(1).collect();
                let what: String = what.join(" ").chars().take(100).collect();
                let number = failure.seed - hunt.from + 1;
                println!("test {bug:?} ... ok, seed {number} of {within}, {seconds:.1} s: {what}");
            }
            None => {
                missed += 1;
                println!("test {bug:?} ... FAILED: {seeds} seeds do not find it, {seconds:.1} s");
            }
        }
    }
    let (word, found) = (if missed == 0 { "ok" } else { "FAILED" }, ALL.len() - missed);
    println!("test result: {word}. {found} passed; {missed} failed; 0 ignored; 0 measured");
    missed == 0
}
