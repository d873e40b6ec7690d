//! Laws of frames ⇄ messages, whatever the pieces in which they come.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::gateway::{frame::written as frame, rules::Closing};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const LIMIT: usize = 100_000;

/// What both sides are told where a rule made too much of a message.
const GROWN: &str = "a rule made a message longer than is allowed here";

/// What the tests' rules do: by the first byte of a message. What they make of one, they pass.
fn judge(message: Message<'_>) -> Verdict<'_> {
    match message.bytes().first() {
        Some(b'd') => Verdict::Drop,
        Some(b'c') => Verdict::Close(Arc::new(Closing { code: 1008, reason: String::new() })),
        Some(b'l') => Verdict::Excess(Excess::Length),
        Some(b'r') => Verdict::Pass(match message {
            Message::Text(text) => Message::Text(format!("another {text}").into()),
            Message::Binary(bytes) => Message::Binary([b"another ", &bytes[..]].concat().into()),
        }),
        _ => Verdict::Pass(message),
    }
}

/// What goes on of these bytes in such pieces, and what was found.
fn taken(masked: bool, bytes: &[u8], piece: usize) -> (Vec<u8>, Taken) {
    let mut messages = Messages::new(masked, LIMIT);
    let (mut out, mut all) = (Vec::new(), Taken::default());
    for piece in bytes.to_vec().chunks_mut(piece) {
        let mut output = Output::default();
        let taken = messages.take(piece, &mut output, &mut judge);
        out.extend(output.parts(piece).concat());
        all.messages += taken.messages;
        all.payload += taken.payload;
        all.close = all.close.or(taken.close);
        all.halt = taken.halt;
        if all.halt.is_some() {
            break;
        }
    }
    (out, all)
}

fn halted(masked: bool, bytes: &[u8]) -> Option<Halt> {
    let found: Vec<_> = [1, 7, bytes.len().max(1)].map(|piece| taken(masked, bytes, piece).1.halt).into();
    assert!(found.iter().all(|halt| *halt == found[0]), "{found:?}");
    found.into_iter().next().flatten()
}

fn violation(bytes: &[u8]) -> Option<Violation> {
    halted(false, bytes).and_then(|halt| match halt {
        Halt::Violation(violation) => Some(violation),
        Halt::Ruled(_) => None,
    })
}

/// A message: whether it is text, its first letter, how much follows, and into how many frames it is cut.
fn message() -> impl Strategy<Value = (bool, char, usize, usize)> {
    let length = prop_oneof![0usize..300, Just(65_534), Just(65_535), Just(70_000)];
    (any::<bool>(), prop::sample::select(vec!['d', 'r', 'k', 'é']), length, 1usize..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whole_messages_go_on_in_one_frame_each_and_control_frames_where_they_stood(
        messages in prop::collection::vec(message(), 1..6),
        key: Option<[u8; 4]>,
        piece in prop_oneof![1usize..50, 1000usize..200_000],
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (text, first, length, cuts) in &messages {
            let payload = format!("{first}{}", "ü".repeat(length / 2)).into_bytes();
            let opcode = if *text { 1 } else { 2 };
            let each = payload.len().div_ceil(*cuts).max(1);
            let parts: Vec<&[u8]> = payload.chunks(each).collect();
            for (index, part) in parts.iter().enumerate() {
                let last = if index + 1 == parts.len() { 0x80 } else { 0 };
                let ping = frame(0x89, &[index as u8; 5], key);
                bytes.extend(&ping);
                expected.extend(&ping);
                bytes.extend(frame(last | if index == 0 { opcode } else { 0 }, part, key));
            }
            match first {
                'd' => {}
                'r' => expected.extend(frame(0x80 | opcode, &[b"another ", &payload[..]].concat(), key)),
                _ => expected.extend(frame(0x80 | opcode, &payload, key)),
            }
        }
        let close = frame(0x88, b"\x0f\xa0bye", key);
        bytes.extend(&close);
        expected.extend(&close);
        bytes.extend(b"nothing");
        let (out, found) = taken(key.is_some(), &bytes, piece);
        prop_assert!(out == expected, "{} bytes and not {}", out.len(), expected.len());
        prop_assert_eq!(found.messages, messages.len() as u64);
        prop_assert_eq!((found.close, found.halt), (Some(Some(4000)), None));
    }

    #[test]
    fn what_comes_to_the_same_bytes_is_judged_the_same_in_any_pieces(
        bytes: Vec<u8>,
        piece in 1usize..20,
        masked: bool,
    ) {
        let (one, two) = (taken(masked, &bytes, piece), taken(masked, &bytes, bytes.len().max(1)));
        prop_assert_eq!(one, two);
    }

    #[test]
    fn frames_of_any_order_are_judged_the_same_in_any_pieces(
        frames in prop::collection::vec((prop::sample::select(vec![0u8, 1, 2, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a, 0x83]), prop::collection::vec(prop_oneof![4 => any::<u8>(), 1 => Just(b'r')], 0..130)), 1..8),
        piece in 1usize..200,
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(*first, payload, Some(KEY))).collect();
        let (one, two) = (taken(true, &bytes, piece), taken(true, &bytes, bytes.len()));
        prop_assert_eq!(&one, &two);
        // What goes on is right for whoever gets it.
        let (again, found) = taken(true, &one.0, piece);
        prop_assert_eq!(found.halt, None);
        prop_assert_eq!(again, one.0);
    }
}

#[test]
fn what_must_not_be_sent_is_told() {
    assert_eq!(violation(b"\x81\x81abcdx"), Some(Violation::Masked));
    assert_eq!(halted(true, b"\x81\x01a"), Some(Halt::Violation(Violation::Unmasked)));
    assert_eq!(violation(&frame(0xc1, b"a", None)), Some(Violation::Reserved));
    assert_eq!(violation(&frame(0x80, b"a", None)), Some(Violation::Fragments));
    let within = [frame(0x02, b"a", None), frame(0x82, b"b", None)].concat();
    assert_eq!(violation(&within), Some(Violation::Fragments));
    assert_eq!(violation(&frame(0x09, b"", None)), Some(Violation::Control));
    assert_eq!(violation(&frame(0x88, b"\x03\xed", None)), Some(Violation::Close));
    assert_eq!(violation(&frame(0x81, b"\xff", None)), Some(Violation::NotText));
    let torn = [frame(0x01, b"\xe2\x82", None), frame(0x80, b"", None)].concat();
    assert_eq!(violation(&torn), Some(Violation::NotText));
    assert_eq!(violation(b"\x82\x7e\0\x01a"), Some(Violation::Length));
}

#[test]
fn what_is_no_text_is_told_before_its_message_is_whole() {
    // Of a message of a hundred bytes the third is wrong.
    assert_eq!(violation(b"\x81\x64ab\xff"), Some(Violation::NotText));
    assert_eq!(violation(b"\x01\x02a\xe2\x80\x01x"), Some(Violation::NotText));
    assert_eq!(violation(b"\x81\x64ab\xe2\x82"), None, "it may still become text");
}

#[test]
fn a_message_that_is_too_long_is_told_by_its_header() {
    assert_eq!(violation(b"\x82\x7f\0\0\0\0\x7f\xff\xff\xff"), Some(Violation::TooLong));
    let half = vec![b'x'; LIMIT / 2 + 1];
    let fragments = [frame(0x02, &half, None), frame(0x80, &half, None)].concat();
    assert_eq!(violation(&fragments), Some(Violation::TooLong));
    assert_eq!(violation(&frame(0x82, &vec![b'x'; LIMIT], None)), None);
}

#[test]
fn memory_is_taken_for_what_has_come_and_not_for_what_is_announced() {
    let mut messages = Messages::new(false, 1 << 30);
    let mut piece = *b"\x82\x7f\0\0\0\0\x3f\xff\xff\xffx";
    messages.take(&mut piece, &mut Output::default(), &mut judge);
    let Some(Body::Binary(bytes)) = messages.held.map(|held| held.body) else { panic!("it is held") };
    assert!(bytes.capacity() <= 1 << 17, "{}", bytes.capacity());
}

#[test]
fn what_came_before_a_halt_goes_on_and_nothing_behind_it() {
    let before = [frame(0x81, b"one", None), frame(0x89, b"p", None)].concat();
    for (bad, halt) in [
        (frame(0x81, b"close", None), Halt::Ruled(Arc::new(Closing { code: 1008, reason: String::new() }))),
        (frame(0x81, b"long", None), Halt::Ruled(Arc::new(Closing { code: 1009, reason: GROWN.into() }))),
        (frame(0x83, b"", None), Halt::Violation(Violation::Reserved)),
    ] {
        let bytes = [&before[..], &bad, &frame(0x81, b"two", None)].concat();
        for piece in [1, bytes.len()] {
            let (out, found) = taken(false, &bytes, piece);
            assert_eq!((out, found.halt), (before.clone(), Some(halt.clone())));
        }
    }
}

#[test]
fn a_close_that_is_kept_does_not_go_on_and_what_comes_before_it_does() {
    let bytes =
        [frame(0x81, b"answer", None), frame(0x88, b"\x03\xe8", None), frame(0x81, b"late", None)].concat();
    for piece in [1, bytes.len()] {
        let mut messages = Messages::new(false, LIMIT);
        messages.keep_close();
        let (mut out, mut close) = (Vec::new(), None);
        for piece in bytes.clone().chunks_mut(piece) {
            let mut output = Output::default();
            let found = messages.take(piece, &mut output, &mut judge);
            close = close.or(found.close);
            out.extend(output.parts(piece).concat());
        }
        assert_eq!((out, close), (frame(0x81, b"answer", None), Some(Some(1000))));
        assert!(!messages.is_closed(), "another one may be put there");
    }
}

#[test]
fn a_close_that_has_gone_on_already_is_not_kept_any_more() {
    let mut messages = Messages::new(false, LIMIT);
    let mut output = Output::default();
    messages.take(&mut frame(0x88, b"\x03\xe8", None), &mut output, &mut judge);
    messages.keep_close();
    assert!(messages.is_closed(), "no other may be put there");
}

#[test]
fn a_message_that_lies_whole_in_what_was_read_is_not_copied() {
    let mut bytes: Vec<u8> = (0..100u8).flat_map(|n| frame(0x82, &[n; 300], Some(KEY))).collect();
    let before = bytes.clone();
    let mut output = Output::default();
    Messages::new(true, LIMIT).take(&mut bytes, &mut output, &mut |message| Verdict::Pass(message));
    assert_eq!(output.parts(&bytes), [&b""[..], &before]);
}

#[test]
fn where_much_comes_of_it_only_a_part_of_a_read_is_taken() {
    let mut bytes = frame(0x82, b"a", None).repeat(1000);
    let mut messages = Messages::new(false, 1 << 20);
    let (mut at, mut turns, mut out) = (0, 0, 0);
    while at < bytes.len() {
        let mut output = Output::default();
        let found = messages.take(&mut bytes[at..], &mut output, &mut |_: Message<'_>| {
            Verdict::Pass(Message::Binary(Cow::Owned(vec![7; 4000])))
        });
        let went = output.parts(&bytes[at..]).concat().len();
        assert!(went <= 256 * 1024 + 4004, "{went} bytes at once");
        (at, turns, out) = (at + found.used, turns + 1, out + went);
    }
    assert_eq!((out, turns), (1000 * 4004, 1000usize.div_ceil(66)));
}
