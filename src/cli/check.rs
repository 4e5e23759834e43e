//! `tidegate check`: is the configuration right? Starts nothing, opens nothing but the file.

use std::fmt::Write;

use super::{Failure, Settings, failure};
use crate::config::keys::ROWS;
use crate::config::{Loaded, Stream};

const EXAMPLES: &str = "\
Examples:
  tidegate check --config tidegate.toml
  tidegate check --config tidegate.toml --cores 0-3
  TIDEGATE_MQTT_LISTEN=0.0.0.0:1883 tidegate check";

/// Validate the configuration without starting
///
/// Reads file, environment and flags as `serve` does and checks every key, every bound and the
/// relations between limits. What only a start can tell (free ports, the disk, the kernel) is not
/// looked at. Exit code 0 when all is right, 2 when not.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let loaded = args.settings.load()?;
    failure::print(&summary(&loaded, args.settings.file().map(|file| file.display().to_string())))
}

fn summary(loaded: &Loaded, file: Option<String>) -> String {
    let mut out = String::new();
    for warning in &loaded.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    let source = file.unwrap_or_else(|| "no file, defaults".to_owned());
    let rows = ROWS.len();
    let names: Vec<&str> =
        loaded.config.streams.iter().map(|stream| stream.name.as_str()).collect();
    let per_stream = Stream::ABOUT.keys.len();
    let _ = writeln!(out, "checked: {source}, TIDEGATE_ variables, flags");
    let _ = writeln!(
        out,
        "  {rows} keys and {per_stream} of each stream, {} of them set; bounds; relations between \
         limits; ports",
        loaded.origins.keys().filter(|path| !path.ends_with(']')).count()
    );
    let _ = writeln!(out, "  {} stream(s): {}", names.len(), names.join(", "));
    out.push_str("the configuration is right\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    #[test]
    fn it_says_what_it_checked() {
        let loaded = load(&Sources::default()).unwrap();
        let text = summary(&loaded, None);
        assert!(
            text.starts_with("checked: no file, defaults, TIDEGATE_ variables, flags\n"),
            "{text}"
        );
        assert!(text.contains("1 stream(s): telemetry"), "{text}");
        assert!(text.ends_with("the configuration is right\n"), "{text}");
    }
}
