//! A set of core numbers, written as the kernel writes them: "0,2-5".

use std::collections::BTreeSet;
use std::fmt;

/// Core numbers, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CoreSet(BTreeSet<usize>);

/// No machine that Linux runs on has more (NR_CPUS), so a range cannot fill the memory.
const CORES_MAX: usize = 8192;

impl CoreSet {
    /// Reads what the kernel writes, "0,2-5"; an empty line is the empty set.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.parse::<usize>().ok().filter(|core| *core < CORES_MAX);
        let mut cores = BTreeSet::new();
        for part in text.trim().split(',').filter(|_| !text.trim().is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            cores.extend(number(first)?..=number(last)?);
        }
        Some(Self(cores))
    }

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
        let check = |text: &str, expected: Option<&str>| {
            let shown = CoreSet::parse(text).map(|cores| cores.to_string());
            assert_eq!(shown.as_deref(), expected, "{text:?}");
        };
        check("0,2-5\n", Some("0,2-5"));
        check("5,2-4,3", Some("2-5"));
        check("7", Some("7"));
        check("0,1", Some("0-1"));
        check("\n", Some(""));
        check("0,,1", None);
        check("-1", None);
        check("0-99999999999", None);
        check("all", None);
    }
}
