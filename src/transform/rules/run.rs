//! Messages through a plan: fields found once a payload, WHERE first, records written once.
//!
//! Comes in: a message and the group of rules that want its topic. Goes out: records as ranges of
//! one buffer that is used again, so that a message costs no allocation once buffer and arena have
//! their size. A rule gives all of its records of a message, or one dead letter.

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use super::eval::{self, Context, Failure};
use super::expr::Expr;
use super::extras::{Extras, Key, Writer};
use super::fields;
use super::formats::Format;
use super::formats::sparkplug::{Birth, Nodes};
use super::group::Group;
use super::input::Input;
use super::json::{self, Field, Raw};
use super::plan::{Item, OnError, Output, Plan, Rule, Unnest};
use super::problem::Position;
use super::tables::{Held, Table};
use super::value::{EvalError, Scratch, Value};
use super::write;

/// Bytes that records and arena may keep between messages; what a larger message took is let go of.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// The end of the year 9999: the log takes differences of timestamps.
const YEAR_9999_MS: i64 = 253_402_300_799_999;

/// Runs messages through a plan; one a shard.
#[derive(Debug, Default)]
pub struct Runner {
    scratch: Scratch,
    records: Records,
    /// The births of Sparkplug's edge nodes: what alone outlives a message.
    nodes: Nodes,
    tables: Held,
}

/// What the records of one message may take together. One dead letter is always taken beside them.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub records_max: usize,
    /// Of all records, their headers included.
    pub bytes_max: usize,
}

/// What became of a message.
#[derive(Debug, Default)]
pub struct Records {
    limits: Limits,
    bytes: Vec<u8>,
    records: Vec<Record>,
    /// Bytes of all records.
    taken_bytes: usize,
    tallies: Vec<Tally>,
}

/// A record that rules have made.
#[derive(Debug, Clone)]
pub struct Record {
    pub target: Target,
    /// `None`: the payload of the message, as it came.
    body: Option<Range<usize>>,
    extras: Range<usize>,
}

/// Where a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The stream of this rule.
    Rule(usize),
    DeadLetters,
}

/// What one rule did with one payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub rule: usize,
    /// Records.
    pub passed: u32,
    /// Expressions without a value, or the payload that could not be read.
    pub failed: u32,
}

impl Default for Limits {
    /// For samples and tests.
    fn default() -> Self {
        Self { records_max: 1024, bytes_max: 16 << 20 }
    }
}

impl Runner {
    pub fn new(limits: Limits) -> Self {
        let records = Records { limits, ..Records::default() };
        Self { records, ..Self::default() }
    }

    /// Runs a message through the rules of a group. The records stand until the next run.
    pub fn run(&mut self, plan: &Plan, group: &Group, input: &Input<'_>) -> &Records {
        self.scratch.reset();
        if self.scratch.allocated_bytes() > KEPT_BYTES_MAX {
            self.scratch = Scratch::new();
        }
        self.records.clear();
        self.tables.refresh(&plan.tables);
        let Self { scratch, records, nodes, tables } = self;
        let tables = tables.tables();
        let mut run = Run { plan, input, scratch, records, nodes, tables };
        run.group(group, input.payload);
        &self.records
    }

    /// As [`Runner::run`], for a message of long ago: births in it are not remembered.
    pub fn run_again(&mut self, plan: &Plan, group: &Group, input: &Input<'_>) -> &Records {
        let known = Birth::of_topic(input.topic).map(|_| std::mem::take(&mut self.nodes));
        self.run(plan, group, input);
        if let Some(known) = known {
            self.nodes = known;
        }
        &self.records
    }

    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Takes the versions of lookup tables that there are now, as [`Runner::run`] does.
    pub fn refresh(&mut self, plan: &Plan) {
        self.tables.refresh(&plan.tables);
    }
}

impl Records {
    fn clear(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.records.clear();
        self.taken_bytes = 0;
        self.tallies.clear();
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Record> {
        self.records.iter()
    }

    /// What each rule did, a rule as often as it had a payload.
    pub fn tallies(&self) -> &[Tally] {
        &self.tallies
    }

    /// The value of a record; `None` where it is the message's own payload.
    pub fn body(&self, record: &Record) -> Option<&[u8]> {
        record.body.clone().map(|body| &self.bytes[body])
    }

    /// Key, timestamp and headers.
    pub fn extras(&self, record: &Record) -> Extras<'_> {
        Extras::new(&self.bytes[record.extras.clone()])
    }

