//! Topic aliases that a client has set (section 3.3.2.3.4).
//!
//! In: the topic and alias of a PUBLISH. Out: the topic that is meant. One table a connection that
//! uses aliases at all. Bounded twice: `topic_alias_maximum` slots of 24 bytes, and
//! `topic_alias_bytes_max` bytes of topics. Setting an alias again reuses its memory, so that a
//! client in its steady state allocates nothing.

use super::limits::Limits;
use super::reasons::{Reject, Violation};

/// Topics by alias.
#[derive(Debug, Default)]
pub(super) struct TopicAliases {
    /// Alias `n` is at `n - 1`; empty where not set. `len() <= topic_alias_maximum`.
    topics: Vec<String>,
    /// Sum of the topics' capacities, `<= topic_alias_bytes_max`.
    bytes: usize,
}

impl TopicAliases {
    /// The topic that a PUBLISH with this alias means, where `topic` is not empty after setting it.
    pub fn resolve<'a>(
        &'a mut self,
        alias: u16,
        topic: &'a str,
        limits: &Limits,
    ) -> Result<&'a str, Violation> {
        if alias == 0 || alias > limits.topic_alias_maximum {
            return Err(Violation::new(
                Reject::TopicAliasInvalid,
                "a topic alias is 0 or above the maximum",
            ));
        }
        let index = usize::from(alias - 1);
        if topic.is_empty() {
            return match self.topics.get(index) {
                Some(known) if !known.is_empty() => Ok(known),
                _ => Err(Violation::protocol("a topic alias that was never set")),
            };
        }
        if index >= self.topics.len() {
            self.topics.reserve_exact(index + 1 - self.topics.len());
            self.topics.resize_with(index + 1, String::new);
        }
        self.set(index, topic, limits.topic_alias_bytes_max)?;
        Ok(topic)
    }

    fn set(&mut self, index: usize, topic: &str, bytes_max: u32) -> Result<(), Violation> {
        let slot = &mut self.topics[index];
        if slot == topic {
            return Ok(());
        }
        if slot.capacity() < topic.len() {
            let others = self.bytes - slot.capacity();
            if others + topic.len() > bytes_max as usize {
                return Err(Violation::new(
                    Reject::QuotaExceeded,
                    "the topics behind the topic aliases are too long together",
                ));
            }
            *slot = String::with_capacity(topic.len());
            self.bytes = others + slot.capacity();
        }
        slot.clear();
        slot.push_str(topic);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases() {
        let limits =
            Limits { topic_alias_maximum: 3, topic_alias_bytes_max: 10, ..Limits::default() };
        let mut aliases = TopicAliases::default();
        let mut check = |alias: u16, topic: &str, expected: Result<&str, Reject>| {
            let resolved = aliases.resolve(alias, topic, &limits).map_err(|v| v.reject);
            assert_eq!(resolved, expected, "alias {alias}, topic {topic:?}");
        };
        check(0, "a", Err(Reject::TopicAliasInvalid));
        check(4, "a", Err(Reject::TopicAliasInvalid));
        check(3, "", Err(Reject::ProtocolError));
        check(3, "abcd", Ok("abcd"));
        check(3, "", Ok("abcd"));
        check(1, "", Err(Reject::ProtocolError));
        check(3, "xyz", Ok("xyz"));
        check(3, "", Ok("xyz"));
        check(1, "123456", Ok("123456"));
        check(2, "1", Err(Reject::QuotaExceeded)); // 4 + 6 are taken
        check(3, "12345", Err(Reject::QuotaExceeded));
        check(1, "", Ok("123456"));
        assert_eq!(aliases.topics.len(), 3);

        // A longer topic takes the place of a shorter one, not a place beside it.
        let mut aliases = TopicAliases::default();
        aliases.resolve(1, "123456", &limits).unwrap();
        assert_eq!(aliases.resolve(1, "1234567890", &limits), Ok("1234567890"));
        assert_eq!(aliases.bytes, 10);
    }

    #[test]
    fn setting_again_takes_no_new_memory() {
        let limits = Limits { topic_alias_bytes_max: 64, ..Limits::default() };
        let mut aliases = TopicAliases::default();
        aliases.resolve(1, "plant/7/temperature", &limits).unwrap();
        let bytes = aliases.bytes;
        for _ in 0..100 {
            aliases.resolve(1, "plant/7/pressure", &limits).unwrap();
            aliases.resolve(1, "plant/7/temperature", &limits).unwrap();
        }
        assert_eq!(aliases.bytes, bytes);
    }
}
