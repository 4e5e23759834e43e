//! Zigzag variable-length integers of Kafka's record format (Protocol Buffers' sint32/sint64).

/// Bytes that `value` takes when written.
#[inline]
pub fn size(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    // One byte for each started group of seven bits; zero takes one.
    (70 - (zigzag | 1).leading_zeros() as usize) / 7
}

/// Appends `value`.
#[inline]
pub fn write(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Reads one value from the front of `input` and moves it on; `None` when it is cut short or
/// longer than ten bytes.
#[inline]
pub fn read(input: &mut &[u8]) -> Option<i64> {
    let mut zigzag = 0_u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        zigzag |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_values_read_back_in_their_size() {
        for value in [0, -1, 1, 63, -64, 64, 8191, -8193, i64::from(i32::MAX), i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            write(&mut out, value);
            assert_eq!(out.len(), size(value), "{value}");
            let mut input = out.as_slice();
            assert_eq!(read(&mut input), Some(value));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn truncated_and_overlong_values_are_refused() {
        assert_eq!(read(&mut [0x80_u8].as_slice()), None);
        assert_eq!(read(&mut [0xff_u8; 11].as_slice()), None);
    }
}
