//! A plan at work on one shard: the rules of a topic as a group, run on its messages.
//!
//! Comes in: a message, and who wants its topic. Goes out: the records that rules make of it, with
//! the streams that they go to. Groups are made when a topic is first seen, and kept.

use std::collections::HashMap;
use std::sync::Arc;

use super::TopicCache;
use super::rules::{Extras, Group, Input, Limits, Plan, Runner, Tally, Target};
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
        Self { plan, streams, dead_letters, groups, runner, has_run: false }
    }

    /// Forgets the records of the last message.
    #[inline]
    pub fn begin(&mut self) {
        self.has_run = false;
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

    /// Lets go of old versions of lookup tables; to be called now and then, also without messages.
    pub fn refresh(&mut self) {
        self.runner.refresh(&self.plan);
    }

    /// The records that came of the message.
    pub fn made(&self) -> impl Iterator<Item = Made<'_>> {
        let records = self.runner.records();
        let made = records.iter().map(move |record| Made {
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
        tallies.iter().map(|tally| (self.streams[tally.rule], *tally))
    }
}
