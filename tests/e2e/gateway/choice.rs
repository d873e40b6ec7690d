//! More than one upstream: which is tried, and who is passed over.

use std::net::{Ipv4Addr, SocketAddr};

use tests::{
    frames::FrameClient,
    relay::{TestRelay, lasting_port},
    upstream::{Echo, Upstream, deaf, refusing},
};
use tokio::net::TcpListener;

use super::{route, say, told};

/// A relay with a route at `/app` to these upstreams.
async fn relay_to_all(upstreams: &[SocketAddr], more: &str) -> TestRelay {
    let upstreams: Vec<String> = upstreams.iter().map(|address| format!("\"ws://{address}\"")).collect();
    let config = format!("[[route]]\npath = \"/app\"\nupstreams = [{}]\n{more}\n", upstreams.join(", "));
    TestRelay::with_config(&config, &[]).await
}

async fn answers(relay: &TestRelay, count: usize) -> String {
    let mut answers = String::new();
    for _ in 0..count {
        let mut client = FrameClient::connect(relay.address(), "/app").await;
        client.send(super::TEXT, b"").await;
        answers.push_str(std::str::from_utf8(&client.frame().await.unwrap().payload).unwrap());
    }
    answers
}

#[tokio::test]
async fn in_order_the_first_that_works_gets_all() {
    let (a, b) = (Echo::named("a").await, Echo::named("b").await);
    let relay = relay_to_all(&[a.address(), b.address()], "").await;
    assert_eq!(answers(&relay, 4).await, "aaaa");
    let relay = relay_to_all(&[refusing(), b.address(), a.address()], "").await;
    assert_eq!(answers(&relay, 4).await, "bbbb");
}

#[tokio::test]
async fn round_robin_gives_each_its_turn_and_passes_over_who_failed() {
    let (a, b, c) = (Echo::named("a").await, Echo::named("b").await, Echo::named("c").await);
    let balance = "balance = \"round-robin\"";
    let relay = relay_to_all(&[a.address(), b.address(), c.address()], balance).await;
    assert_eq!(answers(&relay, 7).await, "abcabca");
    let relay = relay_to_all(&[a.address(), refusing(), c.address()], balance).await;
    let answers = answers(&relay, 9).await;
    assert!(!answers.contains('b') && answers.contains('a') && answers.contains('c'), "{answers}");
    assert_eq!(route(&relay, "/app").await["upstreams"][1]["failures"], 1, "it was not asked again");
}

#[tokio::test]
async fn an_upstream_that_failed_rests_and_is_tried_again_afterwards() {
    let port = lasting_port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let other = Echo::named("other:").await;
    let config = format!(
        "[gateway]\nrest = \"300ms\"\n[[route]]\npath = \"/app\"\nupstreams = [\"ws://{address}\", \"ws://{}\"]\n",
        other.address()
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    say(&mut FrameClient::connect(relay.address(), "/app").await, "x", "other:x").await;
    let counted = route(&relay, "/app").await;
    assert_eq!(
        (&counted["upstreams"][0]["resting"], &counted["upstreams"][1]["resting"]),
        (&true.into(), &false.into())
    );
    assert_eq!(counted["upstreams"][0]["failures"], 1);

    let _back = Echo::on(TcpListener::bind(address).await.unwrap(), "back:", None);
    told(&relay, "/app", "a rested upstream", |told| told["upstreams"][0]["resting"] == false).await;
    say(&mut FrameClient::connect(relay.address(), "/app").await, "x", "back:x").await;
}

#[tokio::test]
async fn when_all_rest_they_are_tried_all_the_same() {
    let port = lasting_port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let relay = relay_to_all(&[address], "").await;
    assert_eq!(super::refused(&relay, "/app", "").await.status, 502);
    assert_eq!(route(&relay, "/app").await["upstreams"][0]["resting"], true);
    let _back = Echo::on(TcpListener::bind(address).await.unwrap(), "back:", None);
    say(&mut FrameClient::connect(relay.address(), "/app").await, "x", "back:x").await;
    assert_eq!(route(&relay, "/app").await["upstreams"][0]["resting"], false);
}

#[tokio::test]
async fn another_is_tried_as_long_as_the_upgrade_is_not_answered() {
    let good = Echo::named("good:").await;
    let (deaf, silent, garbled, gone) =
        (deaf(), Upstream::start().await, Upstream::start().await, Upstream::start().await);
    let all =
        [refusing(), deaf.address(), silent.address(), garbled.address(), gone.address(), good.address()];
    let upstreams: Vec<String> = all.iter().map(|address| format!("\"ws://{address}\"")).collect();
    let config = format!(
        "[gateway]\nconnect_timeout = \"200ms\"\nupgrade_timeout = \"200ms\"\n\
         [[route]]\npath = \"/app\"\nupstreams = [{}]\n",
        upstreams.join(", ")
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    let bad = async {
        let silent = silent.request().await;
        garbled.request().await.write("what?\r\n\r\n").await;
        drop(gone.request().await);
        silent
    };
    let (mut client, _silent) = tokio::join!(FrameClient::connect(relay.address(), "/app"), bad);
    say(&mut client, "x", "good:x").await;
    let counted = route(&relay, "/app").await;
    let failures: Vec<u64> =
        (0..all.len()).map(|n| counted["upstreams"][n]["failures"].as_u64().unwrap()).collect();
    assert_eq!(failures, [1, 1, 1, 1, 1, 0]);
    assert_eq!(counted["connections"]["total"], 1);
}

#[tokio::test]
async fn when_all_fail_the_answer_says_of_each_what_it_did() {
    let (refusing, deaf) = (refusing(), deaf());
    let config = format!(
        "[gateway]\nconnect_timeout = \"200ms\"\n\
         [[route]]\npath = \"/app\"\nupstreams = [\"ws://{refusing}\", \"ws://{}\"]\n",
        deaf.address()
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    let answer = super::refused(&relay, "/app", "").await;
    assert_eq!(answer.status, 504, "what the last one did is the status: {}", answer.body);
    assert!(
        answer.body.contains(&format!("the upstream {refusing} refused the connection")),
        "{}",
        answer.body
    );
    assert!(answer.body.contains(&deaf.address().to_string()), "{}", answer.body);
}
