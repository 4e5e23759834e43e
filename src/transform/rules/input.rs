//! A message as rules see it.

/// What came from a client, wherever it lies.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub topic: &'a str,
    pub client_id: &'a str,
    pub payload: &'a [u8],
    pub qos: u8,
    pub retain: bool,
    pub username: Option<&'a str>,
    pub content_type: Option<&'a str>,
    pub properties: &'a dyn Properties,
    /// When it came, in milliseconds since 1970.
    pub received_ms: i64,
    /// What each record of it has beside value, key and headers of rules.
    pub overhead_bytes: usize,
}

impl<'a> Input<'a> {
    /// A payload at QoS 1, of which nothing else is said.
    pub fn new(topic: &'a str, client_id: &'a str, payload: &'a [u8]) -> Self {
        Self {
            topic,
            client_id,
            payload,
            qos: 1,
            retain: false,
            username: None,
            content_type: None,
            properties: &(),
            received_ms: 0,
            overhead_bytes: 0,
        }
    }
}

/// The user properties of a message.
pub trait Properties {
    /// The value of the first one of that name.
    fn first(&self, name: &str) -> Option<&str>;
}

/// A message without user properties.
impl Properties for () {
    fn first(&self, _: &str) -> Option<&str> {
        None
    }
}

impl std::fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes from {} on {}", self.payload.len(), self.client_id, self.topic)
    }
}
