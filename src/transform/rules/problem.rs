//! What is wrong with the text of rules: where, what, and what would be right.

use std::fmt;

/// A place in a file of rules. Both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

/// Something that keeps rules from starting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{at}: {what}")]
pub struct Problem {
    pub file: String,
    pub at: Position,
    pub what: String,
}

/// A problem of which the file is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub at: Position,
    pub what: String,
}

impl Fault {
    pub fn new(at: impl Into<Position>, what: impl Into<String>) -> Self {
        Self { at: at.into(), what: what.into() }
    }

    pub fn in_file(self, file: &str) -> Problem {
        Problem { file: file.to_owned(), at: self.at, what: self.what }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl From<sqlparser::tokenizer::Location> for Position {
    fn from(at: sqlparser::tokenizer::Location) -> Self {
        let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Self { line: number(at.line), column: number(at.column) }
    }
}

impl From<sqlparser::tokenizer::Span> for Position {
    fn from(span: sqlparser::tokenizer::Span) -> Self {
        span.start.into()
    }
}

/// `; did you mean x?` where one of `known` is close to `name`, else what there is.
pub fn instead<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> String {
    let known: Vec<&str> = known.collect();
    let lower = name.to_ascii_lowercase();
    let near = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&lower, &known.to_ascii_lowercase()), *known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min();
    match near {
        Some((_, near)) => format!("; did you mean {near}?"),
        None if known.is_empty() => String::new(),
        None if known.len() <= 12 => format!("; there are {}", known.join(", ")),
        None => String::new(),
    }
}
