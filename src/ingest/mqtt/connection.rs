//! The state machine of one connection, from its first byte to its last.
//!
//! In: the client's bytes, and the shard's decisions (accept, refuse, acknowledge, disconnect).
//! Out: events that borrow from the bytes, and reply bytes. Runs on the shard that holds the
//! connection and moves with it. A connection is 24 bytes; nothing is allocated for it until it sets
//! a topic alias, and nothing for a packet in the steady state.
//!
//! ```text
//!            CONNECT is read            accept
//!   Fresh ──────────────────▶ Offered ─────────▶ Connected
//!     │                          │ refuse, reply     │ disconnect, reply, the client's DISCONNECT
//!     └──────────▶ Closed ◀──────┴───────────────────┘
//! ```
//!
//! Deliberately absent: the packet identifiers in flight (counting them is enough, the shard
//! acknowledges in the order of arrival), the clock, and other connections.

use super::aliases::TopicAliases;
use super::codec::{self, Reader, Version, packet};
use super::connect::{self, Connect, Grants, Protocol};
use super::disconnect::{self, LastWord};
use super::limits::Limits;
use super::publish::{self, Publish, Qos};
use super::reasons::{Reason, Reject, Violation};
use super::subscribe;

/// The longest client identifier that a server may assign with [`Connection::accept`], in bytes.
pub const ASSIGNED_CLIENT_ID_BYTES_MAX: usize = 64;

