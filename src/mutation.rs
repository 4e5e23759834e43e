//! Bugs on purpose, so that the simulator can show that it finds them.
//!
//! Each has a name and a place in the stations, where `mutated!(Name)` asks whether it is on. Without
//! the feature `mutations` that is `false`, and nothing of this is compiled; no released engine has
//! it. With it, one bug at the most is on in a thread. `tests/simulator/mutations.rs` says within how
//! many seeds each must be found.

/// Whether a bug is on.
#[cfg(feature = "mutations")]
macro_rules! mutated {
    ($bug:ident) => {
        $crate::mutation::is_on($crate::mutation::Mutation::$bug)
    };
}

/// Whether a bug is on: it is not.
#[cfg(not(feature = "mutations"))]
macro_rules! mutated {
    ($bug:ident) => {
        false
    };
}

/// A bug.
#[cfg(feature = "mutations")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Commits are not flushed, and count as if they were.
    NoFlush,
    /// What was written is acknowledged as if it were flushed.
    AcknowledgedWhenWritten,
    /// Readers see what is sealed and not committed.
    ShownWhenSealed,
    /// The first commit of a segment is not flushed, and counts as if it were.
    FirstCommitUnflushed,
    /// A segment is left with something unflushed in it.
    NoClosingFrame,
    /// A frame says that what is not flushed is durable.
    DurableTooEarly,
    /// A header counts offsets whose records come behind it.
    HeaderCountsWaiting,
    /// Frames are taken whose CRC does not hold.
    NoFrameCrc,
    /// A sound frame is cut with the torn ones.
    CutTooFar,
    /// What a start keeps is not flushed before it is read.
    KeptUnflushed,
    /// A manifest or an index gets its name before its contents are durable.
    RenamedUnflushed,
    /// Streams that are not flushed reserve no offsets.
    NoReservation,
    /// After a crash offsets go on below what was reserved.
    CeilingForgotten,
    /// Segments have one identity for ever.
    OneIdentity,
    /// Segments are deleted before the log start that allows it is durable.
    StartsNotAwaited,
    /// Segments of a chain are deleted out of their order.
    DeletedOutOfOrder,
    /// What frames behind it show to have been durable is cut as a torn tail.
    DamageTakenForTail,
    /// The index of a full segment is not kept until its file is there.
    IndexForgottenEarly,
    /// A moved segment gets its name before its contents are durable.
    MovedUnflushed,
    /// A moved run accounts for offsets that it does not hold.
    MovedCutShort,
    /// Compaction takes an old tombstone and leaves what it deletes.
    TombstonesGoneAlone,
    /// Compaction takes tombstones before their time.
    TombstonesGoneEarly,
    /// Room that is promised to other shards is used.
    RoomPromisedTwice,
    /// A later acknowledgement leaves before an earlier one.
    AcknowledgedOutOfOrder,
    /// What came from another shard is settled before it is committed.
    SettledWhenAppended,
    /// Other shards are not told what is settled.
    SettledUntold,
    /// Credit that nobody needs is not given back.
    CreditKept,
    /// A receive buffer is used again while a record on its way lies in it.
    BufferUsedEarly,
    /// The connection that a client had before is not closed.
    OldConnectionStays,
}

#[cfg(feature = "mutations")]
thread_local! {
    static ON: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Puts a bug into this thread, or takes it out.
#[cfg(feature = "mutations")]
pub fn select(bug: Option<Mutation>) {
    ON.set(bug);
}

/// Whether a bug is on in this thread.
#[cfg(feature = "mutations")]
pub fn is_on(bug: Mutation) -> bool {
    ON.get() == Some(bug)
}
