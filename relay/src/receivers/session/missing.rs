//! What a receiver can't have any more: it is told exactly that, or closed.

use shared::{
    Position,
    receiver::{CloseCode, Event, GapReason, Subprotocol},
};

use super::{CONTROL, Over, Session};
use crate::{channel::cursor::Missing, receivers::protocol::Lag};

impl Session {
    /// Reads on in the store, and tells what went before it could be taken.
    pub(super) async fn fetch(&mut self) -> Result<(), Over> {
        let cursor = self.backfills.front_mut().unwrap_or(&mut self.cursor);
        let missing = cursor.fetch().await.map_err(|_| Over)?;
        match missing.iter().find(|missing| missing.reason == GapReason::Lagged) {
            Some(lagged) if self.lag == Lag::Close => {
                let position = Position { epoch: self.hub.store().epoch(), seq: lagged.after };
                self.give_up(CloseCode::Lagged, &format!("too slow; resume after {position}"));
            }
            _ => self.tell(missing),
        }
        Ok(())
    }

    pub(super) fn tell(&mut self, missing: Vec<Missing>) {
        if self.form == Subprotocol::Raw {
            return;
        }
        self.untold.extend(missing);
    }

    /// Tells what is missing, as far as there is room: of a pattern it may be something of every channel.
    pub(super) fn tell_untold(&mut self) {
        while self.outbound.control_len() < CONTROL {
            let Some(Missing { channel, after, before, count, reason }) = self.untold.pop_front() else {
                break;
            };
            self.outbound.event(&Event::Gap { channel, after, before, count, reason });
        }
    }
}
