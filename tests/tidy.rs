//! What reviewers would otherwise have to look for: the direction of dependencies, sizes, names,
//! marks of unfinished work, and whether ARCHITECTURE.md tells the truth about the folders.
//!
//! Reads the tree as text; nothing is compiled. Each rule is a function from sources to findings
//! and has two tests: the tree keeps it, and a bad sample breaks it (a rule that cannot fail holds
//! nothing). Words that the rules look for are written in halves here, so that this file passes.

#![allow(clippy::unwrap_used)] // a test's panic is its report

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// The stations of the data path: each names only itself and `record`.
const STATIONS: [&str; 5] = ["ingest", "transform", "ring", "log", "serve"];

/// For the modules around the stations: what each may never name. `main → engine → shard →
/// stations → record`; the control plane stands apart and reads what `observe` publishes.
const FORBIDDEN: [(&str, &[&str]); 6] = [
    ("shard", &["driver", "engine", "control", "cli", "config"]),
    ("driver", &["engine", "control", "cli"]),
    ("observe", &["shard", "driver", "engine", "control", "cli", "config"]),
    ("config", &["shard", "driver", "engine", "control", "cli"]),
    // Of the driver it may have the placing of its own thread, and nothing else.
    ("control", &["shard", "engine", "cli"]),
    ("engine", &["cli"]),
];

/// What a station may not touch, because time is an argument and the driver does the I/O.
const IMPURE: [&str; 11] = [
    "async fn",
    ".await",
    "Instant::now",
    "SystemTime",
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "tokio",
    "File::open",
    "libc::",
];

/// One file of the tree: its path from the top, and its text.
#[derive(Clone)]
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The module that a file of src belongs to: `src/log/frame.rs` → `log`, `src/engine.rs` →
    /// `engine`. None outside src.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split('/').next()?.trim_end_matches(".rs"))
    }

    /// How many `super`s lead from this file to the top of the crate.
    fn depth(&self) -> usize {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let folders = inside.matches('/').count();
        if inside.ends_with("mod.rs") { folders } else { folders + 1 }
    }

    /// The text before the file's test module.
    fn product(&self) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        let begins_tests = |at: usize| {
            let mut after = lines[at + 1..].iter().filter(|line| !line.trim().starts_with("#["));
            let item = after.next().copied().unwrap_or_default();
            lines[at].trim() == "#[cfg(test)]" && item.contains("mod ") && item.ends_with('{')
        };
        let end = (0..lines.len()).find(|at| begins_tests(*at)).unwrap_or(lines.len());
        lines[..end].join("\n")
    }

    /// The folder in which this module's own modules stand.
    fn folder(&self) -> &str {
        let stem = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        ["/mod", "/lib", "/main"].iter().find_map(|end| stem.strip_suffix(end)).unwrap_or(stem)
    }
}

