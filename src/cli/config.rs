//! `tidegate config`: the configuration in effect, as commented TOML that loads back to itself.

use super::{Failure, Settings, failure};
use crate::config::print::{reference, to_toml};

const EXAMPLES: &str = "\
Examples:
  tidegate config > tidegate.toml        a commented file with the defaults
  tidegate config --config tidegate.toml --mqtt-listen 0.0.0.0:1883";

/// Print the effective configuration as commented TOML
///
/// Each key stands with its meaning, unit, bounds and default, and with where its value came from
/// when it was set. The output is a file that `--config` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    settings: Settings,

    /// Print the reference of all keys as Markdown instead (docs/configuration.md)
    #[arg(long)]
    markdown: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    if args.markdown {
        return failure::print(&reference());
    }
    let loaded = args.settings.load()?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    failure::print(&to_toml(&loaded.config, &loaded.origins))
}
