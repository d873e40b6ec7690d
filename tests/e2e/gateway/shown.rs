//! `relay routes`: what has passed, for people and programs.

use serde_json::Value;
use tests::{
    frames::FrameClient,
    program::{Finished, Program},
    relay::TestRelay,
    upstream::{Echo, refusing},
};

use super::{refused, say};

async fn relay_routes(url: &str, more: &[&str]) -> Finished {
    let args = ["routes", "--url", url].into_iter().chain(more.iter().copied());
    Program::start("relay", args).finish().await
}

#[tokio::test]
async fn what_has_passed_is_shown_as_a_table_and_as_json() {
    let echo = Echo::start().await;
    let dead = refusing();
    let config = format!(
        "[[route]]\npath = \"/app\"\nupstreams = [\"ws://{}\"]\n[[route]]\npath = \"/dead\"\nupstreams = [\"ws://{dead}\"]\n",
        echo.address()
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    let mut client = FrameClient::connect(relay.address(), "/app").await;
    say(&mut client, "x", "x").await;
    say(&mut client, "y", "y").await;
    refused(&relay, "/dead", "").await;

    let url = format!("http://{}", relay.host());
    let shown = relay_routes(&url, &[]).await;
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    let lines = shown.lines();
    let line = |begin: &str| {
        let found = lines.iter().find(|line| line.trim_start().starts_with(begin));
        found.unwrap_or_else(|| panic!("no line of {begin}: {lines:?}")).clone()
    };
    assert!(lines[0].starts_with("path "), "{lines:?}");
    assert!(line("/app").contains("2 in 14 B") && line("/app").contains("2 in 6 B"), "{lines:?}");
    assert!(line("/dead").contains("1 (unreachable 1)"), "{lines:?}");
    assert!(line(&format!("ws://{dead}")).contains("failed 1 times, resting"), "{lines:?}");

    let shown = relay_routes(&url, &["--json"]).await;
    let told: Value = serde_json::from_slice(&shown.stdout).expect("it is JSON");
    assert_eq!(told["routes"][0]["connections"]["open"], 1);
}

#[tokio::test]
async fn a_relay_without_routes_and_no_relay_are_told_apart() {
    let relay = TestRelay::start(&[]).await;
    let shown = relay_routes(&format!("http://{}", relay.host()), &[]).await;
    assert_eq!((shown.code, shown.lines()), (Some(0), vec!["no routes".to_owned()]));
    let url = format!("http://{}", refusing());
    let shown = relay_routes(&url, &[]).await;
    assert_ne!(shown.code, Some(0));
    assert!(shown.stderr.contains("cannot reach a relay at"), "{}", shown.stderr);
}
