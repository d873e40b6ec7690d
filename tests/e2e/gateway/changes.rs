//! Routes that change while the relay runs: SIGHUP reads them again.

use std::{io::Write, net::SocketAddr, time::Duration};

use tests::{
    frames::FrameClient,
    http,
    program::Signal,
    receiver::Receiver,
    relay::TestRelay,
    upstream::{Echo, Peer, Upstream},
    within,
};
use tokio::{task::JoinSet, time::interval};

use super::{WAYS, app, refused, route, routes, say, told};

/// Writes another configuration and has the relay read it.
pub(super) async fn reload(relay: &mut TestRelay, toml: &str) {
    std::fs::write(relay.config().expect("it has a file").path(), toml).unwrap();
    relay.program().signal(Signal::Hup).await;
}

/// Waits until these are the routes, in this order. Nothing else announces it: looked at again at a pace.
pub(super) async fn until_routes(relay: &TestRelay, paths: &[&str]) {
    let mut pace = interval(Duration::from_millis(5));
    let look = async {
        loop {
            pace.tick().await;
            let told = routes(relay).await;
            let now: Vec<_> = told
                .iter()
                .filter(|r| r["removed"] == false)
                .map(|r| r["path"].as_str().unwrap().to_owned())
                .collect();
            if now == paths {
                return;
            }
        }
    };
    within(format_args!("the routes {paths:?}"), look).await;
}

fn other(path: &str, upstream: SocketAddr, more: &str) -> String {
    format!("[[route]]\npath = \"{path}\"\nupstreams = [\"ws://{upstream}\"]\n{more}\n")
}

#[tokio::test]
async fn routes_are_added_changed_and_removed() {
    let (one, two) = (Echo::named("one:").await, Echo::named("two:").await);
    let mut relay = TestRelay::with_config(&app(one.address(), ""), &[]).await;
    say(&mut FrameClient::connect(relay.address(), "/app").await, "x", "one:x").await;
    assert_eq!(refused(&relay, "/new", "").await.status, 404);

    let both = format!("{}{}", app(one.address(), ""), other("/new", two.address(), ""));
    reload(&mut relay, &both).await;
    until_routes(&relay, &["/app", "/new"]).await;
    say(&mut FrameClient::connect(relay.address(), "/new").await, "x", "two:x").await;

    // What was counted of a changed route goes on.
    reload(&mut relay, &app(two.address(), "")).await;
    until_routes(&relay, &["/app"]).await;
    say(&mut FrameClient::connect(relay.address(), "/app").await, "x", "two:x").await;
    assert_eq!(refused(&relay, "/new", "").await.status, 404);
    assert_eq!(route(&relay, "/app").await["connections"]["total"], 2);

    reload(&mut relay, "").await;
    until_routes(&relay, &[]).await;
    assert_eq!(refused(&relay, "/app", "").await.status, 404);
}

#[tokio::test]
async fn connections_of_a_removed_route_go_on_to_their_end() {
    let echo = Echo::start().await;
    let mut relay = TestRelay::with_config(&app(echo.address(), ""), &[]).await;
    let mut client = FrameClient::connect(relay.address(), "/app").await;
    say(&mut client, "before", "before").await;
    reload(&mut relay, "").await;
    until_routes(&relay, &[]).await;
    assert_eq!(refused(&relay, "/app", "").await.status, 404);
    say(&mut client, "after", "after").await;
    let removed = route(&relay, "/app").await;
    assert_eq!((&removed["removed"], &removed["connections"]["open"]), (&true.into(), &1.into()));
    drop(client);
    // With its last connection it is forgotten.
    let mut pace = interval(Duration::from_millis(10));
    let forgotten = async {
        while !routes(&relay).await.is_empty() {
            pace.tick().await;
        }
    };
    within("a removed route to be forgotten", forgotten).await;
}

#[tokio::test]
async fn connections_of_a_removed_or_changed_route_are_drained_if_it_says_so() {
    for way in WAYS {
        let echo = Echo::start().await;
        let drain = "[gateway]\non_change = \"drain\"\n";
        let both = format!("{drain}{}{}", app(echo.address(), way), other("/kept", echo.address(), way));
        let mut relay = TestRelay::with_config(&both, &[]).await;
        let mut gone = FrameClient::connect(relay.address(), "/app").await;
        let mut kept = FrameClient::connect(relay.address(), "/kept").await;
        reload(&mut relay, &format!("{drain}{}", other("/kept", echo.address(), way))).await;
        assert_eq!(gone.closed().await, 1012);
        say(&mut kept, "untouched", "untouched").await;
        reload(
            &mut relay,
            &format!("{drain}{}", other("/kept", echo.address(), &format!("connections = 5\n{way}"))),
        )
        .await;
        assert_eq!(kept.closed().await, 1012);
        drop(kept);
        let counted = told(&relay, "/kept", "no connection", |told| told["connections"]["open"] == 0).await;
        assert_eq!(counted["ends"]["gateway"]["changed"], 1);
    }
}

