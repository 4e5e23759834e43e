//! The configuration as text: commented TOML that loads back to itself, and the reference manual.
//!
//! Both are made from the tables of keys; docs/configuration.md is the output of [`reference`].

use std::fmt::Write;

use super::keys::{ROWS, Row};
use super::load::Origins;
use super::section::{About, Key, Section};
use super::{Config, Stream};

const WIDTH: usize = 96;

/// The lines of a table's text as one paragraph.
fn paragraph(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// The text of a key as one paragraph.
pub fn key_doc(key: &Key) -> String {
    paragraph(key.doc)
}

/// The first sentence of a key's text, without its full stop.
pub fn key_summary(key: &Key) -> String {
    let doc = key_doc(key);
    doc.split_once(". ").map_or(doc.trim_end_matches('.'), |(first, _)| first).to_owned()
}

/// Appends `text` as comment lines.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(out, "{line}");
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}

/// The effective configuration as TOML: above each key its meaning, bounds and default, and where
/// the value came from when it was set.
pub fn to_toml(config: &Config, origins: &Origins) -> String {
    let mut out = String::new();
    comment(&mut out, "Tidegate, the effective configuration.");
    comment(&mut out, "Order: flags over environment (TIDEGATE_…) over file over defaults.");
    let defaults = Config::default();
    for (section, default) in config.sections().into_iter().zip(defaults.sections()) {
        let about = section.about();
        out.push('\n');
        comment(&mut out, &paragraph(about.doc));
        if !about.table.is_empty() {
            let _ = writeln!(out, "[{}]", about.table);
        }
        print_keys(&mut out, section, default, &about.path(""), origins, true);
    }
    let default = Stream::default();
    // Those of rules come from their files again.
    let written = config.streams.iter().enumerate().filter(|(_, s)| !s.topics.is_empty());
    for (index, stream) in written {
        out.push('\n');
        if index == 0 {
            comment(&mut out, &paragraph(Stream::ABOUT.doc));
        }
        out.push_str("[[stream]]\n");
        print_keys(&mut out, stream, &default, &format!("stream[{index}]."), origins, index == 0);
    }
    out
}

fn print_keys(
    out: &mut String,
    section: &dyn Section,
    default: &dyn Section,
    prefix: &str,
    origins: &Origins,
    explain: bool,
) {
    for key in section.about().keys {
        if explain {
            out.push('\n');
            comment(out, &key_doc(key));
            comment(out, &facts(section.bounds(key.name), default.show(key.name)));
        }
        if let Some(place) = origins.get(&format!("{prefix}{}", key.name)) {
            comment(out, &format!("Set by {place}."));
        }
        let _ = match section.show(key.name) {
            Some(value) => writeln!(out, "{} = {value}", key.name),
            None => writeln!(out, "#{} =", key.name),
        };
    }
}

/// Bounds and default in a sentence each.
fn facts(bounds: Option<(String, String)>, default: Option<String>) -> String {
    let default =
        default.map_or("Default: not set.".to_owned(), |value| format!("Default: {value}."));
    match bounds {
        Some((least, greatest)) => format!("From {least} to {greatest}. {default}"),
        None => default,
    }
}

/// The help of a key's flag, below its summary: text, variable and default.
pub fn flag_help(row: &Row) -> (String, String) {
    let default = row
        .default
        .as_ref()
        .map_or(String::new(), |value| format!(" [default: {}]", value.trim_matches('"')));
    let range = row.bounds.as_ref().map_or(String::new(), |(least, greatest)| {
        format!("\n[from {} to {}]", least.trim_matches('"'), greatest.trim_matches('"'))
    });
    let short = format!("{}{default}", key_summary(row.key));
    let long = format!("{}{range}\n[env: {}]{default}", key_doc(row.key), row.variable);
    (short, long)
}

/// docs/configuration.md.
pub fn reference() -> String {
    let mut out = String::from(REFERENCE_HEAD);
    let config = Config::default();
    for section in config.sections() {
        let about = section.about();
        let heading = match about.table {
            "" => "At the top of the file".to_owned(),
            table => format!("`[{table}]`"),
        };
        let _ = write!(out, "\n## {heading}\n\n{}\n\n", paragraph(about.doc));
        out.push_str("| Key | Default | Bounds | Meaning |\n|---|---|---|---|\n");
        for row in ROWS.iter().filter(|row| row.about.table == about.table) {
            reference_row(&mut out, row.key, row.default.as_deref(), row.bounds.as_ref());
        }
    }
    reference_streams(&mut out, &Stream::ABOUT, &Stream::default());
    out
}

