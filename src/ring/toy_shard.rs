//! A shard for tests, with nothing in it but what rings, lanes and credits are for: connections whose
//! letters go to one or several other shards, and a buffer of bounded bytes into which arrives what
//! the others send.
//!
//! It keeps to the rules of lane.rs. The buffer has room for what was granted: what
//! is buffered and what is outstanding never exceed `room`. A sender waits with the price of the
//! dearest letter that it cannot send; the receiver keeps `standing` bytes outstanding, or as much as
//! is waited for. A letter for several shards goes to all of them or to none. Checks order, loss,
//! doubling and conservation as it goes. Who calls it decides when each part has its turn.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::{Inbound, Outbound, lane};

/// Counts what is alive, so that what is lost or dropped twice shows.
pub struct Alive(Arc<AtomicI64>);

impl Alive {
    pub fn new(count: &Arc<AtomicI64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What crosses.
pub struct Parcel {
    connection: usize,
    /// Counts the parcels of this connection to this shard, from 0.
    number: u64,
    price: u64,
    /// On the heap, so that Miri sees a slot that is read twice.
    _alive: Box<Alive>,
}

/// What a connection sends.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The shards that it is for; not the sender itself.
    pub to: Vec<usize>,
    pub price: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub slots: usize,
    /// Bytes kept outstanding for a sender that waits for nothing.
    pub standing: u64,
    /// What the dearest letter costs.
    pub price_max: u64,
    /// Bytes of a shard's buffer.
    pub room: u64,
}

impl Options {
    /// As much room as is needed so that no shard waits for ever: each sender may hold what was
    /// granted to it while it waits for another shard.
    pub fn with_room_for_all(self, shards: usize) -> Self {
        let room = (shards as u64 - 1) * self.standing.max(self.price_max);
        Self { room, ..self }
    }
}

/// Both lanes between this shard and one other.
pub struct Way {
    pub outbound: Outbound<Parcel>,
    pub inbound: Inbound<Parcel>,
    /// Bytes granted to the other shard and taken from it.
    pub granted: u64,
    pub arrived: u64,
    /// Parcels taken from it.
    pub taken: u64,
    /// What `settled` of the way out was when the shard last looked.
    settled: u64,
    /// The next number of each of its connections.
    expected: HashMap<usize, u64>,
    closed: bool,
    /// This shard takes nothing more from the other, or the other nothing more from this one.
    pub abandoned: bool,
    pub is_abandoned: bool,
}

#[derive(Default)]
struct Connection {
    letters: VecDeque<Letter>,
    /// The next number for each shard.
    next: HashMap<usize, u64>,
}

pub struct ToyShard {
    pub id: usize,
    /// By shard; none to itself.
    pub ways: Vec<Option<Way>>,
    connections: Vec<Connection>,
    /// Whose turn is first.
    first: usize,
    options: Options,
    /// Bytes that have arrived and are not committed.
    buffered: u64,
    alive: Arc<AtomicI64>,
    /// How often a letter found no slot or no credit.
    pub refused: u64,
}

/// `count` shards with lanes between all ordered pairs.
pub fn shards(count: usize, options: Options, alive: &Arc<AtomicI64>) -> Vec<ToyShard> {
    let mut outbound: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
    let mut inbound: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
    for (from, outbound) in outbound.iter_mut().enumerate() {
        for (to, inbound) in inbound.iter_mut().enumerate() {
            let ends = (from != to).then(|| lane(options.slots)).unzip();
            outbound.push(ends.0);
            inbound.push(ends.1);
        }
    }
    let rows = outbound.into_iter().zip(inbound).enumerate();
    let shard = |(id, (outbound, inbound)): (usize, (Vec<_>, Vec<_>))| ToyShard {
        id,
        ways: outbound.into_iter().zip(inbound).map(|(out, into)| Way::new(out?, into?)).collect(),
        connections: Vec::new(),
        first: 0,
        options,
        buffered: 0,
        alive: Arc::clone(alive),
        refused: 0,
    };
    rows.map(shard).collect()
}

impl Way {
    fn new(outbound: Outbound<Parcel>, inbound: Inbound<Parcel>) -> Option<Self> {
        Some(Self {
            outbound,
            inbound,
            granted: 0,
            arrived: 0,
            taken: 0,
            settled: 0,
            expected: HashMap::new(),
            closed: false,
            abandoned: false,
            is_abandoned: false,
        })
    }

    /// What is to be outstanding, if there is room.
    fn target(&self, options: &Options) -> u64 {
        if self.abandoned { 0 } else { options.standing.max(self.inbound.wanted()) }
    }

