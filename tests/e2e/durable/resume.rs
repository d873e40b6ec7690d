//! Positions over restarts: whoever comes back gets exactly what it missed, or is told exactly what is gone.

use serde_json::json;
use shared::{Kind, receiver::Subprotocol};
use tests::{
    browser::Browser,
    receiver::{Received, Receiver},
    relay::TestRelay,
    sender::FramedSender,
};

use super::{Durable, publish, read, texts};

/// As many messages as a receiver is away for.
const AWAY: u64 = 100_000;

/// Publishes so many short messages, in large chunks.
async fn publish_many(relay: &TestRelay, channel: &str, count: u64) {
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, channel, 1).await;
    let place = sender.publish_each(1, 1..count + 1, |n, out| {
        out.extend_from_slice(n.to_string().as_bytes());
        Kind::Text
    });
    place.await;
}

#[tokio::test]
async fn messages_their_places_and_the_epoch_outlive_every_end_of_the_relay() {
    let mut durable = Durable::start("").await;
    let mut sender = FramedSender::connect(durable.relay.address()).await;
    for (alias, channel) in [(1, "a/one"), (2, "a/two")] {
        sender.open(alias, channel, 1).await;
        sender.put_message(alias, 1, Kind::Text, "caf\u{e9}".as_bytes());
        sender.put_message(alias, 2, Kind::Binary, &[0, 255, 10]);
        sender.put_message(alias, 3, Kind::Binary, b"");
        sender.put_message(alias, 4, Kind::Text, &[b'x'; 200_000]);
        sender.flush().await;
        sender.acked(alias, 4).await;
    }
    let before = durable.read("a/*", "?since=earliest").await;
    assert_eq!(before.messages.len(), 8);
    for end in 0..4 {
        if end % 2 == 0 {
            durable.crash().await
        } else {
            durable.restart().await
        }
        let after = durable.read("a/*", "?since=earliest").await;
        assert_eq!(after.messages, before.messages, "end {end}");
        assert_eq!(after.hello["epoch"], before.hello["epoch"], "end {end}");
    }
    // What comes then is behind it, and says so.
    publish(&durable.relay, "a/one", &texts(1..=1)).await;
    let after = durable.read("a/*", &format!("?since={}", before.position())).await;
    let last_of_one = before.messages.iter().rfind(|m| m.channel.as_str() == "a/one").unwrap();
    assert_eq!((after.recovered(), after.texts()), ((true, None), texts(1..=1)));
    assert_eq!(after.messages[0].prev, last_of_one.seq);
    assert!(after.last() > before.last());
}

#[tokio::test]
async fn what_a_killed_relay_acknowledged_in_its_last_moment_is_there() {
    let mut durable = Durable::start("").await;
    for n in 1..=10 {
        // The ack is the last thing that it ever says.
        publish(&durable.relay, "foo", &texts(n..=n)).await;
        durable.crash().await;
        assert_eq!(durable.read("foo", "?since=earliest").await.texts(), texts(1..=n));
    }
}

#[tokio::test]
async fn what_a_receiver_saw_is_there_after_a_crash() {
    let mut durable = Durable::start("").await;
    let mut position = None;
    for round in 1..=5 {
        let mut receiver = Receiver::json(durable.relay.address(), "foo", "").await;
        let hello = receiver.hello().await;
        let mut sender = FramedSender::connect(durable.relay.address()).await;
        let last = sender.open(1, "foo", 1).await.last_pseq;
        for n in last + 1..last + 200 {
            sender.put_message(1, n, Kind::Text, format!("{round} {n}").as_bytes());
        }
        sender.flush().await;
        // Killed in the midst of it, whatever was acknowledged.
        let mut seen = Vec::new();
        while seen.len() < 20 {
            if let Received::Message(envelope) = receiver.next().await {
                seen.push(envelope);
            }
        }
        durable.crash().await;
        let since =
            position.map_or_else(|| "earliest".into(), |position: shared::Position| position.to_string());
        let kept = durable.read("foo", &format!("?since={since}")).await;
        assert_eq!(kept.messages[..seen.len()], seen, "round {round}");
        assert_eq!((&kept.hello["epoch"], kept.gaps.len()), (&hello["epoch"], 0));
        position = Some(kept.position());
    }
}

