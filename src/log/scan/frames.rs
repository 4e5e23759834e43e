//! The frames of one segment: which of them stand where they belong, and what shows that more was
//! durable. Comes in: a segment's bytes. Goes out: frames and damage; nothing is kept between calls.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::super::frame::{self, Frame};
use super::super::segment::{SegmentHeader, SegmentKey};
use super::{BLOCK_MIN, Damage, HOLDS_ANOTHER, NO_FRAME, NO_HEADER};

/// Where a segment's frames must stand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub key: SegmentKey,
    pub identity: u64,
    /// Log position of the file's first byte.
    pub base_position: u64,
    pub block: u32,
}

/// The frames of a segment that was durable as far as `file` goes, with their places, in order; where
/// something does not hold the damage, and then what is whole behind it. For the tools.
pub fn frames_over_damage(
    key: SegmentKey,
    identity: u64,
    file: &[u8],
) -> impl Iterator<Item = Result<(usize, Frame<'_>), Damage>> {
    let found = SegmentHeader::read(file);
    let foreign = found.is_some();
    let found = found.filter(|(header, ..)| header.key == key && header.identity == identity);
    let mut place = Place { key, identity, base_position: 0, block: BLOCK_MIN as u32 };
    let (mut at, mut crc, mut damage) = match found {
        Some((header, bytes, crc)) => {
            (place.base_position, place.block) = (header.base_position, header.block);
            (bytes, Some(crc), None)
        }
        None => {
            let what = if foreign { HOLDS_ANOTHER } else { NO_HEADER };
            let first = first_in_place(key, identity, file);
            let (at, base_position) = first.unwrap_or((file.len(), 0));
            place.base_position = base_position;
            (at, None, Some(Damage { key, at: 0, what }))
        }
    };
    std::iter::from_fn(move || {
        if let Some(damage) = damage.take() {
            return Some(Err(damage));
        }
        if at >= file.len() {
            return None;
        }
        let here = at;
        let Some(frame) = frame_at(place, crc, file, at) else {
            (at, crc) = (next_in_place(place, file, at).unwrap_or(file.len()), None);
            return Some(Err(Damage { key, at: here as u64, what: NO_FRAME }));
        };
        at += frame.bytes.len().next_multiple_of(place.block as usize);
        crc = Some(frame.crc);
        Some(Ok((here, frame)))
    })
}

/// The frame at `at` of a segment, if it is whole and belongs there. `previous_crc` is `None` where
/// what was before it is lost.
pub(super) fn frame_at(
    place: Place,
    previous_crc: Option<u32>,
    file: &[u8],
    at: usize,
) -> Option<Frame<'_>> {
    let frame = frame::read(file.get(at..)?)?;
    let continues = previous_crc.is_none_or(|crc| crc == frame.header.previous_crc);
    (continues && belongs(place, &frame, at)).then_some(frame)
}

pub(super) fn belongs(place: Place, frame: &Frame<'_>, at: usize) -> bool {
    frame.header.segment_identity == place.identity
        && frame.header.position == place.base_position + at as u64
}

/// Whole frames from byte `from` on, wherever they stand, with their places.
pub(super) fn whole_frames(file: &[u8], from: usize) -> impl Iterator<Item = (usize, Frame<'_>)> {
    let mut at = from.next_multiple_of(BLOCK_MIN);
    std::iter::from_fn(move || {
        while at < file.len() {
            let here = at;
            if let Some(frame) = frame::read(&file[here..]) {
                at += frame.bytes.len().next_multiple_of(BLOCK_MIN);
                return Some((here, frame));
            }
            at += BLOCK_MIN;
        }
        None
    })
}

/// Whether a file holds a whole frame of the segment with `identity`.
pub fn holds_frames_of(identity: u64, file: &[u8]) -> bool {
    whole_frames(file, 0).any(|(_, frame)| frame.header.segment_identity == identity)
}

/// The first whole frame of a segment whose header is lost, and the log position at which its file
/// begins. A frame that a misdirected write left where it does not belong gives another one: the
/// segments of a chain are as long as one another and no file is longer, so that few are possible,
/// and of those the one counts that most frames give.
pub(super) fn first_in_place(key: SegmentKey, identity: u64, file: &[u8]) -> Option<(usize, u64)> {
    let is_possible = |base: u64| match key.sequence {
        // Also where a repair found no header.
        _ if base == 0 => true,
        0 => false,
        _ if key.moved => false,
        before => {
            let segment_bytes = base / before;
            base.is_multiple_of(before)
                && segment_bytes.is_multiple_of(BLOCK_MIN as u64)
                && segment_bytes >= file.len() as u64
        }
    };
    // By base: how many frames give it, and where the first of them stands.
    let mut bases: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    let ours = whole_frames(file, 0).filter(|(_, f)| f.header.segment_identity == identity);
    for (at, frame) in ours {
        let base = frame.header.position.checked_sub(at as u64);
        if let Some(base) = base.filter(|base| is_possible(*base)) {
            bases.entry(base).or_insert((0, at)).0 += 1;
        }
    }
    let most = bases.into_iter().max_by_key(|(base, (count, _))| (*count, Reverse(*base)));
    most.map(|(base, (_, at))| (at, base))
}

/// The place of the first whole frame from `from` on that stands where it belongs.
pub(super) fn next_in_place(place: Place, file: &[u8], from: usize) -> Option<usize> {
    whole_frames(file, from).find(|(at, frame)| belongs(place, frame, *at)).map(|(at, _)| at)
}

/// Whether a frame from `from` on says that the log was durable beyond `position`.
pub(super) fn proves_durable(place: Place, file: &[u8], from: usize, position: u64) -> bool {
    whole_frames(file, from)
        .any(|(at, frame)| belongs(place, &frame, at) && frame.header.durable > position)
}

/// Whether something of the segment with `identity` was written to `rest`, behind its last frame. A
/// file that was recycled holds whole frames of other identities there; one that was not holds
/// zeros.
pub(super) fn is_torn(identity: u64, rest: &[u8]) -> bool {
    let starts_frame = |of_us: bool| {
        rest.chunks(BLOCK_MIN).any(|block| {
            frame::identity_at(block).is_some_and(|found| (found == identity) == of_us)
        })
    };
    starts_frame(true) || (rest.iter().any(|byte| *byte != 0) && !starts_frame(false))
}