/// The files of src that are compiled into the product: not those of a `#[cfg(test)] mod name;`.
fn product(sources: &[Source]) -> Vec<&Source> {
    let mut test_only = Vec::new();
    for source in sources.iter().filter(|source| source.module().is_some()) {
        let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]") {
            let name = pair[1].trim_start_matches("pub(super) ").trim_start_matches("pub(crate) ");
            if let Some(name) = name.strip_prefix("mod ").and_then(|name| name.strip_suffix(';')) {
                test_only.push(format!("{}/{name}", source.folder()));
            }
        }
    }
    let is_test = |path: &str| {
        test_only.iter().any(|test| {
            path.strip_prefix(test.as_str())
                .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
    };
    let inside = sources.iter().filter(|source| source.module().is_some());
    inside.filter(|source| !is_test(&source.path)).collect()
}

/// Blanks comments, strings and character literals and keeps every line break, so that what is
/// left is code and line numbers stay true.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match chars[i] {
            '/' if chars.get(i + 1) == Some(&'/') => line_comment_end(&chars, i),
            '/' if chars.get(i + 1) == Some(&'*') => block_comment_end(&chars, i),
            '"' => string_end(&chars, i),
            'r' if !word_before(&chars, i) || chars[i - 1] == 'b' => raw_string_end(&chars, i),
            '\'' => char_literal_end(&chars, i),
            _ => i,
        };
        if end == i {
            code.push(chars[i]);
            i += 1;
        } else {
            code.extend(chars[i..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    code
}

fn word_before(chars: &[char], i: usize) -> bool {
    i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_')
}

fn line_comment_end(chars: &[char], start: usize) -> usize {
    (start..chars.len()).find(|&i| chars[i] == '\n').unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut i, mut open) = (start, 0);
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (open, i) = (open + 1, i + 2),
            ('*', '/') => (open, i) = (open - 1, i + 2),
            _ => i += 1,
        }
        if open == 0 {
            return i;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// The end of `r"…"` or `r#"…"#` that starts here; `start` itself when it is an ordinary word.
fn raw_string_end(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') {
        return start;
    }
    let mut i = start + 2 + hashes;
    while i < chars.len() {
        let closed = chars[i] == '"'
            && chars[i + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes;
        if closed {
            return i + 1 + hashes;
        }
        i += 1;
    }
    chars.len()
}

/// The end of a character literal; `start` itself when the quote begins a lifetime.
fn char_literal_end(chars: &[char], start: usize) -> usize {
    match (chars.get(start + 1), chars.get(start + 2)) {
        (Some('\\'), _) => {
            let from = start + 3;
            (from..chars.len()).find(|&i| chars[i] == '\'').map_or(start, |i| i + 1)
        }
        (Some(_), Some('\'')) => start + 3,
        _ => start,
    }
}

/// Names directly under the crate that a file's code refers to, with the line of each: what
/// follows `crate::`, and `super::` chains that reach the top.
fn crate_names(source: &Source) -> Vec<(usize, String)> {
    let code = code_of(&source.text);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        if !before.is_alphanumeric() && before != '_' {
            push_names(&code, at + "crate::".len(), &mut found);
        }
    }
    let chain = "super::".repeat(source.depth());
    for (at, _) in code.match_indices(&chain) {
        let after = at + chain.len();
        if !code[..at].ends_with("super::") {
            let more = code[after..].split("super::").take_while(|part| part.is_empty()).count();
            push_names(&code, after + more * "super::".len(), &mut found);
        }
    }
    found
}

/// Pushes the first word of a path, or of each path in a `{…}` group.
fn push_names(code: &str, start: usize, found: &mut Vec<(usize, String)>) {
    let line = code[..start].matches('\n').count() + 1;
    let rest = &code[start..];
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    if !rest.starts_with('{') {
        found.push((line, word(rest)));
        return;
    }
    let (mut open, mut from) = (0, 1);
    for (i, c) in rest.char_indices() {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 || (open == 1 && c == ',') {
            found.push((line, word(&rest[from.min(i)..i])));
            from = i + 1;
        }
        if open == 0 {
            return;
        }
    }
}

fn stations_stand_alone(sources: &[Source]) -> Vec<String> {
    let top: BTreeSet<&str> = sources.iter().filter_map(Source::module).collect();
    let mut findings = Vec::new();
    for source in sources {
        let Some(module) = source.module() else { continue };
        let only_record = STATIONS.contains(&module) || module == "record";
        if !only_record {
            continue;
        }
        for (line, name) in crate_names(source) {
            if name != module && name != "record" && top.contains(name.as_str()) {
                findings.push(format!(
                    "{}:{line} names crate::{name}: a station may name only itself and record; \
                     let the shard join them, or move the shared word to record",
                    source.path
                ));
            }
        }
    }
    findings
}

fn direction_holds(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let module = source.module().unwrap_or_default();
        let Some((_, forbidden)) = FORBIDDEN.iter().find(|(name, _)| *name == module) else {
            continue;
        };
        for (line, name) in crate_names(source) {
            if forbidden.contains(&name.as_str()) {
                findings.push(format!(
                    "{}:{line} names crate::{name}: the direction is main → engine → shard → \
                     stations → record; pass what is needed as an argument from above",
                    source.path
                ));
            }
        }
    }
    findings
}

fn only_the_driver_knows_the_ring(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        if source.module().is_none_or(|module| module == "driver") {
            continue;
        }
        for (number, line) in code_of(&source.text).lines().enumerate() {
            for word in ["glommio", "io_uring"].into_iter().filter(|word| names_crate(line, word)) {
                findings.push(format!(
                    "{}:{} names {word}: only src/driver does; put the call there",
                    source.path,
                    number + 1
                ));
            }
        }
    }
    findings
}

