//! What the frames of a framed sender mean: which message is next, stored already, or refused. Pure: the session
//! does what the steps say.

use std::collections::BTreeMap;

use shared::{
    ChannelId, ErrorCode, Kind, Seq,
    limits::MAX_PSEQ,
    sender::{Alias, Hello, Levels, Open, Publish, Refusal, SenderFrame},
};

use crate::store::{Claim, Stamp, Stored};

/// What a framed sender has said so far.
#[derive(Debug)]
pub struct Protocol {
    limits: Limits,
    state: State,
}

/// What a framed sender may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that a message may have.
    pub max_message: usize,
    /// Channels that may be open.
    pub aliases: usize,
}

#[derive(Debug)]
enum State {
    /// HELLO must come first.
    Fresh,
    Known {
        claim: Claim,
        lines: BTreeMap<Alias, Line>,
    },
}

/// What passes under one alias.
#[derive(Debug)]
struct Line {
    /// The last pseq that was stored, handed to the store, or refused.
    last: u64,
    /// The last pseq that was stored or handed to the store: what the store compares with.
    handed: u64,
    /// The last pseq that is settled, and the seq of the last stored one.
    settled: (u64, Seq),
    /// The sender was told to go back to the expected pseq, and has not yet.
    gap_told: bool,
}

/// What is to be done about a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Nothing.
    Nothing,
    /// Claim the producer's place, and tell [`Protocol::claimed`].
    Claim(Hello<'a>),
    /// Open the channel if it settles messages at these levels, and tell [`Protocol::opened`].
    Open {
        /// What the sender calls it.
        alias: Alias,
        /// Which.
        channel: ChannelId,
        /// The lowest pseq that the sender still holds.
        first_pseq: u64,
        /// The levels that an ACK shall mean.
        levels: Levels,
    },
    /// Hand the message to the store, with the others of its alias.
    Store(Publish<'a>),
    /// It is settled already: acknowledge what is settled.
    Acknowledge(Alias),
    /// Answer with the same number.
    Pong(u64),
    /// Tell that something was refused; the connection goes on unless that is fatal.
    Refuse(Refused),
    /// The sender is done.
    Done,
}

/// A refusal, with a text of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub code: ErrorCode,
    /// The connection ends with it.
    pub fatal: bool,
    /// Which channel.
    pub alias: Alias,
    /// Which message, or the expected one.
    pub pseq: u64,
    /// For people.
    pub text: String,
}

