//! That an acknowledgement means the disk itself, which a killed relay can't show: its calls are looked at, and made
//! to fail.

use shared::{
    Kind,
    sender::{Alias, Levels, Open, SenderFrame},
};
use tests::{
    program::Signal,
    sender::{FramedSender, Heard, new_producer},
    strace::{Strace, unescape},
};

use super::{Durable, texts};

/// What was asked of the system, as far as it is of interest here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// The message with this number was written to a file.
    Written(u64),
    /// A sync began, or ended well.
    SyncBegan,
    SyncEnded,
    /// Everything up to this number was acknowledged.
    Acked(u64),
}

/// Calls in the order in which strace saw them begin or end.
fn calls(lines: &[String]) -> Vec<Call> {
    let mut calls = Vec::new();
    for line in lines {
        let (begins, ends) = (!line.contains(" resumed>"), !line.contains("<unfinished ...>"));
        let is = |names: &[&str]| {
            names.iter().any(|name| {
                line.contains(&format!(" {name}(")) || line.contains(&format!("... {name} resumed"))
            })
        };
        if is(&["fdatasync", "fsync"]) {
            calls.extend(begins.then_some(Call::SyncBegan));
            calls.extend((ends && line.ends_with("= 0")).then_some(Call::SyncEnded));
        } else if is(&["pwrite64", "pwritev", "pwritev2"]) {
            calls.extend(probes(line).map(Call::Written));
        } else if is(&["write", "writev", "sendto", "sendmsg"]) {
            calls.extend(acks(line).map(Call::Acked));
        }
    }
    calls
}

/// The numbers of messages `probe N.` in the bytes of a line.
fn probes(line: &str) -> impl Iterator<Item = u64> {
    let bytes = unescape(line);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let found: Vec<u64> =
        text.split("probe ").skip(1).filter_map(|rest| rest.split('.').next()?.parse().ok()).collect();
    found.into_iter()
}

/// The numbers of ACK frames in the bytes of a line: u32 19, u8 6, alias 1, pseq, seq.
fn acks(line: &str) -> impl Iterator<Item = u64> {
    let bytes = unescape(line);
    let found: Vec<u64> = bytes
        .windows(15)
        .filter_map(|window| {
            let pseq = window.strip_prefix(&[0, 0, 0, 19, 6, 0, 1])?;
            Some(u64::from_be_bytes(pseq.try_into().ok()?))
        })
        .collect();
    found.into_iter()
}

/// The messages that were acknowledged before a sync that began behind their writing had ended.
fn acked_too_early(calls: &[Call]) -> Vec<u64> {
    let mut early = Vec::new();
    let mut settled = 0;
    for (at, call) in calls.iter().enumerate() {
        let Call::Acked(upto) = *call else { continue };
        for n in settled + 1..=upto {
            let written = calls[..at].iter().position(|call| *call == Call::Written(n));
            let began = written.and_then(|from| find(calls, from, at, Call::SyncBegan));
            // One that began before may end behind it: as many must end as are under way.
            let under_way = began.map(|began| {
                let of = |call| calls[..=began].iter().filter(|c| **c == call).count();
                of(Call::SyncBegan) - of(Call::SyncEnded)
            });
            let ended = began.zip(under_way).is_some_and(|(began, under_way)| {
                calls[began..at].iter().filter(|call| **call == Call::SyncEnded).count() >= under_way
            });
            if !ended {
                early.push(n);
            }
        }
        settled = settled.max(upto);
    }
    early
}

fn find(calls: &[Call], from: usize, to: usize, wanted: Call) -> Option<usize> {
    calls[from..to].iter().position(|call| *call == wanted).map(|at| from + at)
}

async fn open(durable: &Durable) -> FramedSender {
    let mut sender = FramedSender::connect(durable.relay.address()).await;
    let levels = Levels::ACCEPTED.and(Levels::FSYNCED);
    sender.put(&SenderFrame::Open(Open { alias: Alias(1), levels, first_pseq: 1, channel: "foo" }));
    sender.flush().await;
    assert!(matches!(sender.heard().await, Heard::Opened(_)));
    sender
}

#[tokio::test]
async fn an_acknowledged_message_was_synced_after_it_was_written() {
    const MESSAGES: u64 = 60;
    let mut durable = Durable::start("").await;
    let mut sender = open(&durable).await;
    let trace = "trace=pwrite64,pwritev,pwritev2,write,writev,sendto,sendmsg,fdatasync,fsync";
    let Some(strace) = Strace::attach(durable.relay.program().id(), &["-e", trace]).await else { return };
    // One at a time, and several at once, so that groups are made of them.
    for n in 1..=MESSAGES {
        sender.put_message(1, n, Kind::Text, format!("probe {n}.").as_bytes());
        if n <= 20 || n % 5 == 0 {
            sender.flush().await;
        }
        if n <= 20 {
            sender.acked(1, n).await;
        }
    }
    sender.acked(1, MESSAGES).await;
    durable.relay.kill().await;
    let calls = calls(&strace.ended().await);
    let acked = calls.iter().filter_map(|call| if let Call::Acked(n) = call { Some(*n) } else { None }).max();
    assert_eq!(acked, Some(MESSAGES), "the acks were seen: {calls:?}");
    for n in 1..=MESSAGES {
        assert!(calls.contains(&Call::Written(n)), "message {n} was seen: {calls:?}");
    }
    assert_eq!(acked_too_early(&calls), [0; 0], "{calls:?}");
}

