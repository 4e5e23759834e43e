//! Every dependency has a licence that deny.toml allows, by what `cargo metadata` says. The rest of
//! deny.toml (advisories, bans, sources) needs cargo-deny itself.

#![allow(clippy::unwrap_used)] // a test's panic is its report

use std::process::Command;

use serde_json::Value;

/// What deny.toml allows: for every crate, and for one crate in addition.
struct Allowed {
    licences: Vec<String>,
    exceptions: Vec<(String, Vec<String>)>,
}

impl Allowed {
    fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml");
        let file: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
        let texts = |value: &toml::Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().into()).collect()
        };
        let licences = &file["licenses"];
        let exceptions = licences["exceptions"].as_array().unwrap().iter();
        Self {
            licences: texts(&licences["allow"]),
            exceptions: exceptions
                .map(|one| (one["crate"].as_str().unwrap().into(), texts(&one["allow"])))
                .collect(),
        }
    }

    fn takes(&self, package: &str, licence: &str) -> bool {
        // `MPL-2.0+` may be taken as the version that it names.
        let licence = licence.trim().trim_end_matches('+').to_owned();
        let mut extra = self.exceptions.iter().filter(|(name, _)| name == package);
        self.licences.contains(&licence) || extra.any(|(_, more)| more.contains(&licence))
    }

    /// Whether an SPDX expression can be satisfied. `/` is the old way to write OR.
    fn satisfies(&self, package: &str, expression: &str) -> bool {
        let expression = expression.replace('/', " OR ");
        let expression = expression.trim();
        for (word, any) in [(" AND ", false), (" OR ", true)] {
            let parts = split_outside(expression, word);
            if parts.len() > 1 {
                let mut each = parts.into_iter().map(|part| self.satisfies(package, part));
                return if any { each.any(|yes| yes) } else { each.all(|yes| yes) };
            }
        }
        match expression.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
            Some(inner) => self.satisfies(package, inner),
            None => self.takes(package, expression),
        }
    }
}

/// Splits at a word that stands outside parentheses.
fn split_outside<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let mut from = 0;
    for (at, _) in text.match_indices(word) {
        let before = &text[..at];
        if before.matches('(').count() == before.matches(')').count() {
            parts.push(&text[from..at]);
            from = at + word.len();
        }
    }
    parts.push(&text[from..]);
    parts
}

/// Name and licence of every package that a Linux build may use.
fn packages() -> Vec<(String, String)> {
    let platform = concat!("x86_64", "-unknown-linux-gnu");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", platform])
        .arg("--all-features")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let used: Vec<&Value> =
        metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| &node["id"]).collect();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    packages
        .filter(|package| used.contains(&&package["id"]))
        .map(|package| (text(&package["name"]), text(&package["license"])))
        .collect()
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let allowed = Allowed::read();
    let packages = packages();
    assert!(packages.len() > 50, "cargo metadata named only {} packages", packages.len());
    let refused: Vec<_> =
        packages.iter().filter(|(name, licence)| !allowed.satisfies(name, licence)).collect();
    assert!(
        refused.is_empty(),
        "deny.toml does not allow the licences of these: leave them out, or add the licence with \
         its reason: {refused:#?}"
    );
}

#[test]
fn expressions_are_read_as_spdx_has_them() {
    let allowed = Allowed {
        licences: vec!["MIT".into(), "Zlib".into()],
        exceptions: vec![("one".into(), vec!["MPL-2.0".into()])],
    };
    for (package, expression, expected) in [
        ("a", "MIT", true),
        ("a", "GPL-3.0", false),
        ("a", "", false),
        ("a", "GPL-3.0 OR MIT", true),
        ("a", "GPL-3.0/MIT", true),
        ("a", "MIT AND GPL-3.0", false),
        ("a", "(GPL-3.0 OR MIT) AND Zlib", true),
        ("a", "(GPL-3.0 OR MIT) AND Unicode-3.0", false),
        ("a", "MPL-2.0+", false),
        ("one", "MPL-2.0+", true),
    ] {
        assert_eq!(allowed.satisfies(package, expression), expected, "{package}: {expression}");
    }
}