/// Whether a line has a crate's name as a word of its own; `preflight::io_uring()` is something
/// else that has the same name.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].trim_end();
        let after = line[at + name.len()..].chars().next().unwrap_or(' ');
        let part_of_a_word = word_before_byte(line, at) || after.is_alphanumeric() || after == '_';
        let path_of_its_own = before.ends_with("::") && !before.ends_with(" ::");
        !part_of_a_word && !path_of_its_own && !before.ends_with("fn")
    })
}

fn stations_are_pure(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in product(sources) {
        let module = source.module().unwrap_or_default();
        if !STATIONS.contains(&module) && module != "record" && module != "shard" {
            continue;
        }
        for (number, line) in code_of(&source.product()).lines().enumerate() {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                findings.push(format!(
                    "{}:{} has `{word}`: stations and shard take time as an argument and do no \
                     I/O; the driver does it",
                    source.path,
                    number + 1
                ));
            }
        }
    }
    findings
}

fn files_are_short(sources: &[Source]) -> Vec<String> {
    let lines =
        product(sources).into_iter().map(|source| (source, source.product().lines().count()));
    let long = lines.filter(|(_, lines)| *lines > FILE_LINES_MAX);
    long.map(|(source, lines)| {
        format!(
            "{} has {lines} lines before its tests, more than {FILE_LINES_MAX}: split it where \
             two subjects meet",
            source.path
        )
    })
    .collect()
}

fn functions_are_short(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in product(sources) {
        for (name, line, lines) in functions(&code_of(&source.product())) {
            if lines > FUNCTION_LINES_MAX {
                findings.push(format!(
                    "{}:{line} `{name}` has {lines} lines, more than {FUNCTION_LINES_MAX}: give \
                     its parts names",
                    source.path
                ));
            }
        }
    }
    findings
}

/// Name, first line and number of lines below it of each function with a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        let name: String =
            code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if before.is_alphanumeric() || before == '_' || name.is_empty() {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let mut open = 0;
        for (i, c) in code[at..].char_indices() {
            match c {
                '{' => open += 1,
                '}' => open -= 1,
                ';' if open == 0 && !inside_brackets(&code[at..at + i]) => break,
                _ => {}
            }
            if c == '}' && open == 0 {
                found.push((name, line, code[at..at + i].matches('\n').count()));
                break;
            }
        }
    }
    found
}

/// Whether a signature has an array type open (`[u8; 4]`), whose semicolon does not end it.
fn inside_brackets(signature: &str) -> bool {
    signature.matches('[').count() > signature.matches(']').count()
}

fn nothing_unwraps(sources: &[Source]) -> Vec<String> {
    let call = concat!(".unw", "rap()");
    let mut findings = Vec::new();
    for source in product(sources) {
        for (number, line) in code_of(&source.product()).lines().enumerate() {
            if line.contains(call) {
                findings.push(format!(
                    "{}:{} unwraps outside tests: return the error, or `expect` with the reason \
                     why it cannot happen",
                    source.path,
                    number + 1
                ));
            }
        }
    }
    findings
}

fn nothing_is_left_to_do(sources: &[Source]) -> Vec<String> {
    let marks =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
    let macros = [concat!("to", "do!"), concat!("unimple", "mented!")];
    let mut findings = Vec::new();
    for source in sources {
        for (number, line) in source.text.lines().enumerate() {
            let words: Vec<&str> =
                line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '!').collect();
            let marked = words.iter().any(|word| marks.contains(word) || macros.contains(word));
            if marked {
                findings.push(format!(
                    "{}:{} has a mark of unfinished work: finish it, or open an issue and say in \
                     the text what holds today",
                    source.path,
                    number + 1
                ));
            }
        }
    }
    findings
}

fn names_say_something(sources: &[Source]) -> Vec<String> {
    let empty = ["util", "utils", "common", "helper", "helpers", "manager", "misc"];
    let mut findings = Vec::new();
    for source in sources {
        let stem = Path::new(&source.path).file_stem().unwrap_or_default().to_string_lossy();
        let vague = source.path.split(['/', '_', '-', '.']).any(|part| empty.contains(&part));
        let numbered = source.module().is_some() && stem.ends_with(|c: char| c.is_ascii_digit());
        if vague || numbered {
            findings.push(format!(
                "{}: a file is named after its subject, not `util`, `common`, `helper`, \
                 `manager`, `misc` or a number",
                source.path
            ));
        }
    }
    findings
}

