//! The gateway: paths of the relay's port that lead to upstreams. What passes, to whom, and what becomes of it when
//! either side is late, wrong or gone.

mod access;
mod bulk;
mod bytes;
mod changes;
mod choice;
mod document;
mod faults;
mod gone;
mod governed;
mod headers;
mod matching;
mod plain;
mod pressure;
mod rules;
mod secure;
mod shown;
mod taps;
mod through;
mod uploads;

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tests::{
    frames::{FIN, FrameClient, opcode},
    http::{self, Answer},
    relay::TestRelay,
    within,
};
use tokio::time::interval;

const TEXT: u8 = FIN | opcode::TEXT;
const BINARY: u8 = FIN | opcode::BINARY;
const CLOSE: u8 = FIN | opcode::CLOSE;
const PING: u8 = FIN | opcode::PING;
const PONG: u8 = FIN | opcode::PONG;

/// A rule that looks at every message and is about none.
const RULE: &str = "[[route.rule]]\nmatches = \"never said\"\naction = \"drop\"\n";

/// The two ways through: bytes as they are, and messages that are understood. What is not about their difference holds
/// for both.
const WAYS: [&str; 2] = ["", RULE];

/// A relay with one route at `/app` to this upstream; `more` are more keys of it.
async fn relay_to(upstream: SocketAddr, more: &str) -> TestRelay {
    TestRelay::with_config(&app(upstream, more), &[]).await
}

/// A route at `/app` to this upstream; `more` are more keys of it.
fn app(upstream: SocketAddr, more: &str) -> String {
    format!("[[route]]\npath = \"/app\"\nupstreams = [\"ws://{upstream}\"]\n{more}\n")
}

/// Expects that an upgrade is not done; the answer.
async fn refused(relay: &TestRelay, path: &str, more: &str) -> Answer {
    match FrameClient::try_connect(relay.address(), path, more).await {
        Ok(_) => panic!("{path} was upgraded"),
        Err(answer) => answer,
    }
}

/// Sends a text and expects another one back.
async fn say(client: &mut FrameClient, text: &str, back: &str) {
    client.send(TEXT, text.as_bytes()).await;
    client.expect(TEXT, back.as_bytes()).await;
}

/// A masked frame of a close.
fn close(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// What is told of all routes.
async fn routes(relay: &TestRelay) -> Vec<Value> {
    let answer = http::get(relay.address(), "/api/v1/routes").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut told: Value = serde_json::from_str(&answer.body).expect("it is JSON");
    serde_json::from_value(told["routes"].take()).expect("there is a list of routes")
}

/// What is told of one route.
async fn route(relay: &TestRelay, path: &str) -> Value {
    let told = routes(relay).await.into_iter().find(|route| route["path"] == path);
    told.unwrap_or_else(|| panic!("there is no route {path}"))
}

/// Waits until what is told of a route is so. Ends are counted when they are over: looked at again at a pace.
async fn told(relay: &TestRelay, path: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let mut pace = interval(Duration::from_millis(10));
    let look = async {
        loop {
            pace.tick().await;
            let told = route(relay, path).await;
            if is(&told) {
                return told;
            }
        }
    };
    within(format_args!("the route {path} to tell of {what}"), look).await
}

/// Waits until one connection of `/app` was counted as ended by this side for this reason, and none is open.
async fn ended(relay: &TestRelay, side: &str, cause: &str) -> Value {
    let what = format!("an end by the {side}: {cause}");
    let told =
        told(relay, "/app", &what, |told| told["ends"][side][cause] == 1 && told["connections"]["open"] == 0);
    let told = told.await;
    let ends: u64 = ["client", "upstream", "gateway"]
        .iter()
        .filter_map(|side| told["ends"][side].as_object())
        .flat_map(|causes| causes.values())
        .filter_map(Value::as_u64)
        .sum();
    assert_eq!(ends, 1, "one connection has one end: {}", told["ends"]);
    assert_eq!(told["upstreams"][0]["open"], 0, "its seat at the upstream is free again");
    told
}
