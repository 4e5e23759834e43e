//! The door of a shard: where others knock when it sleeps.
//!
//! A sleeper says that it sleeps, then looks at everything that could be for it; a visitor leaves
//! its message, then looks whether the shard sleeps. Between the two steps each has a SeqCst fence,
//! so that at least one of them sees the other (Dekker's argument): a message is never left
//! unnoticed. A shard that is awake is not knocked for, unless it got up this very moment; such a
//! knock is remembered and costs one look around.
//!
//! The last look has to look at every word that a visitor may have changed: rings, but also credit,
//! settlements and flags. `models.rs` shows what happens when a fence is missing.

use super::sync::{AtomicBool, Ordering, fence};

/// One shard's door. The knock itself is the driver's: it is given at construction.
pub struct Door {
    asleep: AtomicBool,
    knock: Box<dyn Fn() + Send + Sync>,
}

impl Door {
    /// A door at which `knock` wakes the sleeper; the shard is awake.
    pub fn new(knock: impl Fn() + Send + Sync + 'static) -> Self {
        Self { asleep: AtomicBool::new(false), knock: Box::new(knock) }
    }

    /// To be called by the owner before its last look around; after it, it may sleep.
    pub fn lie_down(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `notify`.
        fence(Ordering::SeqCst);
    }

    /// To be called by the owner when it is awake again.
    pub fn get_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// To be called after a message was left (pushed to a ring, a flag stored). Whether the shard
    /// had to be woken.
    pub fn notify(&self) -> bool {
        // Pairs with the fence in `lie_down`.
        fence(Ordering::SeqCst);
        let asleep = self.asleep.load(Ordering::Relaxed);
        if asleep {
            (self.knock)();
        }
        asleep
    }
}
