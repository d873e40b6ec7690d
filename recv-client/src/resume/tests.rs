//! Laws of [`Resume`].

use proptest::prelude::*;
use shared::{Kind, receiver::GapReason};

use super::*;

const EPOCH: Epoch = Epoch(1);

fn at(seq: u64) -> Position {
    Position { epoch: EPOCH, seq: Seq(seq) }
}

fn message(channel: &str, seq: u64, prev: u64) -> Envelope {
    Envelope {
        channel: channel.parse().unwrap(),
        seq: Seq(seq),
        prev: Seq(prev),
        time: 0,
        kind: Kind::Text,
        payload: "x".into(),
    }
}

/// Follows what is published from a seq on.
fn receiver(from: u64) -> Resume {
    let mut resume = Resume::new(Since::Latest, None);
    resume.request();
    assert_eq!(resume.hello(EPOCH, Seq(from), false), Some(Greeting::Fresh));
    resume.reach(Seq(from));
    resume
}

fn take(resume: &mut Resume, channel: &str, seq: u64, prev: u64) {
    assert_eq!(resume.check(&message(channel, seq, prev)), Check::Next, "{channel} {seq}");
    resume.advance(&message(channel, seq, prev));
}

fn since(resume: &mut Resume) -> String {
    resume.request().since.to_string()
}

fn gap(channel: &str, after: u64, before: u64) -> Gap {
    Gap {
        channel: channel.parse().unwrap(),
        after: Seq(after),
        before: Seq(before),
        count: None,
        reason: Some(GapReason::Lagged),
    }
}

#[test]
fn a_beginning_is_asked_for_again_until_the_relay_has_said_where_it_is() {
    let mut resume = Resume::new(Since::Latest, Some(5));
    for _ in 0..2 {
        assert_eq!(resume.request(), Request { since: Since::Latest, last: Some(5) });
        assert_eq!((resume.epoch(), resume.position()), (None, None));
    }
    resume.hello(EPOCH, Seq(9), false);
    assert_eq!(resume.request(), Request { since: Since::Position(at(9)), last: None });
}

#[test]
fn a_receiver_goes_on_after_the_last_message_it_took() {
    let mut resume = receiver(3);
    take(&mut resume, "foo", 7, 2);
    take(&mut resume, "foo", 9, 7);
    assert_eq!(since(&mut resume), "0000000000000001-9");
    assert_eq!(resume.hello(EPOCH, Seq(9), true), Some(Greeting::Recovered(Seq(9))));
    take(&mut resume, "foo", 12, 9);
    assert_eq!(resume.position(), Some(at(12)));
}

#[test]
fn one_position_resumes_all_channels() {
    let mut resume = Resume::new(Since::Earliest, None);
    resume.request();
    resume.hello(EPOCH, Seq(0), false);
    take(&mut resume, "a", 500, 0);
    take(&mut resume, "b", 1000, 0);
    assert_eq!(since(&mut resume), "0000000000000001-1000");
    resume.hello(EPOCH, Seq(1000), true);
    resume.reach(Seq(1200));
    assert_eq!(since(&mut resume), "0000000000000001-1200", "what it does not want is passed too");
}

#[test]
fn the_first_hello_of_a_connection_says_all() {
    let mut resume = receiver(3);
    assert_eq!(resume.hello(EPOCH, Seq(3), false), None);
    resume.request();
    assert_eq!(resume.epoch(), None, "nothing was said on this connection");
    assert_eq!(resume.hello(EPOCH, Seq(3), true), Some(Greeting::Recovered(Seq(3))));
    assert_eq!(resume.hello(EPOCH, Seq(3), true), None);
    assert_eq!(resume.epoch(), Some(EPOCH));
}

#[test]
fn a_position_that_the_relay_has_not_reached_is_corrected() {
    let mut resume = Resume::new(Since::Position(at(1000)), None);
    assert_eq!(since(&mut resume), "0000000000000001-1000");
    assert_eq!(resume.hello(EPOCH, Seq(10), false), Some(Greeting::Incomplete(Seq(1000))));
    take(&mut resume, "foo", 11, 10);
    assert_eq!(resume.position(), Some(at(11)));
}

#[test]
fn what_a_history_lacks_at_its_beginning_is_no_gap() {
    let mut resume = Resume::new(Since::Earliest, None);
    resume.request();
    resume.hello(EPOCH, Seq(99), false);
    take(&mut resume, "foo", 100, 99);
    take(&mut resume, "bar", 500, 480);
    assert_eq!(resume.check(&message("bar", 503, 502)), Check::Missing(Seq(500)));
}

