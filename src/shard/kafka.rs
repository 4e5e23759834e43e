//! Kafka on a shard: requests against the log, long polls woken by commits.

use super::connection::{Conn, Role, Stage};
use super::{ConnId, Core, Shard};
use crate::log::{FileKey, Log, Outcome, ReadRequest, TimeLookup};
use crate::observe::{Close, KafkaApi, Station};
use crate::record::{Offset, PartitionId, SharedBytes, StreamId};
use crate::serve::kafka as node;

/// The log of a shard as its Kafka node sees it.
struct Store<'a> {
    log: &'a mut Log,
    cluster: &'a node::Cluster,
}

impl node::Store for Store<'_> {
    fn cluster(&self) -> &node::Cluster {
        self.cluster
    }

    fn bounds(&self, stream: StreamId, partition: PartitionId) -> Option<node::Bounds> {
        let bounds = self.log.bounds(stream, partition)?;
        Some(node::Bounds {
            log_start: bounds.start,
            high_watermark: bounds.committed,
            log_end: bounds.next,
        })
    }

    fn read(
        &mut self,
        stream: StreamId,
        partition: PartitionId,
        from: Offset,
        bytes_max: usize,
        oversize_first: bool,
        out: &mut Vec<u8>,
    ) -> node::Read {
        let place = (stream, partition);
        let take = |batch: &[u8]| out.extend_from_slice(batch);
        match self.log.read(place, from, bytes_max, oversize_first, take) {
            Outcome::Data(bytes, next) => node::Read::Data { bytes, next },
            Outcome::End => node::Read::End,
            Outcome::Pending => node::Read::Pending,
            Outcome::OutOfRange => node::Read::OutOfRange,
            Outcome::Damaged => node::Read::Damaged,
        }
    }

    fn find_time(
        &mut self,
        stream: StreamId,
        partition: PartitionId,
        timestamp_ms: i64,
    ) -> node::TimeLookup {
        match self.log.find_time(stream, partition, timestamp_ms) {
            TimeLookup::Found(offset, timestamp_ms) => {
                node::TimeLookup::Found { offset, timestamp_ms }
            }
            TimeLookup::NotFound => node::TimeLookup::NotFound,
            TimeLookup::Pending => node::TimeLookup::Pending,
            TimeLookup::Damaged => node::TimeLookup::Damaged,
        }
    }
}

impl Core {
    /// Takes what came from a Kafka connection; with no bytes, goes on with what it has.
    pub(super) fn kafka_bytes(&mut self, id: ConnId, conn: &mut Conn, bytes: &[u8]) {
        conn.assembly.extend_from_slice(bytes);
        let mut at = 0;
        while conn.unsent_bytes() <= self.options.kafka_send_bytes_max {
            let Role::Kafka(kafka) = &mut conn.role else { return };
            if kafka.machine.parked().is_some() {
                break;
            }
            let input = &conn.assembly[at..];
            self.count_request(input);
            let mut store = Store { log: &mut self.log, cluster: &self.options.cluster };
            let now_ns = self.clock.now_ns;
            match kafka.machine.step(&self.options.kafka, input, &mut store, now_ns, &mut conn.out)
            {
                Ok(step) => {
                    at += step.consumed;
                    match step.state {
                        node::StepState::NeedMore { .. } => break,
                        node::StepState::Replied => {}
                        node::StepState::Parked => {
                            kafka.parked_ns = now_ns;
                            self.park(id, conn);
                        }
                    }
                }
                Err(violation) => {
                    self.refuse(id, conn, &violation);
                    return;
                }
            }
        }
        conn.assembly.drain(..at);
        // One request of the largest size may be under way; more than that can wait in the socket.
        if conn.assembly.len() > self.options.kafka.request_bytes_max + 4 {
            self.stop_receiving(id, conn);
        } else {
            self.receive(id, conn);
        }
        self.send(id, conn);
    }

