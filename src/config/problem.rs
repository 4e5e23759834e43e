//! What is wrong with a configuration, where, and what to do: the text that a person reads.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file.
    File(FilePlace),
    /// In an environment variable of this name.
    Variable(String),
    /// In a flag, written as `--mqtt-listen`.
    Flag(String),
}

/// A place in the file: line and column count from 1, in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePlace {
    /// The file as it was named.
    pub path: PathBuf,
    /// Line.
    pub line: usize,
    /// Column of the first character.
    pub column: usize,
    /// Number of characters, at least 1.
    pub width: usize,
    /// The line itself.
    pub text: String,
}

impl FilePlace {
    /// The place of the bytes `span` of `input`; what reaches over the end of its line is cut.
    pub fn new(path: PathBuf, input: &str, span: Range<usize>) -> Self {
        let start = boundary(input, span.start.min(input.len()));
        let line_start = input[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = input[start..].find('\n').map_or(input.len(), |at| start + at);
        let end = boundary(input, span.end.clamp(start, line_end));
        Self {
            path,
            line: input[..line_start].matches('\n').count() + 1,
            column: input[line_start..start].chars().count() + 1,
            width: input[start..end].trim_end().chars().count().max(1),
            text: input[line_start..line_end].trim_end().replace('\t', " "),
        }
    }
}

/// The character boundary at or before `at`.
fn boundary(input: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| input.is_char_boundary(*at)).unwrap_or(0)
}

/// As one phrase, to complete "set by".
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(place) => write!(f, "{}:{}", place.path.display(), place.line),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The keys concerned, the one to change first; the place is that of the first that was set.
    pub keys: Vec<String>,
    /// Where; `None` while it is not known, and for what is nowhere (a missing file).
    pub place: Option<Place>,
    /// What is wrong, one line without a full stop.
    pub what: String,
    /// What to do, one line.
    pub remedy: Option<String>,
}

impl Problem {
    /// A problem of these keys, its place still to be found.
    pub(super) fn of(keys: &[&str], what: String, remedy: String) -> Self {
        Self {
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            place: None,
            what,
            remedy: Some(remedy),
        }
    }

    /// A problem at a place.
    pub(super) fn at(place: Place, what: String, remedy: Option<String>) -> Self {
        Self { keys: Vec::new(), place: Some(place), what, remedy }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.place {
            Some(Place::File(place)) => {
                let FilePlace { path, line, column, width, text } = place;
                let margin = line.to_string().len();
                write!(f, "\n{:margin$}--> {}:{line}:{column}", "", path.display())?;
                write!(f, "\n{:margin$} |\n{line} | {text}\n{:margin$} | ", "", "")?;
                write!(f, "{:indent$}{}", "", "^".repeat(*width), indent = column - 1)?;
            }
            Some(Place::Variable(name)) => write!(f, "\n  in the environment variable {name}")?,
            Some(Place::Flag(name)) => write!(f, "\n  in the flag {name}")?,
            None => {}
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n  help: {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
