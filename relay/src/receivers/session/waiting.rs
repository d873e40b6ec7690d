//! What a session waits for, and until when.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep};

use super::{CONTROL, Over, Phase, Session, UNSETTLED};
use crate::store::{Receipt, Refused};

/// What a session waited for.
#[derive(Debug)]
pub(super) enum Woken {
    /// There is something to read.
    Readable,
    /// There is something to write, or room to write it.
    Writable,
    /// The store has room again for what it publishes.
    Room,
    /// The first of its own publishes is settled.
    Settled(Result<Receipt, Refused>),
    /// Something may be due.
    Due,
}

impl Session {
    /// Waits by the wakers that the socket and the cursor keep. Futures of theirs would be made, entered in lists that
    /// all share, and taken out again, in every turn.
    pub(super) fn poll_woken(
        &mut self,
        cx: &mut Context<'_>,
        blocked: bool,
        timer: Pin<&mut Sleep>,
    ) -> Poll<Result<Woken, Over>> {
        let socket = self.connection.socket();
        if self.is_reading()
            && let Poll::Ready(ready) = socket.poll_read_ready(cx)
        {
            return Poll::Ready(ready.map(|()| Woken::Readable).map_err(|_| Over));
        }
        if blocked {
            if let Poll::Ready(ready) = socket.poll_write_ready(cx) {
                return Poll::Ready(ready.map(|()| Woken::Writable).map_err(|_| Over));
            }
        } else if matches!(self.phase, Phase::Open)
            && self.rest.end().is_none()
            && self.cursor.poll_changed(cx).is_ready()
        {
            return Poll::Ready(Ok(Woken::Writable));
        }
        if let Some((_, ticket)) = self.unsettled.front_mut()
            && let Poll::Ready(outcome) = Pin::new(ticket).poll(cx)
        {
            return Poll::Ready(Ok(Woken::Settled(outcome)));
        }
        if !self.room.is_there() && self.room.poll(cx).is_ready() {
            return Poll::Ready(Ok(Woken::Room));
        }
        timer.poll(cx).map(|()| Ok(Woken::Due))
    }

    /// Whether what is published waits, to go out together with more.
    pub(super) fn is_resting(&mut self) -> bool {
        if self.rest.end().is_none() {
            return false;
        }
        if !matches!(self.phase, Phase::Open) || self.hub.is_stopping() {
            self.rest.end_now();
        }
        self.rest.goes_on(Instant::now())
    }

    pub(super) fn is_reading(&self) -> bool {
        match self.phase {
            Phase::Open => {
                self.outbound.control_len() < CONTROL
                    && self.unsettled.len() < UNSETTLED
                    && self.room.is_there()
            }
            Phase::Leaving { .. } => false,
            Phase::Left { .. } => true,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        let vigil = self.vigil.deadline(&self.settings);
        match self.phase {
            Phase::Open => self.rest.end().map_or(vigil, |end| end.min(vigil)),
            Phase::Leaving { deadline, .. } | Phase::Left { deadline } => deadline,
        }
    }
}
