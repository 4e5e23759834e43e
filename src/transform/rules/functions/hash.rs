//! Hashes and checksums.
//!
//! Comes in: bytes, or any value as the UTF-8 of its text. Goes out: hashes as small hexadecimal
//! digits (RFC 1321, FIPS 180-4), checksums as integers. MD2 of AWS IoT SQL is deliberately absent.

use sha2::Digest;

use super::super::value::{Scratch, Value};
use super::given::Given;
use super::{Function, Outcome, encoding, family, strict};
use crate::record::murmur2 as kafka_murmur2;

family! {
    "md5" (1, 1) "value" -> "text" = strict(md5), "the MD5 hash in hexadecimal digits";
    "sha1" (1, 1) "value" -> "text" = strict(sha1), "the SHA-1 hash in hexadecimal digits";
    "sha224" (1, 1) "value" -> "text" = strict(sha224), "the SHA-224 hash in hexadecimal digits";
    "sha256" (1, 1) "value" -> "text" = strict(sha256), "the SHA-256 hash in hexadecimal digits";
    "sha384" (1, 1) "value" -> "text" = strict(sha384), "the SHA-384 hash in hexadecimal digits";
    "sha512" (1, 1) "value" -> "text" = strict(sha512), "the SHA-512 hash in hexadecimal digits";
    "crc32" (1, 1) "value" -> "integer" = strict(crc32), "the CRC-32 of Ethernet, gzip and zip";
    "murmur2" (1, 1) "value" -> "integer" = strict(murmur2),
        "the hash by which Kafka's clients choose partitions, with its sign bit cleared";
}

fn digest<'a, D: Digest>(
    of: &'static str,
    values: &[Value<'a>],
    scratch: &'a Scratch,
) -> Outcome<'a> {
    let given = Given::new(of, values, scratch);
    let hash = D::digest(given.bytes(0)?);
    let mut built = given.built();
    encoding::write_hex(&mut built, &hash);
    built.text()
}

fn md5<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    digest::<md5::Md5>("md5", values, scratch)
}

fn sha1<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    digest::<sha1::Sha1>("sha1", values, scratch)
}

fn sha224<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    digest::<sha2::Sha224>("sha224", values, scratch)
}

fn sha256<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    digest::<sha2::Sha256>("sha256", values, scratch)
}

fn sha384<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    digest::<sha2::Sha384>("sha384", values, scratch)
}

fn sha512<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    digest::<sha2::Sha512>("sha512", values, scratch)
}

/// The remainders of each byte by the reflected polynomial of IEEE 802.3.
const CRC32: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut rest, mut bit) = (byte as u32, 0);
        while bit < 8 {
            rest = if rest & 1 == 1 { 0xedb8_8320 ^ (rest >> 1) } else { rest >> 1 };
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
};

fn crc32<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let bytes = Given::new("crc32", values, scratch).bytes(0)?;
    let add =
        |rest: u32, byte: &u8| (rest >> 8) ^ CRC32[((rest ^ u32::from(*byte)) & 0xff) as usize];
    Ok(Value::Int((!bytes.iter().fold(!0, add)).into()))
}

fn murmur2<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let bytes = Given::new("murmur2", values, scratch).bytes(0)?;
    Ok(Value::Int((kafka_murmur2(bytes) & 0x7fff_ffff).into()))
}
