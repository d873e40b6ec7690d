//! That a receiver's file is whole after a power cut too, which can't be staged: its calls are looked at.

use std::fs;

use tests::{
    program::{self, Program},
    sender::FramedSender,
    strace::{Strace, unescape},
};

use super::{Durable, texts};

/// What a receiver asked of the system, as far as it is of interest here. All of it is asked by one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// What is kept was replaced, by name.
    Kept,
    /// The names beside it were synced.
    NamesSynced,
    /// Something was written to the file.
    Written,
}

/// Calls in their order. What is kept is `here`, the file is `out`.
fn calls(lines: &[String]) -> Vec<Call> {
    let call = |line: &String| {
        // What is written may name a file too: the first path is the one that is written to.
        let first = line.split('>').next().unwrap_or_default();
        if line.contains(" resumed>") {
            None
        } else if line.contains(" rename") && unescape(line).ends_with(b"/durable/here") {
            Some(Call::Kept)
        } else if line.contains(" fsync(") && unescape(first).ends_with(b"/durable") {
            Some(Call::NamesSynced)
        } else if line.contains(" write(") && unescape(first).ends_with(b"/out") {
            Some(Call::Written)
        } else {
            None
        }
    };
    lines.iter().filter_map(call).collect()
}

/// Whether something was written while what was kept before it could still be lost.
fn written_too_early(calls: &[Call]) -> bool {
    let mut synced = false;
    calls.iter().any(|call| {
        match call {
            Call::Kept => synced = false,
            Call::NamesSynced => synced = true,
            Call::Written => return !synced,
        }
        false
    })
}

#[tokio::test]
async fn the_length_of_a_file_is_kept_on_the_disk_itself_before_more_is_written_to_it() {
    const MESSAGES: u64 = 50;
    let durable = Durable::start("").await;
    let out = durable.folder.path().join("out");
    let mut command = program::command("recv-client");
    command.env("XDG_STATE_HOME", durable.folder.path().join("state"));
    command.args(["-r", &durable.relay.host(), "-c", "foo", "--durable", "here", "-v"]);
    command.args(["-n", &MESSAGES.to_string(), "-o"]).arg(&out);
    let mut receiver = Program::spawn("recv-client", command);
    receiver.notes("caught up").await;
    let trace = ["-y", "-e", "trace=?rename,?renameat,?renameat2,fsync,write"];
    let Some(strace) = Strace::attach(receiver.id(), &trace).await else { return };
    let mut sender = FramedSender::connect(durable.relay.address()).await;
    sender.open(1, "foo", 1).await;
    for (n, text) in (1..).zip(texts(1..=MESSAGES)) {
        sender.publish_all(1, n, &[text]).await;
    }
    assert_eq!(receiver.finish().await.code, Some(0));
    let calls = calls(&strace.ended().await);
    assert_eq!(fs::read_to_string(&out).unwrap(), texts(1..=MESSAGES).join("\n") + "\n");
    assert!(calls.contains(&Call::Written) && !written_too_early(&calls), "{calls:?}");
}

#[test]
fn what_is_written_before_the_names_are_synced_is_found() {
    use Call::{Kept, NamesSynced, Written};
    assert!(!written_too_early(&[Kept, NamesSynced, Written, Written, Kept]));
    assert!(!written_too_early(&[Kept, NamesSynced, Written, Kept, Kept, NamesSynced, Written]));
    assert!(written_too_early(&[Kept, Written, NamesSynced]));
    assert!(written_too_early(&[Kept, NamesSynced, Written, Kept, Written]));
    assert!(written_too_early(&[NamesSynced, Kept, Written]));
}

#[test]
fn calls_of_a_receiver_are_read_as_strace_shows_them() {
    let shown = |text: &str| text.bytes().map(|b| format!("\\x{b:02x}")).collect::<String>();
    let lines = [
        format!("7 rename(\"{}\", \"{}\") = 0", shown("/s/durable/.here.draft"), shown("/s/durable/here")),
        format!("8 write(5<{}>, \"{}\", 1) = 1", shown("anon_inode:[eventfd]"), shown("/")),
        format!("7 fsync(9<{}> <unfinished ...>", shown("/s/durable")),
        "7 <... fsync resumed>) = 0".into(),
        format!("7 write(8<{}>, \"{}\", 4) = 4", shown("/s/out"), shown("one\n")),
        format!("7 write(9<{}>, \"{}\", 4) = 4", shown("/s/durable/.here.draft"), shown("/out")),
    ];
    assert_eq!(calls(&lines), [Call::Kept, Call::NamesSynced, Call::Written]);
}
