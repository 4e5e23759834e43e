//! What bounds one connection. The shard fills it from the configuration; CONNACK tells the client.

/// What one connection may ask for. The same limits must be passed to every call for one
/// connection: they are what CONNACK promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest packet, its fixed header included; told in MQTT 5 (Maximum Packet Size). At least
    /// 64.
    pub packet_bytes_max: u32,
    /// QoS 1 messages in flight from one client; binds and is told in MQTT 5. At least 1.
    pub receive_maximum: u16,
    /// Topic aliases a client may set; 0 for none.
    pub topic_alias_maximum: u16,
    /// Bytes of all topics behind the aliases of one connection.
    pub topic_alias_bytes_max: u32,
    /// User properties in one packet.
    pub user_properties_max: u16,
    /// Bytes of a client identifier.
    pub client_id_bytes_max: u16,
    /// The longest keep alive that is granted, in seconds; 0 for any, also none. Binds in MQTT 5
    /// only: a client that speaks 3.1.1 cannot be told.
    pub keep_alive_s_max: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_bytes_max: 1 << 20,
            receive_maximum: 256,
            topic_alias_maximum: 32,
            topic_alias_bytes_max: 8 << 10,
            user_properties_max: 64,
            client_id_bytes_max: 1024,
            keep_alive_s_max: 0,
        }
    }
}
