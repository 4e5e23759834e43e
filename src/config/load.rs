//! Flags over environment over file over defaults.
//!
//! In: the text of the file, variables, flags. Out: a checked configuration and where each value
//! came from, or every problem with its place. Only [`File::read`] and [`Variable::of_process`]
//! touch the outside.
//!
//! Invariant: a value that was given is either in the configuration or in a problem; nothing that
//! was written is passed over silently.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{ROWS, Row, VARIABLE_CONFIG, VARIABLE_LOG, VARIABLE_PREFIX, nearest};
use super::problem::{FilePlace, Place, Problem};
use super::section::{About, Given, Section};
use super::{Config, Mistake, RuleSource, Stream};
use crate::transform::rules::Plan;

/// The configuration file.
#[derive(Debug, Clone, Default)]
pub struct File {
    /// As it was named, for messages.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl File {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, Box<Problem>> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self { path: path.to_owned(), text }),
            Err(error) => Err(Box::new(Problem {
                keys: Vec::new(),
                place: None,
                what: format!("the configuration file {} cannot be read: {error}", path.display()),
                remedy: Some(
                    "name a readable TOML file; `tidegate config` prints one to start from".into(),
                ),
            })),
        }
    }
}

/// A value from the environment.
#[derive(Debug, Clone)]
pub struct Variable {
    /// Its name, with the prefix.
    pub name: String,
    /// Its value; `None` where it is not UTF-8.
    pub value: Option<String>,
}

impl Variable {
    /// The variables of this process that begin with the prefix, by name.
    pub fn of_process() -> Vec<Self> {
        let mut variables: Vec<Self> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
            .map(|(name, value)| Self { name, value: value.into_string().ok() })
            .collect();
        variables.sort_by(|a, b| a.name.cmp(&b.name));
        variables
    }
}

/// A value from a flag.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The path of its key, as `mqtt.listen`.
    pub path: String,
    /// The value.
    pub value: String,
}

/// All that a configuration is made from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file, where one was named.
    pub file: Option<File>,
    /// The environment.
    pub variables: Vec<Variable>,
    /// The flags.
    pub flags: Vec<Flag>,
}

/// Where the values came from, by path (`mqtt.listen`, `stream[0].name`); defaults are absent.
pub type Origins = HashMap<String, Place>;

/// A configuration that passed its checks.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Where its values came from.
    pub origins: Origins,
    /// What is allowed but deserves a word.
    pub warnings: Vec<String>,
    /// The rules; their streams are in the configuration.
    pub plan: Plan,
    /// Where the rules came from, to be read again.
    pub rules: RuleSource,
}

/// Joins the sources and checks the result. The problems are never an empty list.
pub fn load(sources: &Sources) -> Result<Loaded, Vec<Problem>> {
    let mut loading = Loading::default();
    if let Some(file) = &sources.file {
        loading.base = file.path.parent().map(Path::to_owned).unwrap_or_default();
        loading.file(file);
    }
    for variable in &sources.variables {
        loading.variable(variable);
    }
    for flag in &sources.flags {
        loading.flag(flag);
    }
    loading.finish()
}

#[derive(Default)]
struct Loading {
    config: Config,
    origins: Origins,
    warnings: Vec<String>,
    problems: Vec<Problem>,
    /// The directory of the file, from which the patterns of rules start.
    base: PathBuf,
}

impl Loading {
    fn finish(mut self) -> Result<Loaded, Vec<Problem>> {
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        if let Err(mut problems) = self.config.check() {
            for problem in &mut problems {
                problem.place = problem.keys.iter().find_map(|key| self.origins.get(key)).cloned();
            }
            return Err(problems);
        }
        self.warnings.extend(self.config.warnings());
        let rules = RuleSource::new(self.config, &self.base);
        let (plan, config) = rules.load().map_err(|wrong| {
            let problem = |mistake: Mistake| {
                let what = mistake.to_string();
                Problem { keys: Vec::new(), place: None, what, remedy: None }
            };
            wrong.into_iter().map(problem).collect::<Vec<_>>()
        })?;
        Ok(Loaded { config, origins: self.origins, warnings: self.warnings, plan, rules })
    }