    /// Whether nothing is on its way in either direction, and nothing ever will be.
    fn is_done(&mut self) -> bool {
        let sent_is_settled = self.is_abandoned || self.outbound.settled() == self.outbound.sent();
        self.closed && sent_is_settled && (self.abandoned || self.inbound.is_finished())
    }
}

impl ToyShard {
    /// A letter that `connection` is to send after those that it has.
    pub fn write(&mut self, connection: usize, letter: Letter) {
        assert!(letter.price <= self.options.price_max && !letter.to.contains(&self.id));
        if self.connections.len() <= connection {
            self.connections.resize_with(connection + 1, Connection::default);
        }
        self.connections[connection].letters.push_back(letter);
    }

    fn others(&mut self) -> impl Iterator<Item = (usize, &mut Way)> {
        let ways = self.ways.iter_mut().enumerate();
        ways.filter_map(|(other, way)| Some((other, way.as_mut()?)))
    }

    fn way(&mut self, other: usize) -> &mut Way {
        self.ways[other].as_mut().expect("a letter is for another shard")
    }

    /// Takes at most `limit` parcels from each of the others. Whether there were any.
    pub fn receive(&mut self, limit: usize) -> bool {
        let mut bytes = 0;
        for (_, way) in self.others().filter(|(_, way)| !way.abandoned) {
            let Way { inbound, expected, arrived, .. } = way;
            let mut left = limit;
            way.taken += inbound.take_while(|parcel| {
                left = left.checked_sub(1)?;
                let expected = expected.entry(parcel.connection).or_default();
                assert_eq!(parcel.number, *expected, "lost, doubled or out of order");
                *expected += 1;
                *arrived += parcel.price;
                bytes += parcel.price;
                Some(parcel.price)
            });
        }
        self.buffered += bytes;
        self.check();
        bytes > 0
    }

    /// Empties the buffer: what has arrived is settled.
    pub fn commit(&mut self) {
        self.buffered = 0;
        for (_, way) in self.others() {
            way.inbound.settle(way.taken);
        }
    }

    /// Bytes that are neither buffered nor promised to anybody.
    pub fn free(&self) -> u64 {
        let ways = self.ways.iter().flatten();
        // What was granted and abandoned never arrives.
        let outstanding = ways.filter(|way| !way.abandoned).map(|way| way.inbound.outstanding());
        let used = outstanding.sum::<u64>() + self.buffered;
        self.options.room.checked_sub(used).expect("more was granted than there is room for")
    }

    /// Grants what is missing, as far as there is room.
    pub fn grant(&mut self) {
        let (mut free, options) = (self.free(), self.options);
        for (_, way) in self.others() {
            let missing = way.target(&options).saturating_sub(way.inbound.outstanding());
            let bytes = missing.min(free);
            way.inbound.grant(bytes);
            way.granted += bytes;
            free -= bytes;
        }
        self.check();
    }

    /// Whether every shard that `letter` is for would take it now.
    fn can_send(&mut self, letter: &Letter) -> bool {
        letter.to.iter().all(|&to| {
            let way = self.ways[to].as_mut().expect("a letter is for another shard");
            way.is_abandoned || way.outbound.can_send(1, letter.price)
        })
    }

    /// Sends at most `limit` letters. Whether there were any.
    pub fn send(&mut self, limit: usize) -> bool {
        let (mut sent, count) = (0, self.connections.len());
        for connection in (self.first..count).chain(0..self.first.min(count)) {
            while sent < limit
                && let Some(letter) = self.connections[connection].letters.pop_front()
            {
                if !self.can_send(&letter) {
                    self.connections[connection].letters.push_front(letter);
                    self.refused += 1;
                    break;
                }
                self.send_to_all(connection, &letter);
                sent += 1;
            }
        }
        self.first = (self.first + 1) % count.max(1);
        sent > 0
    }

    fn send_to_all(&mut self, connection: usize, letter: &Letter) {
        for &to in &letter.to {
            let alive = Box::new(Alive::new(&self.alive));
            let next = self.connections[connection].next.entry(to).or_default();
            let parcel = Parcel { connection, number: *next, price: letter.price, _alive: alive };
            *next += 1;
            let way = self.way(to);
            if !way.is_abandoned {
                let number = way.outbound.send(parcel, letter.price);
                let number = number.unwrap_or_else(|_| panic!("it could be sent a moment ago"));
                assert_eq!(number, way.outbound.sent());
            }
        }
    }

