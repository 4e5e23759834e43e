//! Which connection speaks for a client: the one that was accepted last.
//!
//! In: clients that connect and connections that end. Out: who is taken over, and who comes too late.
//! A connection that is handed over by a busy shard can arrive when the client's next one is there
//! already, or has even come and gone. It was accepted earlier, so what it carries is older than what
//! the log has from the client: it is refused, and the client sends again what was not acknowledged.
//!
//! Nobody may take longer than the connect timeout from being accepted to CONNECT, hand-over
//! included. So a client that has gone is remembered only until its last connection was accepted that
//! long ago: not at all, if it stayed longer. The memory has a limit; who is forgotten early raises
//! the time before which nobody may have been accepted. Not known is in which order connections came
//! that wait in the queues of two listeners.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use super::ConnId;

/// Clients remembered after they have gone.
const GONE_MAX: usize = 8192;

/// What becomes of a connection whose client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It speaks for the client, which had no other.
    Alone,
    /// It speaks for the client, and the other one no longer does.
    TakesOver(ConnId),
    /// The client has connected anew since this one was accepted, or may have.
    Late,
}

/// The clients of one shard.
pub struct Clients {
    /// Who speaks for a client, and when it was accepted.
    connected: HashMap<Rc<str>, (ConnId, u64)>,
    gone: Gone,
    connect_timeout_ns: u64,
}

impl Clients {
    /// No client yet. `connect_timeout_ns`: from accepted to CONNECT at the most.
    pub fn new(connect_timeout_ns: u64) -> Self {
        Self { connected: HashMap::new(), gone: Gone::default(), connect_timeout_ns }
    }

    /// A client connects on `conn`, which was accepted at `accepted_ns`.
    pub fn enter(
        &mut self,
        client_id: &Rc<str>,
        conn: ConnId,
        accepted_ns: u64,
        now_ns: u64,
    ) -> Entry {
        let overtaken = match self.connected.get(client_id) {
            Some((_, newer_ns)) => *newer_ns > accepted_ns,
            None => self.gone.is_newer(client_id, accepted_ns),
        };
        if overtaken || now_ns.saturating_sub(accepted_ns) > self.connect_timeout_ns {
            return Entry::Late;
        }
        match self.connected.insert(client_id.clone(), (conn, accepted_ns)) {
            Some((old, _)) => Entry::TakesOver(old),
            None => Entry::Alone,
        }
    }

    /// A connection ends; it may have spoken for the client.
    pub fn leave(&mut self, client_id: &Rc<str>, conn: ConnId, now_ns: u64) {
        let Some(&(holder, accepted_ns)) = self.connected.get(client_id) else { return };
        if holder != conn {
            return;
        }
        self.connected.remove(client_id);
        let oldest_ns = now_ns.saturating_sub(self.connect_timeout_ns);
        self.gone.forget_before(oldest_ns);
        if accepted_ns >= oldest_ns {
            self.gone.remember(client_id, accepted_ns);
        }
    }
}

/// Clients that left soon after they came, by the hashes of their identifiers: two that share one
/// cost a client a second try, and a long identifier no memory.
#[derive(Default)]
struct Gone {
    hasher: RandomState,
    /// When the client's last connection was accepted.
    accepted_ns: HashMap<u64, u64>,
    /// In the order in which they left.
    order: VecDeque<(u64, u64)>,
    /// Of those forgotten before their time, the last was accepted then.
    floor_ns: u64,
}

impl Gone {
    fn is_newer(&self, client_id: &str, accepted_ns: u64) -> bool {
        let hash = self.hasher.hash_one(client_id);
        accepted_ns < self.floor_ns
            || self.accepted_ns.get(&hash).is_some_and(|newer_ns| *newer_ns > accepted_ns)
    }

    fn remember(&mut self, client_id: &str, accepted_ns: u64) {
        if self.order.len() == GONE_MAX
            && let Some(early_ns) = self.forget_first()
        {
            self.floor_ns = self.floor_ns.max(early_ns);
        }
        let hash = self.hasher.hash_one(client_id);
        self.order.push_back((hash, accepted_ns));
        let newest_ns = self.accepted_ns.entry(hash).or_default();
        *newest_ns = accepted_ns.max(*newest_ns);
    }

