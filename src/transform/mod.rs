//! Transform: which streams a message goes to, and the rules that reshape it.

pub mod rules;
mod topic;

pub use topic::{TopicCache, TopicTable};
