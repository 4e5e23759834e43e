//! How a shard stops: what it has taken is committed and acknowledged, here and on the other shards,
//! then everybody is told. The driver asks for one step after the other; none of them waits.

use super::connection::{Role, Stage};
use super::{ConnId, Shard};
use crate::ingest::mqtt as station;
use crate::observe::Close;

impl Shard {
    /// No more messages are taken; what was taken is committed and acknowledged, here and on the
    /// other shards: [`Shard::is_settled`] says when.
    pub fn begin_stop(&mut self) {
        self.core.stopping = true;
        self.core.lanes.close();
    }

    /// Whether everything that was taken is committed and acknowledged, and nothing more comes from
    /// other shards. Asks for the log's last frame when its time has come.
    pub fn is_settled(&mut self) -> bool {
        let core = &mut self.core;
        if !core.lanes.arriving.is_drained() {
            return false;
        }
        core.log.end_cleanly();
        core.log.is_quiet() && core.lanes.is_settled_everywhere()
    }

    /// Whether no other shard looks at this one's memory any more.
    pub fn is_let_go(&mut self) -> bool {
        self.core.lanes.take_returns();
        self.core.lanes.is_let_go()
    }

    /// Gives up committing, as the disk is full: what waits was not acknowledged, and the others
    /// must not wait for it.
    pub fn give_up(&mut self) {
        self.core.lanes.abandon();
    }

    /// Says goodbye to every connection, after the last acknowledgement.
    pub fn disconnect_all(&mut self) {
        for (index, conn) in self.conns.iter_mut().filter(|(_, conn)| conn.stage == Stage::Open) {
            let id = ConnId(index as u32);
            if let Role::Mqtt(mqtt) = &mut conn.role {
                mqtt.machine.disconnect(
                    station::Reason::ServerShuttingDown,
                    "the server is stopping",
                    &mut conn.out,
                );
            }
            self.core.close(id, conn, Close::ShuttingDown);
        }
    }
}
