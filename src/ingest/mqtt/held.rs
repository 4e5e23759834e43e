//! PINGREQs in input that is held back.
//!
//! In: the bytes of a connection whose next message has no room yet. Out: PINGRESPs, so that the
//! client keeps its connection, and the input without the PINGREQs that they answer. Nothing else
//! is looked into; packets are told apart by their fixed headers alone.

use super::codec::{self, packet};

/// Answers the PINGREQs in `input`, which begins with a packet, and takes them out. `looked` says
/// up to where that was done before (0 at first) and moves on.
pub fn answer_pings(input: &mut Vec<u8>, looked: &mut usize, out: &mut Vec<u8>) {
    while let Some((&first, rest)) = input.get(*looked..).and_then(<[u8]>::split_first) {
        let Ok(Some((remaining, varint_bytes))) = codec::varint(rest) else { return };
        if first >> 4 == packet::PINGREQ && remaining == 0 {
            input.drain(*looked..*looked + 1 + varint_bytes);
            out.extend_from_slice(&[packet::PINGRESP << 4, 0]);
        } else {
            *looked += 1 + varint_bytes + remaining;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_answered_wherever_the_input_is_cut() {
        let publish = [0x30, 5, 0, 1, b't', 0xC0, 0x00];
        let whole: Vec<u8> = [&publish[..], &[0xC0, 0], &publish, &[0xC0, 0, 0xC0, 0]].concat();
        for cut in 0..=whole.len() {
            let (mut input, mut looked, mut out) = (whole[..cut].to_vec(), 0, Vec::new());
            answer_pings(&mut input, &mut looked, &mut out);
            input.extend_from_slice(&whole[cut..]);
            answer_pings(&mut input, &mut looked, &mut out);
            assert_eq!(input, [publish, publish].concat(), "cut at {cut}");
            assert_eq!(out, [0xD0, 0].repeat(3));
        }
    }
}
