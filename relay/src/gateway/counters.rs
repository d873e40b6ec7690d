//! What a route counts: connections, messages and bytes each way, times, and why connections ended. Atomic, so that
//! connections on all workers count at once; they do so once per turn.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Map, Value, json};

/// How a proxied connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Who ended it.
    pub side: Side,
    /// Why.
    pub cause: Cause,
    /// The code of the close frame that ended it, if one did.
    pub close_code: Option<u16>,
}

/// One of the parties of a proxied connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Who connected to the gateway.
    Client,
    /// Whom the gateway connected to.
    Upstream,
    /// The gateway itself.
    Gateway,
}

/// Why a proxied connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A close frame, or the end of bytes where there are no frames.
    Closed,
    /// The end of its bytes, without a close frame.
    Ended,
    /// Its socket failed: a reset, mostly.
    Failed,
    /// It did not keep to RFC 6455, or its messages were more than is allowed.
    Misbehaved,
    /// A rule closed it.
    Ruled,
    /// Nothing came for too long.
    Idle,
    /// The route was changed or removed.
    Changed,
    /// The relay stopped.
    Stopped,
}

/// Why a request did not become a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its network, origin or path is denied.
    Denied,
    /// As many are open as are allowed.
    Limit,
    /// No upstream could be connected to, or what it answered was no HTTP.
    Unreachable,
    /// No upstream answered in time.
    TimedOut,
    /// The upstream answered, but not with an upgrade.
    Answered,
    /// It was no upgrade, or a wrong one.
    NotUpgrade,
    /// It could not be passed on as it was.
    Wrong,
}

const SIDES: [(Side, &str); 3] =
    [(Side::Client, "client"), (Side::Upstream, "upstream"), (Side::Gateway, "gateway")];

const CAUSES: [(Cause, &str); 8] = [
    (Cause::Closed, "closed"),
    (Cause::Ended, "ended"),
    (Cause::Failed, "failed"),
    (Cause::Misbehaved, "misbehaved"),
    (Cause::Ruled, "ruled"),
    (Cause::Idle, "idle"),
    (Cause::Changed, "changed"),
    (Cause::Stopped, "stopped"),
];

const REFUSALS: [(Refused, &str); 7] = [
    (Refused::Denied, "denied"),
    (Refused::Limit, "limit"),
    (Refused::Unreachable, "unreachable"),
    (Refused::TimedOut, "timed_out"),
    (Refused::Answered, "answered"),
    (Refused::NotUpgrade, "not_upgrade"),
    (Refused::Wrong, "wrong"),
];

/// Close codes that are counted apart; those beyond are counted as 0.
const CODES: usize = 64;

/// What a route counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections of WebSocket that there were, each with its number.
    total: AtomicU64,
    open: AtomicU64,
    requests: AtomicU64,
    refused: [AtomicU64; REFUSALS.len()],
    /// What came from clients.
    pub from_client: Traffic,
    /// What came from upstreams.
    pub from_upstream: Traffic,
    /// From the request to the answer that upgrades.
    pub upgrade: Times,
    /// From then to the end.
    pub life: Times,
    ends: [[AtomicU64; CAUSES.len()]; SIDES.len()],
    codes: Mutex<BTreeMap<u16, u64>>,
}

/// What passed in one direction. It is counted at each turn of each connection, so every worker has a place of its own
/// for it, which no other writes to; those that come when all places but the last are taken share that.
#[derive(Debug, Default)]
pub struct Traffic {
    places: [Place; PLACES],
}

/// A line of the processor's cache.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Place {
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// Workers that count apart.
const PLACES: usize = 16;

/// Durations: how many, their sum, the longest, and how they are spread over powers of two.
#[derive(Debug, Default)]
pub struct Times {
    count: AtomicU64,
    micros: AtomicU64,
    longest: AtomicU64,
    spread: [AtomicU64; SPREAD],
}

/// Powers of two of microseconds that times are spread over; the last has what is longer too.
const SPREAD: usize = 32;

