//! `tidegate serve`: the engine until it is told to stop.
//!
//! Here only what comes before the engine: configuration, log lines, warnings.

use std::error::Error;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::{Failure, Settings};
use crate::config::Loaded;
use crate::config::keys::VARIABLE_LOG;
use crate::engine::CommitDelay;

const EXAMPLES: &str = "\
Examples:
  tidegate serve                                    all cores, data in ./tidegate-data
  tidegate serve --cores 0,2-5 --data-dir /var/lib/tidegate
  tidegate serve --config tidegate.toml --mqtt-listen 0.0.0.0:1883
  TIDEGATE_KAFKA_ADVERTISE=broker.example.org tidegate serve --kafka-listen 0.0.0.0:9092

`-h` shows the flags that are set most, `--help` all. SIGTERM or Ctrl-C stops cleanly: what was
accepted is committed and acknowledged; a second one stops at once. SIGHUP reads the files of rules
again, as POST /api/rules/reload does: all of them are right and take effect, or the old ones stay.";

/// Run the engine
///
/// MQTT on 127.0.0.1:1883, Kafka on 127.0.0.1:9092 (+ 1 for each further shard), HTTP on
/// 127.0.0.1:8080; a shard on every core; data in ./tidegate-data.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Log lines to print to stderr: a level (error, warn, info, debug, trace), or a filter such as
    /// `info,tidegate::log=debug`
    #[arg(long, value_name = "LEVEL", env = VARIABLE_LOG, default_value = "info")]
    log: String,

    /// For tests: the shard waits so long before it writes each of its commits, always or while a
    /// file is there
    #[arg(long, value_name = "SHARD=TIME[@FILE]", hide = true)]
    inject_commit_delay: Vec<CommitDelay>,

    #[command(flatten)]
    settings: Settings,
}

/// Loads the configuration and hands it to `engine`, which returns when the engine has stopped.
pub fn run<E: Error>(
    args: &Args,
    engine: impl FnOnce(Loaded, &[CommitDelay]) -> Result<(), E>,
) -> Result<(), Failure> {
    let filter = filter(&args.log)?;
    let loaded = args.settings.load()?;
    start_log(filter)?;
    start(loaded, |loaded| engine(loaded, &args.inject_commit_delay))
}

fn start<E: Error>(
    loaded: Loaded,
    engine: impl FnOnce(Loaded) -> Result<(), E>,
) -> Result<(), Failure> {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    engine(loaded).map_err(|error| Failure::at_run_time(&error))
}

fn filter(text: &str) -> Result<EnvFilter, Failure> {
    // EnvFilter takes a mistyped level for the name of a target, and then prints nothing.
    let level = |part: &str| !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    let known = text.split(',').all(|part| part.contains('=') || level(part.trim()));
    let parsed = if known { EnvFilter::builder().parse(text).ok() } else { None };
    parsed.ok_or_else(|| {
        Failure::of_use(format!(
            "\"{text}\" is no filter of log lines\n  in the flag --log or the environment variable \
             {VARIABLE_LOG}\n  help: name a level (error, warn, info, debug, trace, off), and levels \
             for parts if you like, such as info,tidegate::log=debug"
        ))
    })
}

/// Log lines go to stderr, with colours only on a terminal that wants them (no-color.org).
fn start_log(filter: EnvFilter) -> Result<(), Failure> {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(!plain && std::io::stderr().is_terminal())
        .with_target(false)
        .try_init()
        .map_err(|error| Failure::at_run_time(error.as_ref()))
}

#[cfg(test)]
mod tests {
    use std::io;

    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_engine_gets_the_configuration() {
        let alone = Alone::try_parse_from(["serve", "--shards", "3"]).unwrap();
        let mut shards = None;
        let result = start(alone.args.settings.load().unwrap(), |loaded| {
            shards = loaded.config.shards;
            Err(io::Error::other("no disk"))
        });
        assert_eq!(shards, Some(3));
        assert_eq!(result, Err(Failure::at_run_time(&io::Error::other("no disk"))));
    }

    #[test]
    fn faults_are_for_tests() {
        let alone = |flags: &[&str]| Alone::try_parse_from([&["serve"], flags].concat());
        let flags = ["--inject-commit-delay", "0=1ms", "--inject-commit-delay", "3=2s"];
        let delays = ["0=1ms", "3=2s"].map(|text| text.parse().unwrap());
        assert_eq!(alone(&flags).unwrap().args.inject_commit_delay, delays);
        let refused = alone(&["--inject-commit-delay", "50ms"]).unwrap_err().to_string();
        assert!(refused.contains("such as 1=50ms"), "{refused}");
        let help = Alone::command().render_long_help().to_string();
        assert!(help.contains("--mqtt-listen") && !help.contains("inject"), "{help}");
    }

    #[test]
    fn log_filters() {
        let check = |text: &str, valid: bool| assert_eq!(filter(text).is_ok(), valid, "{text}");
        check("info", true);
        check("info,tidegate::log=debug", true);
        check("tidegate=louder", false);
        check("inof", false);
        check("", false);
    }
}
