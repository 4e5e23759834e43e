//! Whether what a consumer read holds each device's sequence: whole and in order.
//!
//! A device sends 0, 1, 2, …, each number at the front of a payload, and after a reconnect again
//! from the first that was not acknowledged. So a message may be there more than once, but first
//! occurrences ascend without a gap, and nothing that was acknowledged is missing.

use std::collections::HashMap;

use crate::clients::Record;

/// The number at the front of a record's value.
pub fn number_of(record: &Record) -> u64 {
    let digits = record.value.iter().take_while(|byte| byte.is_ascii_digit());
    let text: String = digits.map(|byte| char::from(*byte)).collect();
    text.parse().unwrap_or_else(|_| panic!("no number in front of {record:?}"))
}

/// Which client sent a record: its header where the stream's key is something else.
pub fn client_of(record: &Record) -> &str {
    record.header("mqtt.client_id").unwrap_or(&record.key)
}

/// Every device: all of `0..acknowledged` is there, and first occurrences ascend without a gap.
pub fn check(records: &[Record], acknowledged: &[(String, u64)]) {
    check_from(|_| 0, records, acknowledged);
}

/// `check` for what retention has left: each device's sequence begins where its records do.
pub fn check_rest(records: &[Record], acknowledged: &[(String, u64)]) {
    check_from(|found| found.first().copied().unwrap_or(0), records, acknowledged);
}

fn check_from(begin: impl Fn(&[u64]) -> u64, records: &[Record], acknowledged: &[(String, u64)]) {
    let mut by_client: HashMap<&str, Vec<u64>> = HashMap::new();
    for record in records {
        by_client.entry(client_of(record)).or_default().push(number_of(record));
    }
    for (device, count) in acknowledged {
        let found = by_client.remove(device.as_str()).unwrap_or_default();
        let mut next = begin(&found);
        for seq in &found {
            assert!(*seq <= next, "{device}: {seq} comes where {next} is due: a gap or disorder");
            next = next.max(seq + 1);
        }
        assert!(next >= *count, "{device}: {count} were acknowledged, only {next} are there");
    }
    assert!(by_client.is_empty(), "records of nobody: {:?}", by_client.keys());
    check_offsets(records);
}

/// Offsets ascend within each partition.
pub fn check_offsets(records: &[Record]) {
    for pair in records.windows(2).filter(|pair| pair[0].partition == pair[1].partition) {
        assert!(pair[0].offset < pair[1].offset, "{pair:#?}");
    }
}

/// What an earlier reading saw is there unchanged.
pub fn check_kept(seen: &[Record], now: &[Record]) {
    let by_place = by_place(now);
    for record in seen {
        let found = by_place.get(&(record.partition, record.offset));
        assert_eq!(found, Some(&record), "a record that a consumer had seen");
    }
}

/// No offset that an earlier reading saw holds another record now; it may hold none.
pub fn check_unchanged(seen: &[Record], now: &[Record]) {
    let by_place = by_place(now);
    for record in seen {
        if let Some(found) = by_place.get(&(record.partition, record.offset)) {
            assert_eq!(*found, record, "an offset was given twice");
        }
    }
}

fn by_place(records: &[Record]) -> HashMap<(u32, i64), &Record> {
    records.iter().map(|record| ((record.partition, record.offset), record)).collect()
}

/// The checks find what they are for.
mod checks_can_fail {
    use super::*;

    fn record(offset: i64, seq: u64) -> Record {
        Record {
            partition: 0,
            offset,
            timestamp: 0,
            key: "device".to_owned(),
            has_key: true,
            headers: Vec::new(),
            value: seq.to_string().into_bytes(),
        }
    }

    fn check_sequence(sequence: &[u64], acknowledged: u64) {
        let records: Vec<Record> =
            sequence.iter().enumerate().map(|(i, seq)| record(i as i64, *seq)).collect();
        check(&records, &[("device".to_owned(), acknowledged)]);
    }

    #[test]
    fn duplicates_are_allowed() {
        check_sequence(&[0, 1, 2, 1, 2, 3], 3);
    }

    #[test]
    #[should_panic(expected = "only 2 are there")]
    fn a_loss_at_the_end() {
        check_sequence(&[0, 1], 3);
    }

    #[test]
    #[should_panic(expected = "a gap or disorder")]
    fn a_loss_within() {
        check_sequence(&[0, 2, 3], 3);
    }

    #[test]
    #[should_panic(expected = "a gap or disorder")]
    fn a_changed_order() {
        check_sequence(&[0, 2, 1, 3], 3);
    }

    #[test]
    #[should_panic(expected = "only 4 are there")]
    fn a_loss_at_the_end_of_the_rest() {
        let rest = |acknowledged| {
            check_rest(&[record(0, 2), record(1, 3)], &[("device".to_owned(), acknowledged)]);
        };
        rest(4);
        rest(5);
    }

    #[test]
    #[should_panic(expected = "had seen")]
    fn a_record_that_is_gone() {
        check_unchanged(&[record(0, 0)], &[record(1, 0)]);
        check_kept(&[record(0, 0)], &[record(1, 0)]);
    }

    #[test]
    #[should_panic(expected = "given twice")]
    fn another_record_at_an_offset() {
        check_unchanged(&[record(0, 0)], &[record(0, 1)]);
    }

    #[test]
    #[should_panic(expected = "records of nobody")]
    fn a_record_of_somebody_else() {
        check(&[record(0, 0)], &[]);
    }
}
