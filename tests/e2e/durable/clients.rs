//! The clients with a relay on disk, both killed: no loss, nothing twice, and an output that is whole.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;
use tests::{
    program::{self, Program, Signal},
    sender::FramedSender,
};

use super::Durable;

fn lines(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("line {n}")).collect()
}

#[tokio::test]
async fn a_spool_loses_and_repeats_nothing_though_relay_and_sender_are_killed() {
    let seed = 6;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut durable = Durable::start("").await;
    let spool = durable.folder.path().join("spool");
    let start = |host: &str, more: &[&str]| {
        let spool = spool.to_string_lossy().into_owned();
        let args = ["-r", host, "-c", "foo", "--level", "fsynced", "--spool", &spool].map(str::to_owned);
        Program::start("send-client", args.into_iter().chain(more.iter().map(|&arg| arg.to_owned())))
    };
    let mut taken = 0;
    for round in 0..6 {
        // Taken for certain, since nobody is there to send it to.
        let mut taking = start("127.0.0.1:1", &["--spool-wait", "0s"]);
        taking.write(lines(taken..taken + 1500).join("\n") + "\n").await;
        let finished = taking.finish().await;
        assert_eq!(finished.code, Some(6), "{}", finished.stderr);
        taken += 1500;
        let mut sending = start(&durable.relay.host(), &[]);
        let mut receiver = tests::receiver::Receiver::json(durable.relay.address(), "foo", "").await;
        receiver.hello().await;
        receiver.texts(rng.usize(1..300)).await;
        // The relay first, or the sender.
        if round % 2 == 0 {
            durable.relay.kill().await;
        }
        sending.signal(Signal::Kill).await;
        sending.ended().await;
        if round % 2 == 1 {
            durable.relay.kill().await;
        }
        durable.relay.start_again().await;
        let came = durable.read("foo", "?since=earliest").await.texts();
        assert!(lines(0..taken).starts_with(&came), "seed {seed}, round {round}: {} came", came.len());
    }
    let drained = start(&durable.relay.host(), &[]).finish().await;
    assert_eq!(drained.code, Some(0), "{}", drained.stderr);
    assert_eq!(durable.read("foo", "?since=earliest").await.texts(), lines(0..taken), "seed {seed}");
}

/// Publishes in the background, while a `recv-client` is started and killed again and again; at the end one gets the
/// rest.
async fn kill_receivers(durable: &Durable, seed: u64, args: &[&str], channels: u16) -> Vec<Vec<u8>> {
    const EACH: u64 = 4000;
    let mut rng = fastrand::Rng::with_seed(seed);
    let state = durable.folder.path().join("state");
    let host = durable.relay.host();
    let start = |more: &[&str]| {
        let mut command = program::command("recv-client");
        command.env("XDG_STATE_HOME", &state);
        command
            .args(["-r", &host, "-c", "foo/*", "--since", "earliest", "--durable", "here"])
            .args(args)
            .args(more);
        Program::spawn("recv-client", command)
    };
    let mut sender = FramedSender::connect(durable.relay.address()).await;
    for channel in 0..channels {
        sender.open(channel, &format!("foo/{channel}"), 1).await;
    }
    let mut outputs = Vec::new();
    for n in 1..=EACH {
        for channel in 0..channels {
            sender.put_message(
                channel,
                n,
                shared::Kind::Text,
                format!("{channel} {n} {}", "é".repeat(100)).as_bytes(),
            );
        }
        if n % 100 != 0 {
            continue;
        }
        let mut receiver = start(&["-v"]);
        receiver.notes("connected to").await;
        sender.flush().await;
        sender.acked(channels - 1, n).await;
        // Anywhere in what it is about to write.
        for _ in 0..rng.u32(0..400) {
            tokio::task::yield_now().await;
        }
        if rng.bool() {
            receiver.notes("caught up").await;
        }
        receiver.signal(Signal::Kill).await;
        outputs.push(receiver.ended().await.stdout);
    }
    let last = start(&["--timeout", "1s"]).finish().await;
    assert_eq!(last.code, Some(124), "{}", last.stderr);
    outputs.push(last.stdout);
    outputs
}

fn expected(channel: u16) -> Vec<String> {
    (1..=4000).map(|n| format!("{channel} {n} {}", "é".repeat(100))).collect()
}

fn read(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_durable_receiver_that_is_killed_writes_each_message_to_its_file_once() {
    let durable = Durable::start("").await;
    let file = durable.folder.path().join("out");
    let path = file.to_string_lossy().into_owned();
    kill_receivers(&durable, 21, &["-o", &path], 1).await;
    assert!(read(&file) == expected(0), "{} lines", read(&file).len());
}

#[tokio::test]
async fn a_durable_receiver_that_is_killed_writes_each_message_to_the_file_of_its_channel_once() {
    let durable = Durable::start("").await;
    let folder = durable.folder.path().join("out");
    let path = folder.to_string_lossy().into_owned();
    kill_receivers(&durable, 22, &["--output-dir", &path], 3).await;
    for channel in 0..3 {
        let lines = read(&folder.join(format!("foo/{channel}.log")));
        assert!(lines == expected(channel), "channel {channel}: {} lines", lines.len());
    }
}

#[tokio::test]
async fn a_durable_receiver_that_is_killed_writes_each_message_to_a_pipe_at_least_once_and_in_order() {
    let durable = Durable::start("").await;
    let outputs = kill_receivers(&durable, 23, &["--json"], 1).await;
    let mut seen = BTreeSet::new();
    for output in outputs {
        // What was cut within a line by the kill comes again.
        let whole = output.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n"));
        let numbers: Vec<u64> = whole
            .map(|line| {
                let line: Value = serde_json::from_slice(line).unwrap();
                line["text"].as_str().unwrap().split(' ').nth(1).unwrap().parse().unwrap()
            })
            .collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "in order, without holes");
        // It begins where nothing is missing before.
        let first = numbers.first().copied().unwrap_or(1);
        assert!(first == 1 || seen.contains(&(first - 1)), "nothing before {first} is missing");
        seen.extend(numbers);
    }
    assert_eq!(seen, (1..=4000).collect());
}
