//! CONNECT in all its forms (section 3.1) and CONNACK (section 3.2).
//!
//! In: the body of a CONNECT. Out: a [`Connect`] that borrows from it, or a [`Violation`]. This file
//! knows what is well-formed; what this server does not support is refused in connection.rs.

use super::codec::{Reader, Version, packet, put_text, put_varint, varint_bytes};
use super::properties::{self, Allowed, UserProperties, Value, id};
use super::reasons::Violation;

/// A client's introduction.
#[derive(Clone, Copy, PartialEq)]
pub struct Connect<'a> {
    /// What it speaks.
    pub version: Version,
    /// May be empty: then the server assigns one.
    pub client_id: &'a str,
    /// Clean Session (3.1.1) or Clean Start (5).
    pub clean: bool,
    /// What the client asks for, in seconds; 0 for none. What holds is
    /// [`super::Connection::keep_alive`].
    pub keep_alive_s: u16,
    /// MQTT 5; 0 when absent.
    pub session_expiry_s: u32,
    /// How many QoS 1 messages the client takes at once; 65,535 when it does not say.
    pub receive_maximum: u16,
    /// The largest packet that the client takes.
    pub maximum_packet_size: Option<u32>,
    /// How many topic aliases the server may use towards the client.
    pub topic_alias_maximum: u16,
    /// Who it says it is.
    pub username: Option<&'a str>,
    /// Its secret.
    pub password: Option<&'a [u8]>,
    /// MQTT 5 user properties.
    pub user_properties: UserProperties<'a>,
    /// Whether reason strings are welcome (Request Problem Information).
    pub(super) problem_information: bool,
    /// Whether it asks for extended authentication.
    pub(super) authentication_method: bool,
    /// Whether it leaves a will.
    pub(super) will: bool,
}

// By hand, so that no log line ever shows a password.
impl std::fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("clean", &self.clean)
            .field("keep_alive_s", &self.keep_alive_s)
            .field("session_expiry_s", &self.session_expiry_s)
            .field("receive_maximum", &self.receive_maximum)
            .field("maximum_packet_size", &self.maximum_packet_size)
            .field("topic_alias_maximum", &self.topic_alias_maximum)
            .field("username", &self.username)
            .field("password", &self.password.map(|_| "…"))
            .field("user_properties", &self.user_properties)
            .finish_non_exhaustive()
    }
}

/// Protocol name and level (sections 3.1.2.1 and 3.1.2.2).
pub(super) struct Protocol {
    /// What to speak to this client, if only to refuse it.
    pub version: Version,
    pub supported: bool,
}

impl Protocol {
    /// Fails where the client does not seem to speak MQTT at all.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Violation> {
        let name = reader.binary()?;
        let level = reader.byte()?;
        match (name, level) {
            (b"MQTT", 5) => Ok(Self { version: Version::V5, supported: true }),
            (b"MQTT", 4) => Ok(Self { version: Version::V311, supported: true }),
            // A bridge may set the upper bit of its level; later versions are told in the words of 5.
            (b"MQTT", level) if level & 0x7F >= 5 => {
                Ok(Self { version: Version::V5, supported: false })
            }
            (b"MQTT" | b"MQIsdp", _) => Ok(Self { version: Version::V311, supported: false }),
            _ => Err(Violation::protocol("the protocol name is not MQTT")),
        }
    }
}

/// Connect flags (section 3.1.2.3).
#[derive(Clone, Copy)]
struct Flags(u8);

impl Flags {
    fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, Violation> {
        let flags = Self(reader.byte()?);
        let will_qos = flags.0 >> 3 & 3;
        if flags.0 & 1 != 0 {
            Err(Violation::malformed("the reserved connect flag is set"))
        } else if will_qos == 3 {
            Err(Violation::malformed("the will's QoS is 3"))
        } else if !flags.will() && flags.0 & 0x38 != 0 {
            Err(Violation::malformed("will QoS or will retain without a will"))
        } else if version == Version::V311 && flags.password() && !flags.username() {
            Err(Violation::malformed("a password without a user name")) // 3.1.1: MQTT-3.1.2-22
        } else {
            Ok(flags)
        }
    }

    fn clean(self) -> bool {
        self.0 & 0x02 != 0
    }
    fn will(self) -> bool {
        self.0 & 0x04 != 0
    }
    fn password(self) -> bool {
        self.0 & 0x40 != 0
    }
    fn username(self) -> bool {
        self.0 & 0x80 != 0
    }
}

impl<'a> Connect<'a> {
    /// Reads what follows the protocol level, to the packet's end.
    pub(super) fn read(
        mut reader: Reader<'a>,
        version: Version,
        user_properties_max: u16,
    ) -> Result<Self, Violation> {
        let flags = Flags::read(&mut reader, version)?;
        let mut connect = Self {
            version,
            client_id: "",
            clean: flags.clean(),
            keep_alive_s: reader.two_bytes()?,
            session_expiry_s: 0,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            username: None,
            password: None,
            user_properties: UserProperties::default(),
            problem_information: true,
            authentication_method: false,
            will: flags.will(),
        };
        if version == Version::V5 {
            connect.read_properties(&mut reader, user_properties_max)?;
        }
        connect.client_id = reader.text()?;
        if flags.will() {
            read_will(&mut reader, version, user_properties_max)?;
        }
        if flags.username() {
            connect.username = Some(reader.text()?);
        }
        if flags.password() {
            connect.password = Some(reader.binary()?);
        }
        reader.finish()?;
        Ok(connect)
    }

