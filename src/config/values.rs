//! The kinds of values that only the configuration has: core sets, spinning, how segments are
//! prepared, retention by age, topic filters. Text in, checked values out.

use std::time::Duration;

use super::setting::{Setting, one_of, parse_duration, quoted, refused, show_duration};

/// The highest number of a core that `cores` accepts.
pub const CORE_NUMBER_MAX: u32 = 4095;

/// The cores that shards run on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CoreSet {
    /// All that the process may use: physical cores first, affinity mask and cgroup quota obeyed.
    #[default]
    Auto,
    /// These, one shard each, in this order. Never empty, each core once.
    List(Vec<u32>),
}

impl Setting for CoreSet {
    const WANT: &'static str = "\"auto\" or a list of cores, such as \"0,2-5\"";
    const VALUE: &'static str = "CORES";

    fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == "auto" {
            return Ok(Self::Auto);
        }
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<u32>().ok();
            let (Some(first), Some(last)) = (number(first), number(last)) else {
                return Err(refused::<Self>(&quoted(text)));
            };
            if first > last {
                return Err(format!("the range {first}-{last} runs backwards"));
            }
            if last > CORE_NUMBER_MAX {
                return Err(format!("core {last} is beyond {CORE_NUMBER_MAX}"));
            }
            for core in first..=last {
                if cores.contains(&core) {
                    return Err(format!("core {core} is named twice"));
                }
                cores.push(core);
            }
        }
        Ok(Self::List(cores))
    }

    fn show(&self) -> Option<String> {
        Some(match self {
            Self::Auto => quoted("auto"),
            Self::List(cores) => quoted(&show_cores(cores)),
        })
    }
}

/// `[0, 2, 3, 4]` as `0,2-4`.
fn show_cores(cores: &[u32]) -> String {
    let runs = cores.chunk_by(|a, b| a + 1 == *b);
    let shown = runs.map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        other => other.iter().map(u32::to_string).collect(),
    });
    shown.collect::<Vec<_>>().join(",")
}

/// How long a shard polls before it sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spin {
    /// It sleeps at once.
    #[default]
    Off,
    /// It polls for this long. Never zero.
    For(Duration),
    /// It never sleeps: the core is always busy.
    Always,
}

impl Setting for Spin {
    const WANT: &'static str = "\"off\", \"always\" or a duration, such as \"50us\"";
    const VALUE: &'static str = "TIME";

    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "off" => Ok(Self::Off),
            "always" => Ok(Self::Always),
            other => match parse_duration(other) {
                Some(Duration::ZERO) => Ok(Self::Off),
                Some(duration) => Ok(Self::For(duration)),
                None => Err(refused::<Self>(&quoted(text))),
            },
        }
    }

    fn show(&self) -> Option<String> {
        Some(match self {
            Self::Off => quoted("off"),
            Self::For(duration) => quoted(&show_duration(*duration)),
            Self::Always => quoted("always"),
        })
    }
}

/// How segments are made ready to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prepare {
    /// What the probe of the disk at start finds faster.
    #[default]
    Auto,
    /// Zero-filled ahead: a commit overwrites.
    Zero,
    /// Not filled: a commit appends.
    Append,
}

impl Prepare {
    /// The name used in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Zero => "zero",
            Self::Append => "append",
        }
    }
}

impl Setting for Prepare {
    const WANT: &'static str = "\"auto\", \"zero\" or \"append\"";
    const VALUE: &'static str = "HOW";

    fn parse(text: &str) -> Result<Self, String> {
        one_of(text, [Self::Auto, Self::Zero, Self::Append], Self::name)
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self.name()))
    }
}

/// How old the records of a stream may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Retention {
    /// Records older than this may go.
    Age(Duration),
    /// Age alone removes nothing.
    Forever,
}

impl Retention {
    /// The age in milliseconds; `None` for ever.
    pub fn age_ms(self) -> Option<i64> {
        match self {
            Self::Age(age) => Some(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
            Self::Forever => None,
        }
    }
}

impl Setting for Retention {
    const WANT: &'static str = "\"forever\" or a duration, such as \"7d\" or \"12h\"";

    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "forever" => Ok(Self::Forever),
            other => {
                parse_duration(other).map(Self::Age).ok_or_else(|| refused::<Self>(&quoted(text)))
            }
        }
    }

    fn show(&self) -> Option<String> {
        Some(match self {
            Self::Age(age) => quoted(&show_duration(*age)),
            Self::Forever => quoted("forever"),
        })
    }
}

/// A valid MQTT topic filter (MQTT 5, section 4.7) that is not a shared subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFilter(String);

