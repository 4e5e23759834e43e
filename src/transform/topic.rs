//! Topic filters of all streams, matched against topic names.
//!
//! Comes in: a topic name, checked by the MQTT station. Goes out: the streams that want it, each
//! once. It runs on the shard where the message arrived. MQTT 5, section 4.7: `+` stands for one
//! level, a last `#` for the parent and all below, and neither for a first level that begins
//! with `$`.

use crate::record::StreamId;

/// All streams' filters.
#[derive(Debug, Clone)]
pub struct TopicTable {
    filters: Vec<(String, StreamId)>,
    /// The streams of every topic that does not begin with `$`, where all filters are `#`.
    everything: Option<Vec<StreamId>>,
}

/// The last topic of one connection and the streams that want it: devices repeat themselves.
#[derive(Debug, Default)]
pub struct TopicCache {
    topic: String,
    streams: Vec<StreamId>,
    filled: bool,
}

impl TopicTable {
    /// A table of (filter, stream) pairs; filters are valid.
    pub fn new(filters: Vec<(String, StreamId)>) -> Self {
        let mut table = Self { filters, everything: None };
        if table.filters.iter().all(|(filter, _)| filter == "#") {
            let mut streams = Vec::new();
            table.search("any", &mut streams);
            table.everything = Some(streams);
        }
        table
    }

    /// The streams that want `topic`, in the order of their ids.
    pub fn streams<'a>(&'a self, topic: &str, cache: &'a mut TopicCache) -> &'a [StreamId] {
        match &self.everything {
            Some(_) if topic.starts_with('$') => &[],
            Some(streams) => streams,
            None => {
                if !cache.filled || cache.topic != topic {
                    cache.topic.clear();
                    cache.topic.push_str(topic);
                    self.search(topic, &mut cache.streams);
                    cache.filled = true;
                }
                &cache.streams
            }
        }
    }

    fn search(&self, topic: &str, streams: &mut Vec<StreamId>) {
        streams.clear();
        let wanted = self.filters.iter().filter(|(filter, _)| matches(filter, topic));
        streams.extend(wanted.map(|(_, stream)| *stream));
        streams.sort_unstable();
        streams.dedup();
    }
}

fn matches(filter: &str, topic: &str) -> bool {
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
            let found: Vec<_> = table.streams(topic, &mut cache).iter().map(|s| s.0).collect();
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
        assert_eq!(table.streams("x/y", &mut cache), [StreamId(0)]);
        assert_eq!(table.streams("$SYS/y", &mut cache), []);
        assert!(!cache.filled);
    }
}
