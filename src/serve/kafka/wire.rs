//! Writing responses straight into the connection's send buffer.
//!
//! A response begins with its length and correlation id; the length is filled in at its end. Fetch
//! writes its own fields with the helpers here, so that records are copied once, by
//! `Store::read`; the other responses are encoded by kafka-protocol.

use bytes::BufMut;
use kafka_protocol::messages::{ApiKey, ResponseHeader};
use kafka_protocol::protocol::Encodable;

use super::Violation;

/// A response that has begun: where its length stands.
#[must_use]
pub(super) struct Frame {
    start: usize,
}

impl Frame {
    /// Begins a response; `flexible` responses have an (empty) set of tagged fields in the header.
    pub(super) fn begin(out: &mut Vec<u8>, correlation_id: i32, flexible: bool) -> Self {
        let start = out.len();
        out.put_i32(0);
        out.put_i32(correlation_id);
        if flexible {
            put_no_tags(out);
        }
        Self { start }
    }

    /// Fills in the length.
    pub(super) fn end(self, out: &mut [u8]) {
        let bytes = out.len() - self.start - 4;
        // Records are bounded by `fetch_bytes_max` and one batch, far below.
        let wire = i32::try_from(bytes).unwrap_or(i32::MAX);
        out[self.start..self.start + 4].copy_from_slice(&wire.to_be_bytes());
    }

    /// Takes the response back.
    pub(super) fn discard(self, out: &mut Vec<u8>) {
        out.truncate(self.start);
    }
}

/// Appends a response that kafka-protocol encodes; nothing when it refuses.
pub(super) fn respond<R: Encodable>(
    out: &mut Vec<u8>,
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    response: &R,
) -> Result<(), Violation> {
    let start = out.len();
    out.put_i32(0);
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    let encoded = header
        .encode(out, api.response_header_version(version))
        .and_then(|()| response.encode(out, version));
    let frame = Frame { start };
    if encoded.is_err() {
        frame.discard(out);
        return Err(Violation::Invalid { api, reason: "its answer cannot be encoded" });
    }
    frame.end(out);
    Ok(())
}

/// An empty set of tagged fields.
pub(super) fn put_no_tags(out: &mut Vec<u8>) {
    out.put_u8(0);
}

/// An unsigned variable-length number.
pub(super) fn put_varint(out: &mut Vec<u8>, value: u32) {
    let mut rest = value;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// An array's count; the elements follow.
pub(super) fn put_count(out: &mut Vec<u8>, flexible: bool, count: usize) {
    if flexible { put_varint(out, count as u32 + 1) } else { out.put_i32(count as i32) }
}

/// A string.
pub(super) fn put_text(out: &mut Vec<u8>, flexible: bool, text: &str) {
    if flexible {
        put_varint(out, text.len() as u32 + 1);
    } else {
        // Names came with such a length, or are stream names.
        out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    }
    out.put_slice(text.as_bytes());
}

/// Bytes whose length is known only after they were written.
#[must_use]
pub(super) struct Blob {
    start: usize,
    flexible: bool,
}

impl Blob {
    /// Room for the compact length of 16 KiB to 2 MiB, which is what Fetch usually returns; for
    /// another length the bytes move by one or two.
    const VARINT_ROOM: usize = 3;

    /// Leaves room for the length.
    pub(super) fn begin(out: &mut Vec<u8>, flexible: bool) -> Self {
        let start = out.len();
        out.put_bytes(0, if flexible { Self::VARINT_ROOM } else { 4 });
        Self { start, flexible }
    }

    /// Fills in the length of what was written since.
    pub(super) fn end(self, out: &mut Vec<u8>) {
        if !self.flexible {
            let bytes = out.len() - self.start - 4;
            out[self.start..self.start + 4].copy_from_slice(&(bytes as i32).to_be_bytes());
            return;
        }
        let first = self.start + Self::VARINT_ROOM;
        let bytes = out.len() - first;
        let mut length = Vec::with_capacity(5);
        put_varint(&mut length, bytes as u32 + 1);
        if length.len() != Self::VARINT_ROOM {
            let moved = self.start + length.len();
            out.resize(out.len().max(moved + bytes), 0);
            out.copy_within(first..first + bytes, moved);
            out.truncate(moved + bytes);
        }
        out[self.start..self.start + length.len()].copy_from_slice(&length);
    }
}
