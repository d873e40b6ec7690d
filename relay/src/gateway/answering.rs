//! Requests to the gateway, from the admission to the two streams that come together, or to the answer that says why
//! they do not.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{Empty, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{self, HeaderValue},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::{
    Gateway, State,
    ask::{self, Answered},
    body::{Answer, Body, Driver, Held, Pace, Passed, text},
    bridge::Bridge,
    counters::{Cause, End, Refused, Side},
    course::Source,
    govern::Governor,
    passage::{Opening, Passage},
    path::{Ambiguous, RequestPath},
    request::{self, Purpose},
    routes::Route,
    settings::{Plain, Sort},
    stream::Stream,
    through::Through,
    upload::{Progress, Upload},
    upstream::{Failure, Seat, Upstream},
    walk::Walker,
};
use crate::connection::Connection;

/// Who asks.
#[derive(Debug)]
pub struct Visit {
    /// The address that it comes from.
    pub peer: SocketAddr,
    /// Whether the page that it is, if it is one, may subscribe to channels.
    pub known_origin: bool,
    /// Tells that somebody is being served, as long as it lasts, and whether the answer moves.
    pub serving: Arc<Pace>,
}

/// A request that was admitted to a route.
struct Admitted {
    route: Arc<Route>,
    state: Arc<State>,
    visit: Visit,
    begun: Instant,
}

