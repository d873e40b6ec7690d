//! The prompt of `send-client` in a real terminal: the session of the first use, and what typing can go wrong.

use tests::{receiver::Receiver, relay::TestRelay, terminal::Terminal};

#[tokio::test]
async fn what_is_typed_is_sent_queued_while_the_relay_is_away_and_confirmed_at_the_end() {
    let mut relay = TestRelay::restartable(&[]).await;
    let mut receiver = Receiver::connect(relay.address(), "/c/foo", None).await;
    let host = relay.host();
    let Some(mut terminal) = Terminal::start("send-client", &["--channel", "foo", "--relay", &host]).await
    else {
        return;
    };
    let connected = format!(
        "connected to {host}, channel foo; 1 receiver. Enter sends, /help for commands, Ctrl-D to leave"
    );
    terminal.shows_text(&connected).await;
    terminal.shows("the prompt", at_prompt).await;
    terminal.enter("hello").await;
    assert_eq!(receiver.text().await, "hello");

    relay.kill().await;
    terminal.shows_text("relay went away; reconnecting, 0 messages waiting").await;
    terminal.enter("still here").await;
    terminal.shows_text("not sent yet, 1 message waiting").await;
    relay.start_again().await;
    let mut receiver = Receiver::json(relay.address(), "foo", "?since=earliest").await;
    assert_eq!(receiver.text().await, "still here");
    let screen = terminal.shows_text("reconnected after ").await;
    assert!(screen.contains("s, 1 message delivered"), "{screen}");
    assert_eq!(screen.matches("relay went away").count(), 1, "one notice per change of state: {screen}");

    terminal.keys(&["C-d"]).await;
    terminal.shows_text("2 messages sent, all confirmed").await;
    assert_eq!(terminal.finish().await, 0);
}

#[tokio::test]
async fn a_notice_appears_above_a_half_typed_line() {
    let mut relay = TestRelay::restartable(&[]).await;
    let host = relay.host();
    let Some(mut terminal) = Terminal::start("send-client", &["-c", "foo", "-r", &host]).await else {
        return;
    };
    terminal.shows("the prompt", at_prompt).await;
    terminal.keys(&["half a li"]).await;
    terminal.shows("what is typed", |screen| screen.ends_with("foo> half a li")).await;
    relay.kill().await;
    terminal
        .shows("the notice above the line", |screen| {
            screen.contains("relay went away; reconnecting") && screen.ends_with("foo> half a li")
        })
        .await;
    relay.start_again().await;
    terminal
        .shows("the other notice above the line", |screen| {
            screen.contains("reconnected after ") && screen.ends_with("foo> half a li")
        })
        .await;
    let mut receiver = Receiver::json(relay.address(), "foo", "?since=earliest").await;
    terminal.enter("ne").await;
    assert_eq!(receiver.text().await, "half a line");
}

#[tokio::test]
async fn commands_are_not_sent_and_a_double_slash_is_one() {
    let relay = TestRelay::start(&[]).await;
    let mut foo = Receiver::connect(relay.address(), "/c/foo", None).await;
    let mut bar = Receiver::connect(relay.address(), "/c/bar", None).await;
    let Some(mut terminal) = Terminal::start("send-client", &["-c", "foo", "-r", &relay.host()]).await else {
        return;
    };
    terminal.shows("the prompt", at_prompt).await;
    terminal.enter("/nonsense").await;
    terminal.enter("//slash").await;
    terminal.enter("/hex 00 ff 10").await;
    terminal.enter("/channel bar").await;
    terminal.shows("the other prompt", |screen| screen.ends_with("bar>")).await;
    terminal.enter("there").await;
    assert_eq!(foo.text().await, "/slash");
    assert_eq!(&foo.payload().await.1[..], [0, 0xff, 0x10]);
    assert_eq!(bar.text().await, "there");
    terminal.enter("/help").await;
    terminal.shows_text("/paste").await;
    terminal.enter("/quit").await;
    assert_eq!(terminal.finish().await, 0);
}

#[tokio::test]
async fn what_is_typed_ahead_is_not_lost() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::connect(relay.address(), "/c/foo", None).await;
    let Some(mut terminal) = Terminal::start("send-client", &["-c", "foo", "-r", &relay.host()]).await else {
        return;
    };
    terminal.shows("the prompt", at_prompt).await;
    // All at once: faster than lines are taken.
    terminal.keys(&["one", "Enter", "two", "Enter", "three", "Enter", "C-d"]).await;
    assert_eq!(receiver.texts(3).await, ["one", "two", "three"]);
    assert_eq!(terminal.finish().await, 0);
}

#[tokio::test]
async fn several_pasted_lines_are_asked_about() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::connect(relay.address(), "/c/foo", None).await;
    let Some(mut terminal) = Terminal::start("send-client", &["-c", "foo", "-r", &relay.host()]).await else {
        return;
    };
    terminal.shows("the prompt", at_prompt).await;
    terminal.paste("one\ntwo\nthree").await;
    terminal.keys(&["Enter"]).await;
    terminal.shows_text("send 3 messages? [Y/n/(o)ne]").await;
    terminal.enter("y").await;
    assert_eq!(receiver.texts(3).await, ["one", "two", "three"]);
    terminal.keys(&["C-d"]).await;
    terminal.shows_text("3 messages sent, all confirmed").await;
    assert_eq!(terminal.finish().await, 0);
}

#[tokio::test]
async fn ctrl_c_clears_the_line_and_twice_on_an_empty_one_leaves_with_130() {
    let relay = TestRelay::start(&[]).await;
    let Some(mut terminal) = Terminal::start("send-client", &["-c", "foo", "-r", &relay.host()]).await else {
        return;
    };
    terminal.shows("the prompt", at_prompt).await;
    terminal.keys(&["not this"]).await;
    terminal.shows("what is typed", |screen| screen.ends_with("foo> not this")).await;
    terminal.keys(&["C-c"]).await;
    terminal.shows("an empty line", at_prompt).await;
    terminal.keys(&["C-c"]).await;
    terminal.shows_text("Ctrl-C once more leaves at once").await;
    terminal.shows("another prompt", at_prompt).await;
    terminal.keys(&["C-c"]).await;
    assert_eq!(terminal.finish().await, 130);
}

fn at_prompt(screen: &str) -> bool {
    screen.lines().last() == Some("foo>")
}
