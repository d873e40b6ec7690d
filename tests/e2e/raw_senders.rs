//! Raw senders: whatever can write to a socket. Framings over the wire, the first line, acknowledgements, and what
//! happens to what is too long.

use std::time::Duration;

use serde_json::json;
use shared::{Kind, receiver::Subprotocol};
use tests::{
    receiver::{Received, Receiver, position},
    relay::TestRelay,
    sender::RawSender,
};
use tokio::time::{MissedTickBehavior, interval};

/// A framing, what a sender of it writes, and the messages that this is.
type Case = (&'static str, &'static [u8], &'static [&'static [u8]]);

/// Framings that find their messages in the bytes alone, however these come.
const BY_BYTES: &[Case] = &[
    ("line", b"one\ntwo\r\n\nend", &[b"one", b"two", b"", b"end"]),
    ("line", b"a\rb\r\r\n", &[b"a\rb\r"]),
    ("null", b"one\0two\n\0\0end", &[b"one", b"two\n", b"", b"end"]),
    ("delimiter:0d0a", b"one\r\ntwo\rthree\r\nend", &[b"one", b"two\rthree", b"end"]),
    ("fixed:3", b"onetwoend", &[b"one", b"two", b"end"]),
    ("length:u16", b"\0\x03one\0\0\0\x02\xff\n", &[b"one", b"", b"\xff\n"]),
    ("length:u32", b"\0\0\0\x03one\0\0\0\x01\n", &[b"one", b"\n"]),
    ("length:u16le", b"\x03\0one\x01\0\n", &[b"one", b"\n"]),
    ("length:u32le", b"\x03\0\0\0one\x01\0\0\0\n", &[b"one", b"\n"]),
    ("octet-count", b"3 one10 two\nthree.", &[b"one", b"two\nthree."]),
];

async fn expect(receiver: &mut Receiver, case: &str, messages: &[&[u8]]) {
    for &message in messages {
        let (kind, payload) = receiver.payload().await;
        assert_eq!(payload, message, "{case}");
        assert_eq!(kind, Kind::of(message), "{case}: {message:?}");
    }
}

#[tokio::test]
async fn each_framing_finds_its_messages_in_any_pieces() {
    for whole in [true, false] {
        for &(framing, bytes, messages) in BY_BYTES {
            let relay = TestRelay::start(&["--raw", &format!("127.0.0.1:0=test,{framing}")]).await;
            let mut receiver = Receiver::connect(relay.address(), "/c/test", None).await;
            let mut sender = RawSender::connect(relay.addresses()[1]).await;
            for piece in bytes.chunks(if whole { bytes.len() } else { 1 }) {
                sender.write(piece).await;
            }
            sender.finish().await;
            expect(&mut receiver, framing, messages).await;
            assert_eq!(sender.closed().await, b"", "{framing}");
            // Nothing else came: this is the next message.
            let mut last = RawSender::connect(relay.addresses()[0]).await;
            last.write("RELAY/1 channel=test\nlast\n").await;
            expect(&mut receiver, framing, &[b"last"]).await;
        }
    }
}

#[tokio::test]
async fn a_silence_ends_a_message_of_idle() {
    let relay = TestRelay::start(&["--raw", "127.0.0.1:0=test,idle:50ms"]).await;
    let mut receiver = Receiver::connect(relay.address(), "/c/test", None).await;
    let mut sender = RawSender::connect(relay.addresses()[1]).await;
    for reading in ["1184.000", "two\nlines\n", "1168.000"] {
        sender.write(reading).await;
        // The next is written when this one has come: after the silence.
        assert_eq!(receiver.text().await, reading);
    }
}

#[tokio::test]
async fn read_gives_every_byte_in_order() {
    let relay = TestRelay::start(&["--raw", "127.0.0.1:0=test,read"]).await;
    let mut receiver = Receiver::connect(relay.address(), "/c/test", None).await;
    let mut sender = RawSender::connect(relay.addresses()[1]).await;
    let sent: Vec<u8> = (0..300_000u32).map(|n| n.to_be_bytes()[3]).collect();
    sender.write(&sent).await;
    sender.finish().await;
    let mut got = Vec::new();
    while got.len() < sent.len() {
        got.extend_from_slice(&receiver.payload().await.1);
    }
    assert!(got == sent);
}

#[tokio::test]
async fn a_first_line_names_the_channel_and_the_framing() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::json(relay.address(), "**", "").await;
    for (line, bytes, messages) in [
        ("RELAY/1 channel=plant/serial\n", "one\ntwo", &["one", "two"][..]),
        ("RELAY/1 channel=plant/serial framing=null\r\n", "a\nb\0c", &["a\nb", "c"]),
        ("RELAY/1 framing=fixed:2 channel=plant/serial\n", "abcd", &["ab", "cd"]),
    ] {
        let mut sender = RawSender::connect(relay.address()).await;
        // Cut in the middle of the line: it is told by what it says, not by how it comes.
        sender.write(&line[..9]).await;
        sender.write(&format!("{}{bytes}", &line[9..])).await;
        sender.finish().await;
        for message in messages {
            let envelope = receiver.envelope().await;
            assert_eq!(envelope.channel.as_str(), "plant/serial", "{line}");
            assert_eq!(envelope.payload, message, "{line}");
        }
        assert_eq!(sender.closed().await, b"");
    }
}

