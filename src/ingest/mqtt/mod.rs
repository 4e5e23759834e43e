//! MQTT 3.1.1 and 5, the server's side of one connection.
//!
//! In: the bytes that a client sent, in pieces of any size. Out: [`Event`]s that are views into
//! those bytes, and reply bytes. Runs on the shard that holds the connection, one [`Connection`] a
//! client. The invariant: however the input is cut, the events are the same, and a packet that
//! breaks the specification yields a [`Violation`] and never an event.
//!
//! Deliberately absent: sockets, timers (the shard watches the keep alive and the time until
//! CONNECT), client identifiers of other connections (the shard does takeovers), topic filters,
//! QoS 2, subscriptions, sessions and wills; docs/mqtt.md says how each is answered.
//!
//! Sections named in comments are those of the OASIS standards, "MQTT Version 3.1.1" and "MQTT
//! Version 5.0"; where both versions say the same, the section is that of version 5.

mod codec;
mod reasons;

mod properties;

mod connect;
mod disconnect;
mod publish;
mod subscribe;

mod aliases;
mod limits;

mod connection;
mod held;

pub use codec::Version;
pub use connect::Connect;
pub use connection::{ASSIGNED_CLIENT_ID_BYTES_MAX, Connection, Event};
pub use held::answer_pings;
pub use limits::Limits;
pub use properties::{UserProperties, UserPropertiesIter};
pub use publish::{Publish, Qos};
pub use reasons::{Reason, Reject, Violation};

#[cfg(test)]
mod tests;