impl Protocol {
    /// Before the first frame.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Fresh }
    }

    /// What a frame means.
    pub fn handle<'a>(&mut self, frame: SenderFrame<'a>) -> Step<'a> {
        match (&mut self.state, frame) {
            (_, SenderFrame::Ping(number)) => Step::Pong(number),
            (_, SenderFrame::Pong(_)) => Step::Nothing,
            (_, SenderFrame::Close(_)) => Step::Done,
            (State::Fresh, SenderFrame::Hello(hello)) if hello.token.is_empty() => Step::Claim(hello),
            (State::Fresh, SenderFrame::Hello(_)) => {
                Step::Refuse(Refused::fatal(ErrorCode::BadToken, "this relay takes no tokens"))
            }
            (State::Fresh, _) => Step::Refuse(Refused::fatal(ErrorCode::Protocol, "HELLO must come first")),
            (State::Known { .. }, SenderFrame::Hello(_)) => {
                Step::Refuse(Refused::fatal(ErrorCode::Protocol, "HELLO came twice"))
            }
            (State::Known { lines, .. }, SenderFrame::Open(open)) => open_step(lines, open, self.limits),
            (State::Known { lines, .. }, SenderFrame::Publish(publish)) => {
                match lines.get_mut(&publish.alias) {
                    Some(line) => line.publish(publish, self.limits.max_message),
                    None => {
                        let refused =
                            Refused::fatal(ErrorCode::Protocol, "PUBLISH under an alias that is not open");
                        Step::Refuse(Refused { alias: publish.alias, ..refused })
                    }
                }
            }
        }
    }

    /// The place is the sender's.
    pub fn claimed(&mut self, claim: Claim) {
        self.state = State::Known { claim, lines: BTreeMap::new() };
    }

    /// The channel is open under the alias.
    pub fn opened(&mut self, alias: Alias, stored: Stored) {
        let Stored { pseq, seq, .. } = stored;
        if let State::Known { lines, .. } = &mut self.state {
            lines.insert(alias, Line { last: pseq, handed: pseq, settled: (pseq, seq), gap_told: false });
        }
    }

    /// The claim, once there is one.
    pub fn claim(&self) -> Option<Claim> {
        match self.state {
            State::Fresh => None,
            State::Known { claim, .. } => Some(claim),
        }
    }

    /// Messages up to `last` go to the store: what they are to be stamped with.
    pub fn hand(&mut self, alias: Alias, last: u64) -> Option<Stamp> {
        let State::Known { claim, lines } = &mut self.state else { return None };
        let line = lines.get_mut(&alias)?;
        let after = std::mem::replace(&mut line.handed, last);
        Some(Stamp { claim: *claim, after, last })
    }

    /// The store has everything up to `pseq`. Gives what can be acknowledged: refused messages behind it too.
    pub fn settle(&mut self, alias: Alias, pseq: u64, seq: Seq) -> Option<(u64, Seq)> {
        let State::Known { lines, .. } = &mut self.state else { return None };
        let line = lines.get_mut(&alias)?;
        line.settled = (if pseq == line.handed { line.last } else { pseq }, seq);
        Some(line.settled)
    }

    /// What is settled under an alias.
    pub fn settled(&self, alias: Alias) -> Option<(u64, Seq)> {
        match &self.state {
            State::Fresh => None,
            State::Known { lines, .. } => lines.get(&alias).map(|line| line.settled),
        }
    }

    /// The store did not take what came after `pseq`: the sender has to send it again. Gives what is expected.
    pub fn go_back(&mut self, alias: Alias, pseq: u64) -> u64 {
        if let State::Known { lines, .. } = &mut self.state
            && let Some(line) = lines.get_mut(&alias)
        {
            (line.last, line.handed, line.gap_told) = (pseq, pseq, true);
        }
        pseq + 1
    }
}

impl Line {
    fn publish<'a>(&mut self, publish: Publish<'a>, max_message: usize) -> Step<'a> {
        let Publish { alias, pseq, kind, payload, .. } = publish;
        if pseq > MAX_PSEQ {
            let refused =
                Refused::fatal(ErrorCode::Protocol, format!("a message's number is at most {MAX_PSEQ}"));
            return Step::Refuse(Refused { alias, ..refused });
        }
        let expected = self.last + 1;
        if pseq < expected {
            return Step::Acknowledge(alias);
        }
        if pseq > expected {
            // What was on its way behind the gap comes again: one answer is enough.
            if std::mem::replace(&mut self.gap_told, true) {
                return Step::Nothing;
            }
            let text = format!("message {expected} is expected next, {pseq} came");
            return Step::Refuse(Refused { code: ErrorCode::Gap, fatal: false, alias, pseq: expected, text });
        }
        self.last = pseq;
        self.gap_told = false;
        let refused = if payload.len() > max_message {
            let text = format!("the message is {} bytes, at most {max_message} are accepted", payload.len());
            Refused { code: ErrorCode::TooBig, fatal: false, alias, pseq, text }
        } else if kind == Kind::Text && std::str::from_utf8(payload).is_err() {
            let text = "the message is declared as text, but is not UTF-8".into();
            Refused { code: ErrorCode::InvalidText, fatal: false, alias, pseq, text }
        } else {
            return Step::Store(publish);
        };
        if self.settled.0 + 1 == pseq {
            self.settled.0 = pseq;
        }
        Step::Refuse(refused)
    }
}

impl Refused {
    /// One that ends the connection and is about no message.
    pub fn fatal(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, fatal: true, alias: Alias(0), pseq: 0, text: text.into() }
    }

    /// A channel that does not settle messages at the levels that were asked for.
    pub fn level_unsupported(alias: Alias, channel: &ChannelId, levels: Levels) -> Self {
        let text = format!("only the level {levels} can be had of {channel}");
        Self { alias, ..Self::fatal(ErrorCode::LevelUnsupported, text) }
    }

    /// As a frame.
    pub fn frame(&self, retry_ms: u32) -> Refusal<'_> {
        let Self { code, fatal, alias, pseq, ref text } = *self;
        Refusal { code: code.number(), fatal, alias, pseq, retry_ms, text }
    }
}