fn files_say_what_they_are(sources: &[Source]) -> Vec<String> {
    let product = sources.iter().filter(|source| source.module().is_some());
    let bare = product.filter(|source| !source.text.trim_start().starts_with("//!"));
    bare.map(|source| {
        format!(
            "{}: open it with `//!` lines: what comes in, what goes out, where it runs, the \
             invariant, what is deliberately absent",
            source.path
        )
    })
    .collect()
}

/// ARCHITECTURE.md names what exists, and every folder and file directly under src.
fn the_map_is_true(architecture: &str, top: &Path, under_src: &[String]) -> Vec<String> {
    let named: BTreeSet<&str> = architecture
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|path| {
            ["src/", "tests/", "benches/", "scripts/"].iter().any(|p| path.starts_with(p))
        })
        .filter(|path| !path.contains(['*', ' ', '…', '{', '<']))
        .map(|path| path.trim_end_matches('/'))
        .collect();
    let gone = named
        .iter()
        .filter(|path| !top.join(path).exists())
        .map(|path| format!("ARCHITECTURE.md names `{path}`, which is not there: correct the map"));
    let unnamed = under_src
        .iter()
        .filter(|path| {
            !named.iter().any(|name| name == path || name.starts_with(&format!("{path}/")))
        })
        .map(|path| format!("ARCHITECTURE.md does not name `{path}`: add it to the map"));
    gone.chain(unnamed).collect()
}

fn nothing_of_this_machine(sources: &[Source]) -> Vec<String> {
    let places = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let hosts = [
        concat!("crates", ".io"),
        concat!("py", "pi.org"),
        concat!("python", "hosted"),
        concat!("npm", "js"),
        concat!("proxy.go", "lang"),
        concat!("deb.deb", "ian"),
        concat!("repo1.ma", "ven"),
        concat!("docker", ".io"),
    ];
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| !source.path.ends_with("Cargo.lock")) {
        for (number, line) in source.text.lines().enumerate() {
            let place = places.iter().find(|place| {
                // Inside a longer path the same folder name is nobody's machine.
                line.match_indices(**place).any(|(at, _)| !word_before_byte(line, at))
            });
            let host = hosts.iter().find(|host| line.contains(**host));
            if let Some(word) = place.or(host) {
                findings.push(format!(
                    "{}:{} has `{word}`: no absolute path of a machine and no registry's host \
                     belongs in the tree",
                    source.path,
                    number + 1
                ));
            }
        }
    }
    findings
}

fn word_before_byte(line: &str, at: usize) -> bool {
    line[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.')
}

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The text files of the tree: what git tracks or would track.
fn tree() -> Vec<Source> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(top())
        .output()
        .expect("git lists the files of the tree");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).unwrap();
    let texts = names.lines().filter_map(|path| {
        let text = std::fs::read_to_string(top().join(path)).ok()?;
        Some(Source::new(path, &text))
    });
    let sources: Vec<Source> = texts.collect();
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"), "the tree was not read");
    sources
}

fn rust_of(sources: Vec<Source>) -> Vec<Source> {
    sources.into_iter().filter(|source| source.path.ends_with(".rs")).collect()
}

fn hold(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{} findings:\n{}\n", findings.len(), findings.join("\n"));
}

#[test]
fn tree_stations_stand_alone() {
    hold(stations_stand_alone(&rust_of(tree())));
}

#[test]
fn tree_direction_holds() {
    hold(direction_holds(&rust_of(tree())));
}

#[test]
fn tree_only_the_driver_knows_the_ring() {
    hold(only_the_driver_knows_the_ring(&rust_of(tree())));
}

#[test]
fn tree_stations_are_pure() {
    hold(stations_are_pure(&rust_of(tree())));
}

#[test]
fn tree_files_are_short() {
    hold(files_are_short(&rust_of(tree())));
}

#[test]
fn tree_functions_are_short() {
    hold(functions_are_short(&rust_of(tree())));
}

