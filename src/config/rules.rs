//! Files of rules: found by their patterns, read, planned, and their streams made as those of the
//! configuration are.
//!
//! Comes in: the configuration and the directory from which patterns start. Goes out: a plan, and
//! the streams that it feeds, or everything that is wrong. Only here files of rules are read, and
//! those of lookup tables.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::keys::nearest;
use super::section::{Given, Section};
use super::{Config, Stream, TopicFilter};
use crate::record::StreamName;
use crate::transform::rules::problem::{Position, Problem};
use crate::transform::rules::tables::{Stamp, Text};
use crate::transform::rules::{DEAD_LETTERS, Plan, Rule, plan_with};

/// Keys of a stream that a rule says itself, by its clauses.
const OF_THE_RULE: [&str; 3] = ["name", "topics", "partition_by"];

/// What is wrong with rules.
pub type Wrong = Vec<Mistake>;

/// Something that is wrong with rules, as a line for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// File and place, where it is in one.
    pub place: Option<(String, Position)>,
    pub what: String,
}

/// Where rules are read from, as long as the engine runs.
#[derive(Debug, Clone)]
pub struct RuleSource {
    /// The configuration without the streams of rules.
    config: Config,
    /// Where patterns start.
    base: PathBuf,
}

impl RuleSource {
    /// `base` is where patterns start.
    pub fn new(config: Config, base: &Path) -> Self {
        Self { config, base: base.to_owned() }
    }

    /// The rules as their files say now, and the configuration with their streams.
    pub fn load(&self) -> Result<(Plan, Config), Wrong> {
        let mut config = self.config.clone();
        let plan = load(&mut config, &self.base)?;
        Ok((plan, config))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((file, at)) = &self.place {
            write!(f, "{file}:{at}: ")?;
        }
        f.write_str(&self.what)
    }
}

impl From<Problem> for Mistake {
    fn from(Problem { file, at, what }: Problem) -> Self {
        Self { place: Some((file, at)), what }
    }
}

impl Mistake {
    /// Of no place in a file of rules.
    pub fn of_all(what: String) -> Self {
        Self { place: None, what }
    }

    /// Of a rule.
    pub fn of(rule: &Rule, what: String) -> Self {
        Self { place: Some((rule.file.to_string(), rule.at)), what }
    }
}

