//! Room in the store: who reads what is to be published asks for it before each read, and reads no more without.

use std::{
    fmt,
    future::poll_fn,
    task::{Context, Poll, ready},
};

use super::hub::Hub;
use crate::store::Done;

/// Whether the store had room when it was last asked, and else what is ready when it has.
#[derive(Default)]
pub struct Room(Option<Done<'static>>);

impl Room {
    /// Asks the store anew, unless its answer is waited for; whether there is room.
    pub fn ask(&mut self, hub: &Hub) -> bool {
        if self.0.is_none() {
            self.0 = hub.store().room();
        }
        self.is_there()
    }

    /// Whether there was room, or is again.
    pub fn is_there(&self) -> bool {
        self.0.is_none()
    }

    /// Waits until there is room, if there was none.
    pub async fn wait(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    /// Is ready when there is room.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(room) = &mut self.0 {
            ready!(room.as_mut().poll(cx));
            self.0 = None;
        }
        Poll::Ready(())
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Room").field(&self.is_there()).finish()
    }
}
