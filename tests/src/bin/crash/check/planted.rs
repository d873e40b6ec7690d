//! Each kind of violation is planted in a right history, and found as what it is.

use shared::{
    Epoch, Kind,
    receiver::GapReason::{Crash, Lagged, Retention},
    sender::Levels,
};

use super::{
    Law, check,
    right::{
        EPOCH, KEEP, KEEPER_AGAIN, LAGGER, LAST, LATE, SOFT, SPOOL, TRIM, WITNESS, WITNESS_AGAIN, after, gap,
        lane, message, right, session, stored,
    },
};
use crate::{
    content::{Content, Ident, SPOOLERS},
    history::{Ack, Event, Gap, Hello, History, Message, RawSession, Run, Session},
};

fn laws(history: &History) -> Vec<Law> {
    let mut laws: Vec<Law> = check(history).into_iter().map(|violation| violation.law).collect();
    laws.sort();
    laws.dedup();
    laws
}

/// Plants something, and expects exactly these laws to be found broken.
#[track_caller]
fn planted(expected: &[Law], plant: impl FnOnce(&mut History)) {
    let mut history = right();
    plant(&mut history);
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(laws(&history), expected, "{:#?}", check(&history));
}

/// Takes a message out of a connection.
fn drop_from(session: &mut Session, seq: u64) {
    session.events.retain(|event| !matches!(event, Event::Message(message) if message.seq == seq));
}

fn in_session(session: &mut Session, seq: u64) -> &mut Message {
    let found = session.events.iter_mut().find_map(|event| match event {
        Event::Message(message) if message.seq == seq => Some(message),
        Event::Message(_) | Event::Gap(_) | Event::Live(_) => None,
    });
    found.unwrap()
}

/// Changes a message wherever it was seen.
fn everywhere(history: &mut History, seq: u64, change: impl Fn(&mut Message)) {
    for session in &mut history.sessions {
        for event in &mut session.events {
            if let Event::Message(message) = event
                && message.seq == seq
            {
                change(message);
            }
        }
    }
    history.files.iter_mut().flat_map(|file| &mut file.messages).filter(|m| m.seq == seq).for_each(change);
}

#[test]
fn in_a_right_history_nothing_is_found() {
    planted(&[], |_| {});
}

#[test]
fn what_was_acknowledged_and_is_gone_is_found() {
    // Nobody but the reading at the end could tell.
    planted(&[Law::Settled], |history| {
        history.lanes[0].sent = 4;
        history.lanes[0].acks.push(Ack { epoch: EPOCH, levels: Levels::FSYNCED, pseq: 4, seq: 0 });
    });
    // A channel whose beginning is gone, and more of it than was trimmed.
    planted(&[Law::Settled], |history| {
        history.lanes[2].sent = 4;
        history.lanes[2].acks.push(Ack { epoch: EPOCH, levels: Levels::FSYNCED, pseq: 4, seq: 0 });
    });
    planted(&[Law::Settled], |history| {
        history.lanes.push(lane(2, TRIM, 1, &[(1, 111)]));
    });
    // All of a channel.
    planted(&[Law::Settled], |history| {
        drop_from(&mut history.sessions[LAST], 103);
    });
    // What everybody saw once.
    planted(&[Law::Settled, Law::SeenStays, Law::Chain], |history| {
        drop_from(&mut history.sessions[LAST], 2);
    });
}

#[test]
fn what_comes_twice_is_found() {
    planted(&[Law::Twice], |history| history.sessions[WITNESS].events.push(message(7)));
    planted(&[Law::Twice], |history| {
        let again = stored(107).content;
        history.raws[1].contents.push(again);
    });
}

#[test]
fn what_was_never_sent_is_found() {
    planted(&[Law::Genuine], |history| {
        everywhere(history, 2, |message| message.content = Content::Foreign("what".into()));
        history.lanes[0].acks.remove(0);
        history.lanes[0].acks.clear();
    });
    planted(&[Law::Genuine], |history| history.lanes[1].sent = 0);
    // In another channel than it was sent to.
    planted(&[Law::Genuine], |history| {
        everywhere(history, 5, |message| message.content = Content::Message(Ident::new(2, KEEP, 1)));
        history.lanes.push(lane(2, KEEP, 1, &[]));
        history.lanes[2].acks.remove(0);
    });
    // Empty, but not of the kind that the empty one was sent with.
    planted(&[Law::Genuine, Law::SameMessage, Law::Settled], |history| {
        everywhere(history, 106, |message| message.content = Content::Empty(Kind::Text));
    });
    planted(&[Law::Genuine], |history| history.raws[0].contents.push(Content::Foreign("x".into())));
    planted(&[Law::Genuine], |history| {
        history.sessions[KEEPER_AGAIN].wants = &["keep/two"];
        history.sessions[KEEPER_AGAIN].events.pop();
    });
    // More lines than were written.
    planted(&[Law::Genuine], |history| history.spools[0].runs[0].lines = 1);
}

