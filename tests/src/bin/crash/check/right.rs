//! A right history: two senders and a spool, a crash in which one message that was not firm was lost, receivers
//! that were too slow, came back, or came too late.

use shared::{
    Epoch, Kind, Position, Seq,
    receiver::GapReason::{self, Crash, Lagged, Retention},
    sender::Levels,
};

use crate::{
    content::{Content, Ident, SPOOLERS},
    history::{
        Ack, Asked, Event, Gap, Hello, History, Lane, Message, OutputFile, RawSession, Run, Session, Spool,
    },
};

pub(super) const EPOCH: Epoch = Epoch(7);
pub(super) const KEEP: u16 = 0;
pub(super) const SOLO: u16 = 2;
pub(super) const TRIM: u16 = 3;
pub(super) const SOFT: u16 = 5;
pub(super) const SPOOL: u16 = 8;

/// What was ever stored: seq, prev, channel, producer, number. The relay crashed after seq 7, went on at 101, and
/// 7 was lost.
const STORED: [(u64, u64, u16, u16, u64); 17] = [
    (1, 0, KEEP, 0, 1),
    (2, 1, KEEP, 0, 2),
    (3, 2, KEEP, 1, 1),
    (4, 0, TRIM, 0, 1),
    (5, 4, TRIM, 0, 2),
    (6, 0, SOFT, 3, 1),
    (7, 6, SOFT, 3, 2),
    (101, 6, SOFT, 3, 3),
    (102, 3, KEEP, 0, 3),
    (103, 5, TRIM, 0, 3),
    (104, 0, SOLO, 1, 1),
    (105, 104, SOLO, 1, 2),
    (106, 105, SOLO, 1, 3),
    (107, 106, SOLO, 1, 4),
    (108, 0, SPOOL, SPOOLERS, 1 << 24 | 1),
    (109, 108, SPOOL, SPOOLERS, 1 << 24 | 2),
    (110, 109, SPOOL, SPOOLERS, 2 << 24 | 1),
];

pub(super) fn stored(seq: u64) -> Message {
    let (seq, prev, channel, producer, pseq) = STORED.into_iter().find(|m| m.0 == seq).unwrap();
    let ident = Ident::new(producer, channel, pseq);
    let empty = ident.is_empty(channel == SOLO);
    let content = if empty { Content::Empty(Kind::Binary) } else { Content::Message(ident) };
    Message { channel, seq, prev, content }
}

pub(super) fn message(seq: u64) -> Event {
    Event::Message(stored(seq))
}

pub(super) fn gap(channel: u16, after: u64, before: u64, reason: GapReason) -> Event {
    Event::Gap(Gap { channel, after, before, reason })
}

pub(super) fn after(seq: u64) -> Asked {
    Asked::After(Position { epoch: EPOCH, seq: Seq(seq) })
}

pub(super) fn session(
    receiver: &'static str,
    wants: &'static [&'static str],
    era: u32,
    asked: Asked,
    (from, recovered, reason): (u64, bool, Option<GapReason>),
    events: Vec<Event>,
) -> Session {
    let hellos = vec![Hello { epoch: EPOCH, from, recovered, reason }];
    Session { receiver, wants, era, asked, hellos, events, last: false }
}

pub(super) fn lane(producer: u16, channel: u16, sent: u64, acks: &[(u64, u64)]) -> Lane {
    let ack = |&(pseq, seq)| Ack { epoch: EPOCH, levels: Levels::FSYNCED, pseq, seq };
    Lane { producer, channel, sent, acks: acks.iter().map(ack).collect() }
}

/// The sessions, by their places in the history.
pub(super) const WITNESS: usize = 0;
pub(super) const WITNESS_AGAIN: usize = 1;
pub(super) const KEEPER_AGAIN: usize = 3;
pub(super) const LAGGER: usize = 4;
pub(super) const LATE: usize = 5;
pub(super) const LAST: usize = 6;

pub(super) fn right() -> History {
    let messages = |seqs: &[u64]| seqs.iter().map(|&seq| message(seq)).collect::<Vec<_>>();
    let mut again = vec![gap(SOFT, 7, 101, Crash)];
    again.extend(messages(&[101, 102, 103, 104, 105, 106, 107, 108, 109, 110]));
    again.push(Event::Live(110));
    let mut all = messages(&[1, 2, 3, 6]);
    all.push(gap(SOFT, 6, 101, Crash));
    all.extend(messages(&[101, 102, 103, 104, 105, 106, 107, 108, 109, 110]));
    all.push(Event::Live(110));
    let last = session("last", &["**"], 3, Asked::Earliest, (0, false, None), all);
    let sessions = vec![
        session("witness", &["**"], 1, Asked::Earliest, (0, false, None), messages(&[1, 2, 3, 4, 5, 6, 7])),
        session("witness", &["**"], 2, after(7), (7, false, Some(Crash)), again),
        session("keeper", &["keep/one"], 1, Asked::Latest, (1, false, None), messages(&[2, 3])),
        session("keeper", &["keep/one"], 2, after(3), (3, true, None), vec![message(102), Event::Live(110)]),
        session(
            "lagger",
            &["trim/*"],
            2,
            Asked::Earliest,
            (0, false, None),
            vec![message(4), gap(TRIM, 4, 103, Lagged), message(103)],
        ),
        session(
            "late",
            &["trim/*"],
            2,
            after(4),
            (4, false, Some(Retention)),
            vec![gap(TRIM, 4, 103, Retention), message(103), Event::Live(110)],
        ),
        Session { last: true, ..last },
    ];
    let content = |seq| stored(seq).content;
    History {
        lanes: vec![
            lane(0, KEEP, 3, &[(2, 2), (3, 102)]),
            lane(1, KEEP, 1, &[(1, 3)]),
            lane(0, TRIM, 3, &[(2, 5), (3, 103)]),
            lane(3, SOFT, 3, &[(2, 7), (3, 101)]),
            lane(1, SOLO, 4, &[(3, 106), (4, 107)]),
        ],
        sessions,
        raws: vec![
            RawSession { receiver: "raw", contents: vec![content(1), content(3), content(2)] },
            RawSession { receiver: "raw solo", contents: vec![content(105), content(106), content(107)] },
        ],
        spools: vec![Spool {
            producer: SPOOLERS,
            channel: SPOOL,
            runs: vec![Run { lines: 5, took_all: false }, Run { lines: 1, took_all: true }],
        }],
        files: vec![OutputFile {
            name: "file",
            wants: "keep/one",
            messages: [1, 2, 3, 102].map(stored).to_vec(),
            broken: Vec::new(),
            gaps: Vec::new(),
        }],
        troubles: Vec::new(),
    }
}