/// What one [`Connection::step`] found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event<'a> {
    /// No whole packet is there.
    NeedMore {
        /// Size of the whole packet once its fixed header is there, `<= packet_bytes_max`: what
        /// the assembly buffer must hold. Only claimed by the client so far.
        packet_bytes: Option<usize>,
    },
    /// The client introduces itself and waits for [`Connection::accept`] or
    /// [`Connection::refuse`].
    Connect(Connect<'a>),
    /// A message. With QoS 1 it is in flight until [`Connection::acknowledge`].
    Publish(Publish<'a>),
    /// A packet that needs nothing from anyone else; its reply, if any, is in the output.
    Handled,
    /// A SUBSCRIBE; its refusal is in the output.
    SubscribeRefused {
        /// How many filters it named.
        filters: usize,
    },
    /// The client says goodbye; what follows is ignored.
    Disconnected {
        /// Whether the client's will would be due (any reason code but 0).
        with_will: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing has come, or a part of a CONNECT.
    Fresh,
    /// A CONNECT has come (valid or not) and waits for its answer.
    Offered,
    /// Accepted.
    Connected,
    /// The last word has been said; whatever comes is ignored.
    Closed,
}

/// One client's connection.
#[derive(Debug)]
pub struct Connection {
    aliases: Option<Box<TopicAliases>>,
    /// QoS 1 messages yielded and not acknowledged. In MQTT 5 `<= receive_maximum`.
    in_flight: u32,
    /// The largest packet that the client takes.
    client_packet_bytes_max: u32,
    /// Until accepted what the client asked for, then what holds; 0 for none.
    keep_alive_s: u16,
    version: Version,
    stage: Stage,
    /// Whether the client wants reason strings.
    problem_information: bool,
    /// Whether the client asked for a session that outlives the connection.
    session_expiry_asked: bool,
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

const fn need_more<'a>(packet_bytes: Option<usize>) -> Event<'a> {
    Event::NeedMore { packet_bytes }
}

impl Connection {
    /// A connection of which nothing is known.
    pub const fn new() -> Self {
        Self {
            aliases: None,
            in_flight: 0,
            client_packet_bytes_max: u32::MAX,
            keep_alive_s: 0,
            version: Version::V311,
            stage: Stage::Fresh,
            problem_information: false,
            session_expiry_asked: false,
        }
    }

    /// Takes at most one packet from the front of `input` and says how many bytes it took and what
    /// they meant. Replies that need nobody else are appended to `out`. Call it until it yields
    /// [`Event::NeedMore`].
    ///
    /// Between a CONNECT and its answer it takes nothing, and after the end everything.
    ///
    /// # Errors
    /// What the client did wrong: say so with [`Connection::reply`], send that, close.
    #[inline]
    pub fn step<'a>(
        &'a mut self,
        limits: &Limits,
        input: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Event<'a>), Violation> {
        let Some((&first, after_first)) = input.split_first() else {
            return Ok((0, need_more(None)));
        };
        match self.stage {
            Stage::Connected => self.check_first(first)?,
            Stage::Fresh => check_first_of_all(first)?,
            Stage::Offered => return Ok((0, need_more(None))),
            Stage::Closed => return Ok((input.len(), need_more(None))),
        }
        let Some((remaining, varint_bytes)) = codec::varint(after_first)? else {
            return Ok((0, need_more(None)));
        };
        let header_bytes = 1 + varint_bytes;
        let packet_bytes = header_bytes + remaining;
        if packet_bytes > limits.packet_bytes_max as usize {
            return Err(Violation::new(Reject::PacketTooLarge, "the packet is too large"));
        }
        // The last byte of a shortest encoding is not 0; 3.1.1 does not ask for the shortest, and a
        // CONNECT is read before its version is known.
        if varint_bytes > 1 && input[varint_bytes] == 0 && self.version == Version::V5 {
            return Err(codec::NOT_SHORTEST);
        }
        let Some(body) = input.get(header_bytes..packet_bytes) else {
            return Ok((0, need_more(Some(packet_bytes))));
        };
        let event = if first >> 4 == packet::PUBLISH {
            Event::Publish(self.publish(limits, first, body)?)
        } else {
            self.other(limits, first >> 4, body, out)?
        };
        Ok((packet_bytes, event))
    }

    /// Accepts the CONNECT that [`Connection::step`] yielded: appends CONNACK, in MQTT 5 with what
    /// is granted and what is not available. `assigned_client_id` is due when the client's was
    /// empty; it is only told in MQTT 5. At most [`ASSIGNED_CLIENT_ID_BYTES_MAX`] bytes.
    pub fn accept(&mut self, limits: &Limits, assigned_client_id: Option<&str>, out: &mut Vec<u8>) {
        assert_eq!(self.stage, Stage::Offered, "accept answers a CONNECT that step yielded");
        debug_assert!(assigned_client_id.is_none_or(|id| id.len() <= ASSIGNED_CLIENT_ID_BYTES_MAX));
        self.put_accepted(limits, assigned_client_id, out);
        if let Some(seconds) = self.server_keep_alive_s(limits) {
            self.keep_alive_s = seconds;
        }
        self.stage = Stage::Connected;
    }

    /// Refuses the CONNECT that [`Connection::step`] yielded: appends CONNACK in the client's
    /// version. `text` is for MQTT 5 only. Nothing where no CONNECT has come.
    pub fn refuse(&mut self, reason: Reason, text: &str, out: &mut Vec<u8>) {
        self.say_last_word(reason, text, out);
    }

    /// Appends the DISCONNECT with which the server leaves in MQTT 5, nothing in 3.1.1 (close the
    /// socket) or where the client is not connected.
    pub fn disconnect(&mut self, reason: Reason, text: &str, out: &mut Vec<u8>) {
        if self.stage == Stage::Connected {
            self.say_last_word(reason, text, out);
        }
        self.stage = Stage::Closed;
    }

    /// Appends what the specification has the server say about a violation that
    /// [`Connection::step`] returned: CONNACK or DISCONNECT or nothing. Then the socket is closed.
    pub fn reply(&mut self, violation: &Violation, out: &mut Vec<u8>) {
        self.say_last_word(violation.reason(), violation.what, out);
    }

    /// Appends PUBACK for a QoS 1 message. `matched`: whether any stream took it (MQTT 5 tells the
    /// client where none did). Nothing once the connection is closed.
    #[inline]
    pub fn acknowledge(&mut self, packet_id: u16, matched: bool, out: &mut Vec<u8>) {
        if self.stage != Stage::Connected {
            return;
        }
        debug_assert!(self.in_flight > 0, "more acknowledgements than messages");
        self.in_flight = self.in_flight.saturating_sub(1);
        // A PUBACK always fits: a client that does not even take a CONNACK was refused.
        if matched || self.version == Version::V311 {
            out.extend_from_slice(&publish::puback(packet_id));
        } else {
            out.extend_from_slice(&publish::puback_no_match(packet_id));
        }
    }

    /// Takes back the message that [`Connection::step`] has just yielded, because there is no room
    /// for it now: the same bytes are to be passed to `step` again later.
    pub fn retract(&mut self, qos: Qos) {
        if qos == Qos::AtLeastOnce {
            debug_assert!(self.in_flight > 0, "nothing to take back");
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }

    /// How long the client may be silent, in nanoseconds: 1.5 times the keep alive that holds
    /// (MQTT-3.1.2-22). `None` where there is none, and before the client is accepted.
    pub fn keep_alive(&self) -> Option<u64> {
        let holds = self.stage == Stage::Connected && self.keep_alive_s > 0;
        holds.then(|| u64::from(self.keep_alive_s) * 1_500_000_000)
    }

    /// What the client speaks; 3.1.1 until it has said so.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether it was accepted and has not ended.
    pub fn is_connected(&self) -> bool {
        self.stage == Stage::Connected
    }

    /// QoS 1 messages that wait for their PUBACK.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// What the first byte of a packet says is wrong with it, on an accepted connection.
    #[inline]
    fn check_first(&self, first: u8) -> Result<(), Violation> {
        if first >> 4 == packet::PUBLISH {
            return publish::check_flags(first);
        }
        let flags = match first >> 4 {
            packet::SUBSCRIBE | packet::UNSUBSCRIBE => 2, // section 2.1.3
            packet::PINGREQ | packet::DISCONNECT => 0,
            packet::CONNECT => return Err(Violation::protocol("a second CONNECT")),
            0 => return Err(Violation::malformed("packet type 0")),
            packet::AUTH if self.version == Version::V311 => {
                return Err(Violation::malformed("packet type 15"));
            }
            // CONNACK, SUBACK, UNSUBACK and PINGRESP are the server's, AUTH needs a method, and
            // there is nothing for a client to acknowledge.
            _ => return Err(Violation::protocol("a packet that a client may not send here")),
        };
        check_reserved(first, flags)
    }

    #[inline]
    fn publish<'a>(
        &'a mut self,
        limits: &Limits,
        first: u8,
        body: &'a [u8],
    ) -> Result<Publish<'a>, Violation> {
        let (mut publish, alias) =
            Publish::read(first, body, self.version, limits.user_properties_max)?;
        if publish.qos == Qos::AtLeastOnce {
            if self.version == Version::V5 && self.in_flight >= u32::from(limits.receive_maximum) {
                return Err(Violation::new(
                    Reject::ReceiveMaximumExceeded,
                    "more messages in flight than Receive Maximum",
                ));
            }
            self.in_flight = self.in_flight.saturating_add(1);
        }
        if let Some(alias) = alias {
            let aliases = self.aliases.get_or_insert_default();
            publish.topic = aliases.resolve(alias, publish.topic, limits)?;
        }
        Ok(publish)
    }

    fn other<'a>(
        &mut self,
        limits: &Limits,
        packet_type: u8,
        body: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Event<'a>, Violation> {
        let user_properties_max = limits.user_properties_max;
        let peer = subscribe::Peer {
            version: self.version,
            client_packet_bytes_max: self.client_packet_bytes_max,
            user_properties_max,
        };
        match packet_type {
            packet::CONNECT => self.connect(limits, body, out).map(Event::Connect),
            packet::PINGREQ => {
                Reader::new(body).finish()?;
                out.extend_from_slice(&[packet::PINGRESP << 4, 0]);
                Ok(Event::Handled)
            }
            packet::SUBSCRIBE => {
                let filters = subscribe::refuse(&peer, body, out)?;
                Ok(Event::SubscribeRefused { filters })
            }
            packet::UNSUBSCRIBE => {
                subscribe::unsubscribe(&peer, body, out)?;
                Ok(Event::Handled)
            }
            _ => {
                let asked = self.session_expiry_asked;
                let code = disconnect::read(body, self.version, asked, user_properties_max)?;
                self.stage = Stage::Closed;
                Ok(Event::Disconnected { with_will: code != 0 })
            }
        }
    }

    fn connect<'a>(
        &mut self,
        limits: &Limits,
        body: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Connect<'a>, Violation> {
        let mut reader = Reader::new(body);
        let protocol = Protocol::read(&mut reader)?;
        // From here on the client can be answered, also when its CONNECT turns out to be wrong.
        self.version = protocol.version;
        self.stage = Stage::Offered;
        if !protocol.supported {
            return Err(Violation::new(
                Reject::UnsupportedProtocolVersion,
                "this server speaks MQTT 3.1.1 and 5",
            ));
        }
        let connect = Connect::read(reader, protocol.version, limits.user_properties_max)?;
        self.keep_alive_s = connect.keep_alive_s;
        self.problem_information = connect.problem_information;
        self.session_expiry_asked = connect.session_expiry_s > 0;
        self.client_packet_bytes_max = connect.maximum_packet_size.unwrap_or(u32::MAX);
        check_supported(&connect, limits)?;
        self.check_connack_fits(limits, connect.client_id.is_empty(), out)?;
        Ok(connect)
    }

    /// Whether the client takes the CONNACK that it would get. Tried on `out`, which is left as it
    /// was.
    fn check_connack_fits(
        &self,
        limits: &Limits,
        assigned: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let start = out.len();
        self.put_accepted(limits, None, out);
        let bytes = out.len() - start + if assigned { 3 + ASSIGNED_CLIENT_ID_BYTES_MAX } else { 0 };
        out.truncate(start);
        if bytes > self.client_packet_bytes_max as usize {
            return Err(Violation::new(
                Reject::PacketTooLarge,
                "the client's Maximum Packet Size has no room for CONNACK",
            ));
        }
        Ok(())
    }

    fn put_accepted(&self, limits: &Limits, assigned: Option<&str>, out: &mut Vec<u8>) {
        match self.version {
            Version::V311 => out.extend_from_slice(&connect::ACCEPTED_V311),
            Version::V5 => connect::put_accepted(
                &Grants {
                    session_expiry_denied: self.session_expiry_asked,
                    receive_maximum: limits.receive_maximum,
                    packet_bytes_max: limits.packet_bytes_max,
                    assigned_client_id: assigned,
                    topic_alias_maximum: limits.topic_alias_maximum,
                    server_keep_alive_s: self.server_keep_alive_s(limits),
                },
                out,
            ),
        }
    }

    /// The Server Keep Alive (section 3.2.2.3.14), where the client's own is not granted.
    fn server_keep_alive_s(&self, limits: &Limits) -> Option<u16> {
        let max = limits.keep_alive_s_max;
        let granted = max == 0 || (1..=max).contains(&self.keep_alive_s);
        (self.version == Version::V5 && !granted).then_some(max)
    }

    fn say_last_word(&mut self, reason: Reason, text: &str, out: &mut Vec<u8>) {
        let text = if self.problem_information { text } else { "" };
        let max = self.client_packet_bytes_max;
        match (self.stage, self.version) {
            (Stage::Offered, Version::V5) => {
                let code = reason.in_connack();
                disconnect::put_last_word(LastWord::Connack, code, text, max, out);
            }
            (Stage::Connected, Version::V5) => {
                let code = reason.in_disconnect();
                disconnect::put_last_word(LastWord::Disconnect, code, text, max, out);
            }
            (Stage::Offered, Version::V311) => {
                if let Some(code) = reason.return_code() {
                    out.extend_from_slice(&connect::refused_v311(code));
                }
            }
            (Stage::Fresh | Stage::Closed, _) | (Stage::Connected, Version::V311) => {}
        }
        self.stage = Stage::Closed;
    }
}

