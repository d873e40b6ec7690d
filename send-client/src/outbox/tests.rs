//! The laws of the outbox: single cases, and any run of answers against a model of the relay.

use super::*;
use proptest::prelude::*;
use shared::codec::{Decoded, decode_sender};

const WIDE: Window = Window { messages: 1000, bytes: 1 << 20 };

fn outbox(channels: &[&str]) -> Outbox {
    let mut outbox = Outbox::default();
    for name in channels {
        outbox.alias(&name.parse().unwrap()).unwrap();
    }
    outbox
}

fn push(outbox: &mut Outbox, alias: u16, text: &str) {
    outbox.push(Alias(alias), Message { kind: Kind::Text, source_time: None, payload: text.as_bytes() });
}

/// Opens everything at what the outbox says is its lowest.
fn open_all(outbox: &mut Outbox) {
    while let Some((alias, first, _)) = outbox.next_to_open() {
        outbox.opened(alias, first - 1).unwrap();
    }
}

fn sent(outbox: &mut Outbox, window: Window) -> Vec<(u16, u64, String)> {
    let mut out = BytesMut::new();
    outbox.take(window, &mut out, usize::MAX);
    let mut messages = Vec::new();
    let mut rest = &out[..];
    while !rest.is_empty() {
        let Ok(Decoded::Frame(SenderFrame::Publish(p), n)) = decode_sender(rest, 1 << 20) else {
            panic!("only whole publishes are sent")
        };
        messages.push((p.alias.0, p.pseq, String::from_utf8(p.payload.to_vec()).unwrap()));
        rest = &rest[n..];
    }
    messages
}

#[test]
fn nothing_is_sent_before_its_channel_is_open_and_then_in_order() {
    let mut outbox = outbox(&["a", "b"]);
    push(&mut outbox, 0, "1");
    push(&mut outbox, 1, "2");
    push(&mut outbox, 0, "3");
    assert_eq!(sent(&mut outbox, WIDE), []);
    open_all(&mut outbox);
    assert_eq!(sent(&mut outbox, WIDE), [(0, 1, "1".into()), (1, 1, "2".into()), (0, 2, "3".into())]);
    assert_eq!(sent(&mut outbox, WIDE), []);
    push(&mut outbox, 0, "4");
    assert_eq!(sent(&mut outbox, WIDE), [(0, 3, "4".into())]);
}

#[test]
fn an_ack_settles_everything_up_to_it_and_frees_it() {
    let mut outbox = outbox(&["a"]);
    open_all(&mut outbox);
    (1..=5).for_each(|i| push(&mut outbox, 0, &i.to_string()));
    assert_eq!(sent(&mut outbox, WIDE).len(), 5);
    outbox.acked(Alias(0), 3).unwrap();
    assert_eq!((outbox.unsettled(), outbox.confirmed(), outbox.in_flight()), (2, 3, 2));
    outbox.acked(Alias(0), 5).unwrap();
    assert_eq!((outbox.unsettled(), outbox.held, outbox.flight_bytes, outbox.batches.len()), (0, 0, 0, 0));
    assert_eq!(outbox.acked(Alias(0), 6), Err(Confused::Unsent(6)));
    assert_eq!(outbox.acked(Alias(9), 1), Err(Confused::Alias(9)));
}

#[test]
fn the_window_bounds_what_is_in_flight_by_messages_and_by_bytes() {
    let mut outbox = outbox(&["a"]);
    open_all(&mut outbox);
    (0..10).for_each(|_| push(&mut outbox, 0, "0123456789"));
    assert_eq!(sent(&mut outbox, Window { messages: 3, bytes: 1000 }).len(), 3);
    assert_eq!(sent(&mut outbox, Window { messages: 3, bytes: 1000 }).len(), 0);
    outbox.acked(Alias(0), 1).unwrap();
    assert_eq!(sent(&mut outbox, Window { messages: 3, bytes: 1000 }).len(), 1);
    outbox.acked(Alias(0), 4).unwrap();
    let frame = 4 + 1 + 11 + 10;
    assert_eq!(sent(&mut outbox, Window { messages: 100, bytes: 2 * frame + 1 }).len(), 2);
}

