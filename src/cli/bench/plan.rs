//! What a load does: scenario, loop, messages, times.
//!
//! In: arguments that were read. Out: a plan that the generator follows, and the schedule that
//! belongs to it. The invariant: a plan can be run as it is; what does not fit together was refused
//! when it was made.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::consume;
use super::payload::Kind;
use super::schedule::Schedule;
use super::wire::Version;

/// Who sends when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// All connections alike.
    FanIn,
    /// All alike, with a second of ten times the rate in every ten.
    Burst,
    /// The first connection has 90 % of the rate.
    Skew,
    /// Nobody publishes, all keep alive.
    Idle,
    /// All connect, and nothing follows.
    ConnectStorm,
    /// Each publisher has a subscriber of its own.
    OneToOne,
    /// One publishes, many subscribe.
    FanOut,
    /// As fan-in, and somebody beside the others reads slowly.
    SlowConsumer,
}

impl Scenario {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::FanIn => "fan-in",
            Self::Burst => "burst",
            Self::Skew => "skew",
            Self::Idle => "idle",
            Self::ConnectStorm => "connect-storm",
            Self::OneToOne => "one-to-one",
            Self::FanOut => "fan-out",
            Self::SlowConsumer => "slow-consumer",
        }
    }

    const ALL: [Self; 8] = [
        Self::FanIn,
        Self::Burst,
        Self::Skew,
        Self::Idle,
        Self::ConnectStorm,
        Self::OneToOne,
        Self::FanOut,
        Self::SlowConsumer,
    ];
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = if text == "1:1" { Self::OneToOne.name() } else { text };
        let found = Self::ALL.into_iter().find(|scenario| scenario.name() == text);
        found.ok_or_else(|| {
            format!("{text:?} is not one of {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

/// Closed or open loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopKind {
    /// So many messages in flight on each connection.
    Closed { window: u16 },
    /// So many messages a second in total, at most so many in flight on each connection.
    Open { rate_per_s: u64, in_flight_max: u16 },
}

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    pub address: SocketAddr,
    pub version: Version,
    pub scenario: Scenario,
    pub connections: u32,
    pub loop_kind: LoopKind,
    /// 0 or 1.
    pub qos: u8,
    pub payload: Kind,
    pub payload_bytes: usize,
    /// `{client}` stands for the client id.
    pub topic: String,
    pub client_prefix: String,
    pub warmup: Duration,
    pub duration: Duration,
    /// Open loop: how long late acknowledgements are waited for.
    pub drain: Duration,
    /// The process under test.
    pub process: Option<u32>,
    /// A Kafka consumer beside it.
    pub consume: Option<consume::Options>,
    /// MQTT subscribers beside it.
    pub subscribers: u32,
    /// One thread on each; none: the calling thread, as it is.
    pub cores: Vec<usize>,
    /// A line a second on stderr.
    pub progress: bool,
}

/// Idle connections promise to be heard of within this...
pub const KEEP_ALIVE_S: u16 = 60;
/// ... and ping about twice as often.
const PING_EVERY_S: u64 = 30;

/// The rate at which all idle connections together ping.
pub fn pings_per_s(connections: u32) -> u64 {
    u64::from(connections).div_ceil(PING_EVERY_S)
}

impl Plan {
    /// Open loop: when each connection sends what.
    pub fn schedule(&self) -> Option<Schedule> {
        let LoopKind::Open { rate_per_s, .. } = self.loop_kind else { return None };
        let even = Schedule::even(rate_per_s, u64::from(self.connections));
        Some(match self.scenario {
            Scenario::Burst => even.with_bursts(),
            Scenario::Skew => even.with_skew(),
            _ => even,
        })
    }

    /// Generator threads.
    pub fn threads(&self) -> u32 {
        (self.cores.len() as u32).max(1)
    }

    /// The keep-alive of its CONNECTs.
    pub fn keep_alive_s(&self) -> u16 {
        if self.scenario == Scenario::Idle { KEEP_ALIVE_S } else { 0 }
    }

    /// Whether payloads carry their origin for somebody who reads along.
    pub fn is_read(&self) -> bool {
        self.consume.is_some() || self.subscribers > 0
    }

    /// What a subscriber subscribes to.
    pub fn filter(&self, subscriber: u32) -> String {
        match self.scenario {
            Scenario::OneToOne => self.topic.replace("{client}", &self.client_id(subscriber)),
            // A wildcard stands for a whole level.
            _ => {
                let levels = self.topic.split('/');
                let levels = levels.map(|one| if one.contains("{client}") { "+" } else { one });
                levels.collect::<Vec<_>>().join("/")
            }
        }
    }

    /// The client id of a connection.
    pub fn client_id(&self, index: u32) -> String {
        format!("{}{index}", self.client_prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_by_name() {
        assert_eq!("burst".parse(), Ok(Scenario::Burst));
        let refused = |text: &str| text.parse::<Scenario>().unwrap_err();
        assert_eq!("1:1".parse(), Ok(Scenario::OneToOne));
        assert!(refused("fan").contains("fan-out"));
        assert!(refused("storm").contains("connect-storm"));
    }

    #[test]
    fn idle_connections_ping_well_within_their_keep_alive() {
        for connections in [1, 7, 30, 1_000, 20_000] {
            let period_s = f64::from(connections) / pings_per_s(connections) as f64;
            assert!(period_s <= 30.0, "{connections} connections, one ping in {period_s} s");
        }
    }
}
