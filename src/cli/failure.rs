//! How a command fails: the text for a person and the exit code for a script.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::config::{Mistake, Problem};

/// Why a command did not do what it was asked to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    code: u8,
    /// What happened, each with where and what to do on further lines.
    messages: Vec<String>,
}

impl Failure {
    /// It failed while running: exit code 1. The error's own text may have further lines, where it
    /// happened and the remedy; its sources follow.
    pub fn at_run_time(error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Many errors print their source themselves.
            if !text.contains(&cause_text) {
                let _ = write!(text, "\n  because: {cause_text}");
            }
            source = cause.source();
        }
        Self { code: 1, messages: vec![text] }
    }

    /// It was called wrongly: exit code 2.
    pub fn of_use(message: String) -> Self {
        Self { code: 2, messages: vec![message] }
    }

    /// Its rules are wrong, a line a problem: exit code 2.
    pub fn of_rules(wrong: Vec<Mistake>) -> Self {
        Self { code: 2, messages: wrong.iter().map(Mistake::to_string).collect() }
    }

    /// It is configured wrongly: exit code 2.
    pub fn of_config(problems: &[Problem]) -> Self {
        Self { code: 2, messages: problems.iter().map(Problem::to_string).collect() }
    }

    /// Prints the failure to stderr and turns it into the exit code.
    pub fn report(&self) -> ExitCode {
        let mut stderr = io::stderr().lock();
        for message in &self.messages {
            // Where stderr is gone, the exit code still tells.
            let _ = writeln!(stderr, "tidegate: {message}");
        }
        ExitCode::from(self.code)
    }
}

/// Prints to stdout. A reader that has enough, as `head` has, is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure { code: 1, messages: vec![format!("cannot write to stdout: {error}")] })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the port 1883 is taken\n  help: stop the other process")]
    struct Taken(#[source] io::Error);

    #[test]
    fn a_failure_tells_its_cause_once() {
        let check = |error: &dyn Error, expected: &str| {
            assert_eq!(Failure::at_run_time(error).messages, [expected]);
        };
        check(
            &Taken(io::Error::other("address in use")),
            "the port 1883 is taken\n  help: stop the other process\n  because: address in use",
        );
        check(&io::Error::other("plain"), "plain");
    }
}
