//! Changes of a running shard: streams that come, and rules that take the place of others.
//!
//! Comes in: a [`Change`], between two messages. The order in which all shards take them is what keeps
//! records on their way right: first every shard knows the new streams, only then the first one runs
//! the new rules. A record in a ring is an output already: it names its stream and partition, and the
//! receiver asks no rule about it. Ids of streams never change their meaning, so a record that the old
//! rules made is appended by a shard that has the new ones, and the other way about. A message that is
//! held was not looked at yet as far as anyone can see (`append` takes it whole or not at all), and
//! runs through the rules that there are when it is looked at again.

use super::Shard;
use crate::log::StreamOptions;
use crate::record::PartitionBy;
use crate::serve::kafka::Cluster;
use crate::transform::{Rulebook, TopicTable};

/// What a running shard is told.
pub enum Change {
    Streams(Box<Streams>),
    Rules(Box<Rules>),
}

/// All streams: those that there were, with the same ids, and new ones behind them. Their cells are in
/// the shard's metrics, and they are in the manifest.
pub struct Streams {
    pub log: Vec<StreamOptions>,
    pub partition_by: Vec<PartitionBy>,
    pub cluster: Cluster,
}

/// Which topics go where from now on.
pub struct Rules {
    /// With a version of its own.
    pub topics: TopicTable,
    pub rules: Option<Rulebook>,
    /// Counts the rules of this run, from 1.
    pub version: u64,
}

impl Shard {
    /// Takes a change.
    ///
    /// # Panics
    /// When streams are not what they were, see [`crate::log::Log::set_streams`].
    pub fn change(&mut self, change: Change) {
        match change {
            Change::Streams(streams) => self.set_streams(*streams),
            Change::Rules(rules) => self.set_rules(*rules),
        }
        self.core.options.metrics.changes.increment();
    }

    fn set_streams(&mut self, Streams { log, partition_by, cluster }: Streams) {
        let core = &mut self.core;
        let places = log.len() * core.options.partitions as usize;
        core.log.set_streams(log);
        // By stream and partition: those that there were keep their places.
        core.waiters.resize_with(places, Vec::new);
        core.options.partition_by = partition_by;
        core.options.cluster = cluster;
    }

    fn set_rules(&mut self, Rules { topics, rules, version }: Rules) {
        let core = &mut self.core;
        core.options.topics = topics;
        core.rules = match (rules, core.rules.take()) {
            (Some(rules), Some(old)) => Some(rules.after(old)),
            (rules, _) => rules,
        };
        core.options.metrics.rules_version.set(version);
    }
}
