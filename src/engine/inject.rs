//! Faults that tests ask for on the command line, so that a real engine shows what it does about
//! them. No key of the configuration leads here: nobody sets one by mistake, and the banner says
//! loudly which are on.

use std::str::FromStr;
use std::time::Duration;

use super::Error;
use crate::config::{parse_duration, show_duration};

/// A shard whose commits are slow: each waits this long before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitDelay {
    shard: u32,
    delay: Duration,
}

impl FromStr for CommitDelay {
    type Err = String;

    /// Reads `1=50ms`.
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('=').and_then(|(shard, delay)| {
            Some(Self { shard: shard.trim().parse().ok()?, delay: parse_duration(delay)? })
        });
        parsed.ok_or_else(|| "write a shard's number and a time, such as 1=50ms".to_owned())
    }
}

/// The delay of each shard's commits. The last word on a shard counts.
pub fn commit_delays(asked: &[CommitDelay], shards: u32) -> Result<Vec<Option<Duration>>, Error> {
    let mut delays = vec![None; shards as usize];
    for &CommitDelay { shard, delay } in asked {
        match delays.get_mut(shard as usize) {
            Some(of_shard) => *of_shard = Some(delay),
            None => return Err(Error::NoShardToDelay { shard, last: shards - 1 }),
        }
    }
    Ok(delays)
}

/// What the banner says of them.
pub fn notes(delays: &[Option<Duration>]) -> impl Iterator<Item = String> {
    delays.iter().enumerate().filter_map(|(shard, delay)| {
        let delay = show_duration((*delay)?);
        Some(format!(
            "shard {shard} waits {delay} before each commit (--inject-commit-delay, for tests)"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(shard: u32, ms: u64) -> CommitDelay {
        CommitDelay { shard, delay: Duration::from_millis(ms) }
    }

    #[test]
    fn delays_are_read() {
        let check = |text: &str, expected: Option<CommitDelay>| {
            assert_eq!(text.parse().ok(), expected, "{text}");
        };
        check("1=50ms", Some(delay(1, 50)));
        check("0 = 2s", Some(delay(0, 2000)));
        for text in ["", "1", "1=", "=50ms", "-1=50ms", "one=50ms", "1=50", "1=2=50ms"] {
            check(text, None);
        }
    }

    #[test]
    fn delays_are_of_shards_that_there_are() {
        let delays = commit_delays(&[delay(1, 50), delay(2, 7), delay(1, 1500)], 3).unwrap();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(delays, [None, ms(1500), ms(7)]);
        assert_eq!(
            notes(&delays).collect::<Vec<_>>(),
            [
                "shard 1 waits 1500ms before each commit (--inject-commit-delay, for tests)",
                "shard 2 waits 7ms before each commit (--inject-commit-delay, for tests)",
            ]
        );
        assert_eq!(
            commit_delays(&[delay(0, 1), delay(3, 1)], 3).unwrap_err().to_string(),
            "--inject-commit-delay names shard 3, and there is none\n  help: name one from 0 to 2"
        );
        assert_eq!(commit_delays(&[], 1).unwrap(), [None]);
    }
}
