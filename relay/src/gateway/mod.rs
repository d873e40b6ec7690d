//! The gateway: a path of the relay's port leads to an upstream. An upgrade to WebSocket becomes a proxied
//! connection, other requests are passed on or refused, as the route says.
//!
//! # Layout
//! - [`settings`]: what is said of routes. [`path`]: prefixes and the paths of requests, pure. [`routes`]: which route
//!   it is, and who may use it. [`request`]: what the upstream is asked, pure.
//! - [`upstream`]: which one is tried, and connecting. [`ask`]: the question and its answer. [`body`]: answers.
//! - [`through`]: the way of bytes that pass as they are; [`walk`]: what is seen of them, pure. [`stream`]: what they
//!   pass on. [`farewell`]: how a connection ends that the gateway ends.
//! - [`passage`]: a proxied connection as its route sees it; [`control`]: how it is told to end; [`counters`].

pub mod ask;
pub mod body;
pub mod control;
pub mod counters;
pub mod farewell;
pub mod passage;
pub mod path;
pub mod request;
pub mod routes;
pub mod settings;
pub mod stream;
pub mod through;
pub mod upstream;
pub mod walk;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{Empty, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use self::{
    ask::Answered,
    body::{Answer, Body, Driver, Held, Passed, text},
    control::{Clock, Order},
    counters::{Cause, End, Refused, Side},
    passage::{Opening, Passage},
    path::{Ambiguous, RequestPath},
    request::Purpose,
    routes::{Route, Table},
    settings::{GatewaySettings, OnChange, Plain, Sort},
    stream::Stream,
    through::Through,
    upstream::{Failure, Upstream},
};
use crate::{connection::Connection, shutdown::Life};

/// The time between two looks at all connections is that part of the shortest idle time-out.
const LOOKS: u32 = 8;

/// It is at least and at most so long.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Leads paths to upstreams.
#[derive(Debug)]
pub struct Gateway {
    life: Life,
    /// The connections that the relay may have; one to an upstream is one of them.
    permits: Arc<Semaphore>,
    state: RwLock<Arc<State>>,
    /// Routes that are none any more and still have connections.
    removed: Mutex<Vec<Arc<Route>>>,
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

/// Who asks.
#[derive(Debug)]
pub struct Visit {
    /// The address that it comes from.
    pub peer: SocketAddr,
    /// Whether the page that it is, if it is one, may subscribe to channels.
    pub known_origin: bool,
    /// Tells that somebody is being served, as long as it lasts.
    pub serving: Arc<()>,
}

/// A request that was admitted to a route.
struct Admitted {
    route: Arc<Route>,
    state: Arc<State>,
    visit: Visit,
    begun: Instant,
}

impl Gateway {
    /// A gateway with these routes; `permits` are the connections that the relay may have.
    pub fn new(settings: GatewaySettings, life: Life, permits: Arc<Semaphore>) -> Self {
        let state = State::new(settings, &Table::default());
        Self {
            life,
            permits,
            state: RwLock::new(Arc::new(state)),
            removed: Mutex::default(),
            clock: Clock::default(),
        }
    }

    /// Changes to these routes. The connections of routes that stay the same are not touched.
    pub fn change(&self, settings: GatewaySettings) {
        let mut current = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let before = Arc::clone(&current);
        let after = Arc::new(State::new(settings, &before.table));
        *current = Arc::clone(&after);
        drop(current);
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        for route in before.table.gone(&after.table) {
            // Of a changed route the new one says what becomes of them.
            let on_change = after.table.at(&route.settings.path).unwrap_or(route).settings.limits.on_change;
            if on_change == OnChange::Drain {
                route.open.end_all(Order::Changed);
            }
            removed.push(Arc::clone(route));
        }
        removed.retain(|route| !route.open.is_empty());
        tracing::info!(
            routes = after.table.routes().len(),
            "the routes of the gateway are as they are said now"
        );
    }

    /// Looks after connections, until all of them are told that the relay stops.
    pub async fn attend(self: Arc<Self>) {
        let begun = Instant::now();
        loop {
            let state = self.state();
            tokio::select! {
                () = self.life.stopping() => break,
                () = tokio::time::sleep(state.look) => {}
            }
            self.clock.set(begun.elapsed());
            let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
            removed.retain(|route| !route.open.is_empty());
            for route in state.table.routes().iter().chain(removed.iter()) {
                route.open.end_idle(&self.clock, route.settings.limits.idle_timeout);
            }
        }
        let removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        for route in self.state().table.routes().iter().chain(removed.iter()) {
            route.open.end_all(Order::Stop);
        }
    }

