//! Partitions and who owns them: Kafka's default partitioner, and partitions modulo shards.

/// One of the partitions 0..P of every stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PartitionId(pub u32);

/// One pinned core of this run, 0..shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ShardId(pub u32);

impl ShardId {
    /// The shard as an index into tables that have one row a shard.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl PartitionId {
    /// The shard that owns this partition when there are `shards` of them.
    pub fn owner(self, shards: u32) -> ShardId {
        ShardId(self.0 % shards)
    }

    /// The row of this partition among those that its owner holds.
    pub fn row(self, shards: u32) -> usize {
        (self.0 / shards) as usize
    }
}

/// The partition of a key: `(murmur2(key) & 0x7fff_ffff) mod partitions`, as Kafka's default
/// partitioner has it, so that feeds co-partition with other Kafka topics.
pub fn partition_of(key: &[u8], partitions: u32) -> PartitionId {
    PartitionId((murmur2(key) & 0x7fff_ffff) % partitions)
}

/// MurmurHash2 with Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`).
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut h = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        k = k.wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own UtilsTest.testMurmur2.
    #[test]
    fn murmur2_agrees_with_kafka() {
        let check = |key: &str, expected: i32| {
            assert_eq!(murmur2(key.as_bytes()), expected as u32, "{key}");
        };
        check("21", -973_932_308);
        check("foobar", -790_332_482);
        check("a-little-bit-long-string", -985_981_536);
        check("a-little-bit-longer-string", -1_486_304_829);
        check("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971);
        check("abc", 479_470_107);
    }
}