#[test]
fn a_message_larger_than_the_window_goes_alone() {
    let mut outbox = outbox(&["a"]);
    open_all(&mut outbox);
    push(&mut outbox, 0, "0123456789");
    push(&mut outbox, 0, "0123456789");
    assert_eq!(sent(&mut outbox, Window { messages: 100, bytes: 5 }).len(), 1);
    assert_eq!(sent(&mut outbox, Window { messages: 100, bytes: 5 }).len(), 0);
}

#[test]
fn after_a_reconnect_what_is_stored_is_dropped_and_the_rest_goes_in_order() {
    let mut outbox = outbox(&["a"]);
    open_all(&mut outbox);
    (1..=4).for_each(|i| push(&mut outbox, 0, &i.to_string()));
    assert_eq!(sent(&mut outbox, WIDE).len(), 4);
    outbox.acked(Alias(0), 1).unwrap();
    outbox.disconnected();
    assert_eq!(sent(&mut outbox, WIDE), []);
    let (alias, first, _) = outbox.next_to_open().unwrap();
    assert_eq!(first, 2);
    outbox.opened(alias, 3).unwrap();
    assert_eq!(sent(&mut outbox, WIDE), [(0, 4, "4".into())]);
    assert_eq!(outbox.confirmed(), 3);
}

#[test]
fn a_gap_goes_back_once_however_often_it_is_told() {
    let mut outbox = outbox(&["a"]);
    open_all(&mut outbox);
    (1..=4).for_each(|i| push(&mut outbox, 0, &i.to_string()));
    assert_eq!(sent(&mut outbox, WIDE).len(), 4);
    outbox.gap(Alias(0), 2).unwrap();
    assert_eq!(sent(&mut outbox, WIDE).iter().map(|m| m.1).collect::<Vec<_>>(), [2, 3, 4]);
    outbox.gap(Alias(0), 2).unwrap();
    assert_eq!(sent(&mut outbox, WIDE), []);
    outbox.acked(Alias(0), 2).unwrap();
    assert_eq!(outbox.gap(Alias(0), 2), Err(Confused::Settled(2)));
}

#[test]
fn a_refused_message_is_settled_but_not_confirmed() {
    let mut outbox = outbox(&["a"]);
    open_all(&mut outbox);
    (1..=3).for_each(|i| push(&mut outbox, 0, &i.to_string()));
    assert_eq!(sent(&mut outbox, WIDE).len(), 3);
    assert_eq!(outbox.refuse(Alias(0), 2), Ok(true));
    assert_eq!(outbox.refuse(Alias(0), 2), Ok(false));
    assert_eq!((outbox.unsettled(), outbox.confirmed()), (3, 0));
    outbox.acked(Alias(0), 1).unwrap();
    assert_eq!((outbox.unsettled(), outbox.confirmed(), outbox.refused()), (1, 1, 1));
    assert_eq!(outbox.refuse(Alias(0), 3), Ok(true));
    assert_eq!((outbox.unsettled(), outbox.confirmed(), outbox.refused(), outbox.held), (0, 1, 2, 0));
}

#[test]
fn a_refused_channel_gives_up_what_waits_for_it_and_holds_up_no_other() {
    let mut outbox = outbox(&["a", "b"]);
    push(&mut outbox, 0, "1");
    push(&mut outbox, 1, "2");
    let (alias, ..) = outbox.next_to_open().unwrap();
    assert_eq!(outbox.refuse_channel(alias), Ok(1));
    open_all(&mut outbox);
    assert_eq!(sent(&mut outbox, WIDE), [(1, 1, "2".into())]);
    assert_eq!(outbox.alias(&"a".parse().unwrap()), Some(Alias(0)));
    assert_eq!(outbox.next_to_open().unwrap().1, 2);
}

