//! The relay is killed and started again on the same port, under running clients: what was not confirmed is sent
//! again, nothing comes twice within an epoch, each change of state is told once.

use serde_json::Value;
use tests::{program::Program, receiver::Receiver, relay::TestRelay};

/// Fed lines one by one, each read at the other end before the next.
async fn deliver(sender: &mut Program, receiver: &mut Program, lines: std::ops::Range<u32>) {
    for n in lines {
        sender.write(format!("line {n}\n")).await;
        assert_eq!(receiver.line().await, format!("line {n}"));
    }
}

#[tokio::test]
async fn a_pipe_goes_on_after_the_relay_was_away() {
    let mut relay = TestRelay::restartable(&[]).await;
    let host = relay.host();
    let mut receiver = Program::start("recv-client", ["-v", "-c", "foo", "-r", &host, "--count", "60"]);
    receiver.notes("connected to").await;
    let mut sender = Program::start("send-client", ["-c", "foo", "-r", &host]);
    deliver(&mut sender, &mut receiver, 0..20).await;
    // That the last is confirmed can be told by an answer alone, which a pipe does not give: the next connection
    // may send it again, to a store that does not know it.
    let mut monitor = Receiver::json(relay.address(), "foo", "?last=1").await;
    assert_eq!(monitor.text().await, "line 19");

    relay.kill().await;
    sender.notes("relay went away; reconnecting").await;
    for n in 20..40 {
        sender.write(format!("line {n}\n")).await;
    }
    relay.start_again().await;
    for n in 40..60 {
        sender.write(format!("line {n}\n")).await;
    }
    let finished = sender.finish().await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(finished.stderr.matches("relay went away").count(), 1, "{}", finished.stderr);
    assert_eq!(finished.stderr.matches("reconnected after").count(), 1, "{}", finished.stderr);

    let finished = receiver.finish().await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let mut lines = finished.lines();
    lines.dedup();
    let expected: Vec<String> = (0..60).map(|n| format!("line {n}")).collect();
    assert!(lines == expected || lines == expected[..59], "{lines:?}");
}

#[tokio::test]
async fn a_receiver_goes_on_after_the_relay_was_away_and_tells_the_new_epoch_once() {
    let mut relay = TestRelay::restartable(&[]).await;
    let host = relay.host();
    let mut receiver = Program::start("recv-client", ["-v", "-c", "foo", "-r", &host, "--count", "4"]);
    receiver.notes("connected to").await;
    let send = async |texts: &[&str]| {
        let args: Vec<&str> = texts.iter().flat_map(|text| ["-m", text]).collect();
        let finished =
            Program::start("send-client", ["-c", "foo", "-r", &host].into_iter().chain(args)).finish().await;
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    };
    send(&["one", "two"]).await;
    receiver.says("two\n").await;
    relay.kill().await;
    receiver.notes("reconnecting").await;
    relay.start_again().await;
    // Sent before the receiver is back: it begins the new epoch at its beginning.
    send(&["three", "four"]).await;
    let finished = receiver.finish().await;
    assert_eq!(
        (finished.code, finished.lines()),
        (Some(0), ["one", "two", "three", "four"].map(str::to_owned).into())
    );
    assert_eq!(finished.stderr.matches("reconnecting").count(), 1, "{}", finished.stderr);
    assert_eq!(finished.stderr.matches("reconnected").count(), 1, "{}", finished.stderr);
    assert_eq!(finished.stderr.matches("store is new").count(), 1, "{}", finished.stderr);
}

#[tokio::test]
async fn a_durable_receiver_goes_on_at_each_start_where_it_was() {
    let relay = TestRelay::start(&[]).await;
    let host = relay.host();
    let mut sender = Program::start("send-client", ["-c", "foo", "-r", &host, "--no-ack", "-m", "warm up"]);
    assert_eq!(sender.finish().await.code, Some(0));
    let expected: Vec<String> = (0..200).map(|n| format!("line {n}")).collect();
    let mut sender = Program::start("send-client", ["-c", "foo", "-r", &host]);
    sender.write(expected[..100].join("\n") + "\n").await;
    let state = tempfile::tempdir().unwrap();
    let take = |count: &'static str| {
        let mut command = tests::program::command("recv-client");
        command.args([
            "-c",
            "foo",
            "-r",
            &host,
            "--since",
            "earliest",
            "--durable",
            "here",
            "--count",
            count,
        ]);
        command.env("XDG_STATE_HOME", state.path());
        Program::spawn("recv-client", command)
    };
    let mut lines = take("31").finish().await.lines();
    assert_eq!(lines.remove(0), "warm up");
    sender.write(expected[100..].join("\n") + "\n").await;
    assert_eq!(sender.finish().await.code, Some(0));
    for count in ["1", "69", "100"] {
        lines.extend(take(count).finish().await.lines());
    }
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn json_out_of_one_relay_goes_into_another_unchanged() {
    let (from, to) = (TestRelay::start(&[]).await, TestRelay::start(&[]).await);
    let mut original = Receiver::connect(from.address(), "/c/a/b?publish", None).await;
    original.send("text \u{e9} \"quoted\"").await;
    original.send_binary(vec![0, 1, 254, 255]).await;
    original.payload().await;
    original.payload().await;
    let args = ["-c", "a/b", "-r", &from.host(), "--json", "--since", "earliest", "--count", "2"];
    let json = Program::start("recv-client", args).finish().await;
    assert_eq!(json.code, Some(0), "{}", json.stderr);
    for line in json.lines() {
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["channel"], "a/b", "{line}");
    }
    let mut copy = Receiver::connect(to.address(), "/c/a/b", None).await;
    let mut sender = Program::start("send-client", ["-r", &to.host(), "-c", "a/b", "--json"]);
    sender.write(&json.stdout).await;
    assert_eq!(sender.finish().await.code, Some(0));
    assert_eq!(copy.payload().await, (shared::Kind::Text, "text \u{e9} \"quoted\"".into()));
    assert_eq!(copy.payload().await, (shared::Kind::Binary, vec![0, 1, 254, 255].into()));
}
