//! The gateway: a path of the relay's port leads to an upstream. An upgrade to WebSocket becomes a proxied
//! connection, other requests are passed on or refused, as the route says.
//!
//! # Layout
//! - [`settings`]: what is said of routes. [`path`]: prefixes and the paths of requests, pure. [`routes`]: which route
//!   it is, and who may use it. [`request`]: what the upstream is asked, pure.
//! - `answering`: a request from its admission to its answer. [`upstream`]: which one is tried, and connecting.
//!   [`ask`]: the question and its answer. [`upload`]: the question's body. [`body`]: answers.
//! - [`through`]: the way between two sides that speak WebSocket, on which each direction (`way`) has a [`course`]: bytes
//!   pass as they are, and [`walk`] sees them; or [`govern`] puts [`messages`] before [`rules`] ([`pattern`], [`rate`], `work`) and the
//!   [`tap`]. All but `through`, `govern` and `tap` is pure.
//! - [`bridge`]: the way to upstreams of bytes; [`unframe`], [`reframe`]: frames ⇄ bytes, [`frame`]: their headers; pure.
//! - [`stream`]: what they run on. [`farewell`]: how a connection ends that the gateway ends.
//! - [`passage`]: a proxied connection as its route sees it; [`control`]: how it is told to end; [`counters`];
//!   [`show`]: how they are shown; [`trial`]: what rules would do.

mod answering;
pub mod ask;
pub mod body;
pub mod bridge;
pub mod control;
pub mod counters;
pub mod course;
pub mod farewell;
pub mod frame;
pub mod govern;
pub mod message;
pub mod messages;
pub mod passage;
pub mod path;
pub mod pattern;
pub mod rate;
pub mod reframe;
pub mod request;
pub mod routes;
pub mod rules;
pub mod settings;
pub mod show;
pub mod stream;
pub mod tap;
pub mod through;
pub mod trial;
pub mod unframe;
pub mod upload;
pub mod upstream;
pub mod walk;
mod way;
mod work;

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

pub use self::answering::Visit;

use self::{
    control::{Clock, Order},
    routes::{Route, Table},
    settings::{GatewaySettings, OnChange},
};
use crate::{channel::hub::Hub, shutdown::Life};

/// The time between two looks at all connections is that part of the shortest idle time-out.
const LOOKS: u32 = 8;

/// It is at least and at most so long.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Leads paths to upstreams.
#[derive(Debug)]
pub struct Gateway {
    life: Life,
    /// Where taps lead to.
    hub: Arc<Hub>,
    /// The connections that the relay may have; one to an upstream is one of them.
    permits: Arc<Semaphore>,
    state: RwLock<Arc<State>>,
    /// Routes that are none any more, as long as somebody holds them: connections, and requests that may become some.
    /// Locked before `state`, so that the two are seen as of one time.
    removed: Mutex<Vec<Weak<Route>>>,
    clock: Clock,
}

/// What holds until the next change.
#[derive(Debug)]
struct State {
    table: Table,
    close: Duration,
    keepalive: Duration,
    look: Duration,
}

impl Gateway {
    /// A gateway with these routes, whose taps lead to the channels of this hub; `permits` are the connections that the
    /// relay may have.
    pub fn new(settings: GatewaySettings, life: Life, permits: Arc<Semaphore>, hub: Arc<Hub>) -> Self {
        let state = State::new(settings, &Table::default(), &[], &hub);
        Self {
            life,
            hub,
            permits,
            state: RwLock::new(Arc::new(state)),
            removed: Mutex::default(),
            clock: Clock::default(),
        }
    }

    /// Changes to these routes. The connections of routes that stay the same are not touched. A relay that stops keeps
    /// those that it has.
    pub fn change(&self, settings: GatewaySettings) {
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        if self.life.is_stopping() {
            return;
        }
        let before = self.state();
        let after = Arc::new(State::new(settings, &before.table, &held(&mut removed), &self.hub));
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&after);
        for route in before.table.gone(&after.table) {
            // Of a changed route the new one says what becomes of them.
            let on_change = after.table.at(&route.settings.path).unwrap_or(route).settings.limits.on_change;
            if on_change == OnChange::Drain {
                route.open.end_all(Order::Changed);
            }
            removed.push(Arc::downgrade(route));
        }
        tracing::info!(
            routes = after.table.routes().len(),
            "the routes of the gateway are as they are said now"
        );
    }

    /// Looks after connections, until all of them are told that the relay stops.
    pub async fn attend(self: Arc<Self>) {
        let begun = Instant::now();
        loop {
            let look = self.state().look;
            tokio::select! {
                () = self.life.stopping() => break,
                () = tokio::time::sleep(look) => {}
            }
            self.clock.set(begun.elapsed());
            let (state, removed) = self.all();
            for route in state.table.routes().iter().chain(&removed) {
                route.open.end_idle(&self.clock, route.settings.limits.idle_timeout, look);
            }
        }
        let (state, removed) = self.all();
        for route in state.table.routes().iter().chain(&removed) {
            route.open.end_all(Order::Stop);
        }
    }

    /// What has passed on each route, as JSON.
    pub fn report(&self) -> Value {
        let (state, removed) = self.all();
        let mut now: Vec<_> = state.table.routes().iter().collect();
        now.sort_by(|one, other| one.settings.path.cmp(&other.settings.path));
        let now = now.into_iter().map(|route| route.report(false));
        // All at one path count together, so the last of them tells of all, or the one that is there now.
        let is_told = |index: usize, route: &Route| {
            let path = &route.settings.path;
            route.counters.open() > 0
                && removed[index + 1..].iter().all(|later| later.settings.path != *path)
                && state.table.at(path).is_none()
        };
        let gone = removed.iter().enumerate().filter(|(index, route)| is_told(*index, route));
        json!({ "routes": now.chain(gone.map(|(_, route)| route.report(true))).collect::<Vec<_>>() })
    }

    /// What holds now, and the removed routes, as of one time.
    fn all(&self) -> (Arc<State>, Vec<Arc<Route>>) {
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        (self.state(), held(&mut removed))
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// One more connection of the relay, if it may have one.
    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }
}

/// Those of the removed routes that somebody holds; the others are forgotten.
fn held(removed: &mut Vec<Weak<Route>>) -> Vec<Arc<Route>> {
    removed.retain(|route| route.strong_count() > 0);
    removed.iter().filter_map(Weak::upgrade).collect()
}

impl State {
    fn new(settings: GatewaySettings, before: &Table, removed: &[Arc<Route>], hub: &Arc<Hub>) -> Self {
        let GatewaySettings { close, keepalive, routes, .. } = settings;
        let shortest = routes.iter().map(|route| route.limits.idle_timeout).min().unwrap_or(LOOK.1);
        let look = (shortest / LOOKS).clamp(LOOK.0, LOOK.1);
        Self { table: Table::new(routes, before, removed, hub), close, keepalive, look }
    }
}
