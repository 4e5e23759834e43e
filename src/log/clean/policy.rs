//! Which segments are worth cleaning.
//!
//! A chain is let go of from its front, so that one live run in the oldest segment pins everything
//! behind it. What is worth cleaning is therefore a stretch from the front, as long as possible, of
//! which little is alive: however much its first segment holds, what it pins counts. A moved segment
//! stands for itself. Pure arithmetic: no files, no log.

/// How full a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Bytes of batches that are still needed.
    pub live: u64,
    /// Bytes of all batches that it was written with.
    pub total: u64,
}

/// How many segments from the front of a chain are worth cleaning: at most `live_max_percent` of
/// all their bytes are alive.
pub fn stretch(chain: &[Fill], live_max_percent: u32) -> usize {
    let (mut live, mut total, mut worth) = (0_u64, 0_u64, 0);
    for (at, fill) in chain.iter().enumerate() {
        live += fill.live;
        total += fill.total;
        // One that is full itself ends no stretch: there is nothing behind it that it pins.
        let ends = is_worth(*fill, live_max_percent);
        if ends && is_worth(Fill { live, total }, live_max_percent) {
            worth = at + 1;
        }
    }
    worth
}

/// Whether so little of it is alive that cleaning is worth it.
pub fn is_worth(fill: Fill, live_max_percent: u32) -> bool {
    let (live, total) = (u128::from(fill.live), u128::from(fill.total));
    live * 100 <= total * u128::from(live_max_percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_as_long_as_little_of_it_is_alive() {
        let check = |lives: &[u64], expected| {
            let chain: Vec<_> = lives.iter().map(|live| Fill { live: *live, total: 100 }).collect();
            assert_eq!(stretch(&chain, 50), expected, "{lives:?}");
        };
        check(&[], 0);
        check(&[50], 1);
        check(&[51], 0);
        check(&[90, 0], 2);
        check(&[90, 20, 100, 100], 0);
        check(&[60, 30, 100, 0, 0, 100], 5);
        check(&[0, 100, 100], 1);
        check(&[100, 100], 0);
    }
}
