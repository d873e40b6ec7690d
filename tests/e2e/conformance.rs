//! RFC 6455 as the relay keeps it: what the Autobahn suite looks at in its categories 1 to 7 and 10, with frames
//! made by hand against the echo endpoint.

use tests::{
    frames::{FIN, FrameClient, frame, opcode},
    relay::TestRelay,
};

const TEXT: u8 = FIN | opcode::TEXT;
const BINARY: u8 = FIN | opcode::BINARY;
const CLOSE: u8 = FIN | opcode::CLOSE;
const PING: u8 = FIN | opcode::PING;
const PONG: u8 = FIN | opcode::PONG;
const LAST: u8 = FIN | opcode::CONTINUATION;

/// Lengths around the changes of the header's form.
const SIZES: [usize; 8] = [0, 1, 125, 126, 127, 128, 65_535, 65_536];

async fn echo(relay: &TestRelay) -> FrameClient {
    // A channel of its own: what is published comes to every receiver of it.
    let channel = fastrand::u64(..);
    FrameClient::connect(relay.address(), &format!("/c/echo/{channel}?publish")).await
}

#[tokio::test]
async fn every_length_is_echoed_with_its_kind() {
    let relay = TestRelay::start(&[]).await;
    let mut client = echo(&relay).await;
    for first in [TEXT, BINARY] {
        for size in SIZES {
            let payload = vec![if first == TEXT { b'*' } else { 0xfe }; size];
            client.send(first, &payload).await;
            client.expect(first, &payload).await;
        }
    }
}

#[tokio::test]
async fn a_frame_may_come_in_any_pieces() {
    let relay = TestRelay::start(&[]).await;
    let mut client = echo(&relay).await;
    for (size, piece) in [(5, 1), (126, 1), (65_536, 997), (65_536, 4096)] {
        let payload = vec![b'*'; size];
        for bytes in frame(TEXT, &payload).chunks(piece) {
            client.send_bytes(bytes).await;
        }
        client.expect(TEXT, &payload).await;
    }
}

#[tokio::test]
async fn many_frames_may_come_in_one_piece() {
    let relay = TestRelay::start(&[]).await;
    let mut client = echo(&relay).await;
    let bytes: Vec<u8> = (0..500).flat_map(|n| frame(TEXT, n.to_string().as_bytes())).collect();
    client.send_bytes(&bytes).await;
    for n in 0..500 {
        client.expect(TEXT, n.to_string().as_bytes()).await;
    }
}

#[tokio::test]
async fn a_ping_is_answered_with_its_payload() {
    let relay = TestRelay::start(&[]).await;
    let mut client = echo(&relay).await;
    for payload in [&b""[..], b"hello", &[0, 0xff, 0xfe], &[0xfe; 125]] {
        client.send(PING, payload).await;
        client.expect(PONG, payload).await;
    }
    for byte in frame(PING, &[7; 125]) {
        client.send_bytes(&[byte]).await;
    }
    client.expect(PONG, &[7; 125]).await;
}

#[tokio::test]
async fn of_many_pings_at_least_the_last_is_answered_and_none_out_of_order() {
    let relay = TestRelay::start(&[]).await;
    let mut client = echo(&relay).await;
    let pings: Vec<u8> = (0..10u8).flat_map(|n| frame(PING, &[n])).collect();
    client.send_bytes(&pings).await;
    let mut answered = Vec::new();
    while answered.last() != Some(&9) {
        let pong = client.frame().await.unwrap();
        assert_eq!(pong.first, PONG);
        answered.extend(pong.payload);
    }
    assert!(answered.is_sorted(), "{answered:?}");
}

#[tokio::test]
async fn a_pong_that_nobody_asked_for_is_ignored() {
    let relay = TestRelay::start(&[]).await;
    let mut client = echo(&relay).await;
    client.send(PONG, b"").await;
    client.send(PONG, b"unasked").await;
    client.send(PING, b"asked").await;
    client.expect(PONG, b"asked").await;
}

#[tokio::test]
async fn a_control_frame_too_long_is_1002() {
    let relay = TestRelay::start(&[]).await;
    for first in [PING, PONG, CLOSE] {
        let mut client = echo(&relay).await;
        client.send(first, &[b'x'; 126]).await;
        assert_eq!(client.closed().await, 1002, "{first:#x}");
    }
}

