//! What the messages carry.
//!
//! In: a kind and a size. Out: payloads, all of that size, the same in every run. There are enough
//! different ones that a broker which compresses batches does not find one payload over and over:
//! together they are larger than LZ4's window of 64 KiB. Made before the load begins; no I/O.

/// Kinds of payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Bytes that do not compress
    Random,
    /// A sensor's readings as JSON, which compress as such readings do
    Json,
    /// Zeros, which compress to nothing
    Zeros,
}

impl Kind {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Json => "json",
            Self::Zeros => "zeros",
        }
    }
}

/// The shortest JSON that is made.
pub const JSON_BYTES_MIN: usize = 64;

const POOL_BYTES: usize = 256 << 10;
const COUNT_MAX: usize = 16 << 10;

/// Payloads of one size.
#[derive(Debug)]
pub struct Payloads {
    pool: Box<[u8]>,
    bytes_each: usize,
    count: usize,
}

impl Payloads {
    /// JSON is [`JSON_BYTES_MIN`] long at least.
    pub fn new(kind: Kind, bytes_each: usize) -> Self {
        let bytes_each =
            if kind == Kind::Json { bytes_each.max(JSON_BYTES_MIN) } else { bytes_each };
        let count = (POOL_BYTES / bytes_each.max(1)).clamp(2, COUNT_MAX);
        let mut words = Words(0x7469_6465_6761_7465);
        let mut pool = Vec::with_capacity(count * bytes_each + 8);
        match kind {
            Kind::Zeros => pool.resize(count * bytes_each, 0),
            Kind::Random => {
                while pool.len() < count * bytes_each {
                    pool.extend_from_slice(&words.next_word().to_le_bytes());
                }
                pool.truncate(count * bytes_each);
            }
            Kind::Json => {
                (0..count).for_each(|number| reading(&mut pool, number, bytes_each, &mut words));
            }
        }
        Self { pool: pool.into(), bytes_each, count }
    }

    /// One of them, in turn.
    #[inline]
    pub fn at(&self, number: usize) -> &[u8] {
        let number = number % self.count;
        &self.pool[number * self.bytes_each..][..self.bytes_each]
    }

    /// How long each is.
    pub fn bytes_each(&self) -> usize {
        self.bytes_each
    }
}

/// A machine's reading: names that repeat, a time and counters that grow, values that drift. As
/// many channels as there is room for; spaces fill the rest.
fn reading(pool: &mut Vec<u8>, number: usize, bytes: usize, words: &mut Words) {
    let end = pool.len() + bytes - 1;
    let time_ms = 1_767_225_600_000 + 250 * number as u64;
    let head = format!("{{\"ts\":{time_ms},\"seq\":{number},\"ok\":true");
    pool.extend_from_slice(head.as_bytes());
    for channel in 0_u64.. {
        let value = 20 + 7 * channel % 60;
        let hundredths = words.next_word() % 100;
        let field = match channel {
            0 => format!(",\"temp\":{value}.{hundredths:02}"),
            channel => format!(",\"ch{channel}\":{value}.{hundredths:02}"),
        };
        if pool.len() + field.len() > end {
            break;
        }
        pool.extend_from_slice(field.as_bytes());
    }
    pool.resize(end, b' ');
    pool.push(b'}');
}

/// splitmix64.
struct Words(u64);

impl Words {
    fn next_word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_as_long_as_asked_and_differ() {
        for kind in [Kind::Random, Kind::Json] {
            for bytes in [64, 127, 1024] {
                let payloads = Payloads::new(kind, bytes);
                assert_eq!(payloads.at(5).len(), bytes);
                assert_ne!(payloads.at(5), payloads.at(6));
                assert!(payloads.pool.len() > 64 << 10, "more than LZ4 looks back");
            }
        }
        assert_eq!(
            [0, 1, 8].map(|bytes| Payloads::new(Kind::Random, bytes).at(3).len()),
            [0, 1, 8]
        );
        assert_eq!(Payloads::new(Kind::Zeros, 9).at(1), [0; 9]);
        assert_eq!(Payloads::new(Kind::Json, 3).bytes_each(), JSON_BYTES_MIN);
    }

    #[test]
    fn json_is_json_and_compresses_as_readings_do() {
        let payloads = Payloads::new(Kind::Json, 256);
        let reading: serde_json::Value = serde_json::from_slice(payloads.at(17)).unwrap();
        assert_eq!(reading["seq"], 17);
        assert!(reading["ch9"].is_number());
        let compressed = |payloads: &Payloads| {
            lz4_flex::block::compress(&payloads.pool).len() as f64 / payloads.pool.len() as f64
        };
        assert!((0.1..0.7).contains(&compressed(&payloads)));
        assert!(compressed(&Payloads::new(Kind::Random, 256)) > 0.99);
        assert!(compressed(&Payloads::new(Kind::Zeros, 256)) < 0.01);
    }
}