/// A connection that was being opened while its route was removed, or changed if there is another.
async fn opened_meanwhile(relay: &mut TestRelay, upstream: &Upstream, after: &str) -> (FrameClient, Peer) {
    let address = relay.address();
    let open = FrameClient::connect(address, "/app");
    let change = async {
        let mut peer = upstream.request().await;
        reload(relay, &(other("/marker", upstream.address(), "") + after)).await;
        until_routes(relay, if after.is_empty() { &["/marker"] } else { &["/app", "/marker"] }).await;
        peer.write(peer.head.upgrade("")).await;
        peer
    };
    tokio::join!(open, change)
}

#[tokio::test]
async fn a_connection_that_is_opened_while_its_route_goes_is_ended_as_every_other() {
    for way in WAYS {
        for changed in [true, false] {
            let upstream = Upstream::start().await;
            let config = |more: &str| {
                let route = app(upstream.address(), &format!("{more}\n{way}"));
                format!("[timeouts]\nclose = \"100ms\"\n{route}")
            };
            let after =
                |more: &str| if changed { config(&format!("connections = 9\n{more}")) } else { "".into() };

            let mut relay = TestRelay::with_config(&config("idle_timeout = \"100ms\""), &[]).await;
            let (mut client, _peer) = opened_meanwhile(&mut relay, &upstream, &after("")).await;
            assert_eq!(client.closed().await, 1001, "nothing came");

            let mut relay = TestRelay::with_config(&config(""), &[]).await;
            let (mut client, _peer) = opened_meanwhile(&mut relay, &upstream, &after("")).await;
            let (finished, code) = tokio::join!(relay.stop(), client.closed());
            assert_eq!((finished.code, code), (Some(0), 1012), "{}", finished.stderr);
            assert!(!finished.stderr.contains("before all connections had ended"), "{}", finished.stderr);

            let drain = "on_change = \"drain\"";
            let mut relay = TestRelay::with_config(&config(drain), &[]).await;
            let (mut client, _peer) = opened_meanwhile(&mut relay, &upstream, &after(drain)).await;
            assert_eq!(client.closed().await, 1012);
        }
    }
}

#[tokio::test]
async fn no_two_open_connections_of_a_path_have_one_number_in_its_tap() {
    let echo = Echo::start().await;
    let tapped = |more: &str| app(echo.address(), &format!("{more}[route.tap]\nfrom = \"client\"\n"));
    let mut relay = TestRelay::with_config(&tapped(""), &[]).await;
    let mut tap = Receiver::connect(relay.address(), "/c/tap/app", None).await;
    let mut clients = Vec::new();
    for (marker, config) in [("/0", tapped("")), ("/1", tapped("connections = 9\n"))] {
        reload(&mut relay, &(other(marker, echo.address(), "") + &config)).await;
        until_routes(&relay, &[marker, "/app"]).await;
        clients.push(FrameClient::connect(relay.address(), "/app").await);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        say(client, "x", "x").await;
        let told: serde_json::Value = serde_json::from_str(&tap.text().await).unwrap();
        assert_eq!(told["connection"], number + 1);
    }
}

#[tokio::test]
async fn a_route_that_comes_back_goes_on_with_its_limits_and_what_it_counted() {
    for way in WAYS {
        let echo = Echo::start().await;
        let config = app(echo.address(), &format!("connections = 2\n{way}"));
        let mut relay = TestRelay::with_config(&config, &[]).await;
        let mut before = FrameClient::connect(relay.address(), "/app").await;
        say(&mut before, "x", "x").await;
        let changed = app(echo.address(), &format!("connections = 3\n{way}"));
        reload(&mut relay, &(other("/marker", echo.address(), "") + &changed)).await;
        until_routes(&relay, &["/app", "/marker"]).await;
        say(&mut FrameClient::connect(relay.address(), "/app").await, "x", "x").await;
        let mut between = FrameClient::connect(relay.address(), "/app").await;
        reload(&mut relay, "").await;
        until_routes(&relay, &[]).await;
        let gone = routes(&relay).await;
        assert_eq!(
            gone.iter().filter(|told| told["path"] == "/app").count(),
            1,
            "both are told of as one: {gone:?}"
        );
        reload(&mut relay, &config).await;
        until_routes(&relay, &["/app"]).await;
        let now = told(&relay, "/app", "both", |told| told["connections"]["open"] == 2).await;
        assert_eq!((&now["removed"], &now["upstreams"][0]["open"]), (&false.into(), &2.into()));
        assert_eq!(routes(&relay).await.len(), 1, "it is told of once");
        assert_eq!(refused(&relay, "/app", "").await.status, 503);
        say(&mut before, "y", "y").await;
        say(&mut between, "z", "z").await;
        assert_eq!(route(&relay, "/app").await["from_client"]["messages"], 4);
    }
}

