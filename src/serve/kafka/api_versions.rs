//! ApiVersions: what this node serves, and in which versions.
//!
//! The table here is the only place that says so: requests are judged by it, and clients are told
//! it. Groups are not in it until they are served; `produce` says why Produce is.

use std::ops::RangeInclusive;

use bytes::BufMut;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;

use super::guard::{self, Schema};
use super::wire::{Frame, put_count, put_no_tags};

/// An API that is served.
pub(super) struct Served {
    pub(super) api: ApiKey,
    pub(super) versions: RangeInclusive<i16>,
    pub(super) schema: &'static Schema,
}

/// By API key, as Kafka lists them.
static SERVED: [Served; 5] = [
    Served { api: ApiKey::Produce, versions: 3..=3, schema: &guard::PRODUCE },
    Served { api: ApiKey::Fetch, versions: 4..=18, schema: &guard::FETCH },
    Served { api: ApiKey::ListOffsets, versions: 1..=10, schema: &guard::LIST_OFFSETS },
    Served { api: ApiKey::Metadata, versions: 0..=13, schema: &guard::METADATA },
    Served { api: ApiKey::ApiVersions, versions: 0..=4, schema: &guard::API_VERSIONS },
];

impl Served {
    /// The API of a key from the wire, when it is served.
    pub(super) fn by_key(key: i16) -> Option<&'static Self> {
        SERVED.iter().find(|served| served.api as i16 == key)
    }
}

/// Appends the response to a request of a version that is served.
pub(super) fn answer(version: i16, correlation_id: i32, out: &mut Vec<u8>) {
    write(version, correlation_id, 0, &SERVED, out);
}

/// Appends version 0 with error 35 and the versions of ApiVersions, with which the client asks
/// again (KIP-511).
pub(super) fn refuse_version(correlation_id: i32, out: &mut Vec<u8>) {
    let error = ResponseError::UnsupportedVersion.code();
    write(0, correlation_id, error, &SERVED[4..], out);
}

/// The response header has no tagged fields in any version: the client does not know yet what the
/// node speaks.
fn write(version: i16, correlation_id: i32, error: i16, served: &[Served], out: &mut Vec<u8>) {
    let flexible = version >= 3;
    let frame = Frame::begin(out, correlation_id, false);
    out.put_i16(error);
    put_count(out, flexible, served.len());
    for api in served {
        out.put_i16(api.api as i16);
        out.put_i16(*api.versions.start());
        out.put_i16(*api.versions.end());
        if flexible {
            put_no_tags(out);
        }
    }
    if version >= 1 {
        out.put_i32(0); // Throttle time.
    }
    if flexible {
        put_no_tags(out); // No feature flags.
    }
    frame.end(out);
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
    use kafka_protocol::protocol::StrBytes;

    use super::super::fake::{Fake, call, golden, hex, request, response};
    use super::*;

    fn ask(version: i16) -> Vec<u8> {
        let mut message = ApiVersionsRequest::default();
        if version >= 3 {
            message = message
                .with_client_software_name(StrBytes::from_static_str("test"))
                .with_client_software_version(StrBytes::from_static_str("1.0"));
        }
        call(&mut Fake::new(), &request(ApiKey::ApiVersions, version, &message)).unwrap()
    }

    #[test]
    fn golden_bytes() {
        let check = |version, expected: &[&str]| assert_eq!(hex(&ask(version)), golden(expected));
        check(
            0,
            &[
                "00000028 01020304", // Length, correlation id.
                "0000 00000005",     // No error, five APIs: key, first and last version.
                "0000 0003 0003",    // Produce.
                "0001 0004 0012",    // Fetch.
                "0002 0001 000a",    // ListOffsets.
                "0003 0000 000d",    // Metadata.
                "0012 0000 0004",    // ApiVersions.
            ],
        );
        check(
            3,
            &[
                "0000002f 01020304", // Length, correlation id; no tagged fields even here.
                "0000 06",           // No error, five APIs, each with no tagged fields.
                "0000 0003 0003 00",
                "0001 0004 0012 00",
                "0002 0001 000a 00",
                "0003 0000 000d 00",
                "0012 0000 0004 00",
                "00000000 00", // Throttle time, no tagged fields.
            ],
        );
    }

    #[test]
    fn every_version_is_answered_in_its_own_schema() {
        for version in 0..=4 {
            let out = ask(version);
            let answer: ApiVersionsResponse = response(ApiKey::ApiVersions, version, &out);
            assert_eq!(answer.error_code, 0);
            assert_eq!(answer.api_keys.len(), SERVED.len());
        }
    }

    #[test]
    fn a_version_from_the_future_is_answered_in_version_zero() {
        let mut asked = request(ApiKey::ApiVersions, 4, &ApiVersionsRequest::default());
        asked[7] = 99;
        let out = call(&mut Fake::new(), &asked).unwrap();
        let expected = ["00000010", "01020304", "0023", "00000001", "0012", "0000", "0004"];
        assert_eq!(hex(&out), expected.concat());
    }
}
