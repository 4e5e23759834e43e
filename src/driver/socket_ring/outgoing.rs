//! Bytes to be sent that the ring itself keeps: the safe way to send.
//!
//! In: a slot filled by the caller and sent. Out: the slot, free again, when the send's completion
//! was taken. It runs on the ring's thread. The invariant: a slot's bytes are out of reach while
//! the kernel may read them. Absent: queues; one slot is one send.

/// A slot of one ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotId(u32);

/// User data of a slot's send carries this bit and the slot's index; callers' must not.
const SLOT_BIT: u64 = 1 << 63;

/// Whether user data belongs to a slot's send.
#[inline]
pub(super) fn is_reserved(user_data: u64) -> bool {
    user_data & SLOT_BIT != 0
}

#[derive(Default)]
pub(super) struct SendSlots {
    slots: Vec<Slot>,
}

struct Slot {
    bytes: Vec<u8>,
    user_data: u64,
    in_flight: bool,
}

/// What the kernel is asked to send. The bytes do not move until the completion: nobody can reach
/// them while the slot is in flight.
pub(super) struct Outgoing {
    pub(super) bytes: *const u8,
    pub(super) len: u32,
    pub(super) user_data: u64,
}

impl SendSlots {
    pub(super) fn add(&mut self, bytes_max: usize) -> SlotId {
        let id = u32::try_from(self.slots.len()).unwrap_or_else(|_| panic!("too many send slots"));
        let bytes = Vec::with_capacity(bytes_max);
        self.slots.push(Slot { bytes, user_data: 0, in_flight: false });
        SlotId(id)
    }

    #[inline]
    pub(super) fn bytes_mut(&mut self, id: SlotId) -> Option<&mut Vec<u8>> {
        let slot = &mut self.slots[id.0 as usize];
        (!slot.in_flight).then_some(&mut slot.bytes)
    }

    #[inline]
    pub(super) fn start(&mut self, id: SlotId, user_data: u64) -> Outgoing {
        let slot = &mut self.slots[id.0 as usize];
        assert!(!slot.in_flight, "send slot {} is in flight", id.0);
        assert!(!is_reserved(user_data), "the top bit of user data is the ring's");
        slot.in_flight = true;
        slot.user_data = user_data;
        let len = u32::try_from(slot.bytes.len()).unwrap_or_else(|_| panic!("send above 4 GiB"));
        Outgoing { bytes: slot.bytes.as_ptr(), len, user_data: SLOT_BIT | u64::from(id.0) }
    }

    /// Frees the slot of a completed send; the caller's user data.
    #[inline]
    pub(super) fn finish(&mut self, reserved: u64) -> u64 {
        let slot = &mut self.slots[(reserved & !SLOT_BIT) as usize];
        slot.in_flight = false;
        slot.user_data
    }
}
