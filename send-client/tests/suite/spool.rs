//! The laws of `--spool` on the wire, against a relay that follows a script.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use shared::{ErrorCode, limits::MAX_KEEP_PRODUCER_S};
use tokio::time::interval;

use crate::fake_relay::{FakeRelay, Said, WELCOME};

/// Runs the program with a spool.
fn run(relay: &str, spool: &Path, args: &[&str], input: &'static str) -> thread::JoinHandle<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_send-client"));
    command.args(["--relay", relay, "--spool-wait", "0s", "--spool"]).arg(spool).args(args);
    command.env_remove("RELAY_CHANNEL").env_remove("RELAY_ADDR").env_remove("RELAY_LEVEL");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    thread::spawn(move || {
        let mut child = command.spawn().unwrap();
        // The program may leave before it has read everything.
        let _broken = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    })
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Waits until a message is in the spool. Files announce no change: they are looked at again and again.
async fn taken(spool: &Path, payload: &[u8]) {
    let mut look = interval(Duration::from_millis(5));
    let is_there = || {
        let files = fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().path());
        files
            .filter_map(|path| fs::read(path).ok())
            .any(|bytes| bytes.windows(payload.len()).any(|w| w == payload))
    };
    while !is_there() {
        look.tick().await;
    }
}

fn open(alias: u16, first_pseq: u64, channel: &str) -> Said {
    Said::Open { alias, first_pseq, channel: channel.into() }
}

fn publish(alias: u16, pseq: u64, payload: &str) -> Said {
    Said::Publish { alias, pseq, time: None, payload: payload.into() }
}

#[tokio::test]
async fn a_sender_is_the_same_at_each_start_in_a_new_epoch_and_its_numbers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let relay = FakeRelay::bind().await;
    let mut producer = None;
    for start in 1..=3u32 {
        let running = run(&relay.address(), folder.path(), &["-c", "foo"], "one\ntwo\n");
        let mut peer = relay.accept(WELCOME).await;
        assert_eq!((peer.producer_epoch, peer.keep_s), (start, MAX_KEEP_PRODUCER_S));
        assert_eq!(*producer.get_or_insert(peer.producer), peer.producer);
        let before = u64::from(start - 1) * 2;
        assert_eq!(peer.next().await, open(0, before + 1, "foo"));
        peer.opened(0, before).await;
        assert_eq!(peer.next().await, publish(0, before + 1, "one"));
        assert_eq!(peer.next().await, publish(0, before + 2, "two"));
        peer.ack(0, before + 2).await;
        assert!(peer.serve().await.is_empty());
        drop(peer);
        let output = running.join().unwrap();
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    }
}

#[tokio::test]
async fn what_the_relay_has_stored_of_an_earlier_start_is_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = "127.0.0.1:1";
    let output = run(nowhere, folder.path(), &["-c", "foo"], "one\ntwo\nthree\n").join().unwrap();
    assert_eq!(output.status.code(), Some(6));
    let relay = FakeRelay::bind().await;
    let running = run(&relay.address(), folder.path(), &["-c", "foo"], "four\n");
    let mut peer = relay.accept(WELCOME).await;
    assert_eq!(peer.next().await, open(0, 1, "foo"));
    // It has two of them from a start that was killed before it could note so.
    peer.opened(0, 2).await;
    assert_eq!(peer.next().await, publish(0, 3, "three"));
    assert_eq!(peer.next().await, publish(0, 4, "four"));
    peer.ack(0, 4).await;
    peer.serve().await;
    drop(peer);
    assert_eq!(running.join().unwrap().status.code(), Some(0));
}

#[tokio::test]
async fn a_relay_that_has_more_than_the_spool_ever_had_is_not_sent_to() {
    let folder = tempfile::tempdir().unwrap();
    let relay = FakeRelay::bind().await;
    let running = run(&relay.address(), folder.path(), &["-c", "foo"], "one\n");
    let mut peer = relay.accept(WELCOME).await;
    assert_eq!(peer.next().await, open(0, 1, "foo"));
    peer.opened(0, 7).await;
    assert_eq!(peer.next().await, Said::End);
    let output = running.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("it confirms message 7, which was not sent"), "{}", stderr(&output));
}

#[tokio::test]
async fn what_a_refused_channel_was_to_get_stays_in_the_spool() {
    let folder = tempfile::tempdir().unwrap();
    let relay = FakeRelay::bind().await;
    let running = run(&relay.address(), folder.path(), &["-c", "foo"], "one\ntwo\n");
    let mut peer = relay.accept(WELCOME).await;
    assert_eq!(peer.next().await, open(0, 1, "foo"));
    // The channel is opened while the input is read: refused before that, there is nothing to stay.
    taken(folder.path(), b"two").await;
    peer.fail(ErrorCode::Forbidden, "not you").await;
    drop(peer);
    let output = running.join().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(
        stderr(&output),
        format!(
            "error: the relay does not allow this: not you; 2 messages stay in the spool\n  \
             hint: `send-client --spool {}` sends what is there\n",
            folder.path().display()
        )
    );
    let running = run(&relay.address(), folder.path(), &[], "");
    let mut peer = relay.accept(WELCOME).await;
    assert_eq!(peer.serve().await, [b"one", b"two"]);
    drop(peer);
    assert_eq!(running.join().unwrap().status.code(), Some(0));
}

#[tokio::test]
async fn channels_that_have_nothing_to_send_are_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let relay = FakeRelay::bind().await;
    for channel in ["a", "b"] {
        let running = run(&relay.address(), folder.path(), &["-c", channel, "-m", "x"], "");
        assert_eq!(relay.accept(WELCOME).await.serve().await, [b"x"]);
        assert_eq!(running.join().unwrap().status.code(), Some(0));
    }
    let running = run(&relay.address(), folder.path(), &["-c", "b", "-m", "y"], "");
    let mut peer = relay.accept(WELCOME).await;
    assert_eq!(peer.next().await, open(1, 2, "b"));
    peer.opened(1, 1).await;
    assert_eq!(peer.next().await, publish(1, 2, "y"));
    peer.ack(1, 2).await;
    assert!(peer.serve().await.is_empty());
    drop(peer);
    assert_eq!(running.join().unwrap().status.code(), Some(0));
}

#[test]
fn a_directory_that_is_no_spool_or_is_damaged_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    fs::write(&file, "x").unwrap();
    let output = run("127.0.0.1:1", folder.path(), &["-c", "a", "-m", "x"], "").join().unwrap();
    let path = folder.path().display();
    let expected = format!(
        "error: cannot use the spool {path}: it is a directory with other files, and no spool\n  \
         hint: choose a directory that is empty, or not there yet\n"
    );
    assert_eq!((output.status.code(), stderr(&output)), (Some(2), expected));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was put there");
    let output = run("127.0.0.1:1", &file, &["-c", "a", "-m", "x"], "").join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: cannot use the spool "), "{}", stderr(&output));

    let spool = folder.path().join("spool");
    for _ in 0..2 {
        let output = run("127.0.0.1:1", &spool, &["-c", "a", "-m", "some message"], "").join().unwrap();
        assert_eq!(output.status.code(), Some(6));
    }
    let segment = spool.join("0000000000000001.spool");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[40] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let output = run("127.0.0.1:1", &spool, &["-c", "a", "-m", "x"], "").join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = "0000000000000001.spool is damaged at byte 20: what stands there went bad\n  hint: nothing was changed";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
}
