//! Transform: which streams a message goes to. Rules find their place beside it.

mod topic;

pub use topic::{TopicCache, TopicTable};
