//! The prompt on a terminal, which `script` of util-linux provides: what is shown, and in which order.

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use shared::{Epoch, sender::Welcome};

use crate::fake_relay::{FakeRelay, Peer, Said, WELCOME};

/// A program on a terminal, and a person at it.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: ChildStdout,
    /// What was shown and not looked at yet.
    shown: String,
    state: tempfile::TempDir,
}

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";

impl Terminal {
    fn start(relay: &FakeRelay, term: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        let program = env!("CARGO_BIN_EXE_send-client");
        let line = format!("'{program}' --relay {} --channel foo; echo exit=$?", relay.address());
        let mut command = Command::new("script");
        command.args(["-qc", &line, "/dev/null"]).env("TERM", term).env("XDG_STATE_HOME", state.path());
        command.env_remove("RELAY_ADDR").env_remove("RELAY_CHANNEL").env("SHELL", "/bin/sh");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (keys, screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, keys, screen, shown: String::new(), state }
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits until the text is shown, after what was waited for before.
    fn shows(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return;
            }
            let n = self.screen.read(&mut buffer).unwrap();
            assert_ne!(n, 0, "{text:?} was never shown, but {:?}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }

    fn ends(mut self, exit: i32) {
        self.shows(&format!("exit={exit}"));
        self.child.wait().unwrap();
    }
}

/// The next sender, with everything open that it opens until it publishes.
async fn next_publish(peer: &mut Peer) -> (u16, u64, Vec<u8>) {
    loop {
        match peer.next().await {
            Said::Open { alias, first_pseq, .. } => peer.opened(alias, first_pseq - 1).await,
            Said::Publish { alias, pseq, payload, .. } => return (alias, pseq, payload),
            other => panic!("{other:?} is no publish"),
        }
    }
}

#[tokio::test]
async fn a_restart_of_the_relay_is_told_above_the_line_and_what_was_typed_arrives() {
    let relay = FakeRelay::bind().await;
    let mut terminal = Terminal::start(&relay, "xterm");
    let mut peer = relay.accept_open(WELCOME).await;
    let address = relay.address();
    terminal.shows(&format!(
        "connected to {address}, channel foo; 1 receiver. Enter sends, /help for commands, Ctrl-D to leave\r\n"
    ));
    terminal.shows("foo> ");
    terminal.types("hello\r");
    assert_eq!(next_publish(&mut peer).await, (0, 1, b"hello".to_vec()));
    peer.ack(0, 1).await;
    // The answer to a ping shows that the ack was read before the connection ends.
    peer.send(shared::sender::RelayFrame::Ping(1)).await;
    assert_eq!(peer.next().await, Said::Pong(1));
    drop(peer);
    terminal.shows("relay went away; reconnecting, 0 messages waiting\r\n");
    terminal.types("still here\r");
    terminal.shows("not sent yet, 1 message waiting\r\n");
    let mut peer = relay.accept_open(Welcome { epoch: Epoch(2), ..WELCOME }).await;
    assert_eq!(next_publish(&mut peer).await, (0, 2, b"still here".to_vec()));
    peer.ack(0, 2).await;
    terminal.shows("reconnected after ");
    terminal.shows("s, 1 message delivered\r\n");
    terminal.shows("the relay's store is new (epoch 0000000000000002)");
    terminal.types(CTRL_D);
    terminal.shows("2 messages sent, all confirmed\r\n");
    terminal.ends(0);
}

#[tokio::test]
async fn commands_are_obeyed_and_unknown_ones_are_not_sent() {
    let relay = FakeRelay::bind().await;
    let mut terminal = Terminal::start(&relay, "xterm");
    let mut peer = relay.accept_open(WELCOME).await;
    terminal.shows("foo> ");
    terminal.types("/etc\r");
    terminal.shows("not sent: /etc is no command; /help lists them, //etc sends this as a message\r\n");
    terminal.types("//etc\r");
    assert_eq!(next_publish(&mut peer).await, (0, 1, b"/etc".to_vec()));
    terminal.types("/hex 00 ff\r");
    assert_eq!(next_publish(&mut peer).await, (0, 2, b"\x00\xff".to_vec()));
    peer.ack(0, 2).await;
    terminal.types("/channel a/b\r");
    assert_eq!(peer.next().await, Said::Open { alias: 1, first_pseq: 1, channel: "a/b".into() });
    peer.opened(1, 0).await;
    terminal.shows("channel a/b; 1 receiver\r\n");
    terminal.shows("a/b> ");
    terminal.types(" secret\r");
    assert_eq!(next_publish(&mut peer).await, (1, 1, b" secret".to_vec()));
    peer.ack(1, 1).await;
    terminal.types("/channels\r");
    terminal.shows("  foo\r\n  a/b\r\n");
    terminal.types("/quit\r");
    terminal.shows("3 messages sent, all confirmed\r\n");
    let history = std::fs::read_to_string(terminal.state.path().join("relay/send-client.history")).unwrap();
    assert!(history.contains("//etc") && !history.contains("secret"), "{history}");
    terminal.ends(0);
}

#[tokio::test]
async fn several_pasted_lines_are_asked_about() {
    let relay = FakeRelay::bind().await;
    let mut terminal = Terminal::start(&relay, "xterm");
    let mut peer = relay.accept_open(WELCOME).await;
    terminal.shows("foo> ");
    terminal.types("\x1b[200~a\nb\x1b[201~\r");
    terminal.shows("send 2 messages? [Y/n/(o)ne] ");
    terminal.types("\r");
    assert_eq!(next_publish(&mut peer).await.2, b"a");
    assert_eq!(next_publish(&mut peer).await.2, b"b");
    terminal.shows("foo> ");
    terminal.types("\x1b[200~c\nd\x1b[201~\r");
    terminal.shows("send 2 messages? [Y/n/(o)ne] ");
    terminal.types("o\r");
    assert_eq!(next_publish(&mut peer).await.2, b"c\nd");
    peer.ack(0, 3).await;
    terminal.types(CTRL_D);
    terminal.shows("3 messages sent, all confirmed\r\n");
    terminal.ends(0);
}

#[tokio::test]
async fn ctrl_c_clears_the_line_and_twice_on_an_empty_one_leaves() {
    let relay = FakeRelay::bind().await;
    let mut terminal = Terminal::start(&relay, "xterm");
    let _peer = relay.accept_open(WELCOME).await;
    terminal.shows("foo> ");
    terminal.types("half");
    terminal.shows("half");
    terminal.types(CTRL_C);
    terminal.shows("foo> ");
    terminal.types(CTRL_C);
    terminal.shows("Ctrl-C once more leaves at once");
    terminal.shows("foo> ");
    terminal.types(CTRL_C);
    terminal.ends(130);
}

#[tokio::test]
async fn a_dumb_terminal_has_a_prompt_too() {
    let relay = FakeRelay::bind().await;
    let mut terminal = Terminal::start(&relay, "dumb");
    let mut peer = relay.accept_open(WELCOME).await;
    terminal.shows("foo> ");
    terminal.types("hello\n");
    assert_eq!(next_publish(&mut peer).await, (0, 1, b"hello".to_vec()));
    peer.ack(0, 1).await;
    terminal.shows("foo> ");
    terminal.types(CTRL_D);
    terminal.shows("1 message sent, confirmed\r\n");
    terminal.ends(0);
}
