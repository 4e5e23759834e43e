//! A plan at work on one shard: the rules of a topic as a group, run on its messages.
//!
//! Comes in: a message, and who wants its topic. Goes out: the records that rules make of it, with
//! the streams that they go to. Groups are made when a topic is first seen, and kept.

use std::collections::HashMap;
use std::sync::Arc;

use super::TopicCache;
use super::rules::{Extras, From, Group, Input, Limits, Plan, Record, Runner, Tally, Target};
use crate::record::StreamId;

/// Groups that are kept. Topics that differ in their rules beyond that have theirs made anew.
const GROUPS_MAX: usize = 4096;

/// A plan, and what running it needs.
pub struct Rulebook {
    plan: Arc<Plan>,
    /// By rule.
    streams: Vec<StreamId>,
    dead_letters: StreamId,
    groups: HashMap<Box<[usize]>, Arc<Group>>,
    runner: Runner,
    /// There are records of the message that is looked at.
    has_run: bool,
    /// Of a message that comes again: what is wanted.
    only: Option<Only>,
}

/// What is wanted of a message that comes again, by rule.
struct Only {
    /// Of the rule that could not evaluate it, and of those that read its records.
    records: Box<[bool]>,
    /// Of these, and of those whose records that rule reads: where one of them fails, nothing comes to
    /// it, and the message would be lost.
    dead_letters: Box<[bool]>,
}

/// A record that a rule has made of a message.
#[derive(Debug, Clone, Copy)]
pub struct Made<'a> {
    pub stream: StreamId,
    /// `None`: the message's own payload.
    pub value: Option<&'a [u8]>,
    pub extras: Extras<'a>,
}

impl Rulebook {
    /// `streams` are those of the plan's rules.
    pub fn new(
        plan: Arc<Plan>,
        streams: Vec<StreamId>,
        dead_letters: StreamId,
        limits: Limits,
    ) -> Self {
        let groups = HashMap::new();
        let runner = Runner::new(limits);
        Self { plan, streams, dead_letters, groups, runner, has_run: false, only: None }
    }

    /// Takes the place of `old`, and takes over what alone outlives a message: the names that
    /// Sparkplug's births gave, and buffers that have their size.
    #[must_use]
    pub fn after(mut self, old: Self) -> Self {
        self.runner = old.runner;
        self
    }

    /// Forgets the records of the last message.
    #[inline]
    pub fn begin(&mut self) {
        self.has_run = false;
        self.only = None;
    }

    /// Runs a message through the rules that want its topic.
    pub fn run(&mut self, cache: &mut TopicCache, input: &Input<'_>) {
        let Self { plan, groups, runner, .. } = self;
        if cache.group.is_none() {
            let group = groups.get(cache.rules()).cloned();
            cache.group = Some(group.unwrap_or_else(|| {
                let group = Arc::new(Group::new(&plan.rules, cache.rules()));
                if groups.len() < GROUPS_MAX {
                    groups.insert(cache.rules().into(), Arc::clone(&group));
                }
                group
            }));
        }
        if let Some(group) = &cache.group {
            runner.run(plan, group, input);
            self.has_run = true;
        }
    }

    /// Runs a message that comes again through one rule, and through those that read its records;
    /// instead of [`Rulebook::begin`] and [`Rulebook::run`]. Whether there is such a rule and it reads
    /// the topic.
    pub fn run_again(&mut self, cache: &TopicCache, input: &Input<'_>, rule: &str) -> bool {
        self.begin();
        let rules = &self.plan.rules;
        let Some(rule) = rules.iter().position(|known| *known.name == *rule) else { return false };
        let mut records = vec![false; rules.len()];
        records[rule] = true;
        // Who reads stands behind.
        for index in rule + 1..rules.len() {
            records[index] = matches!(rules[index].from, From::Rule(parent) if records[parent]);
        }
        let (mut first, mut dead_letters) = (rule, records.clone());
        while let From::Rule(parent) = rules[first].from {
            first = parent;
            dead_letters[first] = true;
        }
        if !cache.rules().contains(&first) {
            return false;
        }
        let (records, dead_letters) = (records.into(), dead_letters.into());
        self.only = Some(Only { records, dead_letters });
        // What comes before the rule runs too; its records are not wanted.
        self.runner.run_again(&self.plan, &Group::new(rules, &[first]), input);
        self.has_run = true;
        true
    }