    /// Writes something, and tells where it stands.
    fn put(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let from = self.bytes.len();
        put(&mut self.bytes);
        from..self.bytes.len()
    }

    /// Takes a record, if there is room for it.
    fn push(&mut self, record: Record, input: &Input<'_>) -> Result<(), EvalError> {
        let value = record.body.as_ref().map_or(input.payload.len(), Range::len);
        let bytes = self.taken_bytes + value + record.extras.len() + input.overhead_bytes;
        let full = self.records.len() >= self.limits.records_max || bytes > self.limits.bytes_max;
        let first_dead = record.target == Target::DeadLetters
            && self.records.iter().all(|record| record.target != Target::DeadLetters);
        if full && !first_dead {
            let why = "one message makes more records, or larger ones, than the log takes at once";
            return Err(EvalError::Argument { of: "the rule", why });
        }
        self.taken_bytes = bytes;
        self.records.push(record);
        Ok(())
    }
}

/// One message on its way.
struct Run<'a, 'r> {
    plan: &'a Plan,
    input: &'a Input<'a>,
    scratch: &'a Scratch,
    records: &'r mut Records,
    nodes: &'r mut Nodes,
    tables: &'a [Arc<Table>],
}

impl<'a> Run<'a, '_> {
    /// A payload through all rules of a group.
    fn group(&mut self, group: &'a Group, payload: &'a [u8]) {
        // What was found, and how the payload was read for it.
        let mut read: Option<(Format, Result<&'a [Field<'a>], EvalError>)> = None;
        for (index, slots) in group.iter() {
            let rule = &self.plan.rules[index];
            let (input, scratch) = (self.input, self.scratch);
            let format = fields::format(rule, payload, input);
            let found = match read {
                Some((as_this, found)) if as_this == format => found,
                _ => fields::read(format, &group.paths, payload, input, scratch, self.nodes),
            };
            read = Some((format, found));
            let fields = found.unwrap_or_default();
            let mut cx = Context { input, fields, slots, element: &[], rows: &[], scratch };
            let (records, taken) = (self.records.records.len(), self.records.taken_bytes);
            let tally = self.records.tallies.len();
            self.records.tallies.push(Tally { rule: index, passed: 0, failed: 0 });
            let mut one = RuleRun { index, rule, payload, failed: 0, passed: 0 };
            // A rule that reads nothing does not care what the payload is.
            let result = match found {
                Err(error) if !rule.paths.is_empty() => Err(Failure::from(error)),
                _ => self.rule(&mut one, &mut cx),
            };
            if let Err(failure) = result {
                self.records.records.truncate(records);
                self.records.taken_bytes = taken;
                self.records.tallies.truncate(tally + 1);
                one.passed = 0;
                one.failed += 1;
                if rule.on_error != OnError::Drop {
                    self.dead_letter(rule, &failure);
                }
            }
            let RuleRun { passed, failed, .. } = one;
            self.records.tallies[tally] = Tally { rule: index, passed, failed };
        }
    }

    /// A payload through a rule.
    fn rule(&mut self, one: &mut RuleRun<'a>, cx: &mut Context<'a>) -> Result<(), Failure> {
        let rule = one.rule;
        let once = rule.unnest.as_ref().map_or(rule.gates.len(), |unnest| unnest.gates_from);
        if !one.passes(&rule.gates[..once], self.tables, cx)? {
            return Ok(());
        }
        match &rule.unnest {
            None => self.record(one, cx),
            Some(unnest) => self.elements(one, unnest, cx),
        }
    }

    fn elements(
        &mut self,
        one: &mut RuleRun<'a>,
        unnest: &'a Unnest,
        cx: &Context<'a>,
    ) -> Result<(), Failure> {
        let array = match one.eval(&unnest.array, cx)? {
            Value::Null => return Ok(()),
            Value::Json(array) if array.starts_with('[') => array,
            other => {
                let found = other.kind();
                let error = EvalError::Type { of: "UNNEST", wanted: "an array", found };
                return Err(Failure { at: unnest.array.at, error });
            }
        };
        let (scratch, tables) = (self.scratch, self.tables);
        let gates = &one.rule.gates[unnest.gates_from..];
        json::elements(array, scratch, &mut |raw: Raw<'a>| {
            let fields = scratch.alloc_slice_fill_copy(unnest.paths.len(), Field::Missing);
            json::extract_text(raw.text, &unnest.paths, scratch, fields)?;
            let mut cx = Context { element: fields, ..*cx };
            if !one.passes(gates, tables, &mut cx)? {
                return Ok(());
            }
            self.record(one, &cx)
        })
    }

    /// Writes a record, and gives it to the rules that read this one's records.
    fn record(&mut self, one: &mut RuleRun<'a>, cx: &Context<'a>) -> Result<(), Failure> {
        let rule = one.rule;
        let extras = self.extras(one, cx)?;
        let body = self.body(one, cx)?;
        one.passed += 1;
        let target = Target::Rule(one.index);
        let read_on = (!rule.readers.rules.is_empty()).then(|| match &body {
            None => one.payload,
            // The buffer grows while the next rules write.
            Some(body) => &*self.scratch.alloc_slice_copy(&self.records.bytes[body.clone()]),
        });
        self.records.push(Record { target, body, extras }, self.input)?;
        if let Some(payload) = read_on {
            self.group(&rule.readers, payload);
        }
        Ok(())
    }

    /// Writes key, timestamp and headers.
    fn extras(&mut self, one: &mut RuleRun<'a>, cx: &Context<'a>) -> Result<Range<usize>, Failure> {
        let rule = one.rule;
        if rule.key.is_none() && rule.timestamp.is_none() && rule.headers.is_empty() {
            return Ok(0..0);
        }
        let mut key_text = bumpalo::collections::Vec::new_in(cx.scratch);
        let key = match &rule.key {
            None => Key::Unsaid,
            Some(key) => match one.eval(key, cx)? {
                Value::Null => Key::None,
                Value::Text(text) => Key::Is(text.as_bytes()),
                Value::Bytes(bytes) => Key::Is(bytes),
                other => {
                    let range = self.records.put(|bytes| write::plain(bytes, other));
                    key_text.extend_from_slice(&self.records.bytes[range]);
                    Key::Is(&key_text)
                }
            },
        };
        let timestamp_ms = match &rule.timestamp {
            None => None,
            Some(timestamp) => match one.eval(timestamp, cx)? {
                Value::Null => None,
                Value::Int(ms @ 0..=YEAR_9999_MS) => Some(ms),
                Value::Float(ms) if (0.0..=YEAR_9999_MS as f64).contains(&ms) => Some(ms as i64),
                other => {
                    let (wanted, found) = ("milliseconds from 1970 to 9999", other.kind());
                    let error = EvalError::Type { of: "timestamp", wanted, found };
                    return Err(Failure { at: timestamp.at, error });
                }
            },
        };
        let mut writer = Writer::new(&mut self.records.bytes, key, timestamp_ms)?;
        for (name, expr) in &rule.headers {
            let value = one.eval(expr, cx)?;
            if !value.is_null() {
                writer.header(name, |bytes| write::plain(bytes, value))?;
            }
        }
        Ok(writer.end()?)
    }

    fn body(
        &mut self,
        one: &mut RuleRun<'a>,
        cx: &Context<'a>,
    ) -> Result<Option<Range<usize>>, Failure> {
        let items = match &one.rule.output {
            Output::Untouched if std::ptr::eq(one.payload, self.input.payload) => return Ok(None),
            Output::Untouched => {
                return Ok(Some(self.records.put(|bytes| bytes.extend_from_slice(one.payload))));
            }
            Output::Object(items) => items,
        };
        let from = self.records.bytes.len();
        let mut between = b'{';
        for item in items {
            match item {
                Item::Payload | Item::Element => {
                    self.members(one, item, items, cx, &mut between)?;
                }
                Item::Column { head, value, .. } => {
                    self.records.bytes.push(between);
                    self.records.bytes.extend_from_slice(head);
                    one.write(value, cx, &mut self.records.bytes)?;
                    between = b',';
                }
            }
        }
        if between == b'{' {
            self.records.bytes.push(b'{');
        }
        self.records.bytes.push(b'}');
        Ok(Some(from..self.records.bytes.len()))
    }

    /// Writes the members of the payload or element that no column replaces.
    fn members(
        &mut self,
        one: &RuleRun<'a>,
        item: &Item,
        items: &[Item],
        cx: &Context<'a>,
        between: &mut u8,
    ) -> Result<(), Failure> {
        let paths = match (item, &one.rule.unnest) {
            (Item::Element, Some(unnest)) => &unnest.paths,
            _ => &one.rule.paths,
        };
        let whole = paths.root().slot().map(|slot| match item {
            Item::Element => cx.element[slot],
            _ => cx.field(slot),
        });
        let text = match whole {
            None | Some(Field::Missing) => return Ok(()),
            Some(Field::Json(raw)) => raw.text,
            Some(Field::Value(Value::Json(text))) => text,
            Some(Field::Value(_)) => "",
        };
        if !text.starts_with('{') {
            let found = whole.map_or(Ok(Value::Null), |w| eval::value_of(w, cx.scratch))?.kind();
            return Err(
                EvalError::Type { of: "* among columns", wanted: "an object", found }.into()
            );
        }
        let bytes = &mut self.records.bytes;
        json::members(text, cx.scratch, &mut |key, value| {
            let name = key.string(cx.scratch)?;
            let replaced = items
                .iter()
                .any(|item| matches!(item, Item::Column { name: column, .. } if **column == *name));
            if !replaced {
                bytes.push(*between);
                bytes.extend_from_slice(key.text.as_bytes());
                bytes.push(b':');
                bytes.extend_from_slice(value.text.as_bytes());
                *between = b',';
            }
            Ok(())
        })?;
        Ok(())
    }

    /// The message as it came, with what was wrong in headers.
    fn dead_letter(&mut self, rule: &Rule, failure: &Failure) {
        let at = if failure.at.line == 0 { rule.at } else { failure.at };
        let bytes = &mut self.records.bytes;
        let received_ms = self.input.received_ms;
        let Ok(extras) = dead_headers(bytes, (rule, at), received_ms, failure) else { return };
        let record = Record { target: Target::DeadLetters, body: None, extras };
        // Where there are too many of one message already, the count of errors tells.
        let _ = self.records.push(record, self.input);
    }
}

