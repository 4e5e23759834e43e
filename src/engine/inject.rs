//! Faults that tests ask for on the command line, so that a real engine shows what it does about
//! them. No key of the configuration leads here: nobody sets one by mistake, and the banner says
//! loudly which are on.

use std::path::PathBuf;
use std::str::FromStr;

use super::Error;
use crate::config::{parse_duration, show_duration};
use crate::driver::storage::Delay;

/// A shard whose commits are slow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitDelay {
    shard: u32,
    delay: Delay,
}

impl FromStr for CommitDelay {
    type Err = String;

    /// Reads `1=50ms` and `1=50ms@FILE`.
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('=').and_then(|(shard, delay)| {
            let (time, file) = match delay.split_once('@') {
                Some((_, "")) => return None,
                Some((time, file)) => (time, Some(PathBuf::from(file))),
                None => (delay, None),
            };
            let delay = Delay { time: parse_duration(time)?, while_there: file };
            Some(Self { shard: shard.trim().parse().ok()?, delay })
        });
        parsed.ok_or_else(|| {
            "write a shard's number and a time, such as 1=50ms, and a file if the delay is to end \
             with it: 1=50ms@FILE"
                .to_owned()
        })
    }
}

/// The delay of each shard's commits. The last word on a shard counts.
pub fn commit_delays(asked: &[CommitDelay], shards: u32) -> Result<Vec<Option<Delay>>, Error> {
    let mut delays = vec![None; shards as usize];
    for CommitDelay { shard, delay } in asked {
        match delays.get_mut(*shard as usize) {
            Some(of_shard) => *of_shard = Some(delay.clone()),
            None => return Err(Error::NoShardToDelay { shard: *shard, last: shards - 1 }),
        }
    }
    Ok(delays)
}

/// What the banner says of them.
pub fn notes(delays: &[Option<Delay>]) -> impl Iterator<Item = String> {
    delays.iter().enumerate().filter_map(|(shard, delay)| {
        let delay = delay.as_ref()?;
        let time = show_duration(delay.time);
        let until =
            delay.while_there.as_ref().map(|file| format!(" while {} is there", file.display()));
        Some(format!(
            "shard {shard} waits {time} before each commit{} (--inject-commit-delay, for tests)",
            until.unwrap_or_default()
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn delay(ms: u64) -> Delay {
        Delay { time: Duration::from_millis(ms), while_there: None }
    }

    fn while_there(ms: u64, file: &str) -> Delay {
        Delay { while_there: Some(PathBuf::from(file)), ..delay(ms) }
    }

    fn asked(shard: u32, delay: Delay) -> CommitDelay {
        CommitDelay { shard, delay }
    }

    #[test]
    fn delays_are_read() {
        let check = |text: &str, expected: Option<CommitDelay>| {
            assert_eq!(text.parse().ok(), expected, "{text}");
        };
        check("1=50ms", Some(asked(1, delay(50))));
        check("0 = 2s", Some(asked(0, delay(2000))));
        check("1=50ms@/tmp/gate", Some(asked(1, while_there(50, "/tmp/gate"))));
        check("1=50ms@a=b@c", Some(asked(1, while_there(50, "a=b@c"))));
        let wrong = ["", "1", "1=", "=50ms", "-1=50ms", "one=50ms", "1=50", "1=2=50ms"];
        for text in wrong.into_iter().chain(["1=50ms@", "1=@gate", "1=50@gate"]) {
            check(text, None);
        }
    }

    #[test]
    fn delays_are_of_shards_that_there_are() {
        let words = [asked(1, delay(50)), asked(2, while_there(7, "gate")), asked(1, delay(1500))];
        let delays = commit_delays(&words, 3).unwrap();
        assert_eq!(delays, [None, Some(delay(1500)), Some(while_there(7, "gate"))]);
        assert_eq!(
            notes(&delays).collect::<Vec<_>>(),
            [
                "shard 1 waits 1500ms before each commit (--inject-commit-delay, for tests)",
                "shard 2 waits 7ms before each commit while gate is there \
                 (--inject-commit-delay, for tests)",
            ]
        );
        assert_eq!(
            commit_delays(&[asked(0, delay(1)), asked(3, delay(1))], 3).unwrap_err().to_string(),
            "--inject-commit-delay names shard 3, and there is none\n  help: name one from 0 to 2"
        );
        assert_eq!(commit_delays(&[], 1).unwrap(), [None]);
    }
}