fn reference_streams(out: &mut String, about: &About, default: &dyn Section) {
    let _ = write!(out, "\n## `[[stream]]`\n\n{}\n", paragraph(about.doc));
    out.push_str(
        "Streams are set in the file only, each under its own `[[stream]]`; a name is required.\n\n\
         | Key | Default | Bounds | Meaning |\n|---|---|---|---|\n",
    );
    for key in about.keys {
        let shown = default.show(key.name).filter(|_| key.name != "name");
        reference_row(out, key, shown.as_deref(), default.bounds(key.name).as_ref());
    }
}

fn reference_row(
    out: &mut String,
    key: &Key,
    default: Option<&str>,
    bounds: Option<&(String, String)>,
) {
    let code = |value: &str| format!("`{value}`");
    let default = default.map_or("–".to_owned(), code);
    let bounds =
        bounds.map_or(String::new(), |(least, greatest)| format!("`{least}` to `{greatest}`"));
    let _ = writeln!(out, "| `{}` | {default} | {bounds} | {} |", key.name, key_doc(key));
}

const REFERENCE_HEAD: &str = "\
# Configuration

<!-- Generated from src/config: `cargo run -- config --markdown > docs/configuration.md`. -->

Every key has a default; without a file Tidegate runs on these. A value is taken from the first of

1. a flag: `--mqtt-listen 0.0.0.0:1883` for the key `listen` of `[mqtt]`, `--data-dir /var/lib/tidegate`
   for `data_dir` at the top;
2. an environment variable: `TIDEGATE_MQTT_LISTEN`, `TIDEGATE_DATA_DIR`; one that begins with
   `TIDEGATE_` and sets nothing is warned about;
3. the file that `--config` (or `TIDEGATE_CONFIG`) names, in TOML; an unknown key is refused, with its
   line, its column and the nearest known key;
4. the default.

`tidegate check` validates without starting, `tidegate config` prints what is in effect and where it
came from, as a file that can be loaded again.

Sizes are numbers of bytes or texts such as `\"64MiB\"` (1024 × 1024) and `\"10GB\"` (1000 × 1000 × 1000).
Times are texts with a unit: `\"7d\"`, `\"12h\"`, `\"5m\"`, `\"10s\"`, `\"20ms\"`, `\"50us\"`. \"–\" means not set.
Relations between limits are checked at start as well, above all that the largest packet with its
headers fits a batch, the log buffer and a segment.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{File, Flag, Sources, load};

    fn sources(text: &str) -> Sources {
        let file = File { path: "t.toml".into(), text: text.to_owned() };
        Sources { file: Some(file), ..Sources::default() }
    }

    #[test]
    fn what_is_printed_loads_back() {
        let check = |text: &str, flags: &[(&str, &str)]| {
            let flags = flags
                .iter()
                .map(|(path, value)| Flag { path: (*path).into(), value: (*value).into() })
                .collect();
            let loaded = load(&Sources { flags, ..sources(text) }).unwrap();
            let printed = to_toml(&loaded.config, &loaded.origins);
            let again = load(&sources(&printed)).unwrap();
            assert_eq!(again.config, loaded.config, "{printed}");
            assert!(printed.lines().all(|line| line.chars().count() <= WIDTH), "{printed}");
            printed
        };
        let printed = check("", &[]);
        assert!(printed.contains("\n#advertise =\n"), "{printed}");
        assert!(!printed.contains("Set by"), "{printed}");
        let printed = check(
            "cores = \"2-3,0\"\n[kafka]\nadvertise = \"h\"\n[log]\nsegment_bytes = 67_112_960\n",
            &[("data_dir", "a \"b\" \\ c"), ("spin", "50us"), ("log.disk_share", "0.25")],
        );
        assert!(printed.contains("# Set by --spin.\nspin = \"50us\"\n"), "{printed}");
        assert!(
            printed.contains("# Set by t.toml:5.\nsegment_bytes = \"65540KiB\"\n"),
            "{printed}"
        );
        check(include_str!("../../tidegate.example.toml"), &[("shards", "3")]);
    }

    #[test]
    fn summaries_are_one_sentence() {
        for row in ROWS.iter() {
            let summary = key_summary(row.key);
            assert!(!summary.is_empty() && !summary.ends_with('.'), "{}: {summary}", row.path);
            assert!(key_doc(row.key).ends_with('.'), "{}", row.path);
        }
    }

    #[test]
    fn the_reference_is_up_to_date() {
        assert!(
            include_str!("../../docs/configuration.md") == reference(),
            "docs/configuration.md differs from the keys in src/config: run\n  \
             cargo run -- config --markdown > docs/configuration.md"
        );
    }
}
