//! `send-client --spool`: killed, started again, with the relay away or killed too; nothing that was taken is lost,
//! nothing comes twice, and everything in its order.

use std::{ops::Range, path::Path, time::Duration};

use tests::{
    program::{Finished, Program, Signal},
    receiver::Receiver,
    relay::TestRelay,
};

/// Where nobody listens.
const NOWHERE: &str = "127.0.0.1:1";

fn sender(relay: &str, spool: &Path, more: &[&str]) -> Program {
    let spool = spool.to_string_lossy();
    let args = ["-r", relay, "--spool", &spool].into_iter().chain(more.iter().copied());
    Program::start("send-client", args)
}

fn lines(numbers: Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("line {n}")).collect()
}

/// Gives lines to a spool while the relay is away.
async fn take(spool: &Path, numbers: Range<usize>) -> Finished {
    let mut sender = sender(NOWHERE, spool, &["-c", "foo", "--spool-wait", "0s"]);
    sender.write(lines(numbers).join("\n") + "\n").await;
    sender.finish().await
}

/// Sends what is in a spool.
async fn drain(relay: &str, spool: &Path) {
    let finished = sender(relay, spool, &[]).finish().await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

#[tokio::test]
async fn what_was_taken_arrives_once_and_in_order_however_often_its_sender_is_killed() {
    let seed = 4;
    let mut rng = fastrand::Rng::with_seed(seed);
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::connect(relay.address(), "/c/foo", None).await;
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let (mut taken, mut came) = (0, Vec::new());
    for round in 0..8 {
        let finished = take(&spool, taken..taken + 1500).await;
        assert_eq!(finished.code, Some(6), "{}", finished.stderr);
        assert!(finished.stderr.contains("messages stay in the spool"), "{}", finished.stderr);
        taken += 1500;
        let mut killed = sender(&relay.host(), &spool, &[]);
        came.extend(receiver.texts(rng.usize(1..1000)).await);
        killed.signal(Signal::Kill).await;
        killed.ended().await;
        assert_eq!(came, lines(0..came.len()), "seed {seed}, round {round}");
    }
    drain(&relay.host(), &spool).await;
    came.extend(receiver.texts(taken - came.len()).await);
    assert_eq!(came, lines(0..taken), "seed {seed}");
    // Nothing is behind it.
    let finished =
        Program::start("send-client", ["-r", &relay.host(), "-c", "foo", "-m", "end"]).finish().await;
    assert_eq!((finished.code, receiver.text().await.as_str()), (Some(0), "end"));
}

#[tokio::test]
async fn a_pipe_whose_sender_is_killed_arrives_up_to_where_it_was_taken() {
    let seed = 5;
    let mut rng = fastrand::Rng::with_seed(seed);
    let relay = TestRelay::start(&[]).await;
    let host = relay.host();
    let mut receiver = Receiver::connect(relay.address(), "/c/foo", None).await;
    let folder = tempfile::tempdir().unwrap();
    let mut came = 0;
    for round in 0..10 {
        let mut killed = sender(&host, folder.path(), &["-c", "foo"]);
        let end = came + 2000;
        for from in (came..end).step_by(100) {
            killed.write(lines(from..from + 100).join("\n") + "\n").await;
        }
        let seen = rng.usize(1..2000);
        assert_eq!(receiver.texts(seen).await, lines(came..came + seen), "seed {seed}, round {round}");
        killed.signal(Signal::Kill).await;
        killed.ended().await;
        drain(&host, folder.path()).await;
        let mark = format!("mark {round}");
        let marked = Program::start("send-client", ["-r", &host, "-c", "foo", "-m", &mark]).finish().await;
        assert_eq!(marked.code, Some(0), "{}", marked.stderr);
        came += seen;
        loop {
            let text = receiver.text().await;
            if text == mark {
                break;
            }
            assert_eq!(text, format!("line {came}"), "seed {seed}, round {round}");
            came += 1;
        }
        assert!(came <= end);
    }
}

#[tokio::test]
async fn a_relay_that_forgot_everything_gets_what_it_had_not_confirmed() {
    let mut relay = TestRelay::restartable(&[]).await;
    let host = relay.host();
    let folder = tempfile::tempdir().unwrap();
    let mut first = sender(&host, folder.path(), &["-c", "foo"]);
    first.write("line 0\nline 1\n").await;
    assert_eq!(first.finish().await.code, Some(0));
    assert_eq!(take(folder.path(), 2..10).await.code, Some(6));
    relay.kill().await;
    relay.start_again().await;
    drain(&host, folder.path()).await;
    let mut receiver = Receiver::connect(relay.address(), "/c/foo?since=earliest", None).await;
    assert_eq!(receiver.texts(8).await, lines(2..10));
}

#[tokio::test]
async fn while_the_relay_is_away_input_is_taken_up_to_the_limit_and_no_further() {
    let mut relay = TestRelay::restartable(&[]).await;
    let host = relay.host();
    let folder = tempfile::tempdir().unwrap();
    relay.kill().await;
    let mut sender = sender(&host, folder.path(), &["-c", "foo", "--spool-limit", "128KiB", "-v"]);
    sender.notes("cannot reach a relay at").await;
    let all = lines(0..100_000);
    let input = all.join("\n") + "\n";
    let feed = async {
        sender.write(&input).await;
        sender.finish().await
    };
    let size = || {
        let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
        // One that is gone meanwhile has none.
        files.map(|file| file.metadata().map_or(0, |data| data.len())).sum::<u64>()
    };
    let watch = async {
        // That nothing more is taken announces nothing: looked at again and again.
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while size() < 128 * 1024 {
            look.tick().await;
        }
        let full = size();
        relay.start_again().await;
        let mut receiver = Receiver::connect(relay.address(), "/c/foo?since=earliest", None).await;
        (full, receiver.texts(all.len()).await)
    };
    let (finished, (full, came)) = tokio::join!(feed, watch);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(came, all);
    assert!(full < 256 * 1024, "{full}");
    assert!(size() < 64 * 1024, "what is confirmed is freed, but {} are there", size());
}

#[tokio::test]
async fn a_spool_is_used_by_one_at_a_time() {
    let relay = TestRelay::start(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut first = sender(&relay.host(), folder.path(), &["-c", "foo", "-v"]);
    first.notes("channel foo is open").await;
    let second = sender(&relay.host(), folder.path(), &["-c", "foo", "-m", "x"]).finish().await;
    let expected = format!(
        "error: cannot use the spool {}: another send-client is using it\n  \
         hint: choose another directory, or stop the other one\n",
        folder.path().display()
    );
    assert_eq!((second.code, second.stderr), (Some(1), expected));
}

#[tokio::test]
async fn a_disk_that_is_full_is_told_and_what_was_taken_before_is_sent_later() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    assert_eq!(take(&spool, 0..500).await.code, Some(6));
    // A limit on the size of files is met like the end of a disk, without one of that size.
    let limited = "ulimit -f 64; trap '' XFSZ; exec \"$@\"";
    let mut command = tokio::process::Command::new("sh");
    let program = tests::program::binary("send-client");
    command.args(["-c", limited, "sh"]).arg(program).args(["-r", NOWHERE, "-c", "foo", "--spool-wait", "0s"]);
    command.arg("--spool").arg(&spool);
    tests::program::undisturbed(&mut command);
    let mut sender = Program::spawn("send-client", command);
    let all = lines(0..20_000);
    // It leaves when it can't keep more, and need not have read all.
    sender.try_write(all[500..].join("\n") + "\n").await;
    let finished = sender.finish().await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("error: the spool can't keep more: file too large; "),
        "{}",
        finished.stderr
    );
    let kept = finished.stderr.split(" messages stay in the spool").next().unwrap();
    let kept: usize = kept.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((500..all.len()).contains(&kept), "{kept}");
    let relay = TestRelay::start(&[]).await;
    drain(&relay.host(), &spool).await;
    let mut receiver = Receiver::json(relay.address(), "foo", "?since=earliest").await;
    for line in &all[..kept] {
        assert_eq!(receiver.text().await, *line);
    }
    receiver.control("live").await;
}

#[tokio::test]
async fn a_signal_leaves_what_is_not_confirmed_in_the_spool() {
    let relay = TestRelay::start(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    for (signal, code) in [(Signal::Int, 130), (Signal::Term, 143)] {
        let mut sender = sender(NOWHERE, folder.path(), &["-c", "foo"]);
        sender.notes("cannot reach a relay at").await;
        sender.write("one\ntwo\n").await;
        sender.end_input();
        sender.signal(signal).await;
        let finished = sender.ended().await;
        assert_eq!(finished.code, Some(code), "{}", finished.stderr);
    }
    drain(&relay.host(), folder.path()).await;
}
