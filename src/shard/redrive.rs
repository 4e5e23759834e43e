//! A dead letter that comes again: a message on `$tidegate/redrive/RULE/TOPIC` goes through that rule
//! and those that read its records, and nowhere else.
//!
//! Comes in: such a message, from any connection. Goes out: a ticket, as for every message. It is taken
//! for one that came on TOPIC; Correlation Data `RECEIVED_MS QOS CLIENT_ID` says when, how and from
//! whom, and without it that is this connection, now. What other rules and streams had of the message
//! they have already; and it is no news: births in it are not remembered.

use std::rc::Rc;

use super::Core;
use super::append::{Publisher, Taken};
use super::message::{Message, input};
use super::mqtt::Pass;
use crate::ingest::mqtt::{Publish, Qos};
use crate::log::Ticket;
use crate::record::partition_of;
use crate::transform::TopicCache;

const PREFIX: &str = "$tidegate/redrive/";

/// A message that comes again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Again<'a> {
    rule: &'a str,
    /// As it came at first.
    publish: Publish<'a>,
    origin: Option<(i64, &'a str)>,
}

impl<'a> Again<'a> {
    /// What a message is, if it comes again.
    pub fn of(publish: &Publish<'a>) -> Option<Self> {
        let (rule, topic) = publish.topic.strip_prefix(PREFIX)?.split_once('/')?;
        let mut publish = Publish { topic, ..*publish };
        let mut origin = None;
        let data = publish.correlation_data.take();
        if let Some(text) = data.and_then(|data| std::str::from_utf8(data).ok()) {
            let mut parts = text.splitn(3, ' ');
            let (received_ms, qos) = (parts.next()?.parse().ok()?, parts.next()?);
            publish.qos = if qos == "0" { Qos::AtMostOnce } else { Qos::AtLeastOnce };
            origin = Some((received_ms, parts.next()?));
        }
        (!topic.is_empty()).then_some(Self { rule, publish, origin })
    }
}

impl Core {
    /// Appends what a rule makes of a message that comes again; nothing where no such rule reads its
    /// topic.
    pub(super) fn append_again(
        &mut self,
        from: &Publisher<'_>,
        again: &Again<'_>,
        topics: &mut TopicCache,
    ) -> Result<(Ticket, bool), Pass> {
        let Again { rule, publish, origin } = again;
        let (client_id, partition, received_ms) = match *origin {
            None => (Rc::clone(from.client_id), from.partition, self.clock.wall_ms),
            Some((received_ms, client_id)) => {
                let partition = partition_of(client_id.as_bytes(), self.options.partitions);
                (Rc::from(client_id), partition, received_ms)
            }
        };
        let from = Publisher { client_id: &client_id, partition, username: None, ..*from };
        self.options.topics.look(publish.topic, topics);
        self.lanes.begin();
        let Some(rules) = &mut self.rules else { return Ok((Ticket::NOTHING, false)) };
        let input = input(publish, (&*client_id, None), &publish.user_properties, received_ms);
        if !rules.run_again(topics, &input, rule) {
            return Ok((Ticket::NOTHING, false));
        }
        let message = Message::of(&client_id, publish);
        let topic_copied = if from.topic_is_elsewhere { message.topic.len() } else { 0 };
        let topic = publish.topic;
        let taken = Taken { topic, message, topics, topic_copied, for_rules_only: true };
        self.append_taken(&from, &taken).map(|ticket| (ticket, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::mqtt::UserProperties;

    #[test]
    fn a_topic_says_what_comes_again() {
        let check = |topic, data: Option<&[u8]>, expected: Option<(&str, &str, Option<_>)>| {
            let publish = Publish {
                topic,
                payload: b"p",
                qos: Qos::AtLeastOnce,
                retain: false,
                dup: false,
                packet_id: 1,
                payload_is_text: false,
                message_expiry_s: None,
                content_type: None,
                response_topic: None,
                correlation_data: data,
                user_properties: UserProperties::default(),
            };
            let found = Again::of(&publish);
            let found = found.as_ref().map(|again| (again.rule, again.publish.topic, again.origin));
            assert_eq!(found, expected, "{topic}");
        };
        check("a/b", None, None);
        check("$tidegate/redrive/hot", None, None);
        check("$tidegate/redrive/hot/", None, None);
        check("$tidegate/redrive/hot/a/b", None, Some(("hot", "a/b", None)));
        let origin = Some((17, "press 1"));
        check("$tidegate/redrive/hot/a", Some(b"17 1 press 1"), Some(("hot", "a", origin)));
        check("$tidegate/redrive/hot//a", Some(b"17 0 "), Some(("hot", "/a", Some((17, "")))));
        // Half of it is a mistake, and no message of this client.
        check("$tidegate/redrive/hot/a", Some(b"17"), None);
        check("$tidegate/redrive/hot/a", Some(b"x 1 c"), None);
    }
}
