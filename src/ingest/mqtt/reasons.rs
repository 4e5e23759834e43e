//! Why a connection ends: reason codes (5), return codes (3.1.1), and what is counted.
//!
//! A [`Violation`] is what a client did wrong, found while decoding; a [`Reason`] is what the
//! server says when it closes, for a violation or for reasons of its own. No state, no I/O.

/// Reason codes of MQTT 5 (section 2.4) with which this server refuses or closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // the names are the specification's own
pub enum Reason {
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicNameInvalid = 0x90,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    QosNotSupported = 0x9B,
    ConnectionRateExceeded = 0x9F,
}

impl Reason {
    /// The code in a CONNACK (section 3.2.2.2); a reason that only a DISCONNECT may carry becomes
    /// the nearest that a CONNACK may.
    pub(super) fn in_connack(self) -> u8 {
        match self {
            Self::ServerShuttingDown => Self::ServerUnavailable as u8,
            Self::MessageRateTooHigh => Self::ServerBusy as u8,
            Self::AdministrativeAction => Self::NotAuthorized as u8,
            Self::KeepAliveTimeout
            | Self::SessionTakenOver
            | Self::ReceiveMaximumExceeded
            | Self::TopicAliasInvalid => Self::UnspecifiedError as u8,
            other => other as u8,
        }
    }

    /// The code in a DISCONNECT (section 3.14.2.1); a reason that only a CONNACK may carry becomes
    /// the nearest that a DISCONNECT may.
    pub(super) fn in_disconnect(self) -> u8 {
        match self {
            Self::ServerUnavailable => Self::ServerBusy as u8,
            Self::Banned | Self::BadUserNameOrPassword => Self::NotAuthorized as u8,
            Self::UnsupportedProtocolVersion
            | Self::ClientIdentifierNotValid
            | Self::BadAuthenticationMethod => Self::UnspecifiedError as u8,
            other => other as u8,
        }
    }

    /// The CONNACK return code of MQTT 3.1.1 (3.1.1 section 3.2.2.3). `None` where none applies:
    /// the connection is then closed without a CONNACK (MQTT-3.2.2-6).
    pub(super) fn return_code(self) -> Option<u8> {
        match self {
            Self::UnsupportedProtocolVersion => Some(1),
            Self::ClientIdentifierNotValid => Some(2),
            Self::ImplementationSpecificError
            | Self::ServerUnavailable
            | Self::ServerBusy
            | Self::ServerShuttingDown
            | Self::MessageRateTooHigh
            | Self::QuotaExceeded
            | Self::ConnectionRateExceeded => Some(3),
            Self::BadUserNameOrPassword | Self::BadAuthenticationMethod => Some(4),
            Self::NotAuthorized | Self::Banned | Self::AdministrativeAction => Some(5),
            _ => None,
        }
    }
}

/// The kinds of violation, as they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reject {
    /// The first packet is not a CONNECT.
    ConnectExpected,
    /// A protocol level other than 4 (3.1.1) and 5, or the protocol name of 3.1.
    UnsupportedProtocolVersion,
    /// The client identifier is too long, or empty where that is not allowed.
    ClientIdNotValid,
    /// The client asks for extended authentication.
    AuthenticationMethod,
    /// The client leaves a will.
    Will,
    /// Bytes that cannot be parsed according to the specification.
    Malformed,
    /// Well-formed, but not allowed here.
    ProtocolError,
    /// The packet is larger than the limit.
    PacketTooLarge,
    /// More QoS 1 messages in flight than were granted.
    ReceiveMaximumExceeded,
    /// A topic alias of 0 or above the granted maximum.
    TopicAliasInvalid,
    /// A topic name with wildcards.
    TopicNameInvalid,
    /// A QoS 2 message.
    QosNotSupported,
    /// A limit of this server that has no reason code of its own.
    QuotaExceeded,
}

impl Reject {
    /// All kinds, in the order of [`Reject::index`].
    pub const ALL: [Self; 13] = [
        Self::ConnectExpected,
        Self::UnsupportedProtocolVersion,
        Self::ClientIdNotValid,
        Self::AuthenticationMethod,
        Self::Will,
        Self::Malformed,
        Self::ProtocolError,
        Self::PacketTooLarge,
        Self::ReceiveMaximumExceeded,
        Self::TopicAliasInvalid,
        Self::TopicNameInvalid,
        Self::QosNotSupported,
        Self::QuotaExceeded,
    ];

