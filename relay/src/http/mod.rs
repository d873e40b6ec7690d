//! The HTTP side of the port: upgrades, the page, and clear answers to everything else.
//!
//! - [`guard`]: Host and Origin, so that web pages from elsewhere do not reach in.
//! - [`page`]: the page for browsers.

pub mod guard;
pub mod page;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{Empty, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use shared::receiver::{CloseCode, Subprotocol};
use tokio_tungstenite::tungstenite::{
    Error as WsError, error::ProtocolError, handshake::server::create_response_with_body,
};

use crate::{
    channel::hub::Hub,
    connection::Connection,
    gateway::{
        Gateway, Visit,
        body::{Answer, Pace, text as refusal},
    },
    receivers::{
        ReceiverSettings,
        protocol::{self, Negotiated, Refusal, Request as Wanted},
        session::{Prepared, Session},
    },
    shutdown::Life,
};

/// What holds for HTTP connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Bytes that a request's head may have; at least 8 192.
    pub header_bytes: usize,
    /// How long a request's head may take.
    pub headers: Duration,
    /// How long a connection may go on with requests, or take to read an answer.
    pub stall: Duration,
    /// How long it may take to end.
    pub close: Duration,
    /// Names besides `localhost` and IP addresses that `Host` may say; lower case.
    pub hosts: Vec<String>,
    /// Origins besides the relay's own that may subscribe and publish: `https://example.org`, lower case.
    pub origins: Vec<String>,
}

/// Answers HTTP connections.
#[derive(Debug)]
pub struct Front {
    hub: Arc<Hub>,
    gateway: Arc<Gateway>,
    life: Life,
    settings: HttpSettings,
    receivers: Arc<ReceiverSettings>,
}

/// Where the routes of the gateway are told of.
const ROUTES: &str = "/api/v1/routes";

/// The channel of `/`.
const DEFAULT_CHANNEL: &str = "default";

impl Front {
    /// Answers with these settings.
    pub fn new(
        hub: Arc<Hub>,
        gateway: Arc<Gateway>,
        life: Life,
        settings: HttpSettings,
        receivers: ReceiverSettings,
    ) -> Self {
        Self { hub, gateway, life, settings, receivers: Arc::new(receivers) }
    }

    /// Bytes that a request's head may have.
    pub fn header_bytes(&self) -> usize {
        self.settings.header_bytes
    }

    /// Serves a connection until it ends or is upgraded. A request's head has a deadline; so has the wait for
    /// the next one.
    pub async fn serve(self: Arc<Self>, connection: Connection) {
        let (header_bytes, headers) = (self.settings.header_bytes, self.settings.headers);
        let front = Arc::clone(&self);
        let peer = connection.peer();
        // Who serves has one, the service too; each answer of the gateway has one until it is out.
        let serving = Arc::new(Pace::default());
        let others = Arc::clone(&serving);
        let service = service_fn(move |request| {
            let (front, serving) = (Arc::clone(&front), Arc::clone(&others));
            async move { Ok::<_, Infallible>(front.answer(request, peer, serving).await) }
        });
        let is_idle = || Arc::strong_count(&serving) <= 2;
        let answering = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(headers)
            .max_buf_size(header_bytes)
            .serve_connection(TokioIo::new(connection), service)
            .with_upgrades();
        let mut answering = std::pin::pin!(answering);
        loop {
            tokio::select! {
                // In this order, so that the pace of an answer is known before it is looked at.
                biased;
                // What goes wrong here is the peer's to see: hyper has answered it as well as it could.
                _ = answering.as_mut() => return,
                () = self.life.stopping() => break,
                // Its upstream or its client does not go on: there is nothing to wait for.
                () = serving.late() => return,
                // The gateway has limits of its own for what takes long.
                () = tokio::time::sleep(self.settings.stall) => if is_idle() { break },
            }
        }
        // A peer that does not read its answers has no other end.
        answering.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(self.settings.close, answering).await;
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
        serving: Arc<Pace>,
    ) -> Answer {
        if let Err(text) = guard::host(request.headers(), &self.settings.hosts) {
            return refusal(StatusCode::MISDIRECTED_REQUEST, &text);
        }
        let path = request.uri().path();
        let name = if path == "/" { Some(DEFAULT_CHANNEL) } else { path.strip_prefix("/c/") };
        match name {
            Some(name) => {
                let name = name.to_owned();
                self.channel(request, &name).await
            }
            None if path == ROUTES => self.routes(&request),
            None if page::asset(path).is_some() || path.starts_with("/api/") => asset(request.method(), path),
            None => {
                let known_origin = guard::origin(request.headers(), &self.settings.origins).is_ok();
                let visit = Visit { peer, known_origin, serving };
                match self.gateway.answer(request, visit).await {
                    Ok(answer) => answer,
                    Err(nobodys) => asset(nobodys.method(), nobodys.uri().path()),
                }
            }
        }
    }