impl Counters {
    /// A connection or a request is open from now on, if no more than `limit` are; else it is not counted.
    pub fn try_open(&self, limit: usize) -> bool {
        let limit = limit as u64;
        let one_more = |open: u64| (open < limit).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// What is open has become a connection of WebSocket; its number, from 1 on. They are counted here so that those of
    /// a changed route go on.
    pub fn enter(&self) -> u64 {
        self.total.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What was open is it no more.
    pub fn close(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections that are open, and requests that are not answered to the end.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// A request that was no upgrade went to an upstream.
    pub fn request(&self) {
        add(&self.requests, 1);
    }

    /// A request was refused.
    pub fn refuse(&self, why: Refused) {
        add(&self.refused[index(&REFUSALS, why)], 1);
    }

    /// A connection ended that lived so long.
    pub fn end(&self, end: End, life: Duration) {
        self.life.add(life);
        add(&self.ends[index(&SIDES, end.side)][index(&CAUSES, end.cause)], 1);
        if let Some(code) = end.close_code {
            let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
            let code = if codes.len() < CODES || codes.contains_key(&code) { code } else { 0 };
            *codes.entry(code).or_default() += 1;
        }
    }

    /// As JSON.
    pub fn report(&self) -> Value {
        let refused: Map<String, Value> = REFUSALS
            .iter()
            .zip(&self.refused)
            .map(|((_, word), n)| ((*word).into(), json!(get(n))))
            .collect();
        let ends = |causes: &[AtomicU64; CAUSES.len()]| {
            let causes = CAUSES.iter().zip(causes).filter(|(_, n)| get(n) > 0);
            causes.map(|((_, word), n)| ((*word).into(), json!(get(n)))).collect::<Map<String, Value>>()
        };
        let ends: Map<String, Value> = SIDES
            .iter()
            .zip(&self.ends)
            .map(|((_, word), causes)| ((*word).into(), ends(causes).into()))
            .collect();
        let codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        let codes: Map<String, Value> = codes.iter().map(|(code, n)| (code.to_string(), json!(n))).collect();
        json!({
            "connections": { "open": self.open(), "total": get(&self.total), "refused": refused },
            "requests": get(&self.requests),
            "from_client": self.from_client.report(),
            "from_upstream": self.from_upstream.report(),
            "upgrade": self.upgrade.report(),
            "life": self.life.report(),
            "ends": ends,
            "close_codes": codes,
        })
    }
}

impl Traffic {
    /// So much more passed.
    pub fn add(&self, messages: u64, bytes: u64) {
        static WORKERS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static WORKER: usize = WORKERS.fetch_add(1, Ordering::Relaxed);
        }
        let worker = WORKER.with(|worker| *worker);
        let place = &self.places[worker.min(PLACES - 1)];
        if worker < PLACES - 1 {
            // Nobody else writes here, so that nothing has to be locked.
            place.messages.store(get(&place.messages) + messages, Ordering::Relaxed);
            place.bytes.store(get(&place.bytes) + bytes, Ordering::Relaxed);
        } else {
            add(&place.messages, messages);
            add(&place.bytes, bytes);
        }
    }

    /// As JSON.
    pub fn report(&self) -> Value {
        let sum = |counter: fn(&Place) -> &AtomicU64| {
            self.places.iter().map(|place| get(counter(place))).sum::<u64>()
        };
        json!({ "messages": sum(|place| &place.messages), "bytes": sum(|place| &place.bytes) })
    }
}

impl Times {
    /// One more.
    pub fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        add(&self.count, 1);
        add(&self.micros, micros);
        self.longest.fetch_max(micros, Ordering::Relaxed);
        let power = (u64::BITS - micros.leading_zeros()) as usize;
        add(&self.spread[power.min(SPREAD - 1)], 1);
    }

    /// The time that so many of a hundred do not exceed, to the next power of two.
    fn percentile(&self, percent: u64) -> u64 {
        let counts: Vec<u64> = self.spread.iter().map(get).collect();
        let rank = (counts.iter().sum::<u64>() * percent).div_ceil(100);
        let mut passed = 0;
        let power = counts.iter().position(|count| {
            passed += count;
            passed >= rank
        });
        let most = power.map_or(0, |power| if power + 1 < SPREAD { (1u64 << power) - 1 } else { u64::MAX });
        most.min(get(&self.longest))
    }

    fn report(&self) -> Value {
        let (count, micros) = (get(&self.count), get(&self.micros));
        json!({
            "count": count,
            "mean_us": micros.checked_div(count).unwrap_or(0),
            "p50_us": self.percentile(50),
            "p99_us": self.percentile(99),
            "max_us": get(&self.longest),
        })
    }
}

fn index<T: Copy + PartialEq>(words: &[(T, &str)], value: T) -> usize {
    words.iter().position(|(known, _)| *known == value).unwrap_or(0)
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        let counters = Counters::default();
        assert!(counters.try_open(2) && counters.try_open(2) && !counters.try_open(2));
        counters.enter();
        counters.close();
        counters.refuse(Refused::Limit);
        counters.from_client.add(3, 100);
        let end = End { side: Side::Upstream, cause: Cause::Closed, close_code: Some(1000) };
        counters.end(end, Duration::from_millis(3));
        let told = counters.report();
        assert_eq!(told["connections"]["open"], 1);
        assert_eq!(told["connections"]["total"], 1);
        assert_eq!(told["connections"]["refused"]["limit"], 1);
        assert_eq!(told["from_client"], json!({ "messages": 3, "bytes": 100 }));
        assert_eq!(told["ends"]["upstream"], json!({ "closed": 1 }));
        assert_eq!(told["close_codes"]["1000"], 1);
        assert_eq!(told["life"]["max_us"], 3000);
    }

    #[test]
    fn percentiles_are_within_a_power_of_two_and_never_beyond_the_longest() {
        let times = Times::default();
        for micros in 1..=1000 {
            times.add(Duration::from_micros(micros));
        }
        assert_eq!((times.percentile(50), times.percentile(99)), (511, 1000));
        assert_eq!(Times::default().percentile(50), 0);
    }

    #[test]
    fn no_peer_can_make_the_codes_grow() {
        let counters = Counters::default();
        for code in 1000..2000 {
            counters.end(
                End { side: Side::Client, cause: Cause::Closed, close_code: Some(code) },
                Duration::ZERO,
            );
        }
        assert!(counters.codes.lock().unwrap().len() <= CODES + 1);
    }
}