#[test]
fn a_message_that_is_stored_twice_is_found() {
    planted(&[Law::StoredOnce, Law::ProducersOrder], |history| {
        let again = stored(2).content;
        let copy = Message { channel: KEEP, seq: 111, prev: 102, content: again };
        for session in [WITNESS_AGAIN, LAST] {
            let events = &mut history.sessions[session].events;
            events.insert(events.len() - 1, Event::Message(copy.clone()));
        }
    });
    // In a channel that may lose messages, in one reading.
    planted(&[Law::StoredOnce], |history| {
        let copy = Message { channel: SOFT, seq: 111, prev: 101, content: stored(101).content };
        let events = &mut history.sessions[LAST].events;
        events.insert(events.len() - 1, Event::Message(copy));
    });
}

#[test]
fn messages_of_a_producer_that_changed_places_are_found() {
    planted(&[Law::ProducersOrder], |history| {
        let (two, three) = (stored(2).content, stored(102).content);
        history.lanes[0].acks.clear();
        history.lanes[0].acks.push(Ack { epoch: EPOCH, levels: Levels::FSYNCED, pseq: 3, seq: 0 });
        history.raws.clear();
        everywhere(history, 2, |message| message.content = three.clone());
        everywhere(history, 102, |message| message.content = two.clone());
        history.files.clear();
    });
    planted(&[Law::ProducersOrder], |history| history.raws[1].contents.push(stored(105).content));
}

#[test]
fn seqs_that_go_back_are_found() {
    planted(&[Law::SeqsGrow, Law::SeenStays], |history| {
        history.sessions[WITNESS_AGAIN].events.swap(2, 3);
    });
}

#[test]
fn a_hole_without_a_gap_is_found() {
    planted(&[Law::Chain, Law::SeenStays], |history| drop_from(&mut history.sessions[WITNESS], 2));
    planted(&[Law::Chain], |history| {
        history.raws[1].contents.remove(1);
    });
    planted(&[Law::Chain, Law::SeenStays], |history| {
        history.sessions[LAGGER].events.remove(1);
    });
    // The end of a stream, which no later message of the channel betrays.
    planted(&[Law::SeenStays], |history| drop_from(&mut history.sessions[KEEPER_AGAIN], 102));
    planted(&[Law::Chain], |history| {
        history.sessions.push(Session {
            hellos: Vec::new(),
            last: false,
            ..history.sessions[WITNESS].clone()
        });
    });
}

#[test]
fn a_gap_that_is_not_exact_is_found() {
    let change = |after, before| {
        move |history: &mut History| {
            history.sessions[LAGGER].events[1] = gap(TRIM, after, before, Lagged);
        }
    };
    // Beginning before what was there; behind what is missing; ending behind the next; before what is missing.
    planted(&[Law::ExactGap], change(3, 103));
    planted(&[Law::SeenStays], change(5, 103));
    planted(&[Law::ExactGap], change(4, 104));
    planted(&[Law::ExactGap, Law::SeenStays], change(4, 5));
    // No hole at all.
    planted(&[Law::ExactGap], |history| {
        history.sessions[KEEPER_AGAIN].events.insert(0, gap(KEEP, 3, 102, Lagged));
    });
}

#[test]
fn another_message_at_the_same_seq_and_another_epoch_are_found() {
    planted(&[Law::SameMessage], |history| {
        in_session(&mut history.sessions[LAGGER], 103).content = Content::Message(Ident::new(0, TRIM, 4));
        history.lanes[2].sent = 4;
    });
    // The seq of a message that was lost.
    planted(&[Law::SameMessage], |history| {
        let reused = Message { channel: KEEP, seq: 7, prev: 3, content: stored(102).content };
        let session =
            session("new", &["keep/one"], 2, after(3), (3, true, None), vec![Event::Message(reused)]);
        history.sessions.push(session);
    });
    planted(&[Law::SameMessage], |history| history.sessions[LAST].hellos[0].epoch = Epoch(8));
    planted(&[Law::SameMessage], |history| history.lanes[0].acks[0].seq = 3);
}