#[test]
fn a_message_that_comes_again_is_a_duplicate_also_after_a_reconnect() {
    let mut resume = receiver(0);
    take(&mut resume, "foo", 5, 0);
    take(&mut resume, "foo", 7, 5);
    assert_eq!(resume.check(&message("foo", 7, 5)), Check::Duplicate);
    resume.request();
    resume.hello(EPOCH, Seq(4), true);
    assert_eq!(resume.check(&message("foo", 5, 0)), Check::Duplicate);
    take(&mut resume, "foo", 8, 7);
}

#[test]
fn a_prev_that_is_not_the_last_seen_there_is_a_gap() {
    let mut resume = receiver(10);
    assert_eq!(resume.check(&message("new", 13, 12)), Check::Missing(Seq(10)));
    take(&mut resume, "foo", 11, 9);
    take(&mut resume, "bar", 12, 0);
    assert_eq!(resume.check(&message("foo", 15, 14)), Check::Missing(Seq(11)));
    take(&mut resume, "foo", 16, 11);
}

#[test]
fn a_channel_that_the_relay_had_forgotten_begins_anew() {
    let mut resume = receiver(0);
    take(&mut resume, "foo", 5, 0);
    take(&mut resume, "foo", 20, 0);
}

#[test]
fn a_notice_covers_its_hole_and_no_more() {
    let mut resume = receiver(0);
    take(&mut resume, "foo", 5, 0);
    assert!(resume.gap(&gap("foo", 5, 20)));
    assert_eq!(resume.check(&message("foo", 30, 25)), Check::Missing(Seq(20)));
    take(&mut resume, "foo", 20, 19);
    assert_eq!(resume.check(&message("foo", 30, 25)), Check::Missing(Seq(20)));
}

#[test]
fn a_hole_is_news_once_also_across_connections() {
    let mut resume = receiver(0);
    take(&mut resume, "foo", 5, 0);
    assert!(resume.gap(&gap("foo", 5, 20)));
    take(&mut resume, "bar", 12, 0);
    resume.request();
    resume.hello(EPOCH, Seq(12), false);
    assert!(!resume.gap(&gap("foo", 12, 20)), "what is left of it is known");
    take(&mut resume, "foo", 20, 19);
    assert!(!resume.gap(&gap("foo", 12, 20)));
    assert!(resume.gap(&gap("foo", 20, 30)));
}

#[test]
fn a_new_store_is_told_and_its_seqs_begin_anew() {
    let mut resume = receiver(0);
    take(&mut resume, "a", 1000, 0);
    resume.request();
    assert_eq!(resume.hello(Epoch(2), Seq(0), false), Some(Greeting::NewStore(Epoch(2))));
    take(&mut resume, "a", 3, 0);
    assert_eq!(since(&mut resume), "0000000000000002-3");
    assert_eq!(resume.hello(Epoch(2), Seq(3), true), Some(Greeting::Recovered(Seq(3))));
}

proptest! {
    /// The relay's side: channels `a` and `b` in one store that grows, connections lost anywhere, the end
    /// delivered again now and then.
    #[test]
    fn every_message_is_taken_once_however_often_the_connection_is_lost(
        store in prop::collection::vec(any::<bool>(), 1..60),
        losses in prop::collection::vec(0usize..12, 1..20),
        rewind in 0u64..3,
    ) {
        let names = ["a", "b"];
        let mut heads = [0u64; 2];
        let log: Vec<_> = store.iter().zip(1u64..).map(|(&b, seq)| {
            let channel = usize::from(b);
            message(names[channel], seq, std::mem::replace(&mut heads[channel], seq))
        }).collect();
        let mut resume = receiver(0);
        let mut taken = Vec::new();
        let sessions = losses.len() + 1;
        for (session, cut) in losses.into_iter().chain([usize::MAX]).enumerate() {
            let there = &log[..log.len() * (session + 1) / sessions];
            let Since::Position(position) = resume.request().since else { unreachable!() };
            let from = position.seq.0.saturating_sub(rewind);
            resume.hello(EPOCH, Seq(from), true);
            let stream = &there[(from as usize).min(there.len())..];
            for message in stream.iter().take(cut) {
                match resume.check(message) {
                    Check::Next => {
                        resume.advance(message);
                        taken.push(message.seq.0);
                    }
                    other => prop_assert_eq!(other, Check::Duplicate),
                }
            }
            if cut > stream.len() {
                resume.reach(Seq(there.len() as u64));
            }
        }
        prop_assert_eq!(taken, (1..=log.len() as u64).collect::<Vec<_>>());
    }
}