#[tokio::test]
async fn when_a_sync_fails_nothing_is_acknowledged_any_more_and_readers_go_on() {
    let mut durable = Durable::start("").await;
    let mut sender = open(&durable).await;
    sender.publish_all(1, 1, &texts(1..=5)).await;
    let fail = ["-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO"];
    let Some(strace) = Strace::attach(durable.relay.program().id(), &fail).await else { return };
    for n in 6..=8 {
        sender.put_message(1, n, Kind::Text, format!("message {n}").as_bytes());
    }
    sender.flush().await;
    match sender.heard().await {
        Heard::Error { code, fatal: false, .. } => assert_eq!(code, "store_unavailable"),
        other => panic!("{other:?}"),
    }
    durable
        .relay
        .program()
        .notes("the disk failed, so that nothing is stored until the relay is started again")
        .await;
    // Also once the disk does again what it is told: what the failed sync should have kept may be gone.
    strace.detach().await;
    sender.put_message(1, 6, Kind::Text, b"message 6");
    sender.flush().await;
    loop {
        match sender.heard().await {
            // Of those behind it that were sent before.
            Heard::Error { code, fatal: false, pseq: 7 | 8, .. } => assert_eq!(code, "store_unavailable"),
            Heard::Error { code, fatal: false, pseq: 6, .. } => break assert_eq!(code, "store_unavailable"),
            other => panic!("{other:?}"),
        }
    }
    // A new one is not let in: that it was there could not be kept either.
    let mut other = FramedSender::greet(durable.relay.address(), new_producer(), 1).await;
    assert_eq!(other.heard().await, Heard::Close("store_unavailable".into()));
    assert_eq!(durable.read("foo", "?since=earliest").await.texts(), texts(1..=5));
    durable.crash().await;
    let kept = durable.read("foo", "?since=earliest").await.texts();
    // What was not acknowledged may be there or not.
    assert!(kept.len() >= 5 && texts(1..=8).starts_with(&kept), "{kept:?}");
    let mut sender = open(&durable).await;
    sender.publish_all(1, 1, &texts(9..=9)).await;
}

#[tokio::test]
async fn a_second_signal_ends_a_relay_at_once_though_its_disk_does_not_answer() {
    let mut durable = Durable::start("").await;
    let mut sender = open(&durable).await;
    let hang =
        ["-e", "trace=fdatasync,fsync,exit_group", "-e", "inject=fdatasync,fsync:delay_enter=600000000"];
    let Some(strace) = Strace::attach(durable.relay.program().id(), &hang).await else { return };
    sender.put_message(1, 1, Kind::Text, b"never acknowledged");
    sender.flush().await;
    let relay = durable.relay.program();
    relay.signal(Signal::Term).await;
    relay.notes("stopping").await;
    relay.signal(Signal::Term).await;
    strace.sees("exit_group(143").await;
    // It holds a thread that it delays even then.
    drop(strace);
    assert_eq!(relay.finish().await.code, Some(143));
}

#[test]
fn an_ack_without_a_sync_behind_the_message_is_found() {
    use Call::{Acked, SyncBegan, SyncEnded, Written};
    let found = |calls: &[Call]| acked_too_early(calls);
    assert_eq!(found(&[Written(1), SyncBegan, SyncEnded, Acked(1)]), [0; 0]);
    assert_eq!(found(&[Written(1), Acked(1)]), [1]);
    assert_eq!(found(&[SyncBegan, SyncEnded, Written(1), Acked(1)]), [1]);
    assert_eq!(found(&[SyncBegan, Written(1), SyncEnded, Acked(1)]), [1]);
    assert_eq!(found(&[Written(1), SyncBegan, Acked(1), SyncEnded]), [1]);
    assert_eq!(found(&[SyncBegan, Written(1), SyncBegan, SyncEnded, Acked(1)]), [1]);
    assert_eq!(found(&[Written(1), SyncBegan, Written(2), SyncEnded, Acked(2)]), [2]);
    assert_eq!(found(&[Written(1), Written(2), SyncBegan, SyncEnded, Acked(2)]), [0; 0]);
}

#[test]
fn calls_are_read_as_strace_shows_them() {
    let bytes = |text: &[u8]| text.iter().map(|b| format!("\\x{b:02x}")).collect::<String>();
    let ack = [&[0, 0, 0, 19, 6, 0, 1][..], &7u64.to_be_bytes(), &9u64.to_be_bytes()].concat();
    let lines = [
        format!("12 pwritev(7, [{{iov_base=\"{}\", iov_len=9}}], 1, 0) = 9", bytes(b"..probe 7.")),
        "12 fdatasync(7 <unfinished ...>".into(),
        "13 write(9, \"\\x01\", 1) = 1".into(),
        "12 <... fdatasync resumed>) = 0".into(),
        "12 fdatasync(7) = -1 EIO (Input/output error) (INJECTED)".into(),
        format!("13 sendto(11, \"{}\", 23, 0, NULL, 0) = 23", bytes(&ack)),
    ];
    use Call::{Acked, SyncBegan, SyncEnded, Written};
    assert_eq!(calls(&lines), [Written(7), SyncBegan, SyncEnded, SyncBegan, Acked(7)]);
}