#[tokio::test]
async fn a_first_line_is_data_where_the_listener_does_not_take_it() {
    let relay = TestRelay::start(&["--raw", "127.0.0.1:0=test,line"]).await;
    let mut receiver = Receiver::connect(relay.address(), "/c/test", None).await;
    let mut sender = RawSender::connect(relay.addresses()[1]).await;
    sender.write("RELAY/1 channel=other\n").await;
    assert_eq!(receiver.text().await, "RELAY/1 channel=other");
}

#[tokio::test]
async fn a_wrong_first_line_is_refused_with_its_error_and_nothing_is_published() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::connect(relay.address(), "/c/**", Some(Subprotocol::Json)).await;
    for (line, code) in [
        ("RELAY/1 channel=a//b ack=yes\n", "ERR invalid_channel "),
        ("RELAY/1 channel=a/* ack=yes\n", "ERR invalid_channel "),
        ("RELAY/1 channel=a framing=nonsense ack=yes\n", "ERR protocol "),
        ("RELAY/1 channel=a nonsense=1 ack=yes\n", "ERR protocol "),
    ] {
        let mut sender = RawSender::connect(relay.address()).await;
        sender.try_write(line.as_bytes()).await;
        let answer = String::from_utf8(sender.closed().await).unwrap();
        assert!(answer.starts_with(code) && answer.ends_with('\n'), "{line:?}: {answer:?}");
    }
    RawSender::connect(relay.address()).await.write("hello\n").await;
    assert_eq!(receiver.text().await, "hello");
}

#[tokio::test]
async fn with_ack_every_message_is_answered_in_order_with_its_position() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::json(relay.address(), "a", "").await;
    let hello = receiver.hello().await;
    let mut sender = RawSender::connect(relay.address()).await;
    sender.write("RELAY/1 channel=a ack=yes\none\ntwo\n\n").await;
    for message in ["one", "two", ""] {
        let envelope = receiver.envelope().await;
        assert_eq!(envelope.payload, message);
        assert_eq!(sender.line().await, Some(format!("OK {}", position(&hello, envelope.seq))));
    }
    sender.finish().await;
    assert_eq!(sender.line().await, None);
}

#[tokio::test]
async fn with_ack_a_message_too_long_is_answered_with_an_error_and_the_next_is_taken() {
    let relay = TestRelay::start(&["--max-message", "1KiB"]).await;
    let mut sender = RawSender::connect(relay.address()).await;
    sender.write(format!("RELAY/1 channel=a ack=yes\n{}\n{}\n", "x".repeat(1025), "y".repeat(1024))).await;
    let answer = sender.line().await.unwrap();
    assert!(answer.starts_with("ERR too_big "), "{answer}");
    let answer = sender.line().await.unwrap();
    assert!(answer.starts_with("OK "), "{answer}");
}

#[tokio::test]
async fn a_template_names_the_channel_of_each_connection() {
    let relay = TestRelay::start(&["--raw", "127.0.0.1:0=dev/{peer_ip}/{local_port},line"]).await;
    let mut receiver = Receiver::json(relay.address(), "dev/**", "").await;
    RawSender::connect(relay.addresses()[1]).await.write("hello\n").await;
    let envelope = receiver.envelope().await;
    assert_eq!(envelope.channel.as_str(), format!("dev/127.0.0.1/{}", relay.addresses()[1].port()));
    assert_eq!(envelope.payload, "hello");
}

#[tokio::test]
async fn a_message_too_long_is_dropped_whole_and_the_sender_goes_on_behind_it() {
    let long = "x".repeat(100_000);
    for (framing, bytes) in [
        ("line", format!("before\n{long}\nafter\n")),
        ("null", format!("before\0{long}\0after\0")),
        ("octet-count", format!("6 before100000 {long}5 after")),
    ] {
        let listener = format!("127.0.0.1:0=test,{framing}");
        let relay = TestRelay::start(&["--max-message", "1KiB", "--raw", &listener]).await;
        let mut receiver = Receiver::connect(relay.address(), "/c/test", None).await;
        let mut sender = RawSender::connect(relay.addresses()[1]).await;
        sender.write(bytes).await;
        assert_eq!(receiver.texts(2).await, ["before", "after"], "{framing}");
    }
}

