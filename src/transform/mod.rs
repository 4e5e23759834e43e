//! Transform: which streams a message goes to, and the rules that reshape it.

mod rulebook;
pub mod rules;
mod topic;

pub use rulebook::{Made, Rulebook};
pub use topic::{TopicCache, TopicTable, matches};
