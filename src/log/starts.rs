//! Log starts: the file of a log that says which records retention has let go of.
//!
//! `starts` in the log's directory, written aside and renamed into place each time that retention
//! lets go of something, before any segment is deleted for it. A start takes the highest of what
//! the manifest, the tables in the segments' headers and this file say. Little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | magic `TGL1` |
//! | 4..8 | CRC-32C of bytes 8 to the end |
//! | 8..12 | rows |
//! | 12..16 | 0 |
//! | 16.. | rows: stream u32, partition u32, log start offset u64 |

use super::frame::{le_u32, le_u64};
use crate::record::Offset;

/// Its name in the log's directory.
pub const FILE: &str = "starts";
/// Its name while it is being written.
pub const ASIDE: &str = "starts.new";

const MAGIC: [u8; 4] = *b"TGL1";
const FIXED_BYTES: usize = 16;
const ROW_BYTES: usize = 16;

/// The file with a row of (stream, partition, log start) for each partition.
pub fn encode(rows: impl Iterator<Item = (u32, u32, Offset)>) -> Vec<u8> {
    let mut out = vec![0; FIXED_BYTES];
    let mut count = 0_u32;
    for (stream, partition, start) in rows {
        out.extend(stream.to_le_bytes());
        out.extend(partition.to_le_bytes());
        out.extend(start.0.to_le_bytes());
        count += 1;
    }
    out[8..12].copy_from_slice(&count.to_le_bytes());
    let crc = crc32c::crc32c(&out[8..]);
    out[..4].copy_from_slice(&MAGIC);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The rows of a file; `None` when it is not what was written.
pub fn decode(file: &[u8]) -> Option<Vec<(u32, u32, Offset)>> {
    let fixed = file.get(..FIXED_BYTES)?;
    let rows = le_u32(fixed, 8) as usize;
    if fixed[..4] != MAGIC
        || file.len() != FIXED_BYTES + rows.checked_mul(ROW_BYTES)?
        || crc32c::crc32c(&file[8..]) != le_u32(fixed, 4)
    {
        return None;
    }
    let rows = file[FIXED_BYTES..].chunks_exact(ROW_BYTES);
    Some(rows.map(|row| (le_u32(row, 0), le_u32(row, 4), Offset(le_u64(row, 8)))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_harm_is_seen() {
        let rows = vec![(0, 1, Offset(7)), (2, 3, Offset(u64::MAX))];
        let file = encode(rows.iter().copied());
        assert_eq!(decode(&file), Some(rows));
        for at in 0..file.len() {
            let mut harmed = file.clone();
            harmed[at] ^= 1;
            assert_eq!(decode(&harmed), None, "flipped bit at {at}");
            assert_eq!(decode(&file[..at]), None, "cut to {at}");
        }
    }
}