    fn variable(&mut self, variable: &Variable) {
        let name = variable.name.as_str();
        if [VARIABLE_CONFIG, VARIABLE_LOG].contains(&name) {
            return;
        }
        let Some(row) = ROWS.iter().find(|row| row.variable == name) else {
            let meant = nearest(name, ROWS.iter().map(|row| row.variable.as_str()));
            self.warnings.push(match meant {
                _ if name.starts_with("TIDEGATE_STREAM") => {
                    format!("{name} sets nothing: streams are set in the configuration file only")
                }
                Some(meant) => format!("{name} sets nothing; did you mean {meant}?"),
                None => format!("{name} sets nothing; `tidegate serve --help` lists the variables"),
            });
            return;
        };
        match &variable.value {
            Some(value) => self.text(row, value, Place::Variable(name.to_owned())),
            None => self.problems.push(Problem::at(
                Place::Variable(name.to_owned()),
                format!("{}: the value is not UTF-8", row.path),
                None,
            )),
        }
    }

    fn flag(&mut self, flag: &Flag) {
        match ROWS.iter().find(|row| row.path == flag.path) {
            Some(row) => self.text(row, &flag.value, Place::Flag(format!("--{}", row.flag))),
            None => unreachable!("a flag of the key {}, which does not exist", flag.path),
        }
    }

    fn text(&mut self, row: &Row, value: &str, place: Place) {
        let Some(section) = self.config.section_mut(row.about.table) else { return };
        match section.set(row.key.name, Given::Text(value)) {
            Ok(()) => {
                self.origins.insert(row.path.clone(), place);
            }
            Err(why) => {
                self.problems.push(Problem::at(place, format!("{}: {why}", row.path), None));
            }
        }
    }

    fn file(&mut self, file: &File) {
        let root = match DeTable::parse(&file.text) {
            Ok(root) => root,
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                let what = format!("not valid TOML: {}", error.message().replace('\n', ", "));
                self.problems.push(Problem::at(place(file, span), what, None));
                return;
            }
        };
        for (key, value) in in_order(root.get_ref()) {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("stream", streams) => self.streams(file, value.span(), streams),
                (name, DeValue::Table(table)) if self.is_table(name) => {
                    self.table(file, name, table);
                }
                (name, _) if self.is_table(name) => self.problems.push(Problem::at(
                    place(file, key.span()),
                    format!("{name} is a table"),
                    Some(format!("write [{name}] on a line of its own and its keys below")),
                )),
                _ => self.file_key(file, "", key, value),
            }
        }
    }

    fn is_table(&mut self, name: &str) -> bool {
        !name.is_empty() && self.config.section_mut(name).is_some()
    }

    fn table(&mut self, file: &File, name: &str, table: &DeTable<'_>) {
        for (key, value) in in_order(table) {
            self.file_key(file, name, key, value);
        }
    }

    fn file_key(
        &mut self,
        file: &File,
        table: &str,
        key: &Spanned<impl AsRef<str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let Some(section) = self.config.section_mut(table) else { return };
        match set(section, key.get_ref().as_ref(), value.get_ref()) {
            Ok(path) => {
                self.origins.insert(path, place(file, key.span()));
            }
            Err(Refused::Unknown(what, remedy)) => {
                self.problems.push(Problem::at(place(file, key.span()), what, Some(remedy)));
            }
            Err(Refused::Value(what)) => {
                self.problems.push(Problem::at(place(file, value.span()), what, None));
            }
        }
    }

    fn streams(&mut self, file: &File, span: Range<usize>, streams: &DeValue<'_>) {
        let tables = match streams {
            DeValue::Array(items) => items
                .iter()
                .map(|item| item.get_ref().as_table().map(|table| (item.span(), table)))
                .collect::<Option<Vec<_>>>(),
            _ => None,
        };
        let Some(tables) = tables else {
            let what = "stream is a list of tables".to_owned();
            let remedy = "write [[stream]], with two brackets, before each stream".to_owned();
            self.problems.push(Problem::at(place(file, span), what, Some(remedy)));
            return;
        };
        self.config.streams.clear();
        for (index, (span, table)) in tables.into_iter().enumerate() {
            self.stream(file, index, span, table);
        }
    }

    fn stream(&mut self, file: &File, index: usize, span: Range<usize>, table: &DeTable<'_>) {
        let mut stream = Stream::default();
        for (key, value) in in_order(table) {
            match set(&mut stream, key.get_ref(), value.get_ref()) {
                Ok(_) => {
                    let path = format!("stream[{index}].{}", key.get_ref());
                    self.origins.insert(path, place(file, key.span()));
                }
                Err(Refused::Unknown(what, remedy)) => {
                    self.problems.push(Problem::at(place(file, key.span()), what, Some(remedy)));
                }
                Err(Refused::Value(what)) => {
                    self.problems.push(Problem::at(place(file, value.span()), what, None));
                }
            }
        }
        self.origins.insert(format!("stream[{index}]"), place(file, span.clone()));
        if !table.contains_key("name") {
            self.problems.push(Problem::at(
                place(file, span),
                "a stream without a name".to_owned(),
                Some("add name = \"…\"; Kafka clients see it as the topic".to_owned()),
            ));
        }
        self.config.streams.push(stream);
    }
}