#[tokio::test]
async fn a_mistake_leaves_what_is_there_and_is_logged() {
    let echo = Echo::start().await;
    let mut relay = TestRelay::with_config(&app(echo.address(), ""), &[]).await;
    let mut client = FrameClient::connect(relay.address(), "/app").await;
    for (mistake, said) in [
        ("[[route]]\npath = \"/c/x\"\nupstreams = [\"ws://a\"]\n", "/c/x"),
        ("[[route]]\npath = \"/new\"\nupstreams = [\"ftp://a\"]\n", "ftp"),
        ("this is no TOML", "this is no TOML"),
    ] {
        reload(&mut relay, mistake).await;
        relay.program().notes(said).await;
        until_routes(&relay, &["/app"]).await;
        say(&mut client, "x", "x").await;
        say(&mut FrameClient::connect(relay.address(), "/app").await, "y", "y").await;
    }
    // And after it what is right counts.
    reload(&mut relay, &other("/new", echo.address(), "")).await;
    until_routes(&relay, &["/new"]).await;
    say(&mut client, "z", "z").await;
}

#[tokio::test]
async fn the_table_in_json_is_read_again_too() {
    let (one, two) = (Echo::named("one:").await, Echo::named("two:").await);
    let table = |echo: &Echo| {
        format!("{{\"t\": {{\"host\": \"127.0.0.1\", \"port\": \"{}\"}}}}", echo.address().port())
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(table(&one).as_bytes()).unwrap();
    let mut relay = TestRelay::start(&["--routes", file.path().to_str().unwrap()]).await;
    let mut before = FrameClient::connect(relay.address(), "/t").await;
    say(&mut before, "x", "one:x").await;
    std::fs::write(file.path(), table(&two)).unwrap();
    relay.program().signal(Signal::Hup).await;
    let other_upstream = two.address().to_string();
    told(&relay, "/t", "the other upstream", |told| {
        told["upstreams"][0]["address"].as_str().unwrap().contains(&other_upstream)
    })
    .await;
    say(&mut FrameClient::connect(relay.address(), "/t").await, "x", "two:x").await;
    say(&mut before, "still", "one:still").await;
}

/// Two hundred times other routes come and go, while connections of one that stays the same talk, come and end.
#[tokio::test]
async fn two_hundred_reloads_under_load_end_no_connection_of_an_unchanged_route() {
    const RELOADS: usize = 200;
    let echo = Echo::start().await;
    let config = |n: usize| {
        let marker = other(&format!("/marker/{n}"), echo.address(), "");
        format!("[gateway]\non_change = \"drain\"\n{}{marker}", app(echo.address(), ""))
    };
    let mut relay = TestRelay::with_config(&config(0), &[]).await;
    let address = relay.address();
    let mut load = JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for lasting in 0..8u64 {
        let stopped = stopped.clone();
        load.spawn(async move {
            let mut client = FrameClient::connect(address, "/app").await;
            let mut echoes = 0u64;
            while !*stopped.borrow() {
                let text = format!("{lasting}: {echoes}");
                say(&mut client, &text, &text).await;
                echoes += 1;
            }
            echoes
        });
    }
    load.spawn(async move {
        let mut visits = 0;
        while !*stopped.borrow() {
            say(&mut FrameClient::connect(address, "/app").await, "visit", "visit").await;
            visits += 1;
        }
        visits
    });
    for n in 1..=RELOADS {
        reload(&mut relay, &config(n)).await;
        until_routes(&relay, &["/app", &format!("/marker/{n}")]).await;
    }
    stop.send(true).unwrap();
    while let Some(echoes) = load.join_next().await {
        assert!(echoes.unwrap() > 0, "a connection that never talked shows nothing");
    }
    let counted = told(&relay, "/app", "no connection", |told| told["connections"]["open"] == 0).await;
    assert_eq!(counted["ends"]["gateway"], serde_json::json!({}), "the gateway ended none");
    assert_eq!(counted["ends"]["upstream"], serde_json::json!({}), "nor did the upstream");
    assert_eq!(http::get(address, "/nothing").await.status, 404);
}
