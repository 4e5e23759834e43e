//! loom's models of the ring, the lane and the door: every interleaving of their threads up to a
//! number of preemptions, with every value that the orderings allow a load to see.
//!
//! `scripts/models.sh` runs them. A lost wake-up shows as a deadlock, a slot or a buffer that two
//! threads touch at once as a violation of causality. [`every_ordering_is_needed`] weakens one place
//! of the source after the other and wants a model to fail for each, so that none of them passes for
//! want of looking.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize as Count;

use loom::sync::{Arc, Notify};
use loom::thread;

use super::sync::{AtomicBool, Ordering, UnsafeCell};
use super::weakened::WEAKEN;
use super::{Door, Inbound, Outbound, lane, ring};

/// Explores `model` with at most three preemptions, unless LOOM_MAX_PREEMPTIONS says otherwise.
fn check(model: impl Fn() + Sync + Send + 'static) {
    check_within(3, model);
}

/// As `check`, for a model that is too large for three.
fn check_within(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut explored = loom::model::Builder::new();
    explored.preemption_bound.get_or_insert(preemptions);
    explored.max_branches = 10_000;
    explored.check(model);
}

/// A shard's door, and where it sleeps: it remembers a knock, as an eventfd does.
#[derive(Clone)]
struct Bed {
    door: Arc<Door>,
    knocked: Arc<Notify>,
}

impl Bed {
    fn new() -> Self {
        let knocked = Arc::new(Notify::new());
        let knock = Arc::clone(&knocked);
        Self { door: Arc::new(Door::new(move || knock.notify())), knocked }
    }

    /// Sleeps until somebody knocks, unless there is something to do.
    fn sleep_unless(&self, something_to_do: impl FnOnce() -> bool) {
        self.door.lie_down();
        if !something_to_do() {
            self.knocked.wait();
        }
        self.door.get_up();
    }
}

// The ring.

#[test]
fn values_arrive_in_order_whatever_is_published_and_released_at_once() {
    check(|| {
        let (mut producer, mut consumer) = ring(2);
        let pushing = thread::spawn(move || {
            for batch in [[1, 2], [3, 4]] {
                for number in batch {
                    let mut value = Box::new(number);
                    while let Err(back) = producer.stage(value) {
                        assert_eq!(*back, number, "what is refused is handed back");
                        value = back;
                        thread::yield_now();
                    }
                }
                producer.publish();
            }
        });
        let mut expected = 1;
        while expected <= 4 {
            match consumer.take() {
                Some(value) => {
                    assert_eq!(*value, expected);
                    expected += 1;
                }
                None => {
                    consumer.release();
                    thread::yield_now();
                }
            }
        }
        assert!(consumer.is_empty());
        pushing.join().unwrap();
    });
}

#[test]
fn batches_that_are_staged_from_values_and_taken_in_place_arrive_in_order() {
    check(|| {
        let (mut producer, mut consumer) = ring(2);
        let pushing = thread::spawn(move || {
            let mut values = (1..=3).map(Box::new);
            let mut staged = 0;
            while staged < 3 {
                staged += producer.stage_from(&mut values);
                if !producer.publish() {
                    thread::yield_now();
                }
            }
        });
        let mut expected = 1;
        while expected <= 3 {
            consumer.take_while(|value| {
                assert_eq!(**value, expected);
                expected += 1;
                true
            });
            if !consumer.release() {
                thread::yield_now();
            }
        }
        pushing.join().unwrap();
    });
}

#[test]
fn a_value_that_is_looked_at_stays_until_it_is_released() {
    check(|| {
        let (mut producer, mut consumer) = ring(1);
        let pushing = thread::spawn(move || {
            for mut value in [1, 2] {
                while let Err(back) = producer.push(value) {
                    value = back;
                    thread::yield_now();
                }
            }
        });
        for expected in [1, 2] {
            while consumer.take_while(|value| *value != expected) > 0 || consumer.is_empty() {
                thread::yield_now();
            }
            assert_eq!(consumer.take_while(|value| *value == expected), 1);
            consumer.release();
        }
        pushing.join().unwrap();
    });
}