    /// Lets the others see what was done, and calls `tell` with each that must be told.
    pub fn publish(&mut self, mut tell: impl FnMut(usize)) {
        let wants = self.wants();
        for (other, way) in self.others() {
            // Each of them, whatever the ones before have said.
            if way.outbound.publish() | way.outbound.want(wants[other]) | way.inbound.publish() {
                tell(other);
            }
            if way.outbound.is_abandoned() {
                way.is_abandoned = true;
            }
            way.settled = way.outbound.settled();
        }
        self.check();
    }

    /// For each shard, the price of the dearest letter that waits for it.
    fn wants(&mut self) -> Vec<u64> {
        let mut wants = vec![0; self.ways.len()];
        let letters: Vec<Letter> = self.first_letters().cloned().collect();
        for letter in letters {
            if !self.can_send(&letter) {
                letter.to.iter().for_each(|&to| wants[to] = letter.price.max(wants[to]));
            }
        }
        wants
    }

    /// Whether all that is left is to wait: the last look before sleeping.
    pub fn is_idle(&mut self, reads: bool) -> bool {
        let options = self.options;
        let has_room = self.free() > 0;
        let mut idle = !reads || self.buffered == 0;
        for (_, way) in self.others() {
            idle &= way.outbound.settled() == way.settled;
            idle &= way.outbound.is_abandoned() == way.is_abandoned;
            if reads && !way.abandoned {
                let missing = way.target(&options) > way.inbound.outstanding();
                idle &= way.inbound.is_empty() && !(missing && has_room);
            }
        }
        let letters: Vec<Letter> = self.first_letters().cloned().collect();
        idle && !letters.iter().any(|letter| self.can_send(letter))
    }

    /// The letters that are next, one a connection.
    pub fn first_letters(&self) -> impl Iterator<Item = &Letter> {
        self.connections.iter().filter_map(|connection| connection.letters.front())
    }

    /// Letters that were not sent.
    pub fn unsent(&self) -> impl Iterator<Item = &Letter> {
        self.connections.iter().flat_map(|connection| &connection.letters)
    }

    /// Says that nothing more will be sent, once that is so, and calls `tell` with each that must be
    /// told.
    pub fn close(&mut self, mut tell: impl FnMut(usize)) {
        if self.unsent().next().is_none() {
            for (other, way) in self.others().filter(|(_, way)| !way.closed) {
                way.outbound.close();
                way.closed = true;
                tell(other);
            }
        }
    }

    /// Takes nothing more from `other`. Whether it must be told.
    pub fn abandon(&mut self, other: usize) -> bool {
        match &mut self.ways[other] {
            Some(way) if !way.abandoned => {
                way.inbound.abandon();
                way.abandoned = true;
                true
            }
            _ => false,
        }
    }

    /// Whether all lanes are closed or abandoned and everything on them is settled.
    pub fn is_done(&mut self) -> bool {
        self.buffered == 0 && self.others().all(|(_, way)| way.is_done())
    }

    /// What holds at every moment, as far as one shard sees it.
    fn check(&mut self) {
        let _ = self.free();
        for (_, way) in self.others() {
            let (granted, spent) = way.outbound.credit();
            assert!(spent <= granted, "more was spent than was granted");
            assert!(way.outbound.returned() <= way.outbound.sent(), "a slot came back twice");
            assert!(way.outbound.settled() <= way.outbound.sent(), "settled before it was sent");
            assert_eq!(way.inbound.outstanding(), way.granted - way.arrived);
        }
    }
}

/// What holds between the two ends of each lane when nothing is on its way: all that was sent has
/// arrived and is settled, and all credit is spent or free, none lost on its way.
pub fn check_at_rest(shards: &mut [ToyShard]) {
    for from in 0..shards.len() {
        for to in (0..shards.len()).filter(|to| *to != from) {
            let way = shards[from].way(to);
            let (outbound, is_abandoned) = (&mut way.outbound, way.is_abandoned);
            let (granted, spent) = outbound.credit();
            let (sent, back) = (outbound.sent(), (outbound.returned(), outbound.settled()));
            let way = shards[to].way(from);
            assert!(way.abandoned || !is_abandoned, "{from} to {to}: nobody has abandoned it");
            if !way.abandoned {
                assert_eq!((spent, sent), (way.arrived, way.taken), "{from} to {to}: lost");
                assert_eq!(back, (sent, sent), "{from} to {to}: did not come back");
                assert_eq!(granted, way.granted, "{from} to {to}: credit got lost");
                assert_eq!(granted - spent, way.inbound.outstanding());
            }
        }
    }
}

/// A small generator of numbers (splitmix64), so that a seed repeats a run.
pub struct Dice(pub u64);

impl Dice {
    /// Below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
