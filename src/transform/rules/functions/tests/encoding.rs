//! Vectors of encodings and hashes: RFC 4648 (section 10), RFC 1321 (A.5), FIPS 180-4's examples
//! (NIST), the check value of CRC-32, and Kafka's own tests of murmur2.

use super::Vector;
use crate::transform::rules::value::Value::{Bool, Bytes, Int, Null, Text};

const LONG: &str = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";

pub const VECTORS: &[Vector] = &[
    ("base64_encode", &[Text("")], Ok(Text(""))),
    ("base64_encode", &[Text("f")], Ok(Text("Zg=="))),
    ("base64_encode", &[Text("fo")], Ok(Text("Zm8="))),
    ("base64_encode", &[Text("foo")], Ok(Text("Zm9v"))),
    ("base64_encode", &[Text("foob")], Ok(Text("Zm9vYg=="))),
    ("to_base64", &[Text("fooba")], Ok(Text("Zm9vYmE="))),
    ("encode", &[Text("foobar"), Text("base64")], Ok(Text("Zm9vYmFy"))),
    ("encode", &[Text("foobar"), Text("hex")], Ok(Text("666f6f626172"))),
    ("encode", &[Bytes(b"\xfb\xff"), Text("base64")], Ok(Text("+/8="))),
    ("encode", &[Bytes(b"\xfb\xff"), Text("base64url")], Ok(Text("-_8"))),
    ("encode", &[Int(21), Text("base64")], Ok(Text("MjE="))),
    ("encode", &[Text("x"), Text("rot13")], Err("none of base64, base64url and hex")),
    ("encode", &[Null, Text("hex")], Ok(Null)),
    (
        "encode",
        &[Text(LONG), Text("base64")],
        Ok(Text("YWJjZGJjZGVjZGVmZGVmZ2VmZ2hmZ2hpZ2hpamhpamtpamtsamtsbWtsbW5sbW5vbW5vcG5vcHE=")),
    ),
    // AWS IoT SQL's example of decode().
    (
        "decode",
        &[Text("eyAidGVtcGVyYXR1cmUiOiAzMyB9Cg=="), Text("base64")],
        Ok(Text("{ \"temperature\": 33 }\n")),
    ),
    ("decode", &[Text("-_8"), Text("base64url")], Ok(Bytes(b"\xfb\xff"))),
    ("decode", &[Text("Zm9v!"), Text("base64")], Err("decode: the text is not base64")),
    ("decode", &[Text("Zh=="), Text("base64")], Err("not base64")),
    ("decode", &[Text("00FF"), Text("hex")], Ok(Bytes(b"\x00\xff"))),
    ("decode", &[Text(""), Text("rot13")], Err("none of base64")),
    ("base64_decode", &[Text("Zm9vYg==")], Ok(Text("foob"))),
    ("from_base64", &[Text("Zm9vYg")], Ok(Text("foob"))),
    ("hex", &[Text("foobar")], Ok(Text("666f6f626172"))),
    ("hex", &[Int(255)], Ok(Text("ff"))),
    ("hex", &[Bytes(b"\x00\xff")], Ok(Text("00ff"))),
    ("unhex", &[Text("666F6f626172")], Ok(Text("foobar"))),
    ("unhex", &[Text("00ff")], Ok(Bytes(b"\x00\xff"))),
    ("unhex", &[Text("0")], Err("not pairs of hexadecimal digits")),
    ("unhex", &[Text("0g")], Err("not pairs of hexadecimal digits")),
    ("md5", &[Text("")], Ok(Text("d41d8cd98f00b204e9800998ecf8427e"))),
    ("md5", &[Text("a")], Ok(Text("0cc175b9c0f1b6a831c399e269772661"))),
    ("md5", &[Text("abc")], Ok(Text("900150983cd24fb0d6963f7d28e17f72"))),
    ("md5", &[Text("message digest")], Ok(Text("f96b697d7cb7938d525a2f31aaf161d0"))),
    ("md5", &[Text("hello")], Ok(Text("5d41402abc4b2a76b9719d911017c592"))),
    (
        "md5",
        &[Text("12345678901234567890123456789012345678901234567890123456789012345678901234567890")],
        Ok(Text("57edf4a22be3c955ac49da2e2107b67a")),
    ),
    ("md5", &[Null], Ok(Null)),
    ("sha1", &[Text("abc")], Ok(Text("a9993e364706816aba3e25717850c26c9cd0d89d"))),
    ("sha1", &[Text(LONG)], Ok(Text("84983e441c3bd26ebaae4aa1f95129e5e54670f1"))),
    (
        "sha224",
        &[Text("abc")],
        Ok(Text("23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7")),
    ),
    (
        "sha256",
        &[Text("abc")],
        Ok(Text("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")),
    ),
    (
        "sha256",
        &[Text(LONG)],
        Ok(Text("248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")),
    ),
    (
        "sha384",
        &[Text("abc")],
        Ok(Text(
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
             8086072ba1e7cc2358baeca134c825a7",
        )),
    ),
    (
        "sha512",
        &[Text("abc")],
        Ok(Text(
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        )),
    ),
    ("crc32", &[Text("123456789")], Ok(Int(0xcbf4_3926))),
    ("crc32", &[Text("")], Ok(Int(0))),
    ("crc32", &[Bool(true)], Ok(Int(0xfdfc_4c8d))),
    ("murmur2", &[Text("21")], Ok(Int((-973_932_308_i64) & 0x7fff_ffff))),
    ("murmur2", &[Text("foobar")], Ok(Int((-790_332_482_i64) & 0x7fff_ffff))),
];