#[test]
fn reading_stops_at_the_limit() {
    let mut outbox = outbox(&["a"]);
    let megabyte = "x".repeat(1 << 20);
    while outbox.has_room() {
        push(&mut outbox, 0, &megabyte);
    }
    assert_eq!(outbox.unsettled(), 4);
}

#[derive(Debug, Clone)]
enum Act {
    Push(u16, usize),
    Deliver { messages: u64, bytes: usize },
    Ack,
    Lose { seen: usize },
    Unavailable,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..3u16, 0..3000usize).prop_map(|(alias, size)| Act::Push(alias, size)),
        3 => (1..40u64, 1..9000usize).prop_map(|(messages, bytes)| Act::Deliver { messages, bytes }),
        3 => Just(Act::Ack),
        1 => (0..30usize).prop_map(|seen| Act::Lose { seen }),
        1 => Just(Act::Unavailable),
    ]
}

/// A relay that stores in order, answers gaps, and remembers producers over connections.
#[derive(Default)]
struct Model {
    stored: [Vec<String>; 3],
    drop_next: bool,
}

impl Model {
    fn receive(&mut self, outbox: &mut Outbox, (alias, pseq, text): (u16, u64, String)) {
        let stored = &mut self.stored[usize::from(alias)];
        let expected = stored.len() as u64 + 1;
        if std::mem::take(&mut self.drop_next) {
            outbox.send_again(Alias(alias), pseq).unwrap();
        } else if pseq == expected {
            stored.push(text);
        } else if pseq > expected {
            outbox.gap(Alias(alias), expected).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_every_message_is_stored_once_and_in_order(acts in prop::collection::vec(act(), 1..120)) {
        let mut outbox = outbox(&["a", "b", "c"]);
        let mut model = Model::default();
        let mut given: [Vec<String>; 3] = Default::default();
        open_all(&mut outbox);
        let finish = [Act::Ack, Act::Deliver { messages: 10_000, bytes: usize::MAX }].into_iter().cycle().take(800);
        for act in acts.into_iter().chain(finish) {
            match act {
                Act::Push(alias, size) => {
                    let list = &mut given[usize::from(alias)];
                    list.push(format!("{}:{}", list.len(), "x".repeat(size)));
                    push(&mut outbox, alias, list.last().unwrap());
                }
                Act::Deliver { messages, bytes } => {
                    let before = outbox.in_flight();
                    let frames = sent(&mut outbox, Window { messages, bytes });
                    prop_assert!(outbox.in_flight() <= before.max(messages));
                    frames.into_iter().for_each(|frame| model.receive(&mut outbox, frame));
                }
                Act::Ack => {
                    for (alias, stored) in model.stored.iter().enumerate() {
                        outbox.acked(Alias(alias as u16), stored.len() as u64).unwrap();
                    }
                }
                Act::Lose { seen } => {
                    let frames = sent(&mut outbox, WIDE);
                    frames.into_iter().take(seen).for_each(|frame| model.receive(&mut outbox, frame));
                    outbox.disconnected();
                    while let Some((alias, first, _)) = outbox.next_to_open() {
                        let last = model.stored[usize::from(alias.0)].len() as u64;
                        prop_assert!(first <= last + 1);
                        outbox.opened(alias, last).unwrap();
                    }
                }
                Act::Unavailable => model.drop_next = true,
            }
            let held: usize = outbox.batches.iter().map(|batch| {
                batch.bytes(outbox.lanes[usize::from(batch.alias.0)].settled, u64::MAX - 1)
            }).sum();
            prop_assert_eq!(outbox.held, held);
        }
        prop_assert_eq!(&model.stored, &given);
        prop_assert_eq!((outbox.unsettled(), outbox.held, outbox.in_flight(), outbox.flight_bytes), (0, 0, 0, 0));
        prop_assert_eq!(outbox.confirmed(), outbox.pushed());
    }
}
