//! One device that publishes 1, 2, 3, … and counts what is acknowledged; it asserts that
//! acknowledgements come in order and that none is a refusal.

use std::time::Duration;

use crate::clients::{Consumer, read_all};
use crate::engine::{Engine, wait_until};
use crate::wire::{PINGREQ, PINGRESP, PUBACK, Publish, Version, Wire};

#[derive(Debug)]
pub struct Sender {
    pub wire: Wire,
    payload_bytes: usize,
    pub sent: u16,
    pub acknowledged: u16,
}

impl Sender {
    pub fn new(port: u16, payload_bytes: usize) -> Self {
        let wire = Wire::connect_as(port, Version::V5, "sender");
        Self { wire, payload_bytes, sent: 0, acknowledged: 0 }
    }

    /// Connects again, to an engine that was started again.
    pub fn reconnect(&mut self, port: u16) {
        self.wire = Wire::connect_as(port, Version::V5, "sender");
        self.sent = self.acknowledged;
    }

    pub fn send(&mut self) {
        self.sent += 1;
        // The number in front, then bytes that take room.
        let mut payload = self.sent.to_string().into_bytes();
        payload.resize(self.payload_bytes.max(payload.len()), b'.');
        let message = Publish::new("trouble", self.sent, &payload);
        self.wire.send_unheard(&message.bytes(self.wire.version));
    }

    /// Waits for the next acknowledgement; false when none comes in time, or never as the connection
    /// has ended.
    pub fn hears(&mut self, within: Duration) -> bool {
        let Ok(Some(answer)) = self.wire.read(within) else { return false };
        assert_eq!((answer.kind(), answer.reason()), (PUBACK, 0), "{answer:?}");
        self.acknowledged += 1;
        assert_eq!(answer.id(), self.acknowledged);
        true
    }

    /// Sends so many messages, one after the other, and hears of each.
    pub fn publish(&mut self, count: u16) {
        for _ in 0..count {
            self.send();
            assert!(self.hears(Duration::from_secs(20)), "{} is not acknowledged", self.sent);
        }
    }

    /// Sends until the disk is full and publishers are held back.
    pub fn fill(&mut self, engine: &Engine) {
        loop {
            if self.hears(Duration::from_secs(1)) {
                self.send();
                assert!(self.sent < 8000, "the disk does not fill");
            } else if engine.said().contains("held back") {
                return;
            }
        }
    }

    /// Hears of everything that was sent.
    pub fn catch_up(&mut self) {
        wait_until("what was held to be acknowledged", || {
            self.hears(Duration::from_secs(1));
            (self.acknowledged == self.sent).then_some(())
        });
    }

    /// The engine lives: a PINGREQ is answered.
    pub fn ping(&mut self) {
        self.wire.send(&PINGREQ);
        assert_eq!(self.wire.packet().kind(), PINGRESP);
    }
}

/// The numbers that a consumer reads, in order.
pub fn numbers(consumer: Consumer, engine: &Engine) -> Vec<u16> {
    let records = read_all(consumer, engine, "telemetry");
    records.iter().map(|r| r.text().trim_end_matches('.').parse().unwrap()).collect()
}
