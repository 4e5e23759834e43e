//! The fixed sets of label values: why a connection closed, what was rejected, which API.
//!
//! A label is an index into a row of counters, so that counting one costs an addition and the set
//! cannot grow by what a peer sends.

use std::marker::PhantomData;

use super::Counter;

/// An enumeration whose variants are the values of a Prometheus label.
pub trait Label: Copy + 'static {
    /// Every variant, in the order of `index`.
    const ALL: &'static [Self];

    /// The variant's place in `ALL`.
    fn index(self) -> usize;

    /// The value of the label.
    fn label(self) -> &'static str;

    /// The variant with that label.
    fn from_label(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|variant| variant.label() == label)
    }
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident => $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$about])* $variant,)+ }

        impl $name {
            /// How many variants there are.
            pub const COUNT: usize = [$($label),+].len();
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            #[inline]
            fn index(self) -> usize {
                self as usize
            }

            fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

pub(super) use labels;

labels! {
    /// Why input of an MQTT peer was rejected.
    Reject {
        /// Bytes that are no MQTT packet.
        Malformed => "malformed",
        /// A packet that the specification does not allow here.
        ProtocolError => "protocol_error",
        /// The first packet was no CONNECT.
        ConnectExpected => "connect_expected",
        /// No CONNECT came in time.
        ConnectTimeout => "connect_timeout",
        /// A protocol name or level that is not spoken here.
        UnsupportedVersion => "unsupported_protocol_version",
        /// A client identifier that cannot be taken.
        ClientId => "client_id_not_valid",
        /// Credentials, or the lack of them.
        NotAuthorized => "not_authorized",
        /// An enhanced authentication method.
        AuthMethod => "authentication_method",
        /// A packet larger than the maximum announced.
        PacketTooLarge => "packet_too_large",
        /// More messages in flight than Receive Maximum.
        ReceiveMaximum => "receive_maximum_exceeded",
        /// A topic alias above the maximum, or one that was never set.
        TopicAlias => "topic_alias_invalid",
        /// A topic name with wildcards or of length 0.
        TopicName => "topic_name_invalid",
        /// A QoS that is not supported.
        Qos => "qos_not_supported",
        /// A will, which is not supported.
        Will => "will",
        /// A subscription, which is not supported.
        Subscription => "subscription",
        /// A payload that is not what its format indicator says.
        PayloadFormat => "payload_format",
        /// No connection free, or another limit of the configuration.
        Quota => "quota_exceeded",
        /// Nothing came for one and a half keep-alive intervals.
        KeepAlive => "keep_alive",
        /// The peer does not read what is sent to it.
        SlowReader => "slow_reader",
        /// The engine stops.
        ShuttingDown => "shutting_down",
        /// Anything that has no label of its own yet.
        Other => "other",
    }
}

labels! {
    /// Why an MQTT connection is open no more.
    Close {
        /// The client sent DISCONNECT.
        Disconnect => "disconnect",
        /// The client closed without DISCONNECT, or the network did.
        Lost => "lost",
        /// The engine closed it for what the client sent or did; see the rejects.
        Rejected => "rejected",
        /// The same client connected again.
        TakenOver => "taken_over",
        /// Nothing came for one and a half keep-alive intervals.
        KeepAlive => "keep_alive",
        /// The client did not read what was sent to it.
        SlowReader => "slow_reader",
        /// The engine stops.
        ShuttingDown => "shutting_down",
    }
}

labels! {
    /// Why a connection is not read for now.
    HoldCause {
        /// The buffer that gathers the next commit is full.
        LogBuffer => "log_buffer",
        /// No segment can be made.
        DiskFull => "disk_full",
        /// No credit or no slot on the way to another shard.
        Ring => "ring",
        /// As many of its messages wait for their acknowledgement as may.
        Unacknowledged => "unacknowledged",
    }
}

labels! {
    /// The APIs of the Kafka protocol that are counted apart.
    KafkaApi {
        /// Key 18.
        ApiVersions => "api_versions",
        /// Key 3.
        Metadata => "metadata",
        /// Key 2.
        ListOffsets => "list_offsets",
        /// Key 1.
        Fetch => "fetch",
        /// Any other key.
        Other => "other",
    }
}

/// A row of counters, one for each variant of a label.
#[derive(Debug)]
pub struct ByLabel<L, const COUNT: usize> {
    counters: [Counter; COUNT],
    label: PhantomData<fn(L)>,
}

impl<L: Label, const COUNT: usize> Default for ByLabel<L, COUNT> {
    fn default() -> Self {
        const { assert!(COUNT == L::ALL.len()) };
        Self { counters: std::array::from_fn(|_| Counter::new()), label: PhantomData }
    }
}

impl<L: Label, const COUNT: usize> ByLabel<L, COUNT> {
    /// Adds `count` under `label`; only ever called on the thread that owns the row.
    #[inline]
    pub fn add(&self, label: L, count: u64) {
        self.counters[label.index()].add(count);
    }

    /// Adds one under `label`; only ever called on the thread that owns the row.
    #[inline]
    pub fn increment(&self, label: L) {
        self.add(label, 1);
    }

    /// The count under `label`.
    pub fn value(&self, label: L) -> u64 {
        self.counters[label.index()].value()
    }

    /// Every label value with its count.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
        L::ALL.iter().map(|label| (label.label(), self.value(*label)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<L: Label + PartialEq + std::fmt::Debug>() {
        for (index, variant) in L::ALL.iter().enumerate() {
            assert_eq!(variant.index(), index);
            assert_eq!(L::from_label(variant.label()), Some(*variant), "labels are distinct");
        }
        assert_eq!(L::from_label("no such label"), None);
    }

    #[test]
    fn labels_are_distinct_and_in_order() {
        check::<Reject>();
        check::<Close>();
        check::<HoldCause>();
        check::<KafkaApi>();
    }

    #[test]
    fn a_row_counts_by_label() {
        let row = ByLabel::<KafkaApi, { KafkaApi::COUNT }>::default();
        row.add(KafkaApi::Fetch, 2);
        row.increment(KafkaApi::Fetch);
        assert_eq!(row.value(KafkaApi::Fetch), 3);
        assert_eq!(row.values().map(|(_, count)| count).sum::<u64>(), 3);
    }
}
