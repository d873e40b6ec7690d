//! The open connections of a route, as far as others reach them: each can be told to end, and it is seen when
//! something last came on it. Times are coarse: one look at all connections now and then, no timer for each.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;

use super::counters::Cause;

/// What passes for the time: milliseconds since the gateway began, as of the last look.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<AtomicU64>);

/// One connection's part.
#[derive(Debug)]
pub struct Control {
    clock: Clock,
    /// When something last came, by the clock.
    heard: AtomicU64,
    order: AtomicU8,
    waker: AtomicWaker,
}

/// Why a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Nothing came for too long.
    Idle,
    /// Its route was changed or removed.
    Changed,
    /// The relay stops.
    Stop,
}

/// The open connections of a route.
#[derive(Debug, Default)]
pub struct Registry {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// All of them were told to end: so is whoever comes.
    ended: Option<Order>,
    controls: HashMap<u64, Arc<Control>>,
}

impl Clock {
    /// It is that long after the beginning.
    pub fn set(&self, since: Duration) {
        self.0.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Order {
    /// What is counted of a connection that it ends.
    pub fn cause(self) -> Cause {
        match self {
            Self::Idle => Cause::Idle,
            Self::Changed => Cause::Changed,
            Self::Stop => Cause::Stopped,
        }
    }
}

const NONE: u8 = 0;
const IDLE: u8 = 1;
const CHANGED: u8 = 2;
const STOP: u8 = 3;

impl Control {
    /// Something came.
    pub fn heard(&self) {
        let now = self.clock.now();
        if self.heard.load(Ordering::Relaxed) != now {
            self.heard.store(now, Ordering::Relaxed);
        }
    }

    /// The order to end, if there is one; costs next to nothing.
    pub fn order(&self) -> Option<Order> {
        match self.order.load(Ordering::Acquire) {
            IDLE => Some(Order::Idle),
            CHANGED => Some(Order::Changed),
            STOP => Some(Order::Stop),
            _ => None,
        }
    }

    /// Waits for the order to end.
    pub fn poll_order(&self, cx: &mut Context<'_>) -> Poll<Order> {
        self.waker.register(cx.waker());
        self.order().map_or(Poll::Pending, Poll::Ready)
    }

    fn give(&self, order: Order) {
        let order = match order {
            Order::Idle => IDLE,
            Order::Changed => CHANGED,
            Order::Stop => STOP,
        };
        // The first order stands.
        if self.order.compare_exchange(NONE, order, Ordering::Release, Ordering::Relaxed).is_ok() {
            self.waker.wake();
        }
    }
}

impl Registry {
    /// Enters a connection, of which no other here has the number.
    pub fn enter(&self, number: u64, clock: &Clock) -> Arc<Control> {
        let control = Arc::new(Control {
            clock: clock.clone(),
            heard: AtomicU64::new(clock.now()),
            order: AtomicU8::new(NONE),
            waker: AtomicWaker::new(),
        });
        let mut open = self.lock();
        if let Some(order) = open.ended {
            control.give(order);
        }
        open.controls.insert(number, Arc::clone(&control));
        control
    }

    /// A connection is none any more.
    pub fn leave(&self, number: u64) {
        self.lock().controls.remove(&number);
    }

    /// Tells all of them to end, and those that are still to come.
    pub fn end_all(&self, order: Order) {
        let mut open = self.lock();
        open.ended = Some(order);
        for control in open.controls.values() {
            control.give(order);
        }
    }

    /// Ends those on which nothing came for so long. `look` is the time between two looks: what came last may be as
    /// much younger than it seems.
    pub fn end_idle(&self, clock: &Clock, idle: Duration, look: Duration) {
        let (now, idle) = (clock.now(), u64::try_from((idle + look).as_millis()).unwrap_or(u64::MAX));
        for control in self.lock().controls.values() {
            if now.saturating_sub(control.heard.load(Ordering::Relaxed)) > idle {
                control.give(Order::Idle);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_silent_is_idle_and_the_first_order_stands() {
        let (clock, registry) = (Clock::default(), Registry::default());
        let (silent, busy) = (registry.enter(1, &clock), registry.enter(2, &clock));
        clock.set(Duration::from_millis(101));
        busy.heard();
        registry.end_idle(&clock, Duration::from_millis(90), Duration::from_millis(10));
        assert_eq!((silent.order(), busy.order()), (Some(Order::Idle), None));
        registry.end_all(Order::Stop);
        assert_eq!((silent.order(), busy.order()), (Some(Order::Idle), Some(Order::Stop)));
        assert_eq!(registry.enter(3, &clock).order(), Some(Order::Stop), "who comes later is told too");
    }
}