/// Counts how often a value is dropped.
struct Counted(&'static Count);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn what_is_left_is_dropped_once_whoever_goes_last() {
    static DROPPED: Count = Count::new(0);
    check(|| {
        DROPPED.store(0, Ordering::Relaxed);
        let (mut producer, mut consumer) = ring(4);
        let pushing = thread::spawn(move || {
            for _ in 0..2 {
                assert!(producer.push(Counted(&DROPPED)).is_ok());
            }
            assert!(producer.stage(Counted(&DROPPED)).is_ok(), "staged and never published");
        });
        let taken = consumer.take();
        drop(consumer);
        drop(taken);
        pushing.join().unwrap();
        assert_eq!(DROPPED.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn what_a_dropped_consumer_took_may_be_overwritten() {
    check(|| {
        let (mut producer, mut consumer) = ring(1);
        assert_eq!(producer.push(1), Ok(()));
        let taking = thread::spawn(move || assert_eq!(consumer.take(), Some(1)));
        while producer.push(2).is_err() {
            thread::yield_now();
        }
        taking.join().unwrap();
    });
}

// The door.

#[test]
fn a_sleeper_notices_every_message() {
    check(|| {
        let (mut producer, mut consumer) = ring(2);
        let bed = Bed::new();
        let door = Arc::clone(&bed.door);
        let visiting = thread::spawn(move || {
            for message in [1, 2] {
                assert_eq!(producer.push(message), Ok(()));
                door.notify();
            }
        });
        let mut expected = 1;
        while expected <= 2 {
            while let Some(message) = consumer.pop() {
                assert_eq!(message, expected);
                expected += 1;
            }
            if expected <= 2 {
                bed.sleep_unless(|| !consumer.is_empty());
            }
        }
        visiting.join().unwrap();
    });
}

#[test]
fn a_sleeper_notices_whoever_comes() {
    check(|| {
        let (mut producer, mut consumer) = ring(1);
        let stop = Arc::new(AtomicBool::new(false));
        let bed = Bed::new();
        let (door, shutter) = (Arc::clone(&bed.door), Arc::clone(&bed.door));
        let visiting = thread::spawn(move || {
            assert_eq!(producer.push(()), Ok(()));
            door.notify();
        });
        let flag = Arc::clone(&stop);
        let stopping = thread::spawn(move || {
            flag.store(true, Ordering::Relaxed);
            shutter.notify();
        });
        let (mut has_message, mut stops) = (false, false);
        loop {
            has_message |= consumer.pop().is_some();
            stops |= stop.load(Ordering::Relaxed);
            if has_message && stops {
                break;
            }
            bed.sleep_unless(|| !consumer.is_empty() || stop.load(Ordering::Relaxed) != stops);
        }
        visiting.join().unwrap();
        stopping.join().unwrap();
    });
}

// The lane.

/// Sends one value that costs `bytes`, and sleeps as long as it cannot.
fn send_one(outbound: &mut Outbound<u32>, value: u32, bytes: u64, bed: &Bed) {
    while outbound.send(value, bytes).is_err() {
        outbound.want(bytes);
        bed.sleep_unless(|| outbound.can_send(1, bytes));
    }
    outbound.want(0);
    outbound.publish();
}

#[test]
fn who_waits_for_credit_is_told() {
    check(|| {
        let (mut outbound, mut inbound) = lane(1);
        let bed = Bed::new();
        let door = Arc::clone(&bed.door);
        let granting = thread::spawn(move || {
            // Comes in two parts, of which the first is too little.
            for bytes in [1, 2] {
                inbound.grant(bytes);
                if inbound.publish() {
                    door.notify();
                }
            }
            inbound
        });
        send_one(&mut outbound, 7, 3, &bed);
        let mut inbound = granting.join().unwrap();
        assert_eq!((inbound.take(3), inbound.outstanding()), (Some(7), 0));
        assert_eq!(outbound.credit(), (3, 3));
    });
}

#[test]
fn who_waits_for_a_slot_is_told() {
    check(|| {
        let (mut outbound, mut inbound) = lane(1);
        let bed = Bed::new();
        let door = Arc::clone(&bed.door);
        inbound.grant(10);
        assert!(!inbound.publish(), "nobody waits");
        send_one(&mut outbound, 1, 1, &bed);
        let taking = thread::spawn(move || {
            assert_eq!(inbound.take(1), Some(1));
            if inbound.publish() {
                door.notify();
            }
            inbound
        });
        send_one(&mut outbound, 2, 1, &bed);
        let mut inbound = taking.join().unwrap();
        assert_eq!((outbound.returned(), inbound.take(1)), (1, Some(2)));
    });
}

/// `want` and `publish` keep their word by themselves: who looked in vain after it said what it
/// wants is told of, whatever it sleeps behind.
#[test]
fn who_wants_and_finds_nothing_is_told_without_a_door() {
    check(|| {
        let (mut outbound, mut inbound) = lane::<u32>(1);
        let told = Arc::new(Notify::new());
        let tell = Arc::clone(&told);
        let granting = thread::spawn(move || {
            inbound.grant(1);
            if inbound.publish() {
                tell.notify();
            }
        });
        outbound.want(1);
        while !outbound.can_send(1, 1) {
            told.wait();
        }
        granting.join().unwrap();
    });
}

#[test]
fn a_sleeping_receiver_hears_who_wants() {
    check(|| {
        let (mut outbound, mut inbound) = lane(1);
        let (sender, receiver) = (Bed::new(), Bed::new());
        let (to_sender, to_receiver) = (Arc::clone(&sender.door), Arc::clone(&receiver.door));
        let granting = thread::spawn(move || {
            while inbound.wanted() == 0 {
                receiver.sleep_unless(|| inbound.wanted() > 0);
            }
            inbound.grant(inbound.wanted());
            if inbound.publish() {
                to_sender.notify();
            }
        });
        while outbound.send(7, 2).is_err() {
            if outbound.want(2) {
                to_receiver.notify();
            }
            sender.sleep_unless(|| outbound.can_send(1, 2));
        }
        granting.join().unwrap();
    });
}

/// A shard that sends `last` values, counted from 1, for a byte each, and takes as many, when each
/// lane holds the first of them already: both are full at once.
fn exchange(
    (mut outbound, mut inbound): (Outbound<u64>, Inbound<u64>),
    bed: &Bed,
    other: &Door,
    last: u64,
) {
    let mut taken = 0;
    loop {
        while let Some(value) = inbound.take(1) {
            taken += 1;
            assert_eq!(value, taken, "lost, doubled or out of order");
        }
        if inbound.publish() {
            other.notify();
        }
        while outbound.sent() < last && outbound.send(outbound.sent() + 1, 1).is_ok() {}
        if outbound.publish() | outbound.want(u64::from(outbound.sent() < last)) {
            other.notify();
        }
        if taken == last && outbound.sent() == last {
            break;
        }
        bed.sleep_unless(|| {
            !inbound.is_empty() || (outbound.sent() < last && outbound.can_send(1, 1))
        });
    }
}

#[test]
fn two_lanes_full_at_once_do_not_block_one_another() {
    check(|| {
        let full = || {
            let (mut outbound, mut inbound) = lane(1);
            inbound.grant(10);
            inbound.publish();
            assert_eq!(outbound.send(1, 1), Ok(1));
            assert_eq!(outbound.send(2, 1), Err(2));
            outbound.publish();
            (outbound, inbound)
        };
        let ((to, from), (back_to, back_from)) = (full(), full());
        let (here, there) = (Bed::new(), Bed::new());
        let (bed, other) = (there.clone(), Arc::clone(&here.door));
        let exchanging = thread::spawn(move || exchange((back_to, from), &bed, &other, 2));
        exchange((to, back_from), &here, &there.door, 2);
        exchanging.join().unwrap();
    });
}

/// Nothing is granted before it is wanted; both sides sleep.
#[test]
fn a_lane_carries_on_demand() {
    check_within(2, || {
        let (mut outbound, mut inbound) = lane(1);
        let (sender, receiver) = (Bed::new(), Bed::new());
        let (to_sender, to_receiver) = (Arc::clone(&sender.door), Arc::clone(&receiver.door));
        let taking = thread::spawn(move || {
            let mut taken = 0;
            while taken < 2 {
                while let Some(value) = inbound.take(1) {
                    taken += 1;
                    assert_eq!(value, taken, "lost, doubled or out of order");
                }
                inbound.settle(taken);
                inbound.grant(inbound.wanted().saturating_sub(inbound.outstanding()));
                if inbound.publish() {
                    to_sender.notify();
                }
                if taken < 2 {
                    receiver.sleep_unless(|| {
                        !inbound.is_empty() || inbound.wanted() > inbound.outstanding()
                    });
                }
            }
            inbound
        });
        while outbound.settled() < 2 {
            if outbound.sent() < 2 {
                let _full = outbound.send(outbound.sent() + 1, 1);
            }
            if outbound.publish() | outbound.want(u64::from(outbound.sent() < 2)) {
                to_receiver.notify();
            }
            let waits = outbound.sent() < 2;
            sender.sleep_unless(|| outbound.settled() == 2 || (waits && outbound.can_send(1, 1)));
        }
        let inbound = taking.join().unwrap();
        let (granted, spent) = outbound.credit();
        // A want that was seen late is granted once more and waits for the next value.
        assert_eq!((spent, granted - spent), (2, inbound.outstanding()));
        assert_eq!(outbound.returned(), 2);
    });
}

#[test]
fn credits_add_up_at_every_moment() {
    check(|| {
        let (mut outbound, mut inbound) = lane(4);
        let spending = thread::spawn(move || {
            let prices = [2, 1];
            for price in prices {
                while outbound.send(price, price).is_err() {
                    thread::yield_now();
                }
                let (granted, spent) = outbound.credit();
                assert!(spent <= granted, "more was spent than was granted");
                outbound.publish();
            }
            outbound
        });
        let mut arrived = 0;
        let mut granted = 0;
        while arrived < 3 {
            if granted < 4 {
                inbound.grant(1);
                granted += 1;
                inbound.publish();
            }
            let price = |price: &u64| {
                arrived += *price;
                Some(*price)
            };
            if inbound.take_while(price) == 0 {
                thread::yield_now();
            }
            assert!(arrived <= granted, "more has arrived than was granted");
            assert_eq!(inbound.outstanding(), granted - arrived);
        }
        let mut outbound = spending.join().unwrap();
        inbound.publish();
        assert_eq!(outbound.credit(), (granted, arrived), "granted = spent + free");
        assert_eq!(inbound.outstanding(), granted - arrived, "free = outstanding");
        assert_eq!(outbound.returned(), 2);
    });
}

#[test]
fn what_settled_a_value_happened_before() {
    check(|| {
        let (mut outbound, mut inbound) = lane::<u32>(1);
        let committed = Arc::new(UnsafeCell::new(0));
        let commit = Arc::clone(&committed);
        inbound.grant(1);
        inbound.publish();
        assert_eq!(outbound.send(7, 1), Ok(1));
        outbound.publish();
        let settling = thread::spawn(move || {
            let value = inbound.take(1).unwrap();
            // SAFETY: loom watches who else looks.
            #[allow(unsafe_code)]
            commit.with_mut(|place| unsafe { *place = value });
            inbound.settle(1);
            assert!(inbound.publish(), "there is something to acknowledge");
        });
        while outbound.settled() == 0 {
            thread::yield_now();
        }
        // SAFETY: as above.
        #[allow(unsafe_code)]
        committed.with(|place| assert_eq!(unsafe { *place }, 7));
        settling.join().unwrap();
    });
}

/// A value in the ring stands for a buffer, which is written again when its slot has come back.
#[test]
fn a_buffer_comes_back_with_its_slot() {
    check(|| {
        let (mut outbound, mut inbound) = lane(1);
        let buffer = Arc::new(UnsafeCell::new(0));
        inbound.grant(10);
        inbound.publish();
        let read = Arc::clone(&buffer);
        let taking = thread::spawn(move || {
            for expected in [1, 2] {
                while inbound.take(1).is_none() {
                    thread::yield_now();
                }
                // SAFETY: loom watches who else looks.
                #[allow(unsafe_code)]
                read.with(|place| assert_eq!(unsafe { *place }, expected));
                inbound.publish();
            }
        });
        for content in [1, 2] {
            while outbound.returned() < outbound.sent() {
                thread::yield_now();
            }
            // SAFETY: as above.
            #[allow(unsafe_code)]
            buffer.with_mut(|place| unsafe { *place = content });
            assert!(outbound.send((), 1).is_ok());
            outbound.publish();
        }
        taking.join().unwrap();
    });
}

#[test]
fn a_closed_lane_is_not_finished_before_its_last_value() {
    check(|| {
        let (mut outbound, mut inbound) = lane(2);
        inbound.grant(1);
        inbound.publish();
        let closing = thread::spawn(move || {
            assert_eq!(outbound.send(7, 1), Ok(1));
            outbound.publish();
            outbound.close();
        });
        let mut taken = 0;
        while !inbound.is_finished() {
            match inbound.take(1) {
                Some(_) => taken += 1,
                None => thread::yield_now(),
            }
        }
        assert_eq!(taken, 1);
        closing.join().unwrap();
    });
}

#[test]
fn an_abandoned_lane_has_told_what_is_settled() {
    check(|| {
        let (mut outbound, mut inbound) = lane(1);
        inbound.grant(1);
        inbound.publish();
        assert_eq!(outbound.send(7, 1), Ok(1));
        outbound.publish();
        let abandoning = thread::spawn(move || {
            inbound.take(1);
            inbound.settle(1);
            inbound.publish();
            inbound.abandon();
        });
        while !outbound.is_abandoned() {
            thread::yield_now();
        }
        assert_eq!(outbound.settled(), 1);
        abandoning.join().unwrap();
    });
}

/// As the slot does, so the end of the lane gives the buffer back.
#[test]
fn who_abandons_a_lane_has_done_with_its_buffers() {
    check(|| {
        let (mut outbound, mut inbound) = lane(1);
        let buffer = Arc::new(UnsafeCell::new(7));
        inbound.grant(1);
        inbound.publish();
        assert!(outbound.send((), 1).is_ok());
        outbound.publish();
        let read = Arc::clone(&buffer);
        let abandoning = thread::spawn(move || {
            assert!(inbound.take(1).is_some());
            // SAFETY: loom watches who else looks.
            #[allow(unsafe_code)]
            read.with(|place| assert_eq!(unsafe { *place }, 7));
            inbound.abandon();
        });
        while !outbound.is_abandoned() {
            thread::yield_now();
        }
        // SAFETY: as above.
        #[allow(unsafe_code)]
        buffer.with_mut(|place| unsafe { *place = 8 });
        abandoning.join().unwrap();
    });
}

// Whether the models look.

const SOURCES: [(&str, &str); 3] = [
    ("spsc.rs", include_str!("spsc.rs")),
    ("lane.rs", include_str!("lane.rs")),
    ("door.rs", include_str!("door.rs")),
];

/// The lines on which something stronger than `Relaxed` is asked for, as `file:line`.
fn orderings() -> Vec<String> {
    let mut places = Vec::new();
    for (file, text) in SOURCES {
        let product = text.lines().take_while(|line| *line != "#[cfg(test)]");
        for (line, code) in product.enumerate() {
            let code = code.split("//").next().unwrap_or_default();
            if ["Acquire", "Release", "AcqRel", "SeqCst"].iter().any(|word| code.contains(word)) {
                places.push(format!("{file}:{}", line + 1));
            }
        }
    }
    places
}

/// Runs this test binary, within two preemptions; whether it succeeded, and what it printed.
fn run(arguments: &[&str], weaken: Option<&str>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments).envs(weaken.map(|place| (WEAKEN, place)));
    command.env("LOOM_MAX_PREEMPTIONS", "2");
    let output = command.output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
}

/// The model that fails when `place` is weakened, and its first words.
fn who_notices(models: &[&str], place: &str) -> Option<String> {
    models.iter().find_map(|model| {
        let (passed, printed) = run(&["--exact", model], Some(place));
        let mut said = printed.lines().skip_while(|line| !line.contains("panicked at"));
        let said = said.nth(1).unwrap_or("ended without a word").trim().to_owned();
        (!passed).then(|| format!("{model}: {said}"))
    })
}

#[test]
fn every_ordering_is_needed() {
    if std::env::var_os(WEAKEN).is_some() {
        return;
    }
    let (_, listed) = run(&["--list", "ring::models::"], None);
    let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    let models: Vec<&str> = names.filter(|name| !name.ends_with("_is_needed")).collect();
    let places = Mutex::new(orderings().into_iter());
    let unnoticed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(place) = places.lock().unwrap().next() else { break };
                    match who_notices(&models, &place) {
                        Some(failure) => println!("{place} weakened: {failure}"),
                        None => unnoticed.lock().unwrap().push(place),
                    }
                }
            });
        }
    });
    let unnoticed = unnoticed.into_inner().unwrap();
    assert!(unnoticed.is_empty(), "weakened, and all models pass: {unnoticed:?}");
    assert!(!orderings().is_empty() && !models.is_empty(), "there was nothing to weaken");
}
