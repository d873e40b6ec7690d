//! The laws of the framings, under arbitrary bytes in arbitrary pieces and a virtual clock. Those that only
//! `auto` has are in `auto_laws`.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// What a framer gave out, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Given {
    Message(Vec<u8>),
    Cut(Vec<u8>),
    TooLong(u64),
    Incomplete(u64),
    Lost(FramingLost),
}

/// A framer with a clock of its own, driven as a session drives it.
pub(super) struct Sender {
    pub(super) framer: Framer,
    now: Instant,
    pub(super) given: Vec<Given>,
}

impl Sender {
    pub(super) fn new(framing: &str, max_message: usize) -> Self {
        let framer = Framer::new(&framing.parse().unwrap(), max_message, AutoSettings::default());
        Self { framer, now: Instant::now(), given: Vec::new() }
    }

    pub(super) fn write(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let given = &mut self.given;
        if let Err(lost) = self.framer.feed(bytes.as_ref(), self.now, &mut |piece| given.push(piece.into())) {
            self.given.push(Given::Lost(lost));
        }
        self
    }

    /// Lets time pass, with a tick at every deadline.
    pub(super) fn wait(&mut self, ms: u64) -> &mut Self {
        let until = self.now + Duration::from_millis(ms);
        while let Some(deadline) = self.framer.deadline().filter(|&deadline| deadline <= until) {
            self.now = self.now.max(deadline);
            let given = &mut self.given;
            self.framer.tick(self.now, &mut |piece| given.push(piece.into()));
            let next = self.framer.deadline();
            assert!(next.is_none_or(|next| next > self.now), "a tick at its deadline has to settle it");
        }
        self.now = until;
        self
    }

    pub(super) fn end(&mut self) -> &mut Self {
        let given = &mut self.given;
        self.framer.finish(&mut |piece| given.push(piece.into()));
        self
    }

    /// The messages since the last call; nothing else may have been given out.
    pub(super) fn messages(&mut self) -> Vec<String> {
        let text = |given| match given {
            Given::Message(bytes) => String::from_utf8(bytes).unwrap(),
            other => panic!("{other:?}"),
        };
        std::mem::take(&mut self.given).into_iter().map(text).collect()
    }
}

impl From<Piece<'_>> for Given {
    fn from(piece: Piece<'_>) -> Self {
        match piece {
            Piece::Message(bytes) => Self::Message(bytes.into()),
            Piece::Cut(bytes) => Self::Cut(bytes.into()),
            Piece::TooLong { bytes } => Self::TooLong(bytes),
            Piece::Incomplete { bytes } => Self::Incomplete(bytes),
        }
    }
}

impl Framer {
    fn capacity(&self) -> usize {
        match &self.state {
            State::Delimited(delimited) => delimited.capacity(),
            State::Counted(counted) => counted.capacity(),
            State::Quiet(quiet) => quiet.capacity(),
            State::Undecided(undecided) => undecided.capacity(),
            State::Read | State::Lost(_) => 0,
        }
    }
}

fn all(framing: &str, pieces: &[&[u8]]) -> Vec<Given> {
    let mut sender = Sender::new(framing, 8);
    for piece in pieces {
        sender.write(piece);
    }
    sender.end();
    sender.given
}

pub(super) fn message(bytes: &[u8]) -> Given {
    Given::Message(bytes.to_vec())
}

#[test]
fn a_line_ends_with_a_newline_and_a_carriage_return_before_it_is_not_part_of_it() {
    let lines = [message(b"one"), message(b""), message(b"t\rwo"), message(b"last\r")];
    assert_eq!(all("line", &[b"one\r\n\nt\rwo\r\nlast\r"]), lines);
    assert_eq!(all("line", &[b"one\r", b"\n\n", b"t\rwo\r", b"", b"\nlast", b"\r"]), lines);
    assert_eq!(all("line", &[b"one\n"]), [message(b"one")]);
    assert_eq!(all("line", &[b"12345678\r", b"\n"]), [message(b"12345678")]);
}

#[test]
fn a_message_that_is_too_long_is_dropped_whole_and_the_next_one_comes() {
    let expected = [Given::TooLong(9), message(b"next")];
    assert_eq!(all("line", &[b"123456789\nnext\n"]), expected);
    assert_eq!(all("line", &[b"12345678", b"9\r", b"\nnext"]), expected);
    assert_eq!(all("delimiter:616263", &[b"123456789a", b"bcnext"]), expected);
    assert_eq!(all("octet-count", &[b"9 12345", b"67894 next"]), expected);
    assert_eq!(all("fixed:9", &[b"123456789ab"]), [Given::TooLong(9), Given::TooLong(9)]);
    assert_eq!(all("line", &[b"1234567890"]), [Given::TooLong(10)]);
}

