//! The flags that every command shares that needs a configuration: `--config`, and one flag for
//! each key, made from the table of keys.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command};

use super::Failure;
use crate::config::keys::{ROWS, VARIABLE_CONFIG};
use crate::config::load::{File, Flag, Variable};
use crate::config::print::flag_help;
use crate::config::{Loaded, Sources, load};

/// What the command line says of the configuration.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Configuration file, TOML. Without one the defaults hold.
    ///
    /// A commented one to start from: `tidegate config > tidegate.toml`.
    #[arg(long, value_name = "FILE", env = VARIABLE_CONFIG, hide_env_values = true)]
    config: Option<PathBuf>,

    #[command(flatten)]
    keys: KeyFlags,
}

impl Settings {
    /// Joins flags, the environment of this process and the file.
    pub fn load(&self) -> Result<Loaded, Failure> {
        self.load_with(Variable::of_process())
    }

    fn load_with(&self, variables: Vec<Variable>) -> Result<Loaded, Failure> {
        let file = self.config.as_deref().map(File::read).transpose();
        let file = file.map_err(|problem| Failure::of_config(&[*problem]))?;
        load(&Sources { file, variables, flags: self.keys.0.clone() })
            .map_err(|problems| Failure::of_config(&problems))
    }

    /// The file that was named.
    pub fn file(&self) -> Option<&std::path::Path> {
        self.config.as_deref()
    }
}

/// One flag a key. The values are read by the configuration, not by clap, so that their messages
/// are those of the file.
#[derive(Debug, Clone)]
struct KeyFlags(Vec<Flag>);

impl clap::FromArgMatches for KeyFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |row: &crate::config::keys::Row| {
            let value = matches.get_one::<String>(&row.path)?.clone();
            Some(Flag { path: row.path.clone(), value })
        };
        Ok(Self(ROWS.iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for KeyFlags {
    fn augment_args(command: Command) -> Command {
        ROWS.iter().fold(command, |command, row| {
            let (short, long) = flag_help(row);
            // `-h` shows what people set by hand, `--help` all.
            let seldom =
                !row.about.table.is_empty() && !matches!(row.key.name, "listen" | "advertise");
            let heading = match row.about.table {
                "" => "Engine",
                "mqtt" => "MQTT",
                "kafka" => "Kafka",
                "http" => "HTTP",
                "log" => "Log",
                "ring" => "Rings",
                _ => "Receive buffers",
            };
            command.arg(
                Arg::new(row.path.as_str())
                    .long(row.flag.as_str())
                    .value_name(row.key.value)
                    .allow_hyphen_values(true)
                    .help(short)
                    .long_help(long)
                    .help_heading(heading)
                    .hide_short_help(seldom),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        settings: Settings,
    }

    #[test]
    fn every_key_has_a_flag() {
        for row in ROWS.iter() {
            let flag = format!("--{}", row.flag);
            let alone = Alone::try_parse_from(["test", &flag, "7"]).unwrap();
            let [given] = &alone.settings.keys.0[..] else { panic!("{flag}") };
            assert_eq!((given.path.as_str(), given.value.as_str()), (row.path.as_str(), "7"));
        }
    }

    #[test]
    fn flags_and_variables_meet() {
        let check = |flags: &[&str], variables: &[(&str, &str)], expected: &str| {
            let mut line = vec!["test"];
            line.extend(flags);
            let settings = Alone::try_parse_from(line).unwrap().settings;
            let variables = variables.iter().map(|(name, value)| Variable {
                name: (*name).to_owned(),
                value: Some((*value).to_owned()),
            });
            let found = match settings.load_with(variables.collect()) {
                Ok(loaded) => loaded.config.mqtt.listen.to_string(),
                Err(failure) => format!("{failure:?}"),
            };
            assert!(found.contains(expected), "{found}");
        };
        let variable = ("TIDEGATE_MQTT_LISTEN", "127.0.0.1:2");
        check(&[], &[], "127.0.0.1:1883");
        check(&[], &[variable], "127.0.0.1:2");
        check(&["--mqtt-listen", "127.0.0.1:1"], &[variable], "127.0.0.1:1");
        check(&["--mqtt-listen", "x"], &[], "in the flag --mqtt-listen");
        check(&["--config", "no/such.toml"], &[], "no/such.toml cannot be read");
    }
}