    fn is_wanted(&self, record: &Record) -> bool {
        let Some(only) = &self.only else { return true };
        match record.target {
            Target::Rule(rule) => only.records[rule],
            Target::DeadLetters => {
                let mut headers = self.runner.records().extras(record).headers();
                let name = headers.find(|(name, _)| *name == b"rule").map(|(_, value)| value);
                let mut rules = self.plan.rules.iter().zip(&only.dead_letters);
                rules.any(|(rule, wanted)| *wanted && Some(rule.name.as_bytes()) == name)
            }
        }
    }

    /// Lets go of old versions of lookup tables; to be called now and then, also without messages.
    pub fn refresh(&mut self) {
        self.runner.refresh(&self.plan);
    }

    /// The records that came of the message.
    pub fn made(&self) -> impl Iterator<Item = Made<'_>> {
        let records = self.runner.records();
        let made = records.iter().filter(|record| self.is_wanted(record)).map(move |record| Made {
            stream: match record.target {
                Target::Rule(rule) => self.streams[rule],
                Target::DeadLetters => self.dead_letters,
            },
            value: records.body(record),
            extras: records.extras(record),
        });
        made.take(if self.has_run { usize::MAX } else { 0 })
    }

    /// What each rule did with the message, by its stream.
    pub fn tallies(&self) -> impl Iterator<Item = (StreamId, Tally)> {
        let tallies = if self.has_run { self.runner.records().tallies() } else { &[] };
        let wanted =
            |tally: &&Tally| self.only.as_ref().is_none_or(|only| only.records[tally.rule]);
        tallies.iter().filter(wanted).map(|tally| (self.streams[tally.rule], *tally))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::TopicTable;
    use crate::transform::rules::plan;

    /// The streams of the records that a message makes when it comes again to a rule; 9 is that of
    /// dead letters. `None`: there is no such rule for it.
    fn again(rule: &str, topic: &str, payload: &str) -> Option<Vec<u32>> {
        let sql = "CREATE STREAM a AS SELECT x + 1 AS x, y FROM 't/#';
                   CREATE STREAM b AS SELECT y + 1 AS y FROM a;
                   CREATE STREAM c AS SELECT y FROM b;
                   CREATE STREAM other AS SELECT z + 1 AS z FROM 't/#';
                   CREATE STREAM beside AS SELECT y FROM a";
        let plan = Arc::new(plan(&[("r".to_owned(), sql.to_owned())], &[]).unwrap());
        let streams = (0..5).map(StreamId).collect();
        let table = TopicTable::with_rules(Vec::new(), plan.filters());
        let mut rules = Rulebook::new(Arc::clone(&plan), streams, StreamId(9), Limits::default());
        let mut cache = TopicCache::default();
        table.look(topic, &mut cache);
        let input = Input { received_ms: 7, ..Input::new(topic, "c", payload.as_bytes()) };
        let found = rules.run_again(&cache, &input, rule).then(|| {
            let names = |made: Made<'_>| match made.stream.0 {
                9 => 9,
                // By the place in the text.
                id => {
                    let name = &*plan.rules[id as usize].name;
                    ["a", "b", "c", "other", "beside"].iter().position(|n| *n == name).unwrap()
                        as u32
                }
            };
            let mut found: Vec<u32> = rules.made().map(names).collect();
            found.sort_unstable();
            found
        });
        rules.begin();
        assert_eq!(rules.made().count(), 0, "the next message has nothing of it");
        found
    }

    #[test]
    fn a_message_comes_again_to_one_rule_and_its_readers() {
        let check = |rule: &str, payload: &str, expected: &[u32]| {
            assert_eq!(again(rule, "t/1", payload).as_deref(), Some(expected), "{rule} {payload}");
        };
        let sound = r#"{"x":1,"y":2,"z":3}"#;
        check("a", sound, &[0, 1, 2, 4]);
        check("b", sound, &[1, 2]);
        check("c", sound, &[2]);
        check("other", sound, &[3]);
        // It fails again; what others cannot evaluate is not their concern.
        check("b", r#"{"x":1,"y":"?","z":"?"}"#, &[9]);
        check("other", r#"{"x":"?","y":2,"z":"?"}"#, &[9]);
        check("c", r#"{"x":1,"y":2,"z":"?"}"#, &[2]);
        // What it reads fails, and nothing comes to it.
        check("c", r#"{"x":"?","y":2,"z":3}"#, &[9]);
        assert_eq!(again("gone", "t/1", sound), None);
        assert_eq!(again("b", "u/1", sound), None);
    }
}
