//! A set of core numbers, written as the kernel writes them: "0,2-5".

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::Error;

/// Core numbers, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CoreSet(BTreeSet<usize>);

/// No machine that Linux runs on has more (NR_CPUS), so a range cannot fill the memory.
const CORES_MAX: usize = 8192;

impl CoreSet {
    /// The cores, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().copied()
    }

    /// Whether `core` is one of them.
    pub fn contains(&self, core: usize) -> bool {
        self.0.contains(&core)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<usize> for CoreSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cores: I) -> Self {
        Self(cores.into_iter().collect())
    }
}

impl FromStr for CoreSet {
    type Err = Error;

    /// Reads "0,2-5"; at least one core.
    fn from_str(text: &str) -> Result<Self, Error> {
        let syntax = |why| Error::Syntax { text: text.trim().to_owned(), why };
        let number = |text: &str| match text.trim().parse::<usize>() {
            Ok(core) if core < CORES_MAX => Ok(core),
            Ok(_) => Err(syntax("a number is too large")),
            Err(_) => Err(syntax("a part is no number")),
        };
        let mut cores = BTreeSet::new();
        for part in text.trim().split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last {
                return Err(syntax("a range runs backwards"));
            }
            cores.extend(first..=last);
        }
        Ok(Self(cores))
    }
}

impl fmt::Display for CoreSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cores = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = cores.next() {
            let mut last = first;
            while let Some(next) = cores.next_if(|core| *core == last + 1) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written_as_the_kernel_does() {
        let check = |text: &str, expected: &str| {
            let shown = match text.parse::<CoreSet>() {
                Ok(cores) => cores.to_string(),
                Err(error) => error.to_string(),
            };
            assert!(shown.contains(expected), "{text:?}: {shown:?} lacks {expected:?}");
        };
        check("0,2-5", "0,2-5");
        check(" 5, 2 - 4 ,3\n", "2-5");
        check("7", "7");
        check("0,1", "0-1");
        check("", "a part is no number");
        check("0,,1", "a part is no number");
        check("-1", "a part is no number");
        check("5-2", "a range runs backwards");
        check("0-99999999999", "a number is too large");
        check("all", "\"all\" names no cores: write \"auto\", or core numbers and ranges");
    }
}