#[tokio::test]
async fn a_receiver_that_was_away_for_100_000_messages_gets_exactly_those() {
    let mut durable = Durable::start("").await;
    publish(&durable.relay, "foo", &texts(1..=3)).await;
    let position = durable.read("foo", "?since=earliest").await.position();
    publish_many(&durable.relay, "foo", AWAY).await;
    for end in ["none", "crash"] {
        if end == "crash" {
            durable.crash().await;
        }
        let stream = durable.read("foo", &format!("?since={position}")).await;
        assert_eq!(stream.recovered(), (true, None), "{end}");
        assert!(stream.gaps.is_empty(), "{end}");
        let numbers: Vec<String> = (1..=AWAY).map(|n| n.to_string()).collect();
        assert!(stream.texts() == numbers, "{end}: not exactly those");
    }
    // The same without seqs, as frames that are sent as they are kept.
    let path = format!("/c/foo?since={position}");
    let mut raw = Receiver::connect(durable.relay.address(), &path, Some(Subprotocol::Raw)).await;
    for n in 1..=AWAY {
        assert_eq!(raw.text().await, n.to_string());
    }
}

#[tokio::test]
async fn a_page_that_was_away_for_100_000_messages_gets_exactly_those() {
    let Some(mut page) = Browser::start().await else { return };
    let mut durable = Durable::start("").await;
    publish(&durable.relay, "foo", &texts(1..=3)).await;
    page.open(&format!("http://{}/c/foo", durable.relay.address())).await;
    // What the page is made of, without its rows.
    let subscribe = "window.got = [], window.notices = [], window.states = [];
         import('/subscription.js').then(({ Subscription }) => new Promise(resolve => {
             const on = {
                 onState: state => {
                     states.push(state.name);
                     document.body.dataset.mine = `${state.name} ${got.length}`;
                     if (state.name === 'live') resolve(got.length);
                 },
                 onMessage: message => {
                     got.push(message.text);
                     if (got.length % 10000 === 0) document.body.dataset.got = got.length;
                 },
                 onNotice: notice => notices.push(notice.text),
             };
             new Subscription(`ws://${location.host}/c/foo`, on).connect();
         }))";
    assert_eq!(page.js(subscribe).await, json!(3));
    durable.relay.kill().await;
    page.shows("document.body.dataset.mine.startsWith('reconnecting')").await;
    // Elsewhere, so that the page does not see it.
    let data = durable.data();
    let mut elsewhere = TestRelay::start(&["--data", &data.to_string_lossy()]).await;
    publish_many(&elsewhere, "foo", AWAY).await;
    assert_eq!(elsewhere.stop().await.code, Some(0));
    durable.relay.start_again().await;
    // A page that shares its processor with other tests takes its time; that it goes on is awaited.
    for came in (10_000..=AWAY).step_by(10_000) {
        page.shows(&format!("document.body.dataset.got >= {came}")).await;
    }
    page.shows(&format!("document.body.dataset.mine === 'live {}'", AWAY + 3)).await;
    let exact =
        format!("got.slice(3).every((text, at) => text === String(at + 1)) && got.length === {}", AWAY + 3);
    assert_eq!(page.js(&exact).await, json!(true));
    assert_eq!(page.js("notices").await, json!([]));
}

#[tokio::test]
async fn a_position_of_another_store_is_told_and_all_that_is_kept_follows() {
    let (one, other) = (Durable::start("").await, Durable::start("").await);
    publish(&one.relay, "foo", &texts(1..=5)).await;
    publish(&other.relay, "foo", &texts(11..=20)).await;
    let position = one.read("foo", "?since=earliest").await.position();
    let stream = other.read("foo", &format!("?since={position}")).await;
    assert_eq!(stream.recovered(), (false, Some("epoch")));
    assert_eq!(stream.texts(), texts(11..=20));
}

#[tokio::test]
async fn beyond_what_is_kept_a_gap_covers_exactly_what_is_missing() {
    let config = "[disk]\nsegment = \"64KiB\"\n[[channel]]\npattern = \"**\"\nmessages = 50\n";
    let mut durable = Durable::start(config).await;
    publish(&durable.relay, "foo", &texts(1..=10)).await;
    let begin = durable.read("foo", "?since=earliest").await;
    publish(&durable.relay, "foo", &texts(11..=200)).await;
    for end in 0..3 {
        match end {
            1 => durable.crash().await,
            2 => durable.restart().await,
            _ => {}
        }
        let kept = durable.read("foo", "?since=earliest").await;
        assert_eq!(kept.texts(), texts(151..=200));
        let stream = durable.read("foo", &format!("?since={}", begin.position())).await;
        assert_eq!((stream.recovered(), stream.texts()), ((false, Some("retention")), texts(151..=200)));
        let [gap] = stream.gaps[..] else { panic!("{:?}", stream.gaps) };
        assert_eq!(gap.after, begin.last().0);
        assert!(kept.messages[0].prev.0 < gap.before && gap.before <= kept.messages[0].seq.0, "{gap:?}");
    }
    // Who was there all along misses nothing.
    let last = durable.read("foo", "?last=1").await;
    let stream = read(&durable.relay, "foo", &format!("?since={}", last.position())).await;
    assert_eq!((stream.recovered(), stream.messages.len()), ((true, None), 0));
}