    /// What has passed on each route, as JSON.
    pub fn report(&self) -> Value {
        let state = self.state();
        let removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now: Vec<_> = state.table.routes().iter().collect();
        now.sort_by(|one, other| one.settings.path.cmp(&other.settings.path));
        let now = now.into_iter().map(|route| route.report(false));
        let gone = removed.iter().filter(|route| state.table.at(&route.settings.path).is_none());
        json!({ "routes": now.chain(gone.map(|route| route.report(true))).collect::<Vec<_>>() })
    }

    /// Answers a request if its path belongs to a route; else gives it back.
    ///
    /// # Errors
    /// The request, if it is nobody's here.
    pub async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        visit: Visit,
    ) -> Result<Answer, Box<Request<Incoming>>> {
        let state = self.state();
        if state.table.routes().is_empty() {
            return Err(Box::new(request));
        }
        let path = match RequestPath::new(request.uri().path()) {
            Ok(path) => path,
            Err(error @ Ambiguous) => return Ok(text(StatusCode::BAD_REQUEST, &error.to_string())),
        };
        let Some(route) = state.table.find(&path) else { return Err(Box::new(request)) };
        let route = Arc::clone(route);
        let origin = match request.headers().get(header::ORIGIN).map(HeaderValue::to_str) {
            Some(Ok(origin)) => Some((origin, visit.known_origin)),
            Some(Err(_)) => Some(("", false)),
            None => None,
        };
        if let Err(denied) = route.admits(visit.peer.ip(), &path, origin) {
            route.counters.refuse(Refused::Denied);
            return Ok(text(StatusCode::FORBIDDEN, &denied.to_string()));
        }
        let admitted = Admitted { route, state, visit, begun: Instant::now() };
        Ok(match (is_upgrade(&request), admitted.route.sort()) {
            (true, Sort::WebSocket) => self.upgrade(request, admitted).await,
            (true, Sort::Bytes) => text(StatusCode::NOT_IMPLEMENTED, ""),
            (false, _) if admitted.route.settings.plain == Plain::Refuse => {
                admitted.route.counters.refuse(Refused::NotUpgrade);
                let mut answer =
                    text(StatusCode::UPGRADE_REQUIRED, "this path takes WebSocket connections only");
                answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                answer
            }
            (false, _) => self.pass_on(request, admitted).await,
        })
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// One more connection of the relay, if it may have one.
    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }
}

impl State {
    fn new(settings: GatewaySettings, before: &Table) -> Self {
        let GatewaySettings { close, keepalive, routes, .. } = settings;
        let shortest = routes.iter().map(|route| route.limits.idle_timeout).min().unwrap_or(LOOK.1);
        let look = (shortest / LOOKS).clamp(LOOK.0, LOOK.1);
        Self { table: Table::new(routes, before), close, keepalive, look }
    }
}

impl Gateway {
    /// An upgrade to an upstream that speaks WebSocket: its answer is the client's.
    async fn upgrade(self: &Arc<Self>, mut request: Request<Incoming>, admitted: Admitted) -> Answer {
        let Admitted { route, state, visit, begun } = admitted;
        let limits = &route.settings.limits;
        let (Some(opening), Some(permit)) = (Opening::take(&route), self.permit()) else {
            route.counters.refuse(Refused::Limit);
            return text(StatusCode::SERVICE_UNAVAILABLE, "as many connections are open here as are allowed");
        };
        let mut failures = Vec::new();
        for upstream in route.upstreams.to_try() {
            let asked = async {
                let seat = upstream.seat(route.settings.upstream_connections)?;
                let stream =
                    upstream.connect(limits.connect_timeout, state.keepalive, route.tls.as_ref()).await?;
                let asked =
                    question(&request, &route, &upstream, &visit, Purpose::Upgrade, Empty::<Bytes>::new());
                Ok((seat, ask::ask(&upstream, stream, asked, limits.upgrade_timeout).await?))
            };
            match asked.await {
                Ok((seat, Answered::Upgraded(answer, stream, early))) => {
                    upstream.worked();
                    route.counters.upgrade.add(begun.elapsed());
                    let passage = opening.enter(&self.clock, visit.peer, seat, permit, state.close);
                    self.begin(hyper::upgrade::on(&mut request), stream, early, passage);
                    return switching(answer.headers().clone());
                }
                Ok((seat, Answered::Other(answer, connection))) => {
                    upstream.worked();
                    route.counters.refuse(Refused::Answered);
                    return passed(
                        answer,
                        connection,
                        limits.idle_timeout,
                        Box::new((seat, permit, visit.serving)),
                    );
                }
                Err(failure) => {
                    upstream.failed(&failure, limits.rest);
                    failures.push(failure);
                }
            }
        }
        refuse(&route, &failures)
    }