#[tokio::test]
async fn a_length_that_leads_nowhere_ends_the_connection() {
    for (framing, bytes) in
        [("length:u32", &b"\0\0\0\x01a\x7f\xff\xff\xffxx"[..]), ("octet-count", b"1 ano count")]
    {
        let listener = format!("127.0.0.1:0=test,{framing}");
        let relay = TestRelay::start(&["--max-message", "1KiB", "--raw", &listener]).await;
        let mut receiver = Receiver::connect(relay.address(), "/c/test", None).await;
        let mut sender = RawSender::connect(relay.addresses()[1]).await;
        sender.write(bytes).await;
        assert_eq!(receiver.text().await, "a", "{framing}");
        sender.closed().await;
    }
}

#[tokio::test]
async fn what_has_no_boundaries_is_cut_at_the_limit_and_loses_nothing() {
    for framing in ["idle:50ms", "read", "auto"] {
        let relay =
            TestRelay::start(&["--max-message", "1KiB", "--raw", &format!("127.0.0.1:0=test,{framing}")])
                .await;
        let mut receiver = Receiver::connect(relay.address(), "/c/test", None).await;
        let mut sender = RawSender::connect(relay.addresses()[1]).await;
        let sent: Vec<u8> =
            (0..100_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0] | 0x80).collect();
        sender.write(&sent).await;
        sender.finish().await;
        let mut got = Vec::new();
        while got.len() < sent.len() {
            let (_, payload) = receiver.payload().await;
            assert!(payload.len() <= 1024, "{framing}: {}", payload.len());
            got.extend_from_slice(&payload);
        }
        assert!(got == sent, "{framing}");
    }
}

#[tokio::test]
async fn a_sender_that_never_writes_a_newline_gives_one_message_per_reading() {
    // Ten readings in the time that a sender may stay undecided, as ten a second by default; but three times slower,
    // so that a machine that stands still for a while does not hand over two as one, which nobody could tell.
    let relay = TestRelay::with_config("[timeouts]\nundecided = \"3s\"\n", &[]).await;
    let mut receiver = Receiver::connect(relay.address(), "/", None).await;
    let readings: Vec<String> = (0..15).map(|n| format!("{}.000", 1184 + 16 * n)).collect();
    let mut device = RawSender::connect(relay.address()).await;
    // The pace of the device is what is tested.
    let mut pace = interval(Duration::from_millis(300));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for reading in &readings {
        pace.tick().await;
        device.write(reading).await;
    }
    device.finish().await;
    assert_eq!(receiver.texts(readings.len()).await, readings);
}

#[tokio::test]
async fn a_sender_of_lines_gives_lines_also_when_one_comes_in_pieces_a_second_apart() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::connect(relay.address(), "/", None).await;
    let mut device = RawSender::connect(relay.address()).await;
    // The pace of the device is what is tested.
    let mut pace = interval(Duration::from_secs(1));
    for piece in ["first\nthe sec", "ond li", "ne\nthird\n"] {
        pace.tick().await;
        device.write(piece).await;
    }
    assert_eq!(receiver.texts(3).await, ["first", "the second line", "third"]);
}

#[tokio::test]
async fn random_bytes_stay_binary_and_whole() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::connect(relay.address(), "/", None).await;
    let mut random = fastrand::Rng::with_seed(7);
    let sent: Vec<u8> = (0..200_000).map(|_| random.u8(..)).collect();
    let mut sender = RawSender::connect(relay.address()).await;
    sender.write(&sent).await;
    sender.finish().await;
    let (kind, payload) = receiver.payload().await;
    assert_eq!(kind, Kind::Binary);
    assert_eq!(payload.len(), sent.len());
    assert!(payload == sent);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_never_replaced() {
    let relay = TestRelay::start(&["--raw", "127.0.0.1:0=test,line"]).await;
    let mut raw = Receiver::connect(relay.address(), "/c/test", None).await;
    let mut json = Receiver::json(relay.address(), "test", "").await;
    let mut sender = RawSender::connect(relay.addresses()[1]).await;
    sender.write(b"caf\xc3\xa9\ncaf\xe9\n").await;
    assert_eq!(raw.next().await, Received::Raw(Kind::Text, "caf\u{e9}".into()));
    assert_eq!(raw.next().await, Received::Raw(Kind::Binary, b"caf\xe9"[..].into()));
    assert_eq!(json.payload().await, (Kind::Text, "caf\u{e9}".into()));
    assert_eq!(json.payload().await, (Kind::Binary, b"caf\xe9"[..].into()));
}

#[tokio::test]
async fn the_end_of_a_sender_publishes_what_is_left() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::json(relay.address(), "default", "").await;
    for (bytes, messages) in [("no newline", &["no newline"][..]), ("a\nb", &["a", "b"]), ("", &[])] {
        let mut sender = RawSender::connect(relay.address()).await;
        sender.write(bytes).await;
        sender.finish().await;
        assert_eq!(sender.closed().await, b"", "{bytes:?}");
        assert_eq!(receiver.texts(messages.len()).await, messages, "{bytes:?}");
    }
    receiver.command(json!({ "type": "ping" })).await;
    receiver.control("pong").await;
}
