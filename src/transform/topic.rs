//! Topic filters of all streams and rules, matched against topic names.
//!
//! Comes in: a topic name, checked by the MQTT station. Goes out: the streams and rules that want
//! it, each once. It runs on the shard where the message arrived. The filters are a tree of levels,
//! so that what a topic costs does not grow with the number of filters. MQTT 5, section 4.7: `+`
//! stands for one level, a last `#` for the parent and all below, and neither for a first level that
//! begins with `$`.

use std::collections::HashMap;

use crate::record::StreamId;

/// All filters.
#[derive(Debug, Clone)]
pub struct TopicTable {
    /// The tree; the first node is its root.
    nodes: Vec<Node>,
    /// The streams of every topic that does not begin with `$`, where all filters are `#` and there
    /// are no rules.
    everything: Option<Vec<StreamId>>,
    /// What caches are told apart by: those of an earlier table are of no use.
    version: u64,
}

/// A place in the tree: the levels so far.
#[derive(Debug, Clone, Default)]
struct Node {
    below: HashMap<Box<str>, u32>,
    /// Below a `+`.
    plus: Option<u32>,
    /// Whose filter ends here.
    here: Wanted,
    /// Whose filter goes on with a last `#`.
    rest: Wanted,
}

/// Who wants a topic.
#[derive(Debug, Clone, Default)]
struct Wanted {
    streams: Vec<StreamId>,
    rules: Vec<usize>,
}

/// The last topic of one connection and who wants it: devices repeat themselves.
#[derive(Debug, Default)]
pub struct TopicCache {
    topic: String,
    filled: bool,
    /// The table that filled it.
    version: u64,
    wanted: Wanted,
    /// The rules as a group, once somebody has asked for it.
    pub(super) group: Option<std::sync::Arc<super::rules::Group>>,
}

impl TopicCache {
    /// Forgets what an earlier table wanted, by indices of its own.
    #[cold]
    fn begin(&mut self, version: u64) {
        *self = Self { version, ..Self::default() };
    }

    /// The rules that want the topic that was asked for last, in the order of the plan.
    pub fn rules(&self) -> &[usize] {
        &self.wanted.rules
    }
}

impl Wanted {
    fn add(&mut self, other: &Self) {
        self.streams.extend_from_slice(&other.streams);
        self.rules.extend_from_slice(&other.rules);
    }
}

impl TopicTable {
    /// A table of (filter, stream) pairs; filters are valid.
    pub fn new(filters: Vec<(String, StreamId)>) -> Self {
        Self::with_rules(filters, std::iter::empty())
    }

    /// A table of (filter, stream) and (filter, rule) pairs; filters are valid.
    pub fn with_rules<'f>(
        filters: Vec<(String, StreamId)>,
        rules: impl Iterator<Item = (&'f str, usize)>,
    ) -> Self {
        let mut everything = filters.iter().all(|(filter, _)| filter == "#");
        let mut table = Self { nodes: vec![Node::default()], everything: None, version: 0 };
        for (filter, stream) in &filters {
            table.wanted_by(filter).streams.push(*stream);
        }
        for (filter, rule) in rules {
            everything = false;
            table.wanted_by(filter).rules.push(rule);
        }
        if everything {
            let mut wanted = Wanted::default();
            table.search("any", &mut wanted);
            table.everything = Some(wanted.streams);
        }
        table
    }

    /// The table that takes the place of one of an earlier version.
    #[must_use]
    pub fn of_version(self, version: u64) -> Self {
        Self { version, ..self }
    }

    /// Where it stands who has this filter.
    fn wanted_by(&mut self, filter: &str) -> &mut Wanted {
        let mut at = 0;
        for level in filter.split('/') {
            if level == "#" {
                return &mut self.nodes[at].rest;
            }
            let next = self.nodes.len() as u32;
            let node = &mut self.nodes[at];
            let below = match level {
                "+" => *node.plus.get_or_insert(next),
                level => *node.below.entry(level.into()).or_insert(next),
            };
            if below == next {
                self.nodes.push(Node::default());
            }
            at = below as usize;
        }
        &mut self.nodes[at].here
    }

    /// Finds who wants `topic`: [`TopicTable::streams`] and [`TopicCache::rules`] tell.
    #[inline]
    pub fn look(&self, topic: &str, cache: &mut TopicCache) {
        if cache.version != self.version {
            cache.begin(self.version);
        }
        if self.everything.is_none() && (!cache.filled || cache.topic != topic) {
            cache.topic.clear();
            cache.topic.push_str(topic);
            cache.group = None;
            self.search(topic, &mut cache.wanted);
            cache.filled = true;
        }
    }

    /// The streams that want the topic that was looked for last, in the order of their ids.
    #[inline]
    pub fn streams<'a>(&'a self, topic: &str, cache: &'a TopicCache) -> &'a [StreamId] {
        match &self.everything {
            Some(_) if topic.starts_with('$') => &[],
            Some(streams) => streams,
            None => &cache.wanted.streams,
        }
    }

    fn search(&self, topic: &str, wanted: &mut Wanted) {
        wanted.streams.clear();
        wanted.rules.clear();
        let root = &self.nodes[0];
        if topic.starts_with('$') {
            // Only what names the first level.
            let (first, rest) = match topic.split_once('/') {
                Some((first, rest)) => (first, Some(rest)),
                None => (topic, None),
            };
            if let Some(below) = root.below.get(first) {
                self.gather(*below, rest, wanted);
            }
        } else {
            self.gather(0, Some(topic), wanted);
        }
        wanted.streams.sort_unstable();
        wanted.streams.dedup();
        wanted.rules.sort_unstable();
        wanted.rules.dedup();
    }