/// The rules of a configuration; adds their streams to it. `base` is where patterns start.
fn load(config: &mut Config, base: &Path) -> Result<Plan, Wrong> {
    let files = find(&config.rules, base)?;
    let (plan, streams) = read(&files, &config.streams)?;
    let mut wrong = Wrong::new();
    for mut stream in streams {
        let rule = plan.rules.iter().find(|rule| *rule.name == *stream.name.as_str());
        let place = rule.map(|rule| (rule.file.to_string(), rule.at));
        let problems = check(config, &stream).into_iter();
        wrong.extend(problems.map(|what| Mistake { place: place.clone(), what }));
        // Nothing but the rule feeds it.
        stream.topics.clear();
        config.streams.push(stream);
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(plan)
}

/// What is wrong with a stream as one of the configuration.
fn check(config: &Config, stream: &Stream) -> Vec<String> {
    let alone = Config { streams: vec![stream.clone()], ..config.clone() };
    let problems = alone.check().err().unwrap_or_default();
    let name = format!("stream {}", stream.name);
    problems.iter().map(|problem| problem.to_string().replace("stream[0]", &name)).collect()
}

/// Bytes of records that rules may make of one message; they fit a batch, and the log's buffer with
/// half of it granted to other shards.
pub fn message_bytes_max(config: &Config) -> usize {
    (config.log.batch_bytes_max / 2).min(config.log.buffer_bytes / 4)
}

/// The plan of some files beside the streams that there are, and the streams that it makes.
pub fn read(files: &[PathBuf], streams: &[Stream]) -> Result<(Plan, Vec<Stream>), Wrong> {
    let mut texts = Vec::new();
    let mut wrong = Wrong::new();
    for file in files {
        match std::fs::read_to_string(file) {
            Ok(text) => texts.push((file.display().to_string(), text)),
            Err(error) => {
                let what = format!("{} cannot be read: {error}", file.display());
                wrong.push(Mistake::of_all(what));
            }
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let known: Vec<_> = streams
        .iter()
        .map(|s| (s.name.as_str().to_owned(), s.topics.iter().map(|t| t.as_str().into()).collect()))
        .collect();
    let wrong = |problems: Vec<Problem>| problems.into_iter().map(Mistake::from).collect::<Wrong>();
    let plan = plan_with(&texts, &known, &read_table).map_err(wrong)?;
    let made: Vec<_> = plan.rules.iter().map(stream).collect();
    let problems: Vec<Problem> = made.iter().filter_map(|made| made.clone().err()).collect();
    if !problems.is_empty() {
        return Err(wrong(problems));
    }
    let mut made: Vec<Stream> = made.into_iter().flatten().collect();
    let known = streams.iter().any(|stream| stream.name.as_str() == DEAD_LETTERS);
    if !made.is_empty()
        && !known
        && let Ok(name) = StreamName::try_from(DEAD_LETTERS.to_owned())
    {
        made.push(Stream { name, ..Stream::default() });
    }
    Ok((plan, made))
}

/// The file of a lookup table, of at most so many bytes; else why it cannot be read.
pub fn read_table(path: &Path, bytes_max: usize) -> Result<Text, String> {
    let text = |error: io::Error| error.to_string();
    // Opening a pipe would wait for whoever writes to it.
    if !std::fs::metadata(path).map_err(text)?.is_file() {
        return Err("it is no file".to_owned());
    }
    let file = File::open(path).map_err(text)?;
    let stamp = stamp(&file.metadata().map_err(text)?);
    let mut bytes = Vec::new();
    let most = bytes_max as u64 + 1;
    file.take(most).read_to_end(&mut bytes).map_err(text)?;
    if bytes.len() > bytes_max {
        return Err(format!(
            "it has more than {bytes_max} bytes; CREATE TABLE … WITH (max_bytes = …) allows more"
        ));
    }
    Ok(Text { bytes, stamp })
}

/// What tells one version of a file from another.
pub fn stamp(of: &Metadata) -> Stamp {
    const NS: i64 = 1_000_000_000;
    let time = |seconds: i64, ns: i64| seconds.wrapping_mul(NS).wrapping_add(ns);
    [
        of.dev() as i64,
        of.ino() as i64,
        of.size() as i64,
        time(of.mtime(), of.mtime_nsec()),
        time(of.ctime(), of.ctime_nsec()),
    ]
}

/// The stream of a rule, with the options of its WITH.
fn stream(rule: &Rule) -> Result<Stream, Problem> {
    let problem = |at, what| Problem { file: rule.file.to_string(), at, what };
    let name = StreamName::try_from(rule.name.to_string());
    let name = name.map_err(|error| problem(rule.at, error.to_string()))?;
    let mut stream = Stream { name, topics: vec![TopicFilter::all()], ..Stream::default() };
    for setting in &rule.settings {
        let names = || Stream::ABOUT.keys.iter().map(|key| key.name);
        let options = || names().filter(|name| !OF_THE_RULE.contains(name));
        let key = setting.name.to_ascii_lowercase();
        if !options().any(|name| name == key) {
            let rules_own = ["key", "timestamp", "headers", "on_error", "format"];
            let near = nearest(&key, options().chain(rules_own));
            let instead = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            let what = format!("a stream has no option {}{instead}", setting.name);
            return Err(problem(setting.at, what));
        }
        let set = stream.set(&key, Given::Text(&setting.value));
        set.map_err(|why| problem(setting.at, format!("{key}: {why}")))?;
        if !stream.within_bounds(&key) {
            let (least, most) = stream.bounds(&key).unwrap_or_default();
            let what = format!("{key}: {} is not from {least} to {most}", setting.value);
            return Err(problem(setting.at, what));
        }
    }
    Ok(stream)
}

/// The files of some patterns, in the order of their names; a pattern has `*` in its last part only.
fn find(patterns: &[String], base: &Path) -> Result<Vec<PathBuf>, Wrong> {
    let mut files = Vec::new();
    for pattern in patterns {
        let whole = base.join(pattern);
        let name = whole.file_name().map(|name| name.to_string_lossy().into_owned());
        let Some(name) = name.filter(|name| name.contains('*')) else {
            files.push(whole);
            continue;
        };
        let directory = whole.parent().unwrap_or(base);
        let entries = std::fs::read_dir(directory).map_err(|error| {
            vec![Mistake::of_all(format!(
                "rules = [\"{pattern}\"]: {} cannot be read: {error}",
                directory.display()
            ))]
        })?;
        let mut found: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| matches(&name, &entry.file_name().to_string_lossy()))
            .map(|entry| entry.path())
            .collect();
        if found.is_empty() {
            let what = format!("rules = [\"{pattern}\"]: no file has such a name");
            return Err(vec![Mistake::of_all(what)]);
        }
        found.sort();
        files.extend(found);
    }
    files.dedup();
    Ok(files)
}

/// Whether a name is what a pattern with `*` says.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len())
                .filter(|at| name.is_char_boundary(*at))
                .any(|at| matches(rest, &name[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Compression, Durability};

    fn loaded(sql: &str) -> Result<(Plan, Config), Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("rules")).unwrap();
        std::fs::write(dir.path().join("rules/a.sql"), sql).unwrap();
        std::fs::write(dir.path().join("rules/b.txt"), "nothing").unwrap();
        let config = Config { rules: vec!["rules/*.sql".into()], ..Config::default() };
        let dir_name = dir.path().display().to_string();
        let short = |mistake: Mistake| mistake.to_string().replace(&dir_name, "");
        let loaded = RuleSource::new(config, dir.path()).load();
        loaded.map_err(|wrong| wrong.into_iter().map(short).collect())
    }

    #[test]
    fn a_rule_makes_a_stream_with_its_options() {
        let (plan, config) = loaded(
            "CREATE STREAM hot WITH (durability='write', compression='lz4', retention_bytes='10GB')
             AS SELECT a FROM 'x'",
        )
        .unwrap();
        assert_eq!(plan.rules.len(), 1);
        let names: Vec<_> = config.streams.iter().map(|stream| stream.name.as_str()).collect();
        assert_eq!(names, ["telemetry", "hot", "_deadletter"]);
        let hot = &config.streams[1];
        assert_eq!((hot.durability, hot.compression), (Durability::Write, Compression::Lz4));
        assert!(hot.topics.is_empty() && hot.retention_bytes == Some(10_000_000_000));
        assert_eq!(config.streams[2].durability, Durability::Fsync);
    }

    #[test]
    fn wrong_options_are_named_with_their_place() {
        let check = |with: &str, expected: &str| {
            let wrong = loaded(&format!("CREATE STREAM s WITH ({with}) AS SELECT a FROM 'x'"));
            assert_eq!(wrong.unwrap_err(), [format!("/rules/a.sql:1:23: {expected}")], "{with}");
        };
        check("durabilty='write'", "a stream has no option durabilty; did you mean durability?");
        check("topics='a'", "a stream has no option topics");
        check(
            "retention_bytes='1KiB'",
            "retention_bytes: 1KiB is not from \"1MiB\" to \"1024TiB\"",
        );
        assert!(loaded("SELECT 1").unwrap_err()[0].starts_with("/rules/a.sql:1:1: a statement"));
        let mut config = Config { rules: vec!["no/*.sql".into()], ..Config::default() };
        assert!(load(&mut config, Path::new("/nowhere")).is_err());
    }
}
