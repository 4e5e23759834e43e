//! The command line: arguments in, an exit code out. One file a command.
//!
//! Exit codes: 0 all is well, 1 it failed while running, 2 it was called or configured wrongly.
//! Errors go to stderr as `tidegate: what happened`, then where, then what to do.

mod check;
mod config;
mod cores;
mod failure;
mod kafka;
mod log;
mod rules;
mod settings;

pub mod serve;

pub mod bench;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use failure::Failure;
pub use settings::Settings;

const ABOUT: &str = "Ingest engine for IoT feeds: MQTT in, durable log, Kafka out";

const LONG_ABOUT: &str = "\
Ingest engine for IoT feeds: MQTT in, durable log, Kafka out.

Devices publish over MQTT; each message is on disk before it is acknowledged; any Kafka consumer reads
it back. One process, one shard on each core.";

const EXAMPLES: &str = "\
Examples:
  tidegate serve                              MQTT on 127.0.0.1:1883, Kafka on 127.0.0.1:9092
  mosquitto_pub -q 1 -i press-7 -t plant/press-7/temp -m 21.5
  kcat -b 127.0.0.1:9092 -C -t telemetry -o beginning -e

  tidegate config > tidegate.toml             a commented file to start from
  tidegate check --config tidegate.toml       is it right?
  tidegate cores --config tidegate.toml       which shard would run on which core?
  tidegate serve --config tidegate.toml

Settings come from flags, over the environment (TIDEGATE_…), over the file, over the defaults.
Exit codes: 0 all is well, 1 it failed while running, 2 it was called or configured wrongly.";

#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES)]
#[command(arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Check(check::Args),
    Config(config::Args),
    Cores(cores::Args),
    Bench(bench::Args),
    Log(log::Args),
    Rules(rules::Args),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return misused(&error),
    };
    let result = match arguments.command {
        Command::Serve(args) => serve::run(&args, crate::engine::run),
        Command::Check(args) => check::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Cores(args) => cores::run(&args),
        Command::Bench(args) => bench::run(&args).map_err(|error| match error {
            bench::BenchError::Usage(what) => Failure::of_use(what),
            error => Failure::at_run_time(&error),
        }),
        Command::Log(args) => log::run(&args),
        Command::Rules(args) => rules::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Help and version go to stdout as they are, what was typed wrongly is told as every failure is.
fn misused(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if !error.use_stderr() || error.kind() == DisplayHelpOnMissingArgumentOrSubcommand {
        // Where the reader has gone there is nobody to tell.
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
    }
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    Failure::of_use(text.trim_end().to_owned()).report()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