#[test]
fn tree_nothing_unwraps() {
    hold(nothing_unwraps(&rust_of(tree())));
}

#[test]
fn tree_nothing_is_left_to_do() {
    hold(nothing_is_left_to_do(&tree()));
}

#[test]
fn tree_names_say_something() {
    hold(names_say_something(&rust_of(tree())));
}

#[test]
fn tree_files_say_what_they_are() {
    hold(files_say_what_they_are(&rust_of(tree())));
}

#[test]
fn tree_nothing_of_this_machine() {
    hold(nothing_of_this_machine(&tree()));
}

#[test]
fn tree_the_map_is_true() {
    let architecture = std::fs::read_to_string(top().join("ARCHITECTURE.md"))
        .expect("ARCHITECTURE.md is at the top of the tree");
    let mut under_src: Vec<String> = std::fs::read_dir(top().join("src"))
        .unwrap()
        .map(|entry| format!("src/{}", entry.unwrap().file_name().to_string_lossy()))
        .collect();
    under_src.sort();
    hold(the_map_is_true(&architecture, &top(), &under_src));
}

/// Each rule finds what it is for, and lets the good sample pass.
mod rules_can_fail {
    use super::*;

    type Rule = fn(&[Source]) -> Vec<String>;

    fn check(rule: Rule, path: &str, text: &str, findings: usize) {
        // The other modules exist, so that a name can be told from any other word.
        let mut sources: Vec<Source> = ["record", "log", "serve", "config", "engine", "cli"]
            .map(|module| Source::new(&format!("src/{module}/mod.rs"), "//! here\n"))
            .to_vec();
        sources.push(Source::new(path, text));
        let found = rule(&sources);
        assert_eq!(found.len(), findings, "{path}: {text:?} gave {found:#?}");
    }

    #[test]
    fn stations() {
        let rule = stations_stand_alone;
        check(rule, "src/log/frame.rs", "use crate::record::Offset;", 0);
        check(rule, "src/log/frame.rs", "use crate::{record::Offset, log::segment};", 0);
        check(rule, "src/log/frame.rs", "use crate::serve::kafka;", 1);
        check(rule, "src/log/frame.rs", "use crate::{record::{A, B}, serve::{C, D}, config};", 2);
        check(rule, "src/log/frame.rs", "fn f() { super::super::serve::g() }", 1);
        check(rule, "src/ingest/mqtt/a.rs", "use super::super::super::log::Frame;", 1);
        check(rule, "src/ingest/mqtt/a.rs", "use super::super::log;", 0);
        check(rule, "src/log/frame.rs", "// crate::serve\nlet s = \"crate::serve\";", 0);
        check(rule, "src/record/name.rs", "use crate::log::Frame;", 1);
    }

    #[test]
    fn direction() {
        let rule = direction_holds;
        check(rule, "src/shard/mod.rs", "use crate::{log, serve, record};", 0);
        check(rule, "src/shard/mod.rs", "use crate::engine::Engine;", 1);
        check(rule, "src/control/http.rs", "crate::shard::stop();", 1);
        check(rule, "src/engine.rs", "use crate::cli::exit;", 1);
        check(rule, "src/main.rs", "tidegate::cli::main()", 0);
    }

    #[test]
    fn ring() {
        let rule = only_the_driver_knows_the_ring;
        check(rule, "src/driver/sockets.rs", "use io_uring::IoUring;", 0);
        check(rule, "src/shard/mod.rs", "use glommio::Task;", 1);
        check(rule, "src/engine.rs", "// glommio\nlet s = \"io_uring\"; let io_uring_seen = 1;", 0);
        check(rule, "src/engine.rs", "let ring = io_uring::IoUring::new(8);", 1);
        check(rule, "src/engine.rs", "use ::io_uring::IoUring;", 1);
        check(rule, "src/engine.rs", "use {glommio, libc};", 1);
        check(rule, "src/engine.rs", "driver::preflight::io_uring()?;", 0);
    }

    #[test]
    fn purity() {
        let rule = stations_are_pure;
        check(rule, "src/ring/spsc.rs", "fn f(now_ns: u64) {}", 0);
        check(rule, "src/ring/spsc.rs", "let t = std::time::Instant::now();", 1);
        check(rule, "src/log/frame.rs", "#[cfg(test)]\nmod tests {\nuse std::fs; }", 0);
        check(rule, "src/log/frame.rs", "std::fs::read(p)", 1);
        check(rule, "src/driver/files.rs", "std::fs::read(p)", 0);
    }