impl Gateway {
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
        let upgrades = is_upgrade(&request);
        if upgrades && !request.body().is_end_stream() {
            // What came behind it would be frames for one side and a body for the other.
            route.counters.refuse(Refused::NotUpgrade);
            return Ok(text(StatusCode::BAD_REQUEST, "an upgrade has no body"));
        }
        let admitted = Admitted { route, state, visit, begun: Instant::now() };
        Ok(match (upgrades, admitted.route.sort()) {
            (true, Sort::WebSocket) => self.upgrade(request, admitted).await,
            (true, Sort::Bytes) => self.bridge(request, admitted).await,
            (false, _) if admitted.route.settings.plain == Plain::Refuse => {
                admitted.route.counters.refuse(Refused::NotUpgrade);
                let mut answer =
                    text(StatusCode::UPGRADE_REQUIRED, "this path takes WebSocket connections only");
                answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                answer
            }
            (false, _) if request.method() == Method::CONNECT => {
                admitted.route.counters.refuse(Refused::Wrong);
                let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "no tunnel leads through here");
                let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
                answer.headers_mut().insert(header::ALLOW, allowed);
                answer
            }
            (false, _) => self.pass_on(request, admitted).await,
        })
    }
    /// An upgrade to an upstream that speaks WebSocket: its answer is the client's.
    async fn upgrade(self: &Arc<Self>, mut request: Request<Incoming>, admitted: Admitted) -> Answer {
        let Admitted { route, state, visit, begun } = admitted;
        let limits = &route.settings.limits;
        let governed = route.settings.is_governed();
        let purpose = if governed { Purpose::GovernedUpgrade } else { Purpose::Upgrade };
        let (Some(opening), Some(permit)) = (Opening::take(&route), self.permit()) else {
            return full(&route);
        };
        let mut failures = Vec::new();
        for upstream in route.upstreams.to_try() {
            let asked = async {
                let seat = upstream.seat(route.settings.seats())?;
                let stream =
                    upstream.connect(limits.connect_timeout, state.keepalive, route.tls.as_ref()).await?;
                let asked = question(&request, &route, &upstream, &visit, purpose, Empty::<Bytes>::new())?;
                let answered = ask::ask(&upstream, stream, asked, Progress::sent(), limits).await?;
                match &answered {
                    // Nobody would understand what it sends then.
                    Answered::Upgraded(answer, ..)
                        if governed && answer.headers().contains_key(header::SEC_WEBSOCKET_EXTENSIONS) =>
                    {
                        Err(upstream.unreachable("agreed to an extension that it was not offered"))
                    }
                    _ => Ok((seat, answered)),
                }
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
                        visit.serving,
                        Box::new((opening, seat, permit)),
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

    /// An upgrade where the upstream speaks no WebSocket: the answer is the gateway's.
    async fn bridge(self: &Arc<Self>, mut request: Request<Incoming>, admitted: Admitted) -> Answer {
        let Admitted { route, state, visit, begun } = admitted;
        let mut answer = match create_response_with_body(&request, Empty::<Bytes>::new) {
            Ok(answer) => answer.map(|_| Body::from(Full::default())),
            Err(error) => {
                route.counters.refuse(Refused::NotUpgrade);
                return text(StatusCode::BAD_REQUEST, &format!("not a WebSocket handshake: {error}"));
            }
        };
        match chosen(request.headers(), route.settings.subprotocols.as_deref()) {
            Ok(Some(chosen)) => drop(answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, chosen)),
            Ok(None) => {}
            Err(line) => {
                route.counters.refuse(Refused::NotUpgrade);
                return text(StatusCode::BAD_REQUEST, &line);
            }
        }
        let (Some(opening), Some(permit)) = (Opening::take(&route), self.permit()) else {
            return full(&route);
        };
        let (upstream, seat, stream) = match connect(&route, &state).await {
            Ok(connected) => connected,
            Err(failures) => return refuse(&route, &failures),
        };
        upstream.worked();
        route.counters.upgrade.add(begun.elapsed());
        let passage = opening.enter(&self.clock, visit.peer, seat, permit, state.close);
        let life = self.life.clone();
        let upgrade = hyper::upgrade::on(&mut request);
        self.life.spawn(async move {
            match upgraded(upgrade).await {
                Some(client) => life.spawn(Box::new(Bridge::new(client, stream, passage)).run()),
                None => passage.end(VANISHED),
            }
        });
        answer
    }

    /// Brings both sides together once the client has its answer.
    fn begin(self: &Arc<Self>, upgrade: OnUpgrade, upstream: Stream, early: Bytes, passage: Passage) {
        let life = self.life.clone();
        self.life.spawn(async move {
            // A task of its own, so that what the handshake needed does not stay for as long as the connection.
            match upgraded(upgrade).await {
                Some(client) if passage.route().settings.is_governed() => {
                    let [up, down] =
                        [Source::Client, Source::Upstream].map(|from| Governor::new(&passage, from));
                    life.spawn(Through::new(client, upstream, early, up, down, passage).run());
                }
                Some(client) => {
                    let [up, down] = <[Walker; 2]>::default();
                    life.spawn(Through::new(client, upstream, early, up, down, passage).run());
                }
                None => passage.end(VANISHED),
            }
        });
    }

    /// Passes a request that is no upgrade on to an upstream, and its answer back.
    async fn pass_on(self: &Arc<Self>, request: Request<Incoming>, admitted: Admitted) -> Answer {
        let Admitted { route, state, visit, .. } = admitted;
        let limits = &route.settings.limits;
        let (Some(opening), Some(permit)) = (Opening::take(&route), self.permit()) else {
            return full(&route);
        };
        route.counters.request();
        let (upstream, seat, stream) = match connect(&route, &state).await {
            Ok(connected) => connected,
            Err(failures) => return refuse(&route, &failures),
        };
        // From here on its body is on the way: nobody else can be asked.
        let (head, body) = request.into_parts();
        let head = Request::from_parts(head, ());
        let in_chunks = !body.is_end_stream() && body.size_hint().exact().is_none();
        let (body, progress) = Upload::new(body, Arc::clone(&visit.serving));
        let mut asked = match question(&head, &route, &upstream, &visit, Purpose::Plain, body) {
            Ok(asked) => asked,
            Err(failure) => return refuse(&route, &[failure]),
        };
        if in_chunks {
            // Unsaid, it would be no body with some methods, and with others one of the length that is said beside it.
            asked.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            asked.headers_mut().remove(header::CONTENT_LENGTH);
        }
        let failure = match ask::ask(&upstream, stream, asked, progress, limits).await {
            Ok(Answered::Other(answer, connection)) => {
                upstream.worked();
                return passed(
                    answer,
                    connection,
                    limits.idle_timeout,
                    visit.serving,
                    Box::new((opening, seat, permit)),
                );
            }
            Ok(Answered::Upgraded(..)) => upstream.unreachable("upgraded what was no upgrade"),
            Err(failure) => failure,
        };
        upstream.failed(&failure, limits.rest);
        refuse(&route, &[failure])
    }
}

/// The first subprotocol offered that is known, if any is offered; where none are known, the first.
///
/// # Errors
/// The text that says which are known.
fn chosen(headers: &HeaderMap, known: Option<&[String]>) -> Result<Option<HeaderValue>, String> {
    let offered: Vec<&str> = request::offered(headers).filter(|name| !name.is_empty()).collect();
    if offered.is_empty() {
        return Ok(None);
    }
    let is_known = |name: &str| known.is_none_or(|known| known.iter().any(|known| known == name));
    let chosen =
        offered.into_iter().find(|name| is_known(name)).and_then(|name| HeaderValue::from_str(name).ok());
    let known = || known.map(|known| known.join(", ")).unwrap_or_default();
    chosen.map(Some).ok_or_else(|| format!("the subprotocols of this path are {}, or none", known()))
}

/// The client was gone before it had its answer.
const VANISHED: End = End { side: Side::Client, cause: Cause::Failed, close_code: None };

/// Connects to the first upstream that takes it.
///
/// # Errors
/// What each did instead.
async fn connect(route: &Route, state: &State) -> Result<(Arc<Upstream>, Seat, Stream), Vec<Failure>> {
    let limits = &route.settings.limits;
    let mut failures = Vec::new();
    for upstream in route.upstreams.to_try() {
        let connected = async {
            let seat = upstream.seat(route.settings.seats())?;
            Ok((seat, upstream.connect(limits.connect_timeout, state.keepalive, route.tls.as_ref()).await?))
        };
        match connected.await {
            Ok((seat, stream)) => return Ok((upstream, seat, stream)),
            Err(failure) => {
                upstream.failed(&failure, limits.rest);
                failures.push(failure);
            }
        }
    }
    Err(failures)
}

/// No connection is left for it.
fn full(route: &Route) -> Answer {
    route.counters.refuse(Refused::Limit);
    text(StatusCode::SERVICE_UNAVAILABLE, "as many connections are open here as are allowed")
}

/// What an upstream is asked.
///
/// # Errors
/// The path is too long behind the upstream's own.
fn question<B, C>(
    request: &Request<C>,
    route: &Route,
    upstream: &Upstream,
    visit: &Visit,
    purpose: Purpose,
    body: B,
) -> Result<Request<B>, Failure> {
    let settings = &route.settings;
    let mut asked = Request::new(body);
    *asked.method_mut() = request.method().clone();
    // It was understood when the route was found.
    if let Ok(path) = RequestPath::new(request.uri().path()) {
        let rewrite = settings.rewrite.as_ref();
        let target = settings.path.forward(&upstream.address.base, rewrite, &path, request.uri().query());
        *asked.uri_mut() = target.parse().map_err(|_| upstream.too_long())?;
    }
    *asked.headers_mut() =
        request::headers(request.headers(), settings, &upstream.address, visit.peer, purpose);
    Ok(asked)
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
fn passed(
    answer: Response<Incoming>,
    connection: Driver,
    idle: Duration,
    pace: Arc<Pace>,
    held: Held,
) -> Answer {
    answer.map(|body| Body::Passed(Box::new(Passed::new(body, connection, idle, pace, held))))
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