#[tokio::test]
async fn reserved_bits_are_1002_and_what_came_before_is_echoed() {
    let relay = TestRelay::start(&[]).await;
    for bits in 1..8u8 {
        for first in [TEXT, BINARY, PING, CLOSE] {
            let mut client = echo(&relay).await;
            client.send(TEXT, b"before").await;
            client.expect(TEXT, b"before").await;
            client.send(first | bits << 4, b"x").await;
            assert_eq!(client.closed().await, 1002, "{first:#x} {bits}");
        }
    }
}

#[tokio::test]
async fn what_came_in_one_piece_before_a_violation_is_echoed_first() {
    let relay = TestRelay::start(&[]).await;
    let mut client = echo(&relay).await;
    client.send_bytes(&[frame(TEXT, b"one"), frame(TEXT, b"two"), frame(0x83, b"x")].concat()).await;
    client.expect(TEXT, b"one").await;
    client.expect(TEXT, b"two").await;
    assert_eq!(client.closed().await, 1002);
}

#[tokio::test]
async fn reserved_opcodes_are_1002() {
    let relay = TestRelay::start(&[]).await;
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in [&b""[..], b"x"] {
            let mut client = echo(&relay).await;
            client.send(FIN | opcode, payload).await;
            assert_eq!(client.closed().await, 1002, "{opcode}");
        }
    }
}

#[tokio::test]
async fn a_frame_without_a_mask_is_1002() {
    let relay = TestRelay::start(&[]).await;
    let mut client = echo(&relay).await;
    client.send_bytes(b"\x81\x05hello").await;
    assert_eq!(client.closed().await, 1002);
}

#[tokio::test]
async fn fragments_are_one_message() {
    let relay = TestRelay::start(&[]).await;
    let mut client = echo(&relay).await;
    for kind in [opcode::TEXT, opcode::BINARY] {
        for parts in [
            &[&b"frag"[..], b"ment"][..],
            &[b"", b"", b""],
            &[b"", b"middle", b""],
            &[b"a", b"b", b"c", b"d", b"e"],
        ] {
            for whole in [true, false] {
                let mut bytes = Vec::new();
                for (n, part) in parts.iter().enumerate() {
                    let opcode = if n == 0 { kind } else { opcode::CONTINUATION };
                    let fin = if n + 1 == parts.len() { FIN } else { 0 };
                    bytes.extend(frame(fin | opcode, part));
                }
                for piece in bytes.chunks(if whole { bytes.len() } else { 1 }) {
                    client.send_bytes(piece).await;
                }
                client.expect(FIN | kind, &parts.concat()).await;
            }
        }
    }
}

#[tokio::test]
async fn a_ping_between_fragments_is_answered_at_once() {
    let relay = TestRelay::start(&[]).await;
    let mut client = echo(&relay).await;
    client.send(opcode::TEXT, b"frag").await;
    client.send(PING, b"between").await;
    client.expect(PONG, b"between").await;
    client.send(opcode::CONTINUATION, b"men").await;
    client.send(PING, b"again").await;
    client.expect(PONG, b"again").await;
    client.send(LAST, b"t").await;
    client.expect(TEXT, b"fragment").await;
}

#[tokio::test]
async fn fragments_out_of_turn_are_1002() {
    let relay = TestRelay::start(&[]).await;
    for frames in [
        // A continuation of nothing, also after a whole message.
        &[(LAST, &b"x"[..])][..],
        &[(opcode::CONTINUATION, b"x")],
        // A new message within a message.
        &[(opcode::TEXT, b"x"), (TEXT, b"y")],
        &[(opcode::TEXT, b"x"), (opcode::BINARY, b"y")],
        // Control frames are never fragmented.
        &[(opcode::PING, b"x")],
        &[(opcode::PONG, b"x")],
        &[(opcode::CLOSE, b"\x03\xe8")],
    ] {
        let mut client = echo(&relay).await;
        client.send(TEXT, b"before").await;
        client.expect(TEXT, b"before").await;
        for (first, payload) in frames {
            client.send(*first, payload).await;
        }
        assert_eq!(client.closed().await, 1002, "{frames:?}");
    }
}

#[tokio::test]
async fn text_that_is_utf8_is_echoed_however_it_is_cut() {
    let relay = TestRelay::start(&[]).await;
    let mut client = echo(&relay).await;
    let texts = [
        "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!",
        "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}",
        "\0\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}",
        "\u{d7ff}\u{e000}\u{fffd}\u{fffe}\u{feff}",
    ];
    for text in texts.map(str::as_bytes) {
        client.send(TEXT, text).await;
        client.expect(TEXT, text).await;
        // A character may be cut by a frame's end.
        for cut in 1..text.len() {
            client.send(opcode::TEXT, &text[..cut]).await;
            client.send(LAST, &text[cut..]).await;
            client.expect(TEXT, text).await;
        }
    }
}