#[test]
fn a_delimiter_is_found_where_it_begins_first() {
    assert_eq!(all("delimiter:6161", &[b"xaaay"]), [message(b"x"), message(b"ay")]);
    assert_eq!(
        all("delimiter:0d0a", &[b"a\r", b"\n\r\nb\r"]),
        [message(b"a"), message(b""), message(b"b\r")]
    );
    assert_eq!(all("null", &[b"a\r\n\0\0b"]), [message(b"a\r\n"), message(b""), message(b"b")]);
}

#[test]
fn a_length_comes_in_two_or_four_bytes_in_either_order() {
    let expected = [message(b"hello"), message(b"")];
    assert_eq!(all("length:u16", &[b"\0\x05hello\0\0"]), expected);
    assert_eq!(all("length:u16le", &[b"\x05", b"\0hello\0", b"\0"]), expected);
    assert_eq!(all("length:u32", &[b"\0\0", b"\0\x05hel", b"lo\0\0\0\0"]), expected);
    assert_eq!(all("length:u32le", &[b"\x05\0\0\0hello\0\0\0\0"]), expected);
}

#[test]
fn a_sender_out_of_step_with_its_lengths_is_lost_for_good() {
    let lost = Given::Lost(FramingLost::TooLong { length: 0x47455420, max: 8 });
    assert_eq!(all("length:u32", &[b"\0\0\0\x01xGET / ", b"more"]), [message(b"x"), lost.clone(), lost]);
    let lost = Given::Lost(FramingLost::NoCount);
    for bytes in [&b"1 xhello"[..], b"1 x 5", b"1 x12345678901"] {
        assert_eq!(all("octet-count", &[bytes]), [message(b"x"), lost.clone()], "{bytes:?}");
    }
}

#[test]
fn what_is_left_of_fixed_at_the_end_is_a_message_but_not_half_an_announced_one() {
    assert_eq!(all("fixed:3", &[b"abcd", b"efg"]), [message(b"abc"), message(b"def"), message(b"g")]);
    assert_eq!(all("length:u16", &[b"\0\x05hel"]), [Given::Incomplete(3)]);
    assert_eq!(all("octet-count", &[b"5"]), [Given::Incomplete(0)]);
}

#[test]
fn a_read_is_a_message_in_read_and_is_cut_where_it_is_too_long() {
    assert_eq!(all("read", &[b"a\n", b"", b"b"]), [message(b"a\n"), message(b"b")]);
    assert_eq!(all("read", &[b"123456781234567812345678"]).len(), 3);
    assert_eq!(all("read", &[b"123456789"]), [Given::Cut(b"12345678".to_vec()), message(b"9")]);
}

#[test]
fn idle_ends_a_message_with_silence_and_cuts_what_is_too_long() {
    let mut sender = Sender::new("idle:50ms", 8);
    sender.write("ab").wait(49).write("c\n").wait(50).write("d").wait(1000).write("e").end();
    assert_eq!(sender.messages(), ["abc\n", "d", "e"]);
    sender.write("12345").write("678").write("9").wait(50);
    assert_eq!(sender.given, [Given::Cut(b"12345678".to_vec()), message(b"9")]);
    assert!(!sender.framer.holds_back());
}

#[test]
fn time_that_the_relay_lost_is_no_silence() {
    let mut sender = Sender::new("idle:50ms", 8);
    sender.write("ab");
    sender.now += Duration::from_secs(1);
    sender.write("cd").wait(50);
    assert_eq!(sender.messages(), ["abcd"]);
}