    /// Brings both sides together once the client has its answer.
    fn begin(self: &Arc<Self>, upgrade: OnUpgrade, upstream: Stream, early: Bytes, passage: Passage) {
        let life = self.life.clone();
        self.life.spawn(async move {
            let Some(client) = upgraded(upgrade).await else {
                return passage.end(End { side: Side::Client, cause: Cause::Failed, close_code: None });
            };
            // A task of its own, so that what the handshake needed does not stay for as long as the connection.
            life.spawn(Through::new(client, upstream, early, passage).run());
        });
    }

    /// Passes a request that is no upgrade on to an upstream, and its answer back.
    async fn pass_on(self: &Arc<Self>, request: Request<Incoming>, admitted: Admitted) -> Answer {
        let Admitted { route, state, visit, .. } = admitted;
        let limits = &route.settings.limits;
        let Some(permit) = self.permit() else {
            route.counters.refuse(Refused::Limit);
            return text(StatusCode::SERVICE_UNAVAILABLE, "as many connections are open here as are allowed");
        };
        route.counters.request();
        let mut failures = Vec::new();
        for upstream in route.upstreams.to_try() {
            let connected = async {
                let seat = upstream.seat(route.settings.upstream_connections)?;
                Ok((
                    seat,
                    upstream.connect(limits.connect_timeout, state.keepalive, route.tls.as_ref()).await?,
                ))
            };
            let (seat, stream) = match connected.await {
                Ok(connected) => connected,
                Err(failure) => {
                    upstream.failed(&failure, limits.rest);
                    failures.push(failure);
                    continue;
                }
            };
            // From here on its body is on the way: nobody else can be asked.
            let (head, body) = request.into_parts();
            let head = Request::from_parts(head, ());
            let asked = question(&head, &route, &upstream, &visit, Purpose::Plain, body);
            match ask::ask(&upstream, stream, asked, limits.upgrade_timeout).await {
                Ok(Answered::Other(answer, connection)) => {
                    upstream.worked();
                    return passed(
                        answer,
                        connection,
                        limits.idle_timeout,
                        Box::new((seat, permit, visit.serving)),
                    );
                }
                Ok(Answered::Upgraded(..)) => {
                    failures.push(upstream.unreachable("upgraded what was no upgrade"))
                }
                Err(failure) => {
                    upstream.failed(&failure, limits.rest);
                    failures.push(failure);
                }
            }
            break;
        }
        refuse(&route, &failures)
    }
}

/// What an upstream is asked.
fn question<B, C>(
    request: &Request<C>,
    route: &Route,
    upstream: &Upstream,
    visit: &Visit,
    purpose: Purpose,
    body: B,
) -> Request<B> {
    let settings = &route.settings;
    let mut asked = Request::new(body);
    *asked.method_mut() = request.method().clone();
    // It was understood when the route was found.
    if let Ok(path) = RequestPath::new(request.uri().path()) {
        let rewrite = settings.rewrite.as_ref();
        let target = settings.path.forward(&upstream.address.base, rewrite, &path, request.uri().query());
        *asked.uri_mut() = target.parse().unwrap_or_default();
    }
    *asked.headers_mut() =
        request::headers(request.headers(), settings, &upstream.address, visit.peer, purpose);
    asked
}

/// The client's connection, once it has its answer; none if it is gone.
async fn upgraded(upgrade: OnUpgrade) -> Option<Connection> {
    let parts = upgrade.await.ok()?.downcast::<TokioIo<Connection>>().ok()?;
    let mut connection = parts.io.into_inner();
    // The unread bytes get memory of their own, so that hyper's buffer goes.
    connection.unread(Bytes::copy_from_slice(&parts.read_buf));
    Some(connection)
}

/// The answer that upgrades, with what the upstream said in it.
fn switching(mut headers: HeaderMap) -> Answer {
    request::strip_connection(&mut headers);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let mut answer = Response::new(Body::from(Full::default()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = headers;
    answer
}

/// The answer of an upstream, as it is.
fn passed(answer: Response<Incoming>, connection: Driver, idle: Duration, held: Held) -> Answer {
    answer.map(|body| Body::Passed(Box::new(Passed::new(body, connection, idle, held))))
}

/// No upstream did what it is for: says of each what it did.
fn refuse(route: &Route, failures: &[Failure]) -> Answer {
    let Some(last) = failures.last() else {
        return text(StatusCode::BAD_GATEWAY, "the route has no upstream");
    };
    // One that is full says least about why there is none.
    let told = failures.iter().rev().find(|failure| !matches!(failure, Failure::Full(_))).unwrap_or(last);
    route.counters.refuse(told.refused());
    let line: Vec<String> = failures.iter().map(Failure::to_string).collect();
    text(told.status(), &line.join("; "))
}

fn is_upgrade(request: &Request<Incoming>) -> bool {
    let upgrade = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    request.method() == Method::GET
        && upgrade
            .is_some_and(|value| value.split(',').any(|name| name.trim().eq_ignore_ascii_case("websocket")))
}