#[tokio::test]
async fn text_that_is_not_utf8_is_1007() {
    let relay = TestRelay::start(&[]).await;
    let invalid: [&[u8]; 14] = [
        b"\xff",
        b"\x80",
        b"\xc3",
        b"ok \xce\xba\xe1\xbd\xb9\xed\xa0\x80 edited",
        b"\xc0\x80",
        b"\xc0\xaf",
        b"\xe0\x80\x80",
        b"\xf0\x80\x80\x80",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xe2\x82",
    ];
    for text in invalid {
        let mut client = echo(&relay).await;
        client.send(TEXT, text).await;
        assert_eq!(client.closed().await, 1007, "{text:x?}");
    }
}

#[tokio::test]
async fn a_fragment_that_can_be_no_text_is_1007_before_the_last_one_comes() {
    let relay = TestRelay::start(&[]).await;
    let mut client = echo(&relay).await;
    client.send(opcode::TEXT, b"\xce\xba\xe1\xbd\xb9").await;
    client.send(opcode::CONTINUATION, b"\xf4\x90\x80\x80").await;
    assert_eq!(client.closed().await, 1007);
}

#[tokio::test]
async fn a_close_is_answered_with_its_code_and_is_the_last() {
    let relay = TestRelay::start(&[]).await;
    for code in [1000u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        let mut client = echo(&relay).await;
        client.send(CLOSE, &code.to_be_bytes()).await;
        assert_eq!(client.closed().await, code);
    }
    let mut client = echo(&relay).await;
    client.send(CLOSE, b"").await;
    assert!([1000, 1005].contains(&client.closed().await));
    let mut client = echo(&relay).await;
    client.send(CLOSE, &[b"\x03\xe8".to_vec(), vec![b'*'; 123]].concat()).await;
    assert_eq!(client.closed().await, 1000);
}

#[tokio::test]
async fn a_close_that_is_none_is_1002_and_its_reason_has_to_be_text() {
    let relay = TestRelay::start(&[]).await;
    for code in [0u16, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let mut client = echo(&relay).await;
        client.send(CLOSE, &code.to_be_bytes()).await;
        assert_eq!(client.closed().await, 1002, "{code}");
    }
    let mut client = echo(&relay).await;
    client.send(CLOSE, b"\x03").await;
    assert_eq!(client.closed().await, 1002);
    let mut client = echo(&relay).await;
    client.send(CLOSE, b"\x03\xe8\xce\xba\xe1\xbd\xb9\xed\xa0\x80").await;
    assert_eq!(client.closed().await, 1007);
}

#[tokio::test]
async fn nothing_after_a_close_is_answered() {
    let relay = TestRelay::start(&[]).await;
    for after in [frame(TEXT, b"late"), frame(PING, b"late"), frame(CLOSE, b"\x03\xe8")] {
        let mut client = echo(&relay).await;
        client.send_bytes(&[frame(TEXT, b"before"), frame(CLOSE, b"\x03\xe8"), after].concat()).await;
        client.expect(TEXT, b"before").await;
        // `closed` itself asserts that nothing follows.
        assert_eq!(client.closed().await, 1000);
    }
    let mut client = echo(&relay).await;
    client.send(opcode::TEXT, b"never ended").await;
    client.send(CLOSE, b"\x03\xe8").await;
    assert_eq!(client.closed().await, 1000);
}

#[tokio::test]
async fn a_message_in_many_fragments_is_echoed_whole() {
    let relay = TestRelay::start(&[]).await;
    let mut client = echo(&relay).await;
    for (size, part) in [(65_536, 1300), (65_536, 256), (1 << 20, 65_536)] {
        let payload: Vec<u8> = (0..size).map(|n| b'a' + (n % 26) as u8).collect();
        let parts: Vec<&[u8]> = payload.chunks(part).collect();
        for (n, part) in parts.iter().enumerate() {
            let opcode = if n == 0 { opcode::TEXT } else { opcode::CONTINUATION };
            client.send(if n + 1 == parts.len() { FIN | opcode } else { opcode }, part).await;
        }
        client.expect(TEXT, &payload).await;
    }
}