    fn read_properties(
        &mut self,
        reader: &mut Reader<'a>,
        user_properties_max: u16,
    ) -> Result<(), Violation> {
        let mut authentication_data = false;
        let read =
            properties::read(reader, Allowed::CONNECT, user_properties_max, |property, value| {
                match (property, value) {
                    (id::SESSION_EXPIRY_INTERVAL, Value::FourBytes(s)) => self.session_expiry_s = s,
                    (id::RECEIVE_MAXIMUM, Value::TwoBytes(0)) => {
                        return Err(Violation::protocol("Receive Maximum 0"));
                    }
                    (id::RECEIVE_MAXIMUM, Value::TwoBytes(count)) => self.receive_maximum = count,
                    (id::MAXIMUM_PACKET_SIZE, Value::FourBytes(0)) => {
                        return Err(Violation::protocol("Maximum Packet Size 0"));
                    }
                    (id::MAXIMUM_PACKET_SIZE, Value::FourBytes(bytes)) => {
                        self.maximum_packet_size = Some(bytes);
                    }
                    (id::TOPIC_ALIAS_MAXIMUM, Value::TwoBytes(count)) => {
                        self.topic_alias_maximum = count;
                    }
                    (id::REQUEST_PROBLEM_INFORMATION, Value::Byte(byte)) => {
                        self.problem_information = properties::flag(byte)?;
                    }
                    (id::REQUEST_RESPONSE_INFORMATION, Value::Byte(byte)) => {
                        // The server may leave the wish unanswered (section 3.1.2.11.6); it does.
                        properties::flag(byte)?;
                    }
                    (id::AUTHENTICATION_METHOD, _) => self.authentication_method = true,
                    (id::AUTHENTICATION_DATA, _) => authentication_data = true,
                    _ => {}
                }
                Ok(())
            });
        self.user_properties = read?;
        if authentication_data && !self.authentication_method {
            return Err(Violation::protocol("authentication data without a method"));
        }
        Ok(())
    }
}

/// Walks over a will, which must be well-formed even though it will be refused.
fn read_will(
    reader: &mut Reader<'_>,
    version: Version,
    user_properties_max: u16,
) -> Result<(), Violation> {
    if version == Version::V5 {
        properties::read(reader, Allowed::WILL, user_properties_max, |_, _| Ok(()))?;
    }
    reader.text()?; // topic
    reader.binary()?; // payload
    Ok(())
}

/// What a CONNACK grants in MQTT 5 (section 3.2.2.3). Maximum QoS is always 1, and subscriptions of
/// every special kind are always unavailable.
pub(super) struct Grants<'a> {
    /// Zero, said only where the client asked for more.
    pub session_expiry_denied: bool,
    pub receive_maximum: u16,
    pub packet_bytes_max: u32,
    pub assigned_client_id: Option<&'a str>,
    pub topic_alias_maximum: u16,
    pub server_keep_alive_s: Option<u16>,
}

/// CONNACK, success, MQTT 5.
pub(super) fn put_accepted(grants: &Grants<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    let two_bytes = |property: u8, value: u16, out: &mut Vec<u8>| {
        out.push(property);
        out.extend_from_slice(&value.to_be_bytes());
    };
    let four_bytes = |property: u8, value: u32, out: &mut Vec<u8>| {
        out.push(property);
        out.extend_from_slice(&value.to_be_bytes());
    };
    if grants.session_expiry_denied {
        four_bytes(id::SESSION_EXPIRY_INTERVAL, 0, out);
    }
    two_bytes(id::RECEIVE_MAXIMUM, grants.receive_maximum, out);
    out.extend_from_slice(&[id::MAXIMUM_QOS, 1]);
    four_bytes(id::MAXIMUM_PACKET_SIZE, grants.packet_bytes_max, out);
    if let Some(client_id) = grants.assigned_client_id {
        out.push(id::ASSIGNED_CLIENT_IDENTIFIER);
        put_text(client_id, out);
    }
    if grants.topic_alias_maximum > 0 {
        two_bytes(id::TOPIC_ALIAS_MAXIMUM, grants.topic_alias_maximum, out);
    }
    out.extend_from_slice(&[
        id::WILDCARD_SUBSCRIPTION_AVAILABLE,
        0,
        id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
        0,
        id::SHARED_SUBSCRIPTION_AVAILABLE,
        0,
    ]);
    if let Some(seconds) = grants.server_keep_alive_s {
        two_bytes(id::SERVER_KEEP_ALIVE, seconds, out);
    }

    // The header is known once the properties are: written behind them, it trades places.
    let properties = out.len() - start;
    out.push(packet::CONNACK << 4);
    put_varint(2 + varint_bytes(properties) + properties, out);
    out.extend_from_slice(&[0, 0]); // no session present, success
    put_varint(properties, out);
    out[start..].rotate_left(properties);
}

/// CONNACK, success, MQTT 3.1.1: no session present, return code 0.
pub(super) const ACCEPTED_V311: [u8; 4] = [packet::CONNACK << 4, 2, 0, 0];

/// CONNACK, failure, MQTT 3.1.1.
pub(super) fn refused_v311(return_code: u8) -> [u8; 4] {
    [packet::CONNACK << 4, 2, 0, return_code]
}