fn dead_headers(
    bytes: &mut Vec<u8>,
    (rule, at): (&Rule, Position),
    received_ms: i64,
    failure: &Failure,
) -> Result<Range<usize>, EvalError> {
    // Also of a message that fails again: the time at which it came first.
    let mut writer = Writer::new(bytes, Key::Unsaid, Some(received_ms))?;
    // Writing to memory does not fail.
    writer.header("rule", |bytes| bytes.extend_from_slice(rule.name.as_bytes()))?;
    writer.header("position", |bytes| drop(write!(bytes, "{}:{at}", rule.file)))?;
    writer.header("reason", |bytes| drop(write!(bytes, "{failure}")))?;
    writer.end()
}

/// One rule with one payload.
pub(super) struct RuleRun<'a> {
    index: usize,
    pub(super) rule: &'a Rule,
    payload: &'a [u8],
    passed: u32,
    pub(super) failed: u32,
}

impl<'a> RuleRun<'a> {
    /// The value; with `on_error='null'` NULL where there is none.
    pub(super) fn eval(&mut self, expr: &'a Expr, cx: &Context<'a>) -> Result<Value<'a>, Failure> {
        match expr.eval(cx) {
            Err(_) if self.rule.on_error == OnError::Null => {
                self.failed += 1;
                Ok(Value::Null)
            }
            result => result,
        }
    }

    /// Writes the value of a column; a field alone as it stands in the payload.
    fn write(
        &mut self,
        expr: &'a Expr,
        cx: &Context<'a>,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        match expr.found(cx) {
            Some(found) => write::field(out, found),
            None => write::value(out, self.eval(expr, cx)?),
        }
        Ok(())
    }
}
