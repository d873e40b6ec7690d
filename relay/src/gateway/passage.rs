//! A proxied connection as its route sees it, whichever way its bytes go: entered when it is upgraded, gone when it
//! is dropped.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    control::{Clock, Control},
    counters::{Counters, End},
    routes::Route,
    upstream::Seat,
};

/// A place on a route: of a connection, or of what is asked and does not become one until it is answered to the end.
#[derive(Debug)]
pub struct Opening {
    route: Arc<Route>,
}

/// A proxied connection.
#[derive(Debug)]
pub struct Passage {
    opening: Opening,
    number: u64,
    control: Arc<Control>,
    peer: SocketAddr,
    begun: Instant,
    close: Duration,
    _seat: Seat,
    /// It counts among the connections of the relay as two.
    _permit: OwnedSemaphorePermit,
}

impl Opening {
    /// Takes a place, if one is free.
    pub fn take(route: &Arc<Route>) -> Option<Self> {
        let free = route.counters.try_open(route.settings.limits.connections);
        free.then(|| Self { route: Arc::clone(route) })
    }

    /// It has become a connection. `close` is how long its peers may take to end their sides.
    pub fn enter(
        self,
        clock: &Clock,
        peer: SocketAddr,
        seat: Seat,
        permit: OwnedSemaphorePermit,
        close: Duration,
    ) -> Passage {
        let number = self.route.counters.enter();
        let control = self.route.open.enter(number, clock);
        Passage {
            number,
            control,
            peer,
            begun: Instant::now(),
            close,
            _seat: seat,
            _permit: permit,
            opening: self,
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.route.counters.close();
    }
}

impl Passage {
    /// Its route.
    pub fn route(&self) -> &Arc<Route> {
        &self.opening.route
    }

    /// What is counted of it.
    pub fn counters(&self) -> &Counters {
        &self.opening.route.counters
    }

    /// How it is told to end, and where it tells that something came.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Its number at the path of its route, from 1 on.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Who connected.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// How long its peers may take to end their sides.
    pub fn close(&self) -> Duration {
        self.close
    }

    /// It has ended.
    pub fn end(self, end: End) {
        self.counters().end(end, self.begun.elapsed());
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.opening.route.open.leave(self.number);
    }
}
