//! What lies between two shards: rings, credits, and the door at which a sleeper is woken.
//!
//! For each ordered pair of shards there is one [`ring`] of bounded slots and, over it, one
//! [`lane`] with the credits that the receiver grants and the sender spends. Comes in: values of
//! one thread. Goes out: the same values on one other thread, in order, each once. Nothing is
//! allocated after the start, nothing is locked, and nothing here ever waits: who finds no room or
//! no credit gets the value back. Deliberately absent: what the values are, and when a thread
//! sleeps.

mod door;
mod lane;
mod spsc;
mod sync;

#[cfg(not(feature = "loom"))]
#[cfg(test)]
mod conservation;
#[cfg(feature = "loom")]
#[cfg(test)]
mod models;
#[cfg(not(feature = "loom"))]
#[cfg(test)]
mod soak;
#[cfg(not(feature = "loom"))]
#[cfg(test)]
mod toy_shard;
#[cfg(feature = "loom")]
#[cfg(test)]
mod weakened;

pub use door::Door;
pub use lane::{Inbound, Outbound, lane};
pub use spsc::{Consumer, Producer, ring};
