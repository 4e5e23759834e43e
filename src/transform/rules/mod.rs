//! Rules: SQL that filters, reshapes and routes messages, as plans that read payloads in place.
//!
//! Comes in: the text of rules once, then messages as borrowed bytes. Goes out: a plan, then
//! records as bytes. No I/O, no clock, and no state between messages
//! but the names that Sparkplug's births give to metrics.
//!
//! The modules stand in the order in which a rule goes through them: text, statements, plan, run.

pub mod problem;

mod statement;

mod parse;

mod names;

mod compile;
mod explain;
mod expr;
mod gates;
mod group;
mod joins;
mod plan;

mod eval;
mod extras;
mod fields;
mod input;
mod operators;
mod run;
mod write;

pub mod formats;
pub mod functions;
pub mod json;
pub mod paths;
pub mod tables;
pub mod value;

#[cfg(test)]
mod tests;

pub use compile::fact_names;
pub use extras::{Extras, Key};
pub use group::Group;
pub use input::{Input, Properties};
pub use plan::{DEAD_LETTERS, From, OnError, Plan, Rule, Setting, plan, plan_with};
pub use run::{Limits, Record, Records, Runner, Tally, Target};
