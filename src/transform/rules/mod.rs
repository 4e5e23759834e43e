//! Rules: SQL that filters, reshapes and routes messages, as plans that read payloads in place.
//!
//! Comes in: the text of rules once, then messages as borrowed bytes. Goes out: a plan, then
//! records as bytes. No I/O, no clock, no state between messages.

pub mod formats;
pub mod functions;
pub mod json;
pub mod paths;
pub mod value;