    fn forget_before(&mut self, oldest_ns: u64) {
        while self.order.front().is_some_and(|(_, accepted_ns)| *accepted_ns < oldest_ns) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) -> Option<u64> {
        let (hash, accepted_ns) = self.order.pop_front()?;
        // Unless the client has left once more since.
        if self.accepted_ns.get(&hash) == Some(&accepted_ns) {
            self.accepted_ns.remove(&hash);
        }
        Some(accepted_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: u64 = 1_000;

    fn enter(clients: &mut Clients, name: &str, conn: u32, accepted_ns: u64, now_ns: u64) -> Entry {
        clients.enter(&Rc::from(name), ConnId(conn), accepted_ns, now_ns)
    }

    fn leave(clients: &mut Clients, name: &str, conn: u32, now_ns: u64) {
        clients.leave(&Rc::from(name), ConnId(conn), now_ns);
    }

    #[test]
    fn the_connection_that_was_accepted_last_speaks_for_the_client() {
        let mut clients = Clients::new(TIMEOUT);
        assert_eq!(enter(&mut clients, "a", 1, 10, 20), Entry::Alone);
        assert_eq!(enter(&mut clients, "a", 2, 15, 21), Entry::TakesOver(ConnId(1)));
        assert_eq!(enter(&mut clients, "a", 3, 12, 22), Entry::Late);
        // The one that was taken over ends: the other goes on.
        leave(&mut clients, "a", 1, 23);
        assert_eq!(enter(&mut clients, "a", 4, 24, 24), Entry::TakesOver(ConnId(2)));
    }

    #[test]
    fn an_older_connection_comes_too_late_when_the_newer_has_come_and_gone() {
        let mut clients = Clients::new(TIMEOUT);
        enter(&mut clients, "a", 2, 15, 20);
        leave(&mut clients, "a", 2, 21);
        assert_eq!(enter(&mut clients, "a", 1, 14, 22), Entry::Late);
        assert_eq!(enter(&mut clients, "b", 3, 14, 22), Entry::Alone);
        assert_eq!(enter(&mut clients, "a", 4, 23, 23), Entry::Alone);
    }

    #[test]
    fn whoever_takes_longer_than_the_timeout_is_late_so_nobody_is_remembered_longer() {
        let mut clients = Clients::new(TIMEOUT);
        enter(&mut clients, "a", 1, 10, 20);
        leave(&mut clients, "a", 1, 30);
        enter(&mut clients, "b", 2, 900, 900);
        leave(&mut clients, "b", 2, 1_011);
        assert_eq!(clients.gone.order.len(), 1, "of a only the memory is gone");
        assert_eq!(enter(&mut clients, "a", 3, 9, 1_011), Entry::Late);
        enter(&mut clients, "c", 4, 1_011, 1_012);
        leave(&mut clients, "c", 4, 5_000);
        assert!(clients.gone.order.is_empty() && clients.gone.accepted_ns.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_who_is_forgotten_early_still_refuses_what_is_older() {
        let mut clients = Clients::new(1_000_000_000);
        for accepted_ns in 1..=3 * GONE_MAX as u64 {
            enter(&mut clients, &accepted_ns.to_string(), 1, accepted_ns, accepted_ns);
            leave(&mut clients, &accepted_ns.to_string(), 1, accepted_ns);
        }
        assert_eq!(clients.gone.order.len(), GONE_MAX);
        assert_eq!(clients.gone.accepted_ns.len(), GONE_MAX);
        let now_ns = 4 * GONE_MAX as u64;
        assert_eq!(enter(&mut clients, "5", 1, 4, now_ns), Entry::Late);
        let forgotten = 2 * GONE_MAX as u64;
        assert_eq!(enter(&mut clients, "new", 1, forgotten, now_ns), Entry::Alone);
    }

    #[test]
    fn a_client_that_leaves_twice_is_remembered_by_its_later_connection() {
        let mut clients = Clients::new(TIMEOUT);
        for accepted_ns in [10, 500] {
            enter(&mut clients, "a", 1, accepted_ns, accepted_ns);
            leave(&mut clients, "a", 1, accepted_ns + 1);
        }
        clients.gone.forget_before(400);
        assert_eq!(enter(&mut clients, "a", 1, 499, 600), Entry::Late);
    }
}