    fn count_request(&self, input: &[u8]) {
        let Some(key) = input.get(4..6) else { return };
        let api = match i16::from_be_bytes([key[0], key[1]]) {
            1 => KafkaApi::Fetch,
            2 => KafkaApi::ListOffsets,
            3 => KafkaApi::Metadata,
            18 => KafkaApi::ApiVersions,
            _ => KafkaApi::Other,
        };
        let whole = input.get(..4).is_some_and(|prefix| {
            let bytes = i32::from_be_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]);
            usize::try_from(bytes).is_ok_and(|bytes| input.len() >= 4 + bytes)
        });
        if whole {
            self.options.metrics.kafka.requests.increment(api);
        }
    }

    fn refuse(&mut self, id: ConnId, conn: &mut Conn, violation: &node::Violation) {
        tracing::debug!("Kafka connection closed: {violation}");
        self.options.metrics.kafka.errors.increment(KafkaApi::Other);
        self.close(id, conn, Close::Rejected);
    }

    /// Registers what a parked request waits for.
    fn park(&mut self, id: ConnId, conn: &mut Conn) {
        let Role::Kafka(kafka) = &mut conn.role else { return };
        let Some(parked) = kafka.machine.parked() else { return };
        self.options.metrics.kafka.parked_fetches.add(1);
        for (stream, partition) in parked.wants {
            let slot = stream.index() * self.options.partitions as usize + partition.0 as usize;
            // Once, however often the request names it.
            if let Some(waiters) = self.waiters.get_mut(slot)
                && waiters.last() != Some(&id)
            {
                waiters.push(id);
                kafka.registered.push(slot);
            }
        }
        let due = parked.deadline_ns;
        if parked.disk {
            kafka.waits_for_disk = true;
            self.disk_waiters.push(id);
        }
        if let Some(due) = due {
            self.set_timer(id, conn, due);
        }
    }

    /// Takes back what [`Core::park`] registered.
    pub(super) fn unpark(&mut self, id: ConnId, conn: &mut Conn) {
        let Role::Kafka(kafka) = &mut conn.role else { return };
        if kafka.machine.parked().is_some() {
            self.options.metrics.kafka.parked_fetches.sub(1);
        }
        for slot in kafka.registered.drain(..) {
            self.waiters[slot].retain(|waiter| *waiter != id);
        }
        if std::mem::take(&mut kafka.waits_for_disk) {
            self.disk_waiters.retain(|waiter| *waiter != id);
        }
    }

    /// Looks at a parked request again.
    pub(super) fn resume_parked(&mut self, id: ConnId, conn: &mut Conn) {
        let Role::Kafka(kafka) = &conn.role else { return };
        if kafka.machine.parked().is_none() || conn.stage != Stage::Open {
            return;
        }
        self.unpark(id, conn);
        let Role::Kafka(kafka) = &mut conn.role else { return };
        let mut store = Store { log: &mut self.log, cluster: &self.options.cluster };
        let now_ns = self.clock.now_ns;
        match kafka.machine.resume(&self.options.kafka, &mut store, now_ns, &mut conn.out) {
            Ok(node::Resume::Replied) => {
                let ns = now_ns.saturating_sub(kafka.parked_ns);
                self.times.record(&self.options.metrics, Station::Fetch, ns);
                self.kafka_bytes(id, conn, &[]);
            }
            Ok(node::Resume::StillParked) => self.park(id, conn),
            Err(violation) => self.refuse(id, conn, &violation),
        }
    }
}

impl Shard {
    /// A stream's name.
    pub fn stream_name(&self, stream: StreamId) -> &str {
        self.core.options.cluster.streams()[stream.index()].name.as_str()
    }

    /// A partition has more to offer: whoever waits for it looks again.
    pub(super) fn wake_fetches(&mut self, stream: StreamId, partition: PartitionId) {
        let partitions = self.core.options.partitions as usize;
        let slot = stream.index() * partitions + partition.0 as usize;
        let Some(waiters) = self.core.waiters.get_mut(slot) else { return };
        if waiters.is_empty() {
            return;
        }
        for id in std::mem::take(waiters) {
            if let Some(conn) = self.conns.get_mut(id.index()) {
                self.core.resume_parked(id, conn);
            }
        }
    }

    /// A read from disk has ended: with bytes, or without.
    pub fn on_read(&mut self, request: ReadRequest, bytes: Option<SharedBytes>) {
        if let (FileKey::Segment(_), Some(bytes)) = (request.file, &bytes) {
            let metrics = &self.core.options.metrics.log;
            metrics.cold_reads.increment();
            metrics.cold_read_bytes.add(bytes.as_bytes().len() as u64);
        }
        self.core.log.on_read(request, bytes);
        for id in std::mem::take(&mut self.core.disk_waiters) {
            if let Some(conn) = self.conns.get_mut(id.index()) {
                self.core.resume_parked(id, conn);
            }
        }
    }
}