#[test]
fn what_was_seen_and_is_lost_in_a_crash_without_a_word_is_found() {
    planted(&[Law::SeenStays], |history| {
        history.sessions[LAST].events.retain(|event| !matches!(event, Event::Gap(_)));
    });
    // The same for one that comes back from before it.
    planted(&[Law::SeenStays], |history| {
        let events = vec![message(101), Event::Live(110)];
        history.sessions.push(session("soft", &["soft/*"], 2, after(6), (6, false, Some(Crash)), events));
    });
}

#[test]
fn a_crash_that_is_told_of_a_firm_channel_is_found() {
    planted(&[Law::NoCrashGap], |history| {
        history.sessions[LATE].events[0] = gap(TRIM, 4, 103, Crash);
    });
    planted(&[Law::Recovered], |history| {
        history.sessions[KEEPER_AGAIN].hellos[0] =
            Hello { epoch: EPOCH, from: 3, recovered: false, reason: Some(Crash) };
    });
}

#[test]
fn a_recovery_that_is_none_is_found() {
    planted(&[Law::Recovered], |history| history.sessions[LATE].hellos[0].recovered = true);
    planted(&[Law::Recovered], |history| history.sessions[WITNESS].hellos[0].recovered = true);
    // It begins before what was asked for, and does not send that.
    planted(&[Law::Recovered, Law::Chain, Law::SeenStays], |history| {
        history.sessions[KEEPER_AGAIN].hellos[0].from = 2;
    });
    planted(&[Law::Recovered], |history| {
        history.sessions[KEEPER_AGAIN].hellos[0].recovered = false;
    });
    // It says that something is missing, and nothing is.
    planted(&[Law::Recovered], |history| {
        history.sessions[KEEPER_AGAIN].hellos[0] =
            Hello { epoch: EPOCH, from: 3, recovered: false, reason: Some(Retention) };
    });
}

#[test]
fn what_a_fenced_connection_sent_is_found() {
    let fenced = Content::Message(Ident { fenced: true, ..Ident::new(0, KEEP, 3) });
    let seen = fenced.clone();
    planted(&[Law::Fenced, Law::SameMessage, Law::Settled], |history| {
        everywhere(history, 102, |message| message.content = fenced.clone());
    });
    planted(&[Law::Fenced], |history| {
        history.raws.push(RawSession { receiver: "raw", contents: vec![seen] });
    });
}

#[test]
fn lines_of_a_spool_that_are_lost_or_change_places_are_found() {
    planted(&[Law::Spool], |history| history.spools[0].runs[0].took_all = true);
    planted(&[Law::Spool], |history| history.spools[0].runs[1].lines = 2);
    planted(&[Law::Spool], |history| {
        history.spools[0].runs.push(Run { lines: 1, took_all: true });
    });
    planted(&[Law::Spool], |history| {
        history.spools[0].runs[1].lines = 2;
        everywhere(history, 110, |m| m.content = Content::Message(Ident::line(SPOOLERS, SPOOL, 2, 2)));
    });
    planted(&[Law::Spool, Law::StoredOnce], |history| {
        everywhere(history, 110, |m| m.content = Content::Message(Ident::line(SPOOLERS, SPOOL, 1, 2)));
    });
    planted(&[Law::Spool, Law::ProducersOrder], |history| {
        let (first, second) = (stored(108).content, stored(109).content);
        everywhere(history, 108, |m| m.content = second.clone());
        everywhere(history, 109, |m| m.content = first.clone());
    });
}

#[test]
fn a_file_may_have_what_was_lost_in_a_crash_and_was_sent_again() {
    planted(&[], |history| {
        let mut again = stored(7);
        (again.seq, again.prev) = (101, 6);
        everywhere(history, 101, |message| *message = again.clone());
        history.lanes[3].acks.clear();
        history.files[0].wants = "soft/*";
        history.files[0].messages = vec![stored(6), stored(7), again];
        history.files[0].gaps = vec![Gap { channel: SOFT, after: 7, before: 101, reason: Crash }];
    });
}

#[test]
fn an_output_that_is_not_whole_is_found() {
    planted(&[Law::Output], |history| history.files[0].broken.push("{\"ty{".into()));
    planted(&[Law::Output], |history| {
        history.files[0].messages.remove(1);
    });
    planted(&[Law::Output], |history| {
        let twice = history.files[0].messages[1].clone();
        history.files[0].messages.insert(2, twice);
    });
}

#[test]
fn a_trouble_is_found() {
    planted(&[Law::Alive], |history| history.troubles.push("the relay did not start".into()));
}