    /// `0 <= index < ALL.len()`, for a table of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The stable value of the metric's `reason` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::ConnectExpected => "connect_expected",
            Self::UnsupportedProtocolVersion => "unsupported_protocol_version",
            Self::ClientIdNotValid => "client_id_not_valid",
            Self::AuthenticationMethod => "authentication_method",
            Self::Will => "will",
            Self::Malformed => "malformed",
            Self::ProtocolError => "protocol_error",
            Self::PacketTooLarge => "packet_too_large",
            Self::ReceiveMaximumExceeded => "receive_maximum_exceeded",
            Self::TopicAliasInvalid => "topic_alias_invalid",
            Self::TopicNameInvalid => "topic_name_invalid",
            Self::QosNotSupported => "qos_not_supported",
            Self::QuotaExceeded => "quota_exceeded",
        }
    }

    /// What the client is told.
    pub fn reason(self) -> Reason {
        match self {
            Self::ConnectExpected | Self::ProtocolError => Reason::ProtocolError,
            Self::UnsupportedProtocolVersion => Reason::UnsupportedProtocolVersion,
            Self::ClientIdNotValid => Reason::ClientIdentifierNotValid,
            Self::AuthenticationMethod => Reason::BadAuthenticationMethod,
            Self::Will => Reason::ImplementationSpecificError,
            Self::Malformed => Reason::MalformedPacket,
            Self::PacketTooLarge => Reason::PacketTooLarge,
            Self::ReceiveMaximumExceeded => Reason::ReceiveMaximumExceeded,
            Self::TopicAliasInvalid => Reason::TopicAliasInvalid,
            Self::TopicNameInvalid => Reason::TopicNameInvalid,
            Self::QosNotSupported => Reason::QosNotSupported,
            Self::QuotaExceeded => Reason::QuotaExceeded,
        }
    }
}

/// What a client did that ends its connection. [`super::Connection::reply`] writes the packet that
/// tells it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} ({:?}, 0x{:02X})", .reject.reason(), .reject.reason() as u8)]
pub struct Violation {
    /// The kind, as counted.
    pub reject: Reject,
    /// One sentence for the operator and, in MQTT 5, for the client (its Reason String).
    pub what: &'static str,
}

impl Violation {
    pub(super) const fn new(reject: Reject, what: &'static str) -> Self {
        Self { reject, what }
    }

    pub(super) const fn malformed(what: &'static str) -> Self {
        Self::new(Reject::Malformed, what)
    }

    pub(super) const fn protocol(what: &'static str) -> Self {
        Self::new(Reject::ProtocolError, what)
    }

    /// The reason code that goes with it.
    pub fn reason(&self) -> Reason {
        self.reject.reason()
    }

    /// The stable value of the metric's `reason` label.
    pub fn label(&self) -> &'static str {
        self.reject.label()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reject_has_its_place_and_its_own_label() {
        for (index, reject) in Reject::ALL.iter().enumerate() {
            assert_eq!(reject.index(), index);
        }
        let mut labels: Vec<_> = Reject::ALL.iter().map(|r| r.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Reject::ALL.len());
    }

    #[test]
    fn each_reject_has_the_code_of_the_specification() {
        let codes = Reject::ALL.map(|reject| reject.reason() as u8);
        let expected =
            [0x82, 0x84, 0x85, 0x8C, 0x83, 0x81, 0x82, 0x95, 0x93, 0x94, 0x90, 0x9B, 0x97];
        assert_eq!(codes, expected);
    }

    #[test]
    fn a_reason_becomes_one_that_the_packet_may_carry() {
        let check = |reason: Reason, connack: u8, disconnect: u8, code: Option<u8>| {
            assert_eq!(reason.in_connack(), connack, "{reason:?} in CONNACK");
            assert_eq!(reason.in_disconnect(), disconnect, "{reason:?} in DISCONNECT");
            assert_eq!(reason.return_code(), code, "{reason:?} in 3.1.1");
        };
        check(Reason::MalformedPacket, 0x81, 0x81, None);
        check(Reason::ServerShuttingDown, 0x88, 0x8B, Some(3));
        check(Reason::ServerUnavailable, 0x88, 0x89, Some(3));
        check(Reason::UnsupportedProtocolVersion, 0x84, 0x80, Some(1));
        check(Reason::ClientIdentifierNotValid, 0x85, 0x80, Some(2));
        check(Reason::BadUserNameOrPassword, 0x86, 0x87, Some(4));
        check(Reason::NotAuthorized, 0x87, 0x87, Some(5));
        check(Reason::SessionTakenOver, 0x80, 0x8E, None);
        check(Reason::QuotaExceeded, 0x97, 0x97, Some(3));
        check(Reason::UnspecifiedError, 0x80, 0x80, None);
        check(Reason::ImplementationSpecificError, 0x83, 0x83, Some(3));
        check(Reason::ServerBusy, 0x89, 0x89, Some(3));
        check(Reason::Banned, 0x8A, 0x87, Some(5));
        check(Reason::BadAuthenticationMethod, 0x8C, 0x80, Some(4));
        check(Reason::KeepAliveTimeout, 0x80, 0x8D, None);
        check(Reason::MessageRateTooHigh, 0x89, 0x96, Some(3));
        check(Reason::AdministrativeAction, 0x87, 0x98, Some(5));
        check(Reason::ConnectionRateExceeded, 0x9F, 0x9F, Some(3));
    }

    #[test]
    fn a_violation_reads_well() {
        let violation = Violation::malformed("the packet ends early");
        assert_eq!(violation.to_string(), "the packet ends early (MalformedPacket, 0x81)");
    }
}
