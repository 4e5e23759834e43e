//! How far a tool has come: a bar on a terminal, nothing elsewhere.
//!
//! Comes in: bytes as they are read. Goes out: one line on stderr, written over and over, with
//! bytes, rate and the time that is left.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(100);
const BAR_CELLS: u64 = 30;

/// The bar; the line is wiped when it is dropped.
#[derive(Debug)]
pub struct Progress {
    total: u64,
    done: u64,
    begun: Instant,
    /// When it was drawn last; `None` where nobody looks.
    drawn: Option<Instant>,
}

impl Progress {
    /// Of `total` bytes none is read.
    pub fn new(total: u64) -> Self {
        let begun = Instant::now();
        Self { total, done: 0, begun, drawn: io::stderr().is_terminal().then_some(begun) }
    }

    /// So many bytes more are read.
    pub fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        let Some(drawn) = self.drawn.filter(|drawn| drawn.elapsed() >= EVERY) else { return };
        self.drawn = Some(drawn + drawn.elapsed());
        let line = line(self.done, self.total, self.begun.elapsed());
        // Where the terminal has gone there is nobody to tell.
        let _ = write!(io::stderr(), "\r{line}\x1b[K");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(done: u64, total: u64, elapsed: Duration) -> String {
    let share = |of: u64| (u128::from(done) * u128::from(of) / u128::from(total.max(1))) as u64;
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-3);
    let left = total.saturating_sub(done) as f64 / rate.max(1.0);
    let filled = share(BAR_CELLS).min(BAR_CELLS) as usize;
    let mut line = format!("[{:<width$}]", "#".repeat(filled), width = BAR_CELLS as usize);
    let _ = write!(
        line,
        " {:>3} % of {}, {}/s, {left:.0} s left",
        share(100),
        bytes(total),
        bytes(rate as u64)
    );
    line
}

/// Bytes as a person reads them, in decimal units.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let mut scaled = count as f64;
    let mut unit = 0;
    while scaled >= 1000.0 && unit + 1 < UNITS.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0);
    format!("{scaled:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far() {
        let check = |done, total, seconds, expected: &str| {
            assert_eq!(line(done, total, Duration::from_secs(seconds)), expected);
        };
        let half = format!("[{}{}]", "#".repeat(15), " ".repeat(15));
        check(2_000_000, 4_000_000, 2, &format!("{half}  50 % of 4.0 MB, 1.0 MB/s, 2 s left"));
        let none = format!("[{}]", " ".repeat(30));
        check(0, 0, 0, &format!("{none}   0 % of 0 bytes, 0 bytes/s, 0 s left"));
    }
}
