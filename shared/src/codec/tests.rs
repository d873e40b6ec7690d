//! What is encoded is decoded, in any pieces; what is no frame is refused.

use super::*;
use proptest::prelude::*;

const MAX: usize = 4096;

#[derive(Debug)]
enum Owned {
    Hello([u8; 16], u32, u32, Vec<u8>),
    Open(u16, u8, u64, String),
    Publish(u16, u64, bool, Option<u64>, Vec<u8>),
    Ping(u64),
    Close(u16, String),
}

impl Owned {
    fn frame(&self) -> SenderFrame<'_> {
        match self {
            Self::Hello(id, producer_epoch, keep_s, token) => SenderFrame::Hello(Hello {
                producer: ProducerId(*id),
                producer_epoch: *producer_epoch,
                keep_s: *keep_s,
                token,
            }),
            Self::Open(alias, levels, first_pseq, channel) => SenderFrame::Open(Open {
                alias: Alias(*alias),
                levels: Levels(*levels),
                first_pseq: *first_pseq,
                channel,
            }),
            Self::Publish(alias, pseq, text, source_time, payload) => SenderFrame::Publish(Publish {
                alias: Alias(*alias),
                pseq: *pseq,
                kind: if *text { Kind::Text } else { Kind::Binary },
                source_time: *source_time,
                payload,
            }),
            Self::Ping(n) => SenderFrame::Ping(*n),
            Self::Close(code, text) => SenderFrame::Close(Close { code: *code, text }),
        }
    }
}

fn frames() -> impl Strategy<Value = Owned> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        (any::<[u8; 16]>(), any::<u32>(), any::<u32>(), bytes())
            .prop_map(|(a, b, c, d)| Owned::Hello(a, b, c, d)),
        (any::<u16>(), any::<u8>(), any::<u64>(), "\\PC{0,60}")
            .prop_map(|(a, b, c, d)| Owned::Open(a, b, c, d)),
        (any::<u16>(), any::<u64>(), any::<bool>(), any::<Option<u64>>(), bytes())
            .prop_map(|(a, b, c, d, e)| Owned::Publish(a, b, c, d, e)),
        any::<u64>().prop_map(Owned::Ping),
        (any::<u16>(), "\\PC{0,60}").prop_map(|(a, b)| Owned::Close(a, b)),
    ]
}

proptest! {
    #[test]
    fn sender_frames_decode_to_what_was_encoded(frames in prop::collection::vec(frames(), 0..8)) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|f| encode_sender(&f.frame(), &mut bytes));
        let mut rest = &bytes[..];
        for frame in &frames {
            let Decoded::Frame(decoded, taken) = decode_sender(rest, MAX).unwrap() else { panic!("incomplete") };
            prop_assert_eq!(decoded, frame.frame());
            for cut in [0, 1, 4, 5, taken - 1] {
                let Decoded::Incomplete(need) = decode_sender(&rest[..cut.min(taken - 1)], MAX).unwrap() else { panic!("whole") };
                prop_assert!(need > cut.min(taken - 1) && need <= taken);
            }
            rest = &rest[taken..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn relay_frames_decode_to_what_was_encoded(a: u16, b: u64, c: u64, d: u32, e: u8, text in "\\PC{0,60}") {
        let (alias, text) = (Alias(a), text.as_str());
        for frame in [
            RelayFrame::Welcome(Welcome { epoch: Epoch(b), max_message: d, window_messages: d, window_bytes: d, ping_ms: d }),
            RelayFrame::Opened(Opened { alias, levels: Levels(e), last_pseq: b, receivers: d }),
            RelayFrame::Ack(Ack { alias, pseq: b, seq: Seq(c) }),
            RelayFrame::Error(Refusal { code: a, fatal: e & 1 == 1, alias, pseq: b, retry_ms: d, text }),
            RelayFrame::Ping(b),
            RelayFrame::Pong(c),
            RelayFrame::Drain { deadline_ms: d },
            RelayFrame::Close(Close { code: a, text }),
        ] {
            let mut bytes = Vec::new();
            encode_relay(&frame, &mut bytes);
            prop_assert_eq!(decode_relay(&bytes, MAX), Ok(Decoded::Frame(frame, bytes.len())));
        }
    }

    #[test]
    fn decoding_arbitrary_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64), kind in 0u8..0x90) {
        let _ = decode_sender(&bytes, MAX);
        let _ = decode_relay(&bytes, MAX);
        let mut framed = (bytes.len() as u32 + 1).to_be_bytes().to_vec();
        framed.push(kind);
        framed.extend_from_slice(&bytes);
        let _ = decode_sender(&framed, MAX);
        let _ = decode_relay(&framed, MAX);
    }
}

#[test]
fn a_length_of_zero_or_beyond_the_limit_is_an_error_as_soon_as_it_is_read() {
    assert_eq!(decode_sender(&[0, 0, 0, 0], 100), Err(WireError::FrameLength { length: 0, max: 100 }));
    assert_eq!(decode_sender(&[0, 0, 0, 101], 100), Err(WireError::FrameLength { length: 101, max: 100 }));
    assert_eq!(decode_sender(&[0, 0, 0, 100], 100), Ok(Decoded::Incomplete(104)));
}

#[test]
fn an_unknown_type_is_skipped_only_with_its_high_bit() {
    assert_eq!(decode_sender(&[0, 0, 0, 2, 0x8C, 7, 9], 100), Ok(Decoded::Skipped(6)));
    assert_eq!(decode_sender(&[0, 0, 0, 2, 0x0C, 7, 9], 100), Err(WireError::UnknownType(0x0C)));
    assert_eq!(decode_sender(&[0, 0, 0, 1, ACK], 100), Err(WireError::Malformed("ACK")));
}

#[test]
fn the_preamble_is_four_bytes_and_a_version() {
    assert_eq!(decode_preamble(b"\xF5WS"), Ok(Decoded::Incomplete(5)));
    assert_eq!(decode_preamble(b"\xF5WSR\x01rest"), Ok(Decoded::Frame((), 5)));
    assert_eq!(decode_preamble(b"\xF5WSR\x02"), Err(WireError::Version(2)));
}