    #[test]
    fn sizes() {
        let lines = |count: usize| "let x = 1;\n".repeat(count);
        check(files_are_short, "src/log/a.rs", &lines(500), 0);
        check(files_are_short, "src/log/a.rs", &lines(501), 1);
        let tests = format!("{}#[cfg(test)]\nmod tests {{\n{}", lines(400), lines(400));
        check(files_are_short, "src/log/a.rs", &tests, 0);
        let function = |body| format!("fn f(a: [u8; 4]) -> u8 {{\n{}}}\n", lines(body));
        check(functions_are_short, "src/log/a.rs", &function(69), 0);
        check(functions_are_short, "src/log/a.rs", &function(70), 1);
        check(functions_are_short, "src/log/a.rs", "trait T { fn f(); fn g(); }", 0);
    }

    #[test]
    fn marks() {
        let unwrap = concat!("x.unw", "rap();");
        check(nothing_unwraps, "src/log/a.rs", unwrap, 1);
        check(nothing_unwraps, "src/log/a.rs", &format!("#[cfg(test)]\nmod t {{\n{unwrap}"), 0);
        let attributed = format!("#[cfg(test)]\n#[allow(x)]\nmod t {{\n{unwrap}");
        check(nothing_unwraps, "src/log/a.rs", &attributed, 0);
        check(nothing_unwraps, "tests/a.rs", unwrap, 0);
        check(nothing_is_left_to_do, "tests/a.rs", concat!("// TO", "DO: later"), 1);
        check(nothing_is_left_to_do, "src/a.rs", concat!("to", "do!()"), 1);
        check(nothing_is_left_to_do, "src/a.rs", "let todos = 1;", 0);
    }

    #[test]
    fn test_files() {
        let long = concat!("x.unw", "rap();\n").repeat(600);
        let parent = "//! log\n#[cfg(test)]\nmod tests;\nmod frame;\n";
        let files = |path: &str| [Source::new("src/log/mod.rs", parent), Source::new(path, &long)];
        for path in ["src/log/tests.rs", "src/log/tests/mod.rs", "src/log/tests/torn.rs"] {
            assert_eq!(nothing_unwraps(&files(path)).len(), 0, "{path} is compiled for tests only");
            assert_eq!(files_are_short(&files(path)).len(), 0, "{path}");
        }
        for path in ["src/log/frame.rs", "src/log/testsuite.rs", "src/serve/tests.rs"] {
            assert_eq!(nothing_unwraps(&files(path)).len(), 600, "{path} is the product");
            assert_eq!(files_are_short(&files(path)).len(), 1, "{path}");
        }
    }

    #[test]
    fn names() {
        check(names_say_something, "src/log/frame.rs", "", 0);
        check(names_say_something, "src/log/segment_utils.rs", "", 1);
        check(names_say_something, "src/common/mod.rs", "", 1);
        check(names_say_something, "src/log/frame2.rs", "", 1);
        check(files_say_what_they_are, "src/log/a.rs", "use x;", 1);
        check(files_say_what_they_are, "src/log/a.rs", "//! The frame.", 0);
    }

    #[test]
    fn machine() {
        let rule = nothing_of_this_machine;
        check(rule, "README.md", concat!("cd /wo", "rk/main"), 1);
        check(rule, "README.md", concat!("cd tests/wo", "rk/x"), 0);
        check(rule, "deny.toml", concat!("https://static.cra", "tes.io/x"), 1);
        check(rule, "Cargo.lock", concat!("https://static.cra", "tes.io/x"), 0);
    }

    #[test]
    fn map() {
        let under_src = ["src/lib.rs".to_owned(), "src/log".to_owned()];
        let rule = |text: &str| the_map_is_true(text, &top(), &under_src).len();
        assert_eq!(rule("`src/lib.rs` and `src/log/`"), 0);
        assert_eq!(rule("`src/lib.rs`"), 1, "a folder that the map leaves out");
        assert_eq!(rule("`src/lib.rs` `src/log` `src/nowhere/`"), 1, "a path that is gone");
    }
}