/// What the counted and delimited framings make of a whole stream, in the plainest way. Limit: 8 bytes.
fn reference(framing: &str, mut stream: &[u8]) -> Vec<Given> {
    let judge =
        |bytes: &[u8]| if bytes.len() > 8 { Given::TooLong(bytes.len() as u64) } else { message(bytes) };
    let delimiter: &[u8] = match framing {
        "line" => b"\n",
        "null" => b"\0",
        "delimiter:0a0a61" => b"\n\na",
        _ => b"",
    };
    let mut given = Vec::new();
    while !stream.is_empty() {
        let (length, begin) = match framing {
            "fixed:3" => (3, 0),
            "length:u16" if stream.len() < 2 => return [given, vec![Given::Incomplete(0)]].concat(),
            "length:u16" => (usize::from(u16::from_be_bytes([stream[0], stream[1]])), 2),
            "octet-count" => {
                let digits = stream.iter().take_while(|byte| byte.is_ascii_digit()).count();
                if digits > 10 || stream.get(digits).is_some_and(|&byte| byte != b' ' || digits == 0) {
                    return [given, vec![Given::Lost(FramingLost::NoCount)]].concat();
                }
                if digits == stream.len() {
                    return [given, vec![Given::Incomplete(0)]].concat();
                }
                (std::str::from_utf8(&stream[..digits]).unwrap().parse().unwrap(), digits + 1)
            }
            _ => {
                let at = stream.windows(delimiter.len()).position(|window| window == delimiter);
                let body = &stream[..at.unwrap_or(stream.len())];
                let stripped = body.strip_suffix(b"\r").filter(|_| framing == "line" && at.is_some());
                given.push(judge(stripped.unwrap_or(body)));
                stream = at.map_or(&[][..], |at| &stream[at + delimiter.len()..]);
                continue;
            }
        };
        if framing == "length:u16" && length > 8 {
            return [given, vec![Given::Lost(FramingLost::TooLong { length: length as u64, max: 8 })]]
                .concat();
        }
        let body = &stream[begin..];
        let rest = body.get(length..);
        let body = &body[..length.min(body.len())];
        given.push(match rest {
            _ if length > 8 => Given::TooLong(length as u64),
            None if framing != "fixed:3" => Given::Incomplete(body.len() as u64),
            _ => message(body),
        });
        stream = rest.unwrap_or(&[]);
    }
    given
}

/// Streams in which every framing finds boundaries, and some that no framing likes.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        3 => prop::sample::select(vec![&b"\n"[..], b"\r\n", b"\r", b"\0", b"\n\na", b"a", b"\0\x03", b"\0\0"])
            .prop_map(<[u8]>::to_vec),
        2 => prop::sample::select(vec![&b"3 abc"[..], b"0 ", b"12 ", b"\0\x03abc", b"123456789"])
            .prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn the_messages_do_not_depend_on_how_the_bytes_arrive(
        bytes in stream(),
        cuts in prop::collection::vec(1usize..9, 1..40),
        framing in prop::sample::select(
            vec!["line", "null", "delimiter:0a0a61", "fixed:3", "length:u16", "octet-count"]
        ),
    ) {
        let mut sender = Sender::new(framing, 8);
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            let (piece, more) = rest.split_at((*cut).min(rest.len()));
            sender.write(piece);
            prop_assert!(sender.framer.capacity() <= 8 + MAX_DELIMITER);
            if more.is_empty() || matches!(sender.given.last(), Some(Given::Lost(_))) {
                break;
            }
            rest = more;
        }
        sender.end();
        prop_assert_eq!(sender.given, reference(framing, &bytes));
    }

    #[test]
    fn every_framing_takes_any_bytes_at_any_time_and_keeps_little(
        steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), 0u64..3000), 0..30),
        text in prop::collection::vec("[ -~\u{e9}]{0,20}\n?", 0..10),
        framing in prop::sample::select(
            vec!["line", "delimiter:0a0a61", "idle:20ms", "fixed:3", "length:u32le", "octet-count", "read", "auto"]
        ),
    ) {
        let mut sender = Sender::new(framing, 16);
        let text = text.into_iter().map(|line| (line.into_bytes(), 700));
        for (bytes, ms) in text.chain(steps) {
            sender.write(bytes).wait(ms);
            prop_assert!(sender.framer.capacity() <= 16 + MAX_DELIMITER);
        }
        sender.end();
        for given in sender.given {
            if let Given::Message(bytes) | Given::Cut(bytes) = given {
                prop_assert!(bytes.len() <= 16);
            }
        }
    }

    #[test]
    fn idle_and_read_and_auto_without_newlines_lose_and_change_nothing(
        steps in prop::collection::vec(("[ -9;-~\u{e9}\0]{0,40}", 0u64..2000), 0..30),
        framing in prop::sample::select(vec!["idle:20ms", "read", "auto"]),
    ) {
        let mut sender = Sender::new(framing, 16);
        for (text, ms) in &steps {
            sender.write(text).wait(*ms);
        }
        sender.end();
        let mut out = Vec::new();
        for given in sender.given {
            let (Given::Message(bytes) | Given::Cut(bytes)) = given else { panic!("{given:?}") };
            out.extend(bytes);
        }
        prop_assert_eq!(out, steps.iter().flat_map(|(text, _)| text.bytes()).collect::<Vec<u8>>());
    }
}
