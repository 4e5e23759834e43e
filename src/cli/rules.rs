//! `tidegate rules`: are rules right, what do they do, and what do they make of samples?
//!
//! Starts nothing; reads the files that are named and, with `--config`, the configuration, whose
//! streams rules may read. `reload` and `redrive` talk to a running
//! engine.

mod dead_letter;
mod redrive;
mod redriven;
mod reload;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Failure, Settings, failure};
use crate::config::{self, Stream};
use crate::transform::rules::{Group, Input, Key, Plan, Properties, Runner, Target};

const EXAMPLES: &str = "\
Examples:
  tidegate rules check rules/*.sql
  tidegate rules explain rules/hot.sql
  echo '{\"temp\": 31.5}' | tidegate rules try --rule rules/hot.sql --input - --topic plant/7/sensor/a
  tidegate rules try --rule rules/hot.sql --input samples.jsonl

A line of samples is a payload, or {\"topic\": …, \"clientid\": …, \"payload\": …} with, if you like,
\"qos\", \"retain\", \"username\", \"content_type\", \"user_properties\": {…}; \"payload_base64\" in place of
\"payload\" is any bytes. docs/rules.md is the manual.
Exit codes: 0 all is well, 1 a sample could not be evaluated, 2 the rules are wrong.";

/// Check, explain, try and reload rules, and redrive what they could not evaluate
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Are they right?
    Check(Files),
    /// What does each rule read, test and write?
    Explain(Files),
    Try(Try),
    Reload(reload::Args),
    Redrive(redrive::Args),
}

#[derive(Debug, clap::Args)]
struct Files {
    /// Files of rules; without any, those of the configuration
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    settings: Settings,
}

/// Run samples through rules
///
/// Prints each record that they make, each error, and what a message costs.
#[derive(Debug, clap::Args)]
struct Try {
    /// File of rules, repeatable
    #[arg(long = "rule", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Samples, a message a line; `-` is stdin
    #[arg(long, value_name = "FILE")]
    input: PathBuf,

    /// Topic of samples that do not name one; without it such a sample goes to every rule
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,

    /// Client id of samples that do not name one
    #[arg(long, value_name = "ID", default_value = "sample")]
    clientid: String,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Check(files) => {
            let plan = planned(files)?;
            let names: Vec<&str> = plan.rules.iter().map(|rule| &*rule.name).collect();
            let count = names.len();
            let mut text = format!("{count} rule(s) are right: {}\n", names.join(", "));
            for (table, now) in plan.tables.all.iter().zip(&*plan.tables.current()) {
                let path = table.path.display();
                let _ = writeln!(text, "table {}: {} row(s) of {path}", table.name, now.rows());
            }
            failure::print(&text)
        }
        Command::Explain(files) => failure::print(&planned(files)?.to_string()),
        Command::Try(args) => try_samples(args),
        Command::Reload(args) => reload::run(args),
        Command::Redrive(args) => redrive::run(args),
    }
}

fn planned(args: &Files) -> Result<Plan, Failure> {
    let loaded = args.settings.load()?;
    if args.files.is_empty() {
        return Ok(loaded.plan);
    }
    let streams: Vec<Stream> =
        loaded.config.streams.into_iter().filter(|stream| !stream.topics.is_empty()).collect();
    let read = config::rules::read(&args.files, &streams).map_err(Failure::of_rules)?;
    Ok(read.0)
}

/// A line of samples that says more than the payload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample<'a> {
    topic: String,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    payload_base64: Option<Base64>,
    clientid: Option<String>,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    retain: bool,
    username: Option<String>,
    content_type: Option<String>,
    #[serde(default)]
    user_properties: std::collections::BTreeMap<String, String>,
}

/// Bytes as base64 with padding (RFC 4648, section 4).
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Base64(Vec<u8>);

impl TryFrom<String> for Base64 {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut bytes = vec![0; text.len()];
        let count = STANDARD.decode_slice(&text, &mut bytes);
        bytes.truncate(count.map_err(|error| format!("payload_base64: {error}"))?);
        Ok(Self(bytes))
    }
}

impl Sample<'_> {
    /// The payload; one that is no JSON is a string of it.
    fn payload(&self) -> Vec<u8> {
        match (&self.payload_base64, self.payload) {
            (Some(Base64(bytes)), _) => bytes.clone(),
            (None, Some(raw)) => match serde_json::from_str::<String>(raw.get()) {
                Ok(text) => text.into_bytes(),
                Err(_) => raw.get().as_bytes().to_vec(),
            },
            (None, None) => Vec::new(),
        }
    }
}

impl Properties for std::collections::BTreeMap<String, String> {
    fn first(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

/// What came of all samples.
#[derive(Debug, Default)]
struct Sums {
    messages: u64,
    bytes: u64,
    records: u64,
    failed: u64,
    spent: Duration,
}

fn try_samples(args: &Try) -> Result<(), Failure> {
    let streams = config::Config::default().streams;
    let (plan, _) = config::rules::read(&args.files, &streams).map_err(Failure::of_rules)?;
    let input: Box<dyn Read> = if args.input.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        let file = std::fs::File::open(&args.input);
        Box::new(file.map_err(|error| {
            Failure::of_use(format!("{} cannot be read: {error}", args.input.display()))
        })?)
    };
    let mut trial = Trial { plan: &plan, args, runner: Runner::default(), sums: Sums::default() };
    for line in BufReader::new(input).split(b'\n') {
        let line = line.map_err(|error| Failure::at_run_time(&error))?;
        if !line.trim_ascii().is_empty() {
            failure::print(&trial.sample(&line))?;
        }
    }
    let Sums { messages, bytes, records, failed, spent } = trial.sums;
    let each = spent.as_nanos() as u64 / messages.max(1);
    // To stderr, so that stdout is the results alone.
    let _ = writeln!(
        std::io::stderr(),
        "{messages} message(s), {bytes} bytes: {records} record(s), {failed} error(s); \
         {each} ns a message"
    );
    if failed > 0 {
        let what = format!("{failed} time(s) a rule could not evaluate a sample");
        return Err(Failure::at_run_time(&std::io::Error::other(what)));
    }
    Ok(())
}

/// Samples on their way through a plan.
struct Trial<'a> {
    plan: &'a Plan,
    args: &'a Try,
    runner: Runner,
    sums: Sums,
}

impl Trial<'_> {
    /// Runs a line through the plan, and shows what came of it.
    fn sample(&mut self, line: &[u8]) -> String {
        // With both or neither of the payloads it is a payload itself.
        let sample = serde_json::from_slice::<Sample<'_>>(line)
            .ok()
            .filter(|sample| sample.payload.is_some() != sample.payload_base64.is_some());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let properties = std::collections::BTreeMap::new();
        let payload;
        let (mut topic, mut input) = (
            self.args.topic.as_deref(),
            Input {
                topic: self.args.topic.as_deref().unwrap_or_default(),
                client_id: &self.args.clientid,
                payload: line,
                qos: 0,
                retain: false,
                username: None,
                content_type: None,
                properties: &properties,
                received_ms: now.as_millis() as i64,
                overhead_bytes: 0,
            },
        );
        if let Some(sample) = &sample {
            topic = Some(&sample.topic);
            payload = sample.payload();
            input = Input {
                topic: &sample.topic,
                client_id: sample.clientid.as_deref().unwrap_or(&self.args.clientid),
                payload: &payload,
                qos: sample.qos,
                retain: sample.retain,
                username: sample.username.as_deref(),
                content_type: sample.content_type.as_deref(),
                properties: &sample.user_properties,
                ..input
            };
        }
        let wants =
            |filter: &str| topic.is_none_or(|topic| crate::transform::matches(filter, topic));
        let mut rules: Vec<usize> =
            self.plan.filters().filter(|(filter, _)| wants(filter)).map(|(_, rule)| rule).collect();
        rules.dedup();
        let group = Group::new(&self.plan.rules, &rules);
        // Once to warm up: the first run of all makes the buffers.
        self.runner.run(self.plan, &group, &input);
        let begun = Instant::now();
        self.runner.run(self.plan, &group, &input);
        self.sums.spent += begun.elapsed();
        self.sums.messages += 1;
        self.sums.bytes += input.payload.len() as u64;
        self.shown(&input)
    }

    fn shown(&mut self, input: &Input<'_>) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let records = self.runner.records();
        self.sums.failed +=
            records.tallies().iter().map(|tally| u64::from(tally.failed)).sum::<u64>();
        let mut out = String::new();
        for record in records.iter() {
            let body = text(records.body(record).unwrap_or(input.payload));
            let extras = records.extras(record);
            let headers: Vec<_> = extras.headers().map(|(n, v)| (text(n), text(v))).collect();
            match record.target {
                Target::Rule(rule) => {
                    self.sums.records += 1;
                    let _ = write!(out, "{} {body}", self.plan.rules[rule].name);
                    if let Key::Is(key) = extras.key() {
                        let _ = write!(out, "  key={}", text(key));
                    }
                    if let Some(ms) = extras.timestamp_ms() {
                        let _ = write!(out, "  timestamp={ms}");
                    }
                    for (name, value) in headers {
                        let _ = write!(out, "  {name}={value}");
                    }
                    out.push('\n');
                }
                Target::DeadLetters => {
                    let of = |wanted: &str| {
                        headers.iter().find(|(name, _)| name == wanted).map_or("", |(_, v)| &**v)
                    };
                    let (position, rule, reason) = (of("position"), of("rule"), of("reason"));
                    let _ = writeln!(out, "error {position}: {rule}: {reason}: {body}");
                }
            }
        }
        out
    }
}