impl TopicFilter {
    /// The filter of every topic that does not begin with `$`.
    pub fn all() -> Self {
        Self("#".to_owned())
    }

    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether some topic matches both filters.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut left, mut right) = (self.0.split('/'), other.0.split('/'));
        let dollar = |filter: &str| filter.starts_with('$');
        let wild = |filter: &str| filter.starts_with(['+', '#']);
        // A wildcard in the first level does not match a topic that begins with '$' (4.7.2).
        if dollar(&self.0) && wild(&other.0) || wild(&self.0) && dollar(&other.0) {
            return false;
        }
        loop {
            match (left.next(), right.next()) {
                (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
                (None, _) | (_, None) => return false,
                (Some(a), Some(b)) if a != b && a != "+" && b != "+" => return false,
                _ => {}
            }
        }
    }
}

impl Setting for TopicFilter {
    const WANT: &'static str = "an MQTT topic filter";

    fn parse(text: &str) -> Result<Self, String> {
        let shown = quoted(text);
        let because = |why: &str| Err(format!("{shown} is no topic filter: {why}"));
        if text.is_empty() {
            return because("it is empty");
        }
        if text.len() > 65_535 {
            return Err("a topic filter of more than 65535 bytes".to_owned());
        }
        if text.contains('\0') {
            return because("it holds the character U+0000");
        }
        if text.starts_with("$share/") {
            return because("shared subscriptions are for clients, not for streams");
        }
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            if level.contains('#') && (level != "#" || levels.peek().is_some()) {
                return because("'#' must be the whole last level");
            }
            if level.contains('+') && level != "+" {
                return because("'+' must be a whole level");
            }
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_sets() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = CoreSet::parse(text).map(|cores| cores.show().unwrap());
            assert_eq!(found, expected.map(quoted).map_err(str::to_owned), "{text}");
        };
        check("auto", Ok("auto"));
        check("0,2-5", Ok("0,2-5"));
        check("3, 2, 1", Ok("3,2,1"));
        check("0-0", Ok("0"));
        check("4-5,0-1", Ok("4-5,0-1"));
        let shape = |text: &str| {
            format!("\"{text}\" is not \"auto\" or a list of cores, such as \"0,2-5\"")
        };
        for text in ["", "0,", "a", "1-", "-1", "1-2-3"] {
            check(text, Err(&shape(text)));
        }
        check("5-2", Err("the range 5-2 runs backwards"));
        check("0,0", Err("core 0 is named twice"));
        check("0-3,2", Err("core 2 is named twice"));
        check("0-4294967295", Err("core 4294967295 is beyond 4095"));
    }

    #[test]
    fn spin_prepare_retention() {
        assert_eq!(Spin::parse("50us"), Ok(Spin::For(Duration::from_micros(50))));
        assert_eq!(Spin::parse("0s"), Ok(Spin::Off));
        assert_eq!(Spin::parse("always"), Ok(Spin::Always));
        assert!(Spin::parse("on").is_err());
        for prepare in [Prepare::Auto, Prepare::Zero, Prepare::Append] {
            assert_eq!(Prepare::parse(prepare.name()), Ok(prepare));
        }
        assert_eq!(Retention::parse("forever").map(Retention::age_ms), Ok(None));
        assert_eq!(Retention::parse("1d").map(Retention::age_ms), Ok(Some(86_400_000)));
        assert!(Retention::parse("never").is_err());
    }

    #[test]
    fn topic_filters() {
        let check = |text: &str, why: &str| match TopicFilter::parse(text) {
            Ok(filter) => assert_eq!((filter.as_str(), ""), (text, why)),
            Err(error) => assert!(!why.is_empty() && error.contains(why), "{text}: {error}"),
        };
        for text in ["#", "+", "a", "a/b", "a/#", "+/b/#", "/", "a//b", "$SYS/#", "$share", "ä b"]
        {
            check(text, "");
        }
        check("", "it is empty");
        check("a#", "'#' must be the whole last level");
        check("#/a", "'#' must be the whole last level");
        check("a/#/b", "'#' must be the whole last level");
        check("a+/b", "'+' must be a whole level");
        check("a/\0", "U+0000");
        check("$share/g/a", "shared subscriptions");
        check(&"x".repeat(65_536), "more than 65535 bytes");
    }

    #[test]
    fn overlapping_filters() {
        let check = |a: &str, b: &str, expected: bool| {
            let (a, b) = (TopicFilter::parse(a).unwrap(), TopicFilter::parse(b).unwrap());
            assert_eq!(a.overlaps(&b), expected, "{a:?} {b:?}");
            assert_eq!(b.overlaps(&a), expected, "{b:?} {a:?}");
        };
        check("#", "a/b", true);
        check("a/#", "a", true);
        check("a/#", "+", true);
        check("a/+", "+/b", true);
        check("a/+", "b/+", false);
        check("a/b", "a/b/c", false);
        check("+", "a/b", false);
        check("a/+/c", "a/b/d", false);
        check("#", "$SYS/a", false);
        check("+/a", "$SYS/a", false);
        check("$SYS/#", "$SYS/+", true);
    }
}