fn open_step<'a>(lines: &BTreeMap<Alias, Line>, open: Open<'a>, limits: Limits) -> Step<'a> {
    let Open { alias, levels, first_pseq, channel } = open;
    let refuse = |code, fatal, text| Step::Refuse(Refused { code, fatal, alias, pseq: 0, text });
    if lines.contains_key(&alias) {
        return refuse(ErrorCode::Protocol, true, format!("alias {} is open already", alias.0));
    }
    if lines.len() >= limits.aliases {
        return refuse(ErrorCode::TooMany, false, format!("at most {} channels at once", limits.aliases));
    }
    if first_pseq > MAX_PSEQ {
        return refuse(ErrorCode::Protocol, true, format!("a message's number is at most {MAX_PSEQ}"));
    }
    match channel.parse() {
        Ok(channel) => Step::Open { alias, channel, first_pseq: first_pseq.max(1), levels },
        Err(e) => refuse(ErrorCode::InvalidChannel, false, format!("`{channel}` is no channel: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use shared::sender::ProducerId;

    use super::*;

    const ALIAS: Alias = Alias(3);
    const PRODUCER: ProducerId = ProducerId([7; 16]);

    fn hello(token: &[u8]) -> SenderFrame<'_> {
        SenderFrame::Hello(Hello { producer: PRODUCER, producer_epoch: 1, keep_s: 0, token })
    }

    fn open(alias: Alias, levels: Levels, channel: &str) -> SenderFrame<'_> {
        SenderFrame::Open(Open { alias, levels, first_pseq: 1, channel })
    }

    fn message(pseq: u64, payload: &[u8]) -> Publish<'_> {
        Publish { alias: ALIAS, pseq, kind: Kind::Text, source_time: None, payload }
    }

    fn fresh() -> Protocol {
        Protocol::new(Limits { max_message: 8, aliases: 2 })
    }

    /// A protocol after HELLO and OPEN, with that pseq stored last.
    fn opened(last: u64) -> Protocol {
        let mut protocol = fresh();
        assert!(matches!(protocol.handle(hello(b"")), Step::Claim(_)));
        protocol.claimed(Claim { producer: PRODUCER, epoch: 1, number: 1 });
        let step = protocol.handle(open(ALIAS, Levels::ACCEPTED, "a"));
        let channel = "a".parse().unwrap();
        assert_eq!(step, Step::Open { alias: ALIAS, channel, first_pseq: 1, levels: Levels::ACCEPTED });
        protocol.opened(ALIAS, Stored { pseq: last, seq: Seq(last), lost: 0 });
        protocol
    }

    fn publish<'a>(protocol: &mut Protocol, pseq: u64, payload: &'a [u8]) -> Step<'a> {
        protocol.handle(SenderFrame::Publish(message(pseq, payload)))
    }

    fn refusal(step: Step<'_>) -> (ErrorCode, bool, u64) {
        match step {
            Step::Refuse(Refused { code, fatal, pseq, .. }) => (code, fatal, pseq),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn hello_comes_first_and_once() {
        let mut protocol = fresh();
        assert_eq!(refusal(publish(&mut protocol, 1, b"x")).0, ErrorCode::Protocol);
        assert_eq!(refusal(opened(0).handle(hello(b""))), (ErrorCode::Protocol, true, 0));
        assert_eq!(refusal(protocol.handle(hello(b"secret"))), (ErrorCode::BadToken, true, 0));
    }

    #[test]
    fn the_next_message_is_stored_an_older_one_acknowledged_and_a_later_one_is_a_gap() {
        let mut protocol = opened(4);
        assert_eq!(publish(&mut protocol, 4, b"old"), Step::Acknowledge(ALIAS));
        assert_eq!(refusal(publish(&mut protocol, 7, b"late")), (ErrorCode::Gap, false, 5));
        assert_eq!(publish(&mut protocol, 8, b"later"), Step::Nothing, "one answer is enough");
        assert_eq!(publish(&mut protocol, 5, b"next"), Step::Store(message(5, b"next")));
        assert_eq!(refusal(publish(&mut protocol, 7, b"late")), (ErrorCode::Gap, false, 6));
    }

    #[test]
    fn a_refused_message_counts_as_settled_once_those_before_it_are() {
        let mut protocol = opened(0);
        assert_eq!(refusal(publish(&mut protocol, 1, b"123456789")), (ErrorCode::TooBig, false, 1));
        assert_eq!(protocol.settled(ALIAS), Some((1, Seq(0))));
        assert_eq!(publish(&mut protocol, 2, b"fits"), Step::Store(message(2, b"fits")));
        assert_eq!(refusal(publish(&mut protocol, 3, b"\xff")), (ErrorCode::InvalidText, false, 3));
        let stamp = protocol.hand(ALIAS, 2).unwrap();
        assert_eq!((stamp.after, stamp.last), (0, 2));
        assert_eq!(protocol.settled(ALIAS), Some((1, Seq(0))));
        assert_eq!(protocol.settle(ALIAS, 2, Seq(9)), Some((3, Seq(9))));
        assert_eq!(publish(&mut protocol, 4, b"on"), Step::Store(message(4, b"on")));
        assert_eq!(protocol.hand(ALIAS, 4).unwrap().after, 2, "the store knows nothing of refused ones");
    }

    #[test]
    fn what_the_store_did_not_take_is_expected_again() {
        let mut protocol = opened(0);
        for pseq in 1..=3 {
            publish(&mut protocol, pseq, b"x");
        }
        protocol.hand(ALIAS, 3);
        assert_eq!(protocol.go_back(ALIAS, 0), 1);
        assert_eq!(publish(&mut protocol, 4, b"behind"), Step::Nothing);
        assert_eq!(publish(&mut protocol, 1, b"again"), Step::Store(message(1, b"again")));
    }

    #[test]
    fn an_opening_that_cannot_be_granted_is_refused() {
        let mut protocol = opened(0);
        let step = |protocol: &mut Protocol, alias, levels, channel| {
            refusal(protocol.handle(open(alias, levels, channel)))
        };
        assert_eq!(step(&mut protocol, ALIAS, Levels::ACCEPTED, "a"), (ErrorCode::Protocol, true, 0));
        assert_eq!(
            step(&mut protocol, Alias(4), Levels::ACCEPTED, "a b"),
            (ErrorCode::InvalidChannel, false, 0)
        );
        protocol.opened(Alias(5), Stored { pseq: 0, seq: Seq(0), lost: 0 });
        assert_eq!(step(&mut protocol, Alias(6), Levels::ACCEPTED, "c"), (ErrorCode::TooMany, false, 0));
        let unknown = Publish { alias: Alias(9), ..message(1, b"x") };
        assert_eq!(refusal(protocol.handle(SenderFrame::Publish(unknown))), (ErrorCode::Protocol, true, 0));
    }

    #[test]
    fn numbers_never_overflow() {
        let beyond = SenderFrame::Open(Open {
            alias: Alias(4),
            levels: Levels::ACCEPTED,
            first_pseq: u64::MAX,
            channel: "a",
        });
        assert_eq!(refusal(opened(0).handle(beyond)), (ErrorCode::Protocol, true, 0));
        let mut last = opened(MAX_PSEQ - 1);
        assert_eq!(publish(&mut last, MAX_PSEQ, b"x"), Step::Store(message(MAX_PSEQ, b"x")));
        assert_eq!(refusal(publish(&mut last, MAX_PSEQ + 1, b"x")), (ErrorCode::Protocol, true, 0));
        assert_eq!(refusal(publish(&mut last, u64::MAX, b"x")), (ErrorCode::Protocol, true, 0));
    }

    #[test]
    fn pings_are_answered_in_any_state() {
        assert_eq!(fresh().handle(SenderFrame::Ping(5)), Step::Pong(5));
        assert_eq!(opened(0).handle(SenderFrame::Ping(6)), Step::Pong(6));
        assert_eq!(opened(0).handle(SenderFrame::Pong(6)), Step::Nothing);
    }
}
