//! How many connections the whole engine has, so that there are never more than it may have.
//!
//! The one count that shards share: touched when a connection opens and when it closes.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::shard::Protocol;

/// Connections of the whole engine, and how many there may be.
#[derive(Debug)]
pub struct OpenConnections {
    mqtt: AtomicU32,
    mqtt_max: u32,
    kafka: AtomicU32,
    kafka_max: u32,
}

impl OpenConnections {
    /// None so far.
    pub fn new(mqtt_max: u32, kafka_max: u32) -> Self {
        Self { mqtt: AtomicU32::new(0), mqtt_max, kafka: AtomicU32::new(0), kafka_max }
    }

    fn cell(&self, protocol: Protocol) -> (&AtomicU32, u32) {
        match protocol {
            Protocol::Mqtt => (&self.mqtt, self.mqtt_max),
            Protocol::Kafka => (&self.kafka, self.kafka_max),
        }
    }

    /// Counts one more, if there may be one more. Relaxed: a count, nothing hangs on its order.
    pub fn admit(&self, protocol: Protocol) -> bool {
        let (cell, max) = self.cell(protocol);
        let admitted = cell.fetch_add(1, Ordering::Relaxed) < max;
        if !admitted {
            cell.fetch_sub(1, Ordering::Relaxed);
        }
        admitted
    }

    /// Counts one less.
    pub fn release(&self, protocol: Protocol) {
        self.cell(protocol).0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_there_may_be() {
        let open = OpenConnections::new(2, 1);
        assert!(open.admit(Protocol::Mqtt) && open.admit(Protocol::Mqtt));
        assert!(!open.admit(Protocol::Mqtt));
        assert!(open.admit(Protocol::Kafka) && !open.admit(Protocol::Kafka));
        open.release(Protocol::Mqtt);
        assert!(open.admit(Protocol::Mqtt) && !open.admit(Protocol::Mqtt));
    }
}
