//! Every key with the names under which it may be set: path, flag, environment variable.
//!
//! Built once from the sections' tables; read by loading, by the command line's help and by
//! printing. Streams are not here: there may be many, and they are set in the file only.

use std::sync::LazyLock;

use super::Config;
use super::section::{About, Key, Section};

/// The prefix of the environment variables that belong to tidegate.
pub const VARIABLE_PREFIX: &str = "TIDEGATE_";
/// Variables that are no keys: the file to load, and the filter of the log lines.
pub const VARIABLE_CONFIG: &str = "TIDEGATE_CONFIG";
pub const VARIABLE_LOG: &str = "TIDEGATE_LOG";

/// One key that flags and the environment may set.
#[derive(Debug)]
pub struct Row {
    /// The section that holds the key.
    pub about: &'static About,
    /// The key.
    pub key: &'static Key,
    /// As `mqtt.listen`.
    pub path: String,
    /// As `mqtt-listen`, without the dashes in front.
    pub flag: String,
    /// As `TIDEGATE_MQTT_LISTEN`.
    pub variable: String,
    /// The default as TOML; `None` where it is not set.
    pub default: Option<String>,
    /// The least and the greatest value as TOML.
    pub bounds: Option<(String, String)>,
}

/// All rows, in the order in which they are printed.
pub static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let config = Config::default();
    let rows_of = |section: &dyn Section| {
        let about = section.about();
        let row = |key: &'static Key| {
            let path = about.path(key.name);
            Row {
                about,
                key,
                flag: path.replace(['.', '_'], "-"),
                variable: format!(
                    "{VARIABLE_PREFIX}{}",
                    path.replace('.', "_").to_ascii_uppercase()
                ),
                path,
                default: section.show(key.name),
                bounds: section.bounds(key.name),
            }
        };
        about.keys.iter().map(row).collect::<Vec<_>>()
    };
    config.sections().into_iter().flat_map(rows_of).collect()
});

impl Config {
    /// The sections that there is one of, the keys at the top of the file first.
    pub fn sections(&self) -> [&dyn Section; 7] {
        [self, &self.mqtt, &self.kafka, &self.http, &self.log, &self.ring, &self.receive]
    }

    /// The section with this table name.
    pub(super) fn section_mut(&mut self, table: &str) -> Option<&mut dyn Section> {
        match table {
            "" => Some(self),
            "mqtt" => Some(&mut self.mqtt),
            "kafka" => Some(&mut self.kafka),
            "http" => Some(&mut self.http),
            "log" => Some(&mut self.log),
            "ring" => Some(&mut self.ring),
            "receive" => Some(&mut self.receive),
            _ => None,
        }
    }
}

/// The one of `names` that `name` was probably meant to be.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let far = (name.chars().count() / 3).max(2);
    let folded = name.to_ascii_lowercase().replace('-', "_");
    names
        .into_iter()
        .map(|known| (strsim::osa_distance(&folded, &known.to_ascii_lowercase()), known))
        .filter(|(distance, _)| *distance <= far)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}
