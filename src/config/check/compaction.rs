//! What a compacted stream may not be.

use super::super::problem::Problem;
use super::Stream;
use crate::record::{CleanupPolicy, PartitionBy};

/// What is wrong with stream number `index` if it is compacted.
pub(super) fn compaction_relations(stream: &Stream, index: usize) -> Vec<Problem> {
    if stream.cleanup_policy != CleanupPolicy::Compact {
        return Vec::new();
    }
    let key = |key: &str| format!("stream[{index}].{key}");
    let (name, policy) = (stream.name.as_str(), key("cleanup_policy"));
    let mut problems = Vec::new();
    if stream.partition_by == PartitionBy::None {
        problems.push(Problem::of(
            &[&policy, &key("partition_by")],
            format!("the stream \"{name}\" is compacted and its records have no key"),
            "partition it by \"client\" or \"topic\", or let cleanup_policy be \"delete\""
                .to_owned(),
        ));
    }
    if stream.retention_bytes.is_some() {
        problems.push(Problem::of(
            &[&policy, &key("retention_bytes")],
            format!("the stream \"{name}\" is compacted and limited in bytes"),
            "a compacted stream keeps the newest record of each key; leave retention_bytes out"
                .to_owned(),
        ));
    }
    problems
}