    /// What has passed on each route of the gateway.
    fn routes(&self, request: &Request<Incoming>) -> Answer {
        if let Err(text) = guard::origin(request.headers(), &self.settings.origins) {
            return refusal(StatusCode::FORBIDDEN, &text);
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET");
        }
        let mut answer = Response::new(Full::new(Bytes::from(self.gateway.report().to_string())).into());
        for (name, value) in page::SECURITY {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }

    /// A channel is a URL: an upgrade subscribes, a browser gets the page.
    async fn channel(self: Arc<Self>, request: Request<Incoming>, name: &str) -> Answer {
        if is_upgrade(request.headers()) {
            return self.upgrade(request, name).await;
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let text = "a channel is subscribed with a WebSocket upgrade, or read in a browser with GET";
            let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, text);
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        if let Err(refused) = Wanted::parse(name, "", 1) {
            return refusal(StatusCode::BAD_REQUEST, &refused.text);
        }
        let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        if accept.is_some_and(|accept| accept.contains("text/html")) {
            return serve_asset(&page::PAGE);
        }
        let text = format!(
            "this is the channel `{name}`: open it in a browser, subscribe with a WebSocket to this URL, \
             or run `recv-client --channel {name}`"
        );
        let mut answer = refusal(StatusCode::UPGRADE_REQUIRED, &text);
        answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        answer
    }

    async fn upgrade(self: Arc<Self>, mut request: Request<Incoming>, name: &str) -> Answer {
        let mut answer = match create_response_with_body(&request, Empty::<Bytes>::new) {
            Ok(answer) => answer.map(|_| Full::default().into()),
            Err(e) => return bad_handshake(&e),
        };
        let browser = match guard::origin(request.headers(), &self.settings.origins) {
            Ok(origin) => origin.is_some(),
            Err(text) => return refusal(StatusCode::FORBIDDEN, &text),
        };
        let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
        let offered =
            offered.iter().filter_map(|names| names.to_str().ok()).flat_map(|names| names.split(','));
        let query = request.uri().query().unwrap_or_default();
        let wanted = Wanted::parse(name, query, self.receivers.subscriptions);
        let (echo, granted) = match (protocol::negotiate(offered), wanted) {
            (Negotiated::Form(form, echo), Ok(wanted)) => {
                // Before the answer, so that nothing that is published once the peer has it is missed.
                let Ok(begun) = Session::prepare(&self.hub, form, wanted).await else {
                    return refusal(StatusCode::SERVICE_UNAVAILABLE, "the store can't be read");
                };
                (echo.map(str::to_owned), Ok(begun))
            }
            (Negotiated::Form(_, echo), Err(refused)) => (echo.map(str::to_owned), Err(refused)),
            (Negotiated::Unknown { echo }, _) => {
                let known = Subprotocol::ALL.map(Subprotocol::name).join(", ");
                let text = format!("subprotocol `{echo}` is not known; known are {known}, or none");
                (Some(echo), Err(Refusal { code: CloseCode::BadSubprotocol, text }))
            }
        };
        if let (Err(refused), false) = (&granted, browser) {
            return refusal(StatusCode::BAD_REQUEST, &refused.text);
        }
        if let Some(name) = echo.and_then(|name| HeaderValue::try_from(name).ok()) {
            answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, name);
        }
        let upgrade = hyper::upgrade::on(&mut request);
        let life = self.life.clone();
        life.spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let Ok(parts) = upgraded.downcast::<TokioIo<Connection>>() else { return };
            let mut connection = parts.io.into_inner();
            // The unread bytes get memory of their own, so that hyper's buffer goes.
            connection.unread(Bytes::copy_from_slice(&parts.read_buf));
            drop(parts.read_buf);
            self.subscribe(connection, granted).await;
        });
        answer
    }

    async fn subscribe(self: Arc<Self>, connection: Connection, granted: Result<Prepared, Refusal>) {
        let settings = Arc::clone(&self.receivers);
        let prepared = match granted {
            Ok(prepared) => prepared,
            Err(refused) => {
                return Session::refuse(connection, refused.code, &refused.text, settings.close).await;
            }
        };
        if settings.send_buffer > 0 {
            let socket = socket2::SockRef::from(connection.socket());
            let _ = socket.set_send_buffer_size(settings.send_buffer as usize);
        }
        // A task of its own, so that what the handshake needed does not stay for as long as the receiver.
        let session = Session::new(connection, Arc::clone(&self.hub), settings, prepared);
        self.life.spawn(Box::new(session).run());
    }
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.split(',').any(|name| name.trim().eq_ignore_ascii_case("websocket")))
}

fn bad_handshake(error: &WsError) -> Answer {
    if matches!(error, WsError::Protocol(ProtocolError::MissingSecWebSocketVersionHeader)) {
        let mut answer = refusal(StatusCode::UPGRADE_REQUIRED, "only version 13 of WebSocket is spoken here");
        answer.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return answer;
    }
    refusal(StatusCode::BAD_REQUEST, &format!("not a WebSocket handshake: {error}"))
}

fn asset(method: &Method, path: &str) -> Answer {
    match page::asset(path) {
        Some(asset) if method == Method::GET || method == Method::HEAD => serve_asset(&asset),
        Some(_) => refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET"),
        None => {
            let text = format!("there is nothing at {path}: a channel NAME is at /c/NAME, the page at /");
            refusal(StatusCode::NOT_FOUND, &text)
        }
    }
}

fn serve_asset(asset: &page::Asset) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(asset.body)).into());
    for (name, value) in page::SECURITY {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    answer
}
