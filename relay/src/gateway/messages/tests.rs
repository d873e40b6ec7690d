//! Messages out of frames and back: any of them, in any pieces, by any verdict.

use proptest::prelude::*;

use super::*;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame as a side writes it that masks with this, or does not.
fn frame(first: u8, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let mut bytes = vec![first];
    let bit = if key.is_some() { 0x80 } else { 0 };
    match payload.len() {
        short @ 0..=125 => bytes.push(bit | short as u8),
        middle @ 126..=0xffff => {
            bytes.push(bit | 126);
            bytes.extend((middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(bit | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(key.iter().flatten());
    let at = bytes.len();
    bytes.extend(payload);
    mask(&mut bytes[at..], key.unwrap_or_default(), 0);
    bytes
}

/// What goes on of some bytes that come in pieces, and why no more does.
fn taken(
    messages: &mut Messages,
    bytes: &[u8],
    piece: usize,
    mut judge: impl for<'a> FnMut(Message<'a>) -> Verdict<'a>,
) -> (Vec<u8>, Taken) {
    let (mut out, mut total) = (Vec::new(), Taken::default());
    for piece in bytes.chunks(piece) {
        let mut left = piece.to_vec();
        while !left.is_empty() {
            let mut output = Output::default();
            let taken = messages.take(&mut left, &mut output, &mut judge);
            out.extend(output.parts(&left).concat());
            total.used += taken.used;
            total.messages += taken.messages;
            total.payload += taken.payload;
            total.close = total.close.or(taken.close);
            left.drain(..taken.used);
            if taken.halt.is_some() {
                return (out, Taken { halt: taken.halt, ..total });
            }
        }
    }
    (out, total)
}

fn pass(message: Message<'_>) -> Verdict<'_> {
    Verdict::Pass(message)
}

/// What a client's bytes are halted for, and what went on of them.
fn halted(bytes: &[u8], limit: usize) -> (Vec<u8>, Option<Violation>) {
    let (out, taken) = taken(&mut Messages::new(true, limit), bytes, usize::MAX, pass);
    let violation = taken.halt.map(|halt| match halt {
        Halt::Violation(violation) => violation,
        Halt::Ruled(closing) => panic!("{closing:?}"),
    });
    (out, violation)
}

/// A message in fragments.
#[derive(Debug, Clone)]
struct Sent {
    text: bool,
    payload: Vec<u8>,
    cuts: Vec<usize>,
    ping: bool,
}

fn any_sent() -> impl Strategy<Value = Sent> {
    let length = prop_oneof![0usize..200, Just(65_535), Just(65_536), 60_000usize..70_000];
    let payload = (any::<bool>(), length).prop_map(|(text, length)| {
        // Characters of all lengths.
        let bytes: Vec<u8> =
            if text { "aé€𝄞".bytes().cycle().take(length).collect() } else { vec![0xff; length] };
        let whole =
            if text { String::from_utf8_lossy(&bytes).replace('\u{fffd}', "").into_bytes() } else { bytes };
        (text, whole)
    });
    (payload, prop::collection::vec(any::<prop::sample::Index>(), 0..3), any::<bool>()).prop_map(
        |((text, payload), cuts, ping)| {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
            cuts.sort_unstable();
            Sent { text, payload, cuts, ping }
        },
    )
}

impl Sent {
    fn opcode(&self) -> u8 {
        if self.text { 1 } else { 2 }
    }

    /// Its frames, with a ping between the first two if it has one.
    fn frames(&self, key: Option<[u8; 4]>) -> Vec<u8> {
        let ends: Vec<usize> = self.cuts.iter().copied().chain([self.payload.len()]).collect();
        let (mut bytes, mut from) = (Vec::new(), 0);
        for (index, &end) in ends.iter().enumerate() {
            let last = if index + 1 == ends.len() { 0x80 } else { 0 };
            let opcode = if index == 0 { self.opcode() } else { 0 };
            bytes.extend(frame(last | opcode, &self.payload[from..end], key));
            if index == 0 && self.ping {
                bytes.extend(frame(0x89, b"ping", key));
            }
            from = end;
        }
        bytes
    }

    /// What goes on of it: one frame, behind the ping that came within it.
    fn passed(&self, key: Option<[u8; 4]>) -> Vec<u8> {
        let whole = frame(0x80 | self.opcode(), &self.payload, key);
        let ping = if self.ping { frame(0x89, b"ping", key) } else { Vec::new() };
        if self.cuts.is_empty() { [whole, ping].concat() } else { [ping, whole].concat() }
    }
}

proptest! {
    #[test]
    fn messages_go_on_whole_and_as_they_came_whatever_the_pieces(
        sent in prop::collection::vec(any_sent(), 0..5),
        masked: bool,
        piece in prop_oneof![1usize..40, 1usize..100_000],
    ) {
        let key = masked.then_some(KEY);
        let close = frame(0x88, b"\x03\xe8done", key);
        let bytes: Vec<u8> = sent.iter().flat_map(|sent| sent.frames(key)).chain(close.clone()).collect();
        let expected: Vec<u8> = sent.iter().flat_map(|sent| sent.passed(key)).chain(close).collect();
        let mut messages = Messages::new(masked, 1 << 20);
        let mut judged = Vec::new();
        let (out, taken) = taken(&mut messages, &bytes, piece, |message| {
            judged.push((message.kind() == Kind::Text, message.bytes().to_vec()));
            Verdict::Pass(message)
        });
        prop_assert_eq!(taken.halt, None);
        prop_assert!(out == expected, "{} bytes in place of {}", out.len(), expected.len());
        let payloads: Vec<_> = sent.iter().map(|sent| (sent.text, sent.payload.clone())).collect();
        prop_assert!(judged == payloads);
        prop_assert_eq!((taken.messages, taken.close), (sent.len() as u64, Some(Some(1000))));
        prop_assert_eq!(taken.payload, payloads.iter().map(|(_, payload)| payload.len() as u64).sum::<u64>());
        prop_assert!(messages.is_closed());
    }

    #[test]
    fn what_is_changed_goes_on_in_the_place_of_what_came_and_what_is_dropped_does_not(
        sent in prop::collection::vec(any_sent(), 0..5),
        masked: bool,
        piece in 1usize..100_000,
        longer in 0usize..300,
    ) {
        let key = masked.then_some(KEY);
        let bytes: Vec<u8> = sent.iter().flat_map(|sent| sent.frames(key)).collect();
        let changed = |bytes: &[u8]| [bytes, &vec![b'x'; longer]].concat();
        let (out, taken) = taken(&mut Messages::new(masked, 1 << 20), &bytes, piece, |message| match message {
            Message::Text(_) => Verdict::Drop,
            Message::Binary(bytes) => Verdict::Pass(Message::Binary(Cow::Owned(changed(&bytes)))),
        });
        let expected: Vec<u8> = sent
            .iter()
            .flat_map(|sent| {
                let ping = if sent.ping { frame(0x89, b"ping", key) } else { Vec::new() };
                let whole = if sent.text { Vec::new() } else { frame(0x82, &changed(&sent.payload), key) };
                if sent.cuts.is_empty() { [whole, ping].concat() } else { [ping, whole].concat() }
            })
            .collect();
        prop_assert!(out == expected);
        prop_assert_eq!((taken.messages, taken.halt), (sent.len() as u64, None));
    }

    #[test]
    fn of_arbitrary_bytes_only_whole_and_right_frames_go_on(pieces: Vec<Vec<u8>>, masked: bool, limit in 0usize..300) {
        let mut messages = Messages::new(masked, limit);
        let mut out = Vec::new();
        for piece in &pieces {
            let (more, taken) = taken(&mut messages, piece, usize::MAX, pass);
            out.extend(more);
            prop_assert!(messages.held.as_ref().is_none_or(|held| held.body.len() <= limit));
            if taken.halt.is_some() {
                break;
            }
        }
        let mut rest = out.as_slice();
        while !rest.is_empty() {
            let header = Header::read(rest, masked).expect("it is right").expect("it is whole");
            let end = header.size + header.length as usize;
            prop_assert!(end <= rest.len() && (header.opcode.is_control() || header.length as usize <= limit));
            rest = &rest[end..];
        }
    }

    #[test]
    fn nothing_that_can_become_no_text_is_waited_for(good in "\\PC{0,20}", bad in 0x80u8..0xc0, piece in 1usize..50) {
        // It stands at the end of a frame that is not whole, in a message that is not whole either.
        let mut bytes = frame(0x01, &[good.as_bytes(), &[bad, b'a', b'b']].concat(), Some(KEY));
        bytes.truncate(bytes.len() - 2);
        let (out, taken) = taken(&mut Messages::new(true, 1 << 20), &bytes, piece, pass);
        prop_assert_eq!((out, taken.halt), (Vec::new(), Some(Halt::Violation(Violation::NotText))));
    }
}

#[test]
fn what_must_not_be_sent_is_told_and_what_came_before_goes_on() {
    let key = Some(KEY);
    let good = frame(0x81, b"good", key);
    let cases: &[(&[u8], Violation)] = &[
        (b"\x81\x01a", Violation::Unmasked),
        (&frame(0xc1, b"a", key), Violation::Reserved),
        (&frame(0x83, b"a", key), Violation::Reserved),
        (&frame(0x09, b"a", key), Violation::Control),
        (&frame(0x80, b"a", key), Violation::Fragments),
        (&[frame(0x01, b"a", key), frame(0x81, b"b", key)].concat(), Violation::Fragments),
        (&frame(0x81, b"\xff", key), Violation::NotText),
        (&[frame(0x01, b"\xe2\x82", key), frame(0x80, b"", key)].concat(), Violation::NotText),
        (&frame(0x88, b"\x03\xed", key), Violation::Close),
        (&frame(0x81, b"12345", key), Violation::TooLong),
        (&[frame(0x02, b"1234", key), frame(0x80, b"5", key)].concat(), Violation::TooLong),
    ];
    for (bytes, violation) in cases {
        assert_eq!(halted(&[&good, *bytes].concat(), 4), (good.clone(), Some(*violation)), "{bytes:?}");
    }
    assert_eq!(halted(b"\x82\xff\0\0\0\x7f\0\0\0\0\0\0\0\0", 1 << 30).1, Some(Violation::TooLong));
    let (_, taken) = taken(&mut Messages::new(false, 9), &good, usize::MAX, pass);
    assert_eq!(taken.halt, Some(Halt::Violation(Violation::Masked)));
}

#[test]
fn a_message_may_have_as_many_bytes_as_are_allowed() {
    let whole = frame(0x82, b"1234", Some(KEY));
    assert_eq!(halted(&whole, 4), (whole, None));
    let parts = [frame(0x02, b"12", Some(KEY)), frame(0x80, b"34", Some(KEY))].concat();
    assert_eq!(halted(&parts, 4), (frame(0x82, b"1234", Some(KEY)), None));
}

#[test]
fn what_a_rule_makes_too_long_closes_and_is_not_the_peers_fault() {
    let bytes = [frame(0x81, b"a", None), frame(0x81, b"ab", None)].concat();
    let (out, taken) = taken(&mut Messages::new(false, 4), &bytes, usize::MAX, |message| match message {
        Message::Text(text) => Verdict::Pass(Message::Text(Cow::Owned(text.repeat(3)))),
        binary @ Message::Binary(_) => Verdict::Pass(binary),
    });
    assert_eq!(out, frame(0x81, b"aaa", None));
    assert!(matches!(taken.halt, Some(Halt::Ruled(closing)) if closing.code == 1009));
}

#[test]
fn after_much_of_its_own_the_rest_waits() {
    let one = frame(0x82, b"a", None);
    let mut bytes = one.repeat(1000);
    let mut messages = Messages::new(false, 1 << 20);
    let (mut at, mut turns, mut out) = (0, 0, 0);
    while at < bytes.len() {
        let mut output = Output::default();
        let taken = messages.take(&mut bytes[at..], &mut output, &mut |_: Message<'_>| {
            Verdict::Pass(Message::Binary(Cow::Owned(vec![7; 4000])))
        });
        let went = output.parts(&bytes[at..]).concat().len();
        assert!(went < 256 * 1024 + 4010, "{went} bytes at once");
        (at, turns, out) = (at + taken.used, turns + 1, out + went);
    }
    assert_eq!(out, 1000 * 4004);
    assert!(turns > 10, "it was taken in {turns} turns");
}

#[test]
fn a_close_frame_that_is_withheld_ends_what_goes_on_all_the_same() {
    let bytes =
        [frame(0x81, b"last", None), frame(0x88, b"\x03\xe8", None), frame(0x81, b"late", None)].concat();
    for piece in [1, 5, usize::MAX] {
        let mut messages = Messages::new(false, 9);
        messages.withhold_close();
        let (out, taken) = taken(&mut messages, &bytes, piece, pass);
        assert_eq!((out, taken.close), (frame(0x81, b"last", None), Some(Some(1000))));
        assert!(!messages.is_closed(), "none has gone on");
    }
}