    /// Adds who wants `rest` below a node; `None`: the topic ends there. It goes no deeper than the
    /// filters have levels.
    fn gather(&self, node: u32, rest: Option<&str>, wanted: &mut Wanted) {
        let node = &self.nodes[node as usize];
        wanted.add(&node.rest);
        let Some(rest) = rest else {
            wanted.add(&node.here);
            return;
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        if let Some(below) = node.below.get(level) {
            self.gather(*below, rest, wanted);
        }
        if let Some(below) = node.plus {
            self.gather(below, rest, wanted);
        }
    }
}

/// Whether a topic is one that a filter names.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let mut levels = topic.split('/');
    let mut patterns = filter.split('/');
    loop {
        match (patterns.next(), levels.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(pattern), Some(level)) if pattern == level => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of MQTT 5, sections 4.7.1 to 4.7.3.
    #[test]
    fn filters_match_as_the_specification_says() {
        let check = |filter: &str, topic: &str, expected: bool| {
            assert_eq!(matches(filter, topic), expected, "{filter} and {topic}");
            let table = TopicTable::with_rules(Vec::new(), [(filter, 7)].into_iter());
            let mut cache = TopicCache::default();
            table.look(topic, &mut cache);
            assert!(table.streams(topic, &cache).is_empty());
            assert_eq!(cache.rules() == [7], expected, "the tree: {filter} and {topic}");
        };
        check("sport/tennis/player1/#", "sport/tennis/player1", true);
        check("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true);
        check("sport/#", "sport", true);
        check("#", "anything/at/all", true);
        check("sport/tennis/+", "sport/tennis/player1", true);
        check("sport/tennis/+", "sport/tennis/player1/ranking", false);
        check("sport/+", "sport", false);
        check("sport/+", "sport/", true);
        check("+/+", "/finance", true);
        check("/+", "/finance", true);
        check("+", "/finance", false);
        check("#", "$SYS/a", false);
        check("+/monitor/Clients", "$SYS/monitor/Clients", false);
        check("$SYS/#", "$SYS/a", true);
        check("ACCOUNTS", "Accounts", false);
    }

    #[test]
    fn every_stream_once_and_the_cache_follows_the_topic() {
        let filter = |text: &str, id| (text.to_owned(), StreamId(id));
        let table = TopicTable::new(vec![
            filter("a/#", 1),
            filter("+/b", 0),
            filter("a/+", 1),
            filter("c", 2),
        ]);
        let mut cache = TopicCache::default();
        let mut check = |topic: &str, expected: &[u32]| {
            table.look(topic, &mut cache);
            let found: Vec<_> = table.streams(topic, &cache).iter().map(|s| s.0).collect();
            assert_eq!(found, expected, "{topic}");
        };
        check("a/b", &[0, 1]);
        check("a/b", &[0, 1]);
        check("c", &[2]);
        check("d", &[]);
        check("a", &[1]);
    }

    #[test]
    fn a_table_of_everything_needs_no_search() {
        let table = TopicTable::new(vec![("#".to_owned(), StreamId(0))]);
        let mut cache = TopicCache::default();
        table.look("x/y", &mut cache);
        assert_eq!(table.streams("x/y", &cache), [StreamId(0)]);
        assert_eq!(table.streams("$SYS/y", &cache), []);
        assert!(!cache.filled);
    }

    #[test]
    fn a_cache_of_an_earlier_table_is_of_no_use() {
        let rules = |filters: &[&'static str], version| {
            let filters = filters.iter().copied().zip(0..);
            TopicTable::with_rules(vec![("#".to_owned(), StreamId(0))], filters).of_version(version)
        };
        let mut cache = TopicCache::default();
        let mut check = |filters: &[&'static str], version, expected: &[usize]| {
            rules(filters, version).look("a", &mut cache);
            assert_eq!(cache.rules(), expected, "{version}");
        };
        check(&["a", "a"], 1, &[0, 1]);
        check(&["b", "a"], 2, &[1]);
        // A table of everything does not fill caches.
        check(&[], 3, &[]);
        check(&["a"], 4, &[0]);
    }

    proptest::proptest! {
        #[test]
        fn the_tree_finds_what_each_filter_says(
            filters in proptest::collection::vec("(\\+|[ab$]{0,2})(/(\\+|[ab]{0,1})){0,3}(/#)?|#", 1..20),
            topics in proptest::collection::vec("[ab$]{0,2}(/[ab]{0,1}){0,4}", 1..10),
        ) {
            let filters: Vec<_> =
                filters.into_iter().enumerate().map(|(at, f)| (f, StreamId(at as u32 / 2))).collect();
            let rules = filters.iter().map(|(filter, stream)| (&**filter, stream.index()));
            let table = TopicTable::with_rules(filters.clone(), rules);
            let mut cache = TopicCache::default();
            for topic in topics.iter().filter(|topic| !topic.is_empty()) {
                table.look(topic, &mut cache);
                let found = table.streams(topic, &cache).to_vec();
                let wanted = filters.iter().filter(|(filter, _)| matches(filter, topic));
                let mut wanted: Vec<_> = wanted.map(|(_, stream)| *stream).collect();
                wanted.dedup();
                proptest::prop_assert_eq!(&found, &wanted, "{}", topic);
                let rules: Vec<_> = wanted.iter().map(|stream| stream.index()).collect();
                proptest::prop_assert_eq!(cache.rules(), &rules, "{}", topic);
            }
        }
    }
}