fn place(file: &File, span: Range<usize>) -> Place {
    Place::File(FilePlace::new(file.path.clone(), &file.text, span))
}

/// The entries of a table in the order of the file, so that problems are told in that order.
fn in_order<'a, 'i>(
    table: &'a DeTable<'i>,
) -> Vec<(&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

enum Refused {
    /// No such key: what, and the remedy.
    Unknown(String, String),
    /// The value is wrong: what.
    Value(String),
}

/// Sets a key of a section from the file; returns the key's path.
fn set(section: &mut dyn Section, key: &str, value: &DeValue<'_>) -> Result<String, Refused> {
    let about = section.about();
    if about.key(key).is_none() {
        return Err(unknown(about, key));
    }
    let path = about.path(key);
    match section.set(key, Given::Toml(value)) {
        Ok(()) => Ok(path),
        Err(why) => Err(Refused::Value(format!("{path}: {why}"))),
    }
}

/// The message for a key that its table does not have: the nearest, or where it belongs, or all.
fn unknown(about: &About, key: &str) -> Refused {
    let tables = ["mqtt", "kafka", "http", "log", "ring", "receive", "stream"];
    let top = about.table.is_empty();
    let known = about.keys.iter().map(|key| key.name).chain(tables.into_iter().filter(|_| top));
    let what = match about.table {
        "" => format!("unknown key {key}"),
        "stream" => format!("unknown key {key} in [[stream]]"),
        table => format!("unknown key {key} in [{table}]"),
    };
    let elsewhere = ROWS.iter().find(|row| row.key.name == key);
    let remedy = match (nearest(key, known.clone()), elsewhere) {
        (Some(meant), _) => format!("did you mean {meant}?"),
        (None, Some(row)) if row.about.table.is_empty() => {
            format!("{key} belongs at the top of the file, before the first [table]")
        }
        (None, Some(row)) => format!("{key} belongs in [{}]", row.about.table),
        (None, None) => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
    };
    Refused::Unknown(what, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Option<File> {
        Some(File { path: "t.toml".into(), text: text.to_owned() })
    }

    fn variable(name: &str, value: &str) -> Variable {
        Variable { name: name.to_owned(), value: Some(value.to_owned()) }
    }

    fn flag(path: &str, value: &str) -> Flag {
        Flag { path: path.to_owned(), value: value.to_owned() }
    }

    fn told(sources: &Sources) -> Vec<String> {
        load(sources).unwrap_err().iter().map(Problem::to_string).collect()
    }

    /// The one problem of a file, as it is told.
    fn check(text: &str, expected: &str) {
        assert_eq!(told(&Sources { file: file(text), ..Sources::default() }), [expected], "{text}");
    }

    #[test]
    fn flags_over_environment_over_file_over_defaults() {
        let check = |file_text: &str, env: &[&str], flags: &[&str], expected: u32, place: &str| {
            let loaded = load(&Sources {
                file: file(file_text),
                variables: env
                    .iter()
                    .map(|value| variable("TIDEGATE_MQTT_CONNECTIONS_MAX", value))
                    .collect(),
                flags: flags.iter().map(|value| flag("mqtt.connections_max", value)).collect(),
            })
            .unwrap();
            assert_eq!(loaded.config.mqtt.connections_max, expected);
            let found = loaded.origins.get("mqtt.connections_max").map(Place::to_string);
            assert_eq!(found.as_deref().unwrap_or("default"), place);
        };
        let set = "[mqtt]\nconnections_max = 1";
        check("", &[], &[], 20_000, "default");
        check(set, &[], &[], 1, "t.toml:2");
        check(set, &["2"], &[], 2, "TIDEGATE_MQTT_CONNECTIONS_MAX");
        check(set, &["2"], &["3"], 3, "--mqtt-connections-max");
        check(set, &[], &["3"], 3, "--mqtt-connections-max");
    }

    #[test]
    fn every_key_can_be_set_everywhere() {
        for row in ROWS.iter() {
            let sample = row.default.clone().unwrap_or_else(|| match row.key.value {
                "N" => "8".to_owned(),
                _ => "\"host\"".to_owned(),
            });
            let bare = sample.trim_matches('"');
            let text = match row.about.table {
                "" => format!("{} = {sample}", row.key.name),
                table => format!("[{table}]\n{} = {sample}", row.key.name),
            };
            for sources in [
                Sources { file: file(&text), ..Sources::default() },
                Sources { variables: vec![variable(&row.variable, bare)], ..Sources::default() },
                Sources { flags: vec![flag(&row.path, bare)], ..Sources::default() },
            ] {
                let loaded = load(&sources).unwrap();
                let mut config = loaded.config;
                let section = config.section_mut(row.about.table).unwrap();
                assert_eq!(section.show(row.key.name), Some(sample.clone()), "{}", row.path);
                assert!(loaded.origins.contains_key(&row.path), "{}", row.path);
            }
        }
    }

    #[test]
    fn unknown_keys() {
        check(
            "data_dri = \"x\"",
            "unknown key data_dri\n --> t.toml:1:1\n  |\n1 | data_dri = \"x\"\n  | ^^^^^^^^\n  \
             help: did you mean data_dir?",
        );
        check(
            "\n[mqtt]\n  lisen = 1",
            "unknown key lisen in [mqtt]\n --> t.toml:3:3\n  |\n3 |   lisen = 1\n  |   ^^^^^\n  \
             help: did you mean listen?",
        );
        check(
            "[[stream]]\nname = \"a\"\ntopic = [\"a\"]",
            "unknown key topic in [[stream]]\n --> t.toml:3:1\n  |\n3 | topic = [\"a\"]\n  | ^^^^^\n  \
             help: did you mean topics?",
        );
        check(
            "mqtt.Keep-Alive-Max = 1",
            "unknown key Keep-Alive-Max in [mqtt]\n --> t.toml:1:6\n  |\n1 | mqtt.Keep-Alive-Max = 1\n  \
             |      ^^^^^^^^^^^^^^\n  help: did you mean keep_alive_max?",
        );
        let ends = |text: &str, expected: &str| {
            let [problem] = &told(&Sources { file: file(text), ..Sources::default() })[..] else {
                panic!("{text}")
            };
            assert!(problem.ends_with(expected), "{problem}");
        };
        ends("[mqqt]\nlisten = 1", "help: did you mean mqtt?");
        ends("packet_bytes_max = 1", "help: packet_bytes_max belongs in [mqtt]");
        ends("[http]\nspin = 1", "spin belongs at the top of the file, before the first [table]");
        ends("[http]\nzzzzzzz = 1", "help: known here: listen");
    }

    #[test]
    fn wrong_shapes() {
        check(
            "[mqtt]\nlisten = \"x\"",
            "mqtt.listen: \"x\" is not an IP address with a port, such as \"127.0.0.1:1883\" or \
             \"[::]:1883\"\n --> t.toml:2:10\n  |\n2 | listen = \"x\"\n  |          ^^^",
        );
        check(
            "mqtt = 5",
            "mqtt is a table\n --> t.toml:1:1\n  |\n1 | mqtt = 5\n  | ^^^^\n  help: write [mqtt] on a \
             line of its own and its keys below",
        );
        check(
            "[stream]\nname = \"a\"",
            "stream is a list of tables\n --> t.toml:1:1\n  |\n1 | [stream]\n  | ^^^^^^^^\n  help: \
             write [[stream]], with two brackets, before each stream",
        );
        check(
            "[[stream]]\ntopics = [\"a\"]",
            "a stream without a name\n --> t.toml:1:1\n  |\n1 | [[stream]]\n  | ^^^^^^^^^^\n  help: add \
             name = \"…\"; Kafka clients see it as the topic",
        );
        check(
            "[[stream]]\nname = \"a\"\ntopics = [\"b\", \"a#\"]",
            "stream.topics: \"a#\" is no topic filter: '#' must be the whole last level\n --> \
             t.toml:3:10\n  |\n3 | topics = [\"b\", \"a#\"]\n  |          ^^^^^^^^^^^",
        );
        check(
            "[mqtt]\n[mqtt]",
            "not valid TOML: duplicate key\n --> t.toml:2:2\n  |\n2 | [mqtt]\n  |  ^^^^",
        );
        check(
            "stream = []",
            "there is no stream\n  help: name at least one [[stream]], or leave \
            them all out to have `telemetry`",
        );
    }

    #[test]
    fn relations_point_at_what_was_set() {
        check(
            "# ä\n[mqtt]\npacket_bytes_max = \"2MiB\"",
            "log.batch_bytes_max = 2MiB is too small: it must hold the largest packet with its \
             headers (mqtt.packet_bytes_max = 2MiB)\n --> t.toml:3:1\n  |\n3 | packet_bytes_max = \
             \"2MiB\"\n  | ^^^^^^^^^^^^^^^^\n  help: raise log.batch_bytes_max to at least 2129KiB, \
             or lower mqtt.packet_bytes_max",
        );
        check(
            "[[stream]]\nname = \"a\"\n[[stream]]\nname = \"a\"",
            "two streams are named \"a\"\n --> t.toml:4:1\n  |\n4 | name = \"a\"\n  | ^^^^\n  \
             help: give each its own name; one stream may have several topics",
        );
    }

    #[test]
    fn flags_and_variables_are_named() {
        let found = told(&Sources {
            flags: vec![flag("spin", "x"), flag("shards", "-1")],
            variables: vec![
                variable("TIDEGATE_RECEIVE_BUFFERS", "many"),
                Variable { name: "TIDEGATE_DATA_DIR".to_owned(), value: None },
            ],
            file: None,
        });
        assert_eq!(
            found,
            [
                "receive.buffers: \"many\" is not a whole number from 0 to 4294967295\n  in the \
             environment variable TIDEGATE_RECEIVE_BUFFERS",
                "data_dir: the value is not UTF-8\n  in the environment variable TIDEGATE_DATA_DIR",
                "spin: \"x\" is not \"off\", \"always\" or a duration, such as \"50us\"\n  in the flag \
             --spin",
                "shards: \"-1\" is not a whole number from 0 to 4294967295\n  in the flag --shards",
            ]
        );
        let found =
            told(&Sources { flags: vec![flag("receive.buffers", "5")], ..Sources::default() });
        assert!(found[0].contains("\n  in the flag --receive-buffers\n"), "{found:?}");
    }

    #[test]
    fn unknown_variables_are_warned_about() {
        let check = |name: &str, expected: &[&str]| {
            let variables = vec![variable(name, "1")];
            let loaded = load(&Sources { variables, ..Sources::default() }).unwrap();
            assert_eq!(loaded.warnings, expected);
        };
        check(
            "TIDEGATE_MQTT_LISTN",
            &["TIDEGATE_MQTT_LISTN sets nothing; did you mean TIDEGATE_MQTT_LISTEN?"],
        );
        check(
            "TIDEGATE_STREAM_NAME",
            &["TIDEGATE_STREAM_NAME sets nothing: streams are set in the configuration file only"],
        );
        check(
            "TIDEGATE_QQQQQQQQQQQQQQQQQQQQQQQQ",
            &["TIDEGATE_QQQQQQQQQQQQQQQQQQQQQQQQ sets nothing; `tidegate serve --help` lists the \
               variables"],
        );
        check("TIDEGATE_LOG", &[]);
        check("TIDEGATE_CONFIG", &[]);
    }

    #[test]
    fn streams_replace_the_default_one() {
        let text = "[[stream]]\nname = \"a\"\ntopics = [\"a/+\"]\ndurability = \"write\"\n\
                    partition_by = \"topic\"\n\
                    [[stream]]\nname = \"b\"\nretention = \"forever\"";
        let loaded = load(&Sources { file: file(text), ..Sources::default() }).unwrap();
        let [a, b] = &loaded.config.streams[..] else { panic!() };
        assert_eq!((a.name.as_str(), a.topics[0].as_str()), ("a", "a/+"));
        assert_eq!(a.durability, crate::record::Durability::Write);
        assert_eq!(a.partition_by, crate::record::PartitionBy::Topic);
        assert_eq!(b.partition_by, crate::record::PartitionBy::Client);
        assert_eq!((b.name.as_str(), b.topics[0].as_str()), ("b", "#"));
        assert_eq!(b.retention, crate::config::Retention::Forever);
        assert_eq!(loaded.origins["stream[1].retention"].to_string(), "t.toml:8");
    }

    #[test]
    fn the_example_is_right() {
        let text = include_str!("../../tidegate.example.toml");
        let loaded = load(&Sources { file: file(text), ..Sources::default() }).unwrap();
        assert!(loaded.config.streams.len() > 1);
    }
}