/// The first byte that a client sends.
fn check_first_of_all(first: u8) -> Result<(), Violation> {
    const CONNECT: u8 = packet::CONNECT << 4;
    const TLS_HANDSHAKE: u8 = 0x16;
    let what = match first {
        CONNECT => return Ok(()),
        TLS_HANDSHAKE => "the client speaks TLS, this port does not",
        _ => "the first packet is not a CONNECT",
    };
    Err(Violation::new(Reject::ConnectExpected, what))
}

fn check_reserved(first: u8, flags: u8) -> Result<(), Violation> {
    match first & 0x0F == flags {
        true => Ok(()),
        false => Err(Violation::malformed("reserved bits of the fixed header are wrong")),
    }
}

/// What a well-formed CONNECT asks for and does not get.
fn check_supported(connect: &Connect<'_>, limits: &Limits) -> Result<(), Violation> {
    let id_bytes = connect.client_id.len();
    if connect.authentication_method {
        let what = "extended authentication is not supported";
        return Err(Violation::new(Reject::AuthenticationMethod, what));
    }
    if connect.will {
        return Err(Violation::new(Reject::Will, "wills are not supported yet"));
    }
    if id_bytes > usize::from(limits.client_id_bytes_max) {
        return Err(Violation::new(Reject::ClientIdNotValid, "the client identifier is too long"));
    }
    // 3.1.1: MQTT-3.1.3-8. In 5 an identifier is assigned whatever Clean Start says.
    if id_bytes == 0 && connect.version == Version::V311 && !connect.clean {
        let what = "an empty client identifier needs a clean session";
        return Err(Violation::new(Reject::ClientIdNotValid, what));
    }
    Ok(())
}
