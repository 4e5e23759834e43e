//! The manifest: the one small file that says what a data directory is and where everything ended.
//!
//! JSON, so that any program can read it, and a last line with the CRC-32C of the lines before. It
//! is written once a start, aside and renamed into place, after recovery and before anything is
//! accepted, and again when streams come while the engine runs. Stream ids are places in `streams` and are never given twice.

use serde::{Deserialize, Serialize};

use super::segment::{PartitionOffsets, SegmentKey};
use crate::record::{Offset, StreamName};

/// The format that this engine writes.
pub const FORMAT: u32 = 2;
/// Features of the format that a reader must know, as bits; none so far.
pub const FEATURES: u32 = 0;

/// Contents of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Bits of features in use; an engine that does not know one refuses the directory.
    pub features: u32,
    /// Kafka's cluster id.
    pub cluster_id: String,
    /// Partitions of every stream; fixed for ever.
    pub partitions: u32,
    /// Starts so far; the leader epoch.
    pub starts: u32,
    /// Every stream that ever was; its id is its place.
    pub streams: Vec<ManifestStream>,
    /// The generation that is being written, or was when the engine stopped.
    pub current: Generation,
    /// Segments of older generations, all of them sealed.
    pub sealed: Vec<SealedSegment>,
    /// Where each partition stood when the current generation began.
    pub offsets: Vec<OffsetRow>,
    /// Offsets that were reserved and may have been given, and hold nothing that was promised.
    pub gaps: Vec<OffsetRange>,
    /// Offsets of which is known that damage took them.
    #[serde(default)]
    pub lost: Vec<OffsetRange>,
    /// The age clock when the current generation began, milliseconds.
    pub age_ms: u64,
    /// The wall clock at that moment, milliseconds since 1970.
    pub wall_ms: i64,
}

/// A stream in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestStream {
    /// Its name.
    pub name: StreamName,
    /// Kafka's topic id.
    pub topic_id: uuid::Uuid,
}

/// One start's logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Counts up.
    pub generation: u32,
    /// Logs in it.
    pub shards: u32,
    /// Random bits: what identities of its segments are made of.
    #[serde(with = "hexadecimal")]
    pub seed: u64,
}

/// A range of offsets of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OffsetRange {
    /// Stream.
    pub stream: u32,
    /// Partition.
    pub partition: u32,
    /// The first offset.
    pub from: u64,
    /// The offset after the last.
    pub to: u64,
}

/// As text, because JSON readers lose the low bits of large numbers.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(word: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{word:016x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

/// A segment that is never appended to again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSegment {
    /// Its generation.
    pub generation: u32,
    /// Its log.
    pub log: u32,
    /// Whether the cleaner wrote it.
    pub moved: bool,
    /// Its place in its chain, or among the moved segments of its log.
    pub sequence: u64,
    /// Its identity.
    pub identity: u64,
    /// Bytes of the file that are in use.
    pub end: u64,
}

impl SealedSegment {
    /// Which segment.
    pub fn key(&self) -> SegmentKey {
        let Self { generation, log, moved, sequence, .. } = *self;
        SegmentKey { generation, log, moved, sequence }
    }
}

/// Offsets of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRow {
    /// Stream.
    pub stream: u32,
    /// Partition.
    pub partition: u32,
    /// Log start offset.
    pub start: u64,
    /// Next offset to be given.
    pub next: u64,
    /// Offsets below may have been given.
    pub ceiling: u64,
}

impl From<PartitionOffsets> for OffsetRow {
    fn from(row: PartitionOffsets) -> Self {
        Self {
            stream: row.stream,
            partition: row.partition,
            start: row.start.0,
            next: row.next.0,
            ceiling: row.ceiling.0,
        }
    }
}

impl From<OffsetRow> for PartitionOffsets {
    fn from(row: OffsetRow) -> Self {
        Self {
            stream: row.stream,
            partition: row.partition,
            start: Offset(row.start),
            next: Offset(row.next),
            ceiling: Offset(row.ceiling),
        }
    }
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// Its CRC is not that of its contents.
    #[error("the manifest is damaged: its CRC does not hold")]
    Crc,
    /// It is no manifest.
    #[error("the manifest cannot be understood: {0}")]
    Syntax(String),
    /// Written by a newer engine.
    #[error(
        "the data is of format {0} (features {1:#x}); this engine knows format {FORMAT} (features {FEATURES:#x})"
    )]
    Newer(u32, u32),
    /// Written by an engine of before the first release.
    #[error(
        "the data is of format {0}, which this engine (format {FORMAT}) does not read any more"
    )]
    Older(u32),
}

#[derive(Deserialize)]
struct Version {
    format: u32,
    #[serde(default)]
    features: u32,
}

impl Manifest {
    /// The file's contents.
    ///
    /// # Errors
    /// None that a valid manifest can meet; serialization is fallible by type only.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        let json = serde_json::to_string_pretty(self)?;
        let crc = crc32c::crc32c(json.as_bytes());
        Ok(format!("{json}\ncrc32c {crc:08x}\n"))
    }

    /// Reads a file's contents.
    ///
    /// # Errors
    /// [`Refused`], in the order in which its variants stand.
    pub fn decode(file: &str) -> Result<Self, Refused> {
        let (json, crc) = file.trim_end().rsplit_once("\ncrc32c ").ok_or(Refused::Crc)?;
        if u32::from_str_radix(crc, 16) != Ok(crc32c::crc32c(json.as_bytes())) {
            return Err(Refused::Crc);
        }
        let syntax = |error: serde_json::Error| Refused::Syntax(error.to_string());
        let version: Version = serde_json::from_str(json).map_err(syntax)?;
        if version.format < FORMAT {
            return Err(Refused::Older(version.format));
        }
        if version.format != FORMAT || version.features & !FEATURES != 0 {
            return Err(Refused::Newer(version.format, version.features));
        }
        serde_json::from_str(json).map_err(syntax)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        Manifest {
            format: FORMAT,
            features: 0,
            cluster_id: "abc".to_owned(),
            partitions: 8,
            starts: 3,
            streams: vec![],
            current: Generation { generation: 3, shards: 2, seed: u64::MAX - 6 },
            sealed: vec![SealedSegment {
                generation: 1,
                log: 2,
                moved: true,
                sequence: 4,
                identity: 5,
                end: 4096,
            }],
            offsets: vec![OffsetRow { stream: 0, partition: 1, start: 2, next: 3, ceiling: 3 }],
            gaps: vec![OffsetRange { stream: 0, partition: 1, from: 2, to: 3 }],
            lost: vec![],
            age_ms: 5,
            wall_ms: 6,
        }
    }

    #[test]
    fn it_reads_back_and_says_why_not() {
        let file = sample().encode().expect("encodes");
        assert_eq!(Manifest::decode(&file), Ok(sample()));
        assert_eq!(
            Manifest::decode(&file.replace("\"next\": 3", "\"next\": 4")),
            Err(Refused::Crc)
        );
        assert_eq!(Manifest::decode(""), Err(Refused::Crc));
        let check = |format, features, expected| {
            let other = Manifest { format, features, ..sample() }.encode().expect("encodes");
            assert_eq!(Manifest::decode(&other), Err(expected));
        };
        check(FORMAT + 1, 0, Refused::Newer(FORMAT + 1, 0));
        check(FORMAT, 1 << 31, Refused::Newer(FORMAT, 1 << 31));
        check(1, 0, Refused::Older(1));
    }
}
