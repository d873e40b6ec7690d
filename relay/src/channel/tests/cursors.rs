//! Random publishes, and cursors that begin anywhere, take as they like, fall out and change what they want: each
//! message that one should get it gets once and in order, or is told that it is missing.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use proptest::{prelude::*, test_runner::TestCaseResult};
use shared::{
    Epoch, Position, Seq,
    receiver::{Since, Subprotocol, decode_binary},
    ws_frame,
};

use super::{hub, messages, retention, select, settings};
use crate::{
    channel::{
        cursor::{Cursor, Missing, Next},
        hub::Hub,
    },
    store::selection::Selection,
};

const CHANNELS: [&str; 4] = ["a", "b", "a/x", "a/y"];
const SELECTIONS: [&str; 7] = ["a", "b", "a/x", "**", "a/*", "a,b", "b,a/**"];

/// What happens. Places are parts of what there is, from 0 to 1.
#[derive(Debug, Clone)]
enum Step {
    Publish { channel: usize, count: usize },
    Begin { selection: usize, since: From, last: Option<u64>, until: Option<f64> },
    Act { who: usize, limit: usize, bytes: u64, take: usize },
    Reselect { who: usize, selection: usize },
}

#[derive(Debug, Clone)]
enum From {
    Latest,
    Earliest,
    Position(f64),
    Seq(f64),
    OtherEpoch,
    Time,
}

#[derive(Debug, Clone, PartialEq)]
struct Published {
    seq: Seq,
    prev: Seq,
    channel: &'static str,
}

/// A cursor and what it should still get.
struct Receiver {
    cursor: Cursor,
    selection: Selection,
    single: bool,
    expected: BTreeSet<Seq>,
    /// What it was told to be missing, or does not want to know.
    known: BTreeSet<Seq>,
    last: Seq,
    until: Option<Seq>,
    /// It was promised that what comes first follows what it has.
    recovered: bool,
    /// It took something since it wants what it wants: what is missing is counted.
    counts: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let since = prop_oneof![
        Just(From::Latest),
        Just(From::Earliest),
        (0.0..1.2).prop_map(From::Position),
        (0.0..1.2).prop_map(From::Seq),
        Just(From::OtherEpoch),
        Just(From::Time),
    ];
    let (last, until) = (prop::option::weighted(0.2, 0u64..12), prop::option::weighted(0.2, 0.0..=1.0));
    let selection = 0..SELECTIONS.len();
    prop_oneof![
        8 => (0..CHANNELS.len(), 1usize..5).prop_map(|(channel, count)| Step::Publish { channel, count }),
        2 => (selection.clone(), since, last, until)
            .prop_map(|(selection, since, last, until)| Step::Begin { selection, since, last, until }),
        8 => (0usize..8, 1usize..4, prop_oneof![0u64..2, 0u64..2000], 0usize..4)
            .prop_map(|(who, limit, bytes, take)| Step::Act { who, limit, bytes, take }),
        1 => (0usize..8, selection).prop_map(|(who, selection)| Step::Reselect { who, selection }),
    ]
}

proptest! {
    #[test]
    fn each_message_comes_once_in_order_or_is_told_to_be_missing(
        kept in prop_oneof![1u64..4, 3u64..20],
        memory in prop_oneof![Just(u64::MAX), 1500u64..6000],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(history(kept, memory, steps))?;
    }
}

async fn history(kept: u64, memory: u64, steps: Vec<Step>) -> TestCaseResult {
    let mut settings = settings();
    settings.memory = memory;
    settings.retention = retention(u64::MAX, Some(kept));
    let hub = hub(settings, Vec::new());
    let mut published = Vec::<Published>::new();
    let mut receivers = Vec::<Receiver>::new();
    for step in steps {
        match step {
            Step::Publish { channel, count } => {
                let channel = CHANNELS[channel];
                let receipt = hub.publish(channel.parse().unwrap(), messages(count), None).await.unwrap();
                for seq in (receipt.first.0..=receipt.last.0).map(Seq) {
                    let before = published.iter().rfind(|message| message.channel == channel);
                    let prev = before.map_or(Seq::ZERO, |message| message.seq);
                    published.push(Published { seq, prev, channel });
                    receivers.iter_mut().for_each(|receiver| receiver.expect(seq, channel));
                }
            }
            Step::Begin { selection, since, last, until } => {
                let receiver =
                    Receiver::begin(&hub, &published, SELECTIONS[selection], since, last, until).await?;
                receivers.push(receiver);
            }
            Step::Act { who, limit, bytes, take } => {
                let count = receivers.len().max(1);
                if let Some(receiver) = receivers.get_mut(who % count) {
                    receiver.act(&hub, &published, (limit, bytes), take).await?;
                }
            }
            Step::Reselect { who, selection } => {
                let count = receivers.len().max(1);
                if let Some(receiver) =
                    receivers.get_mut(who % count).filter(|receiver| receiver.until.is_none())
                {
                    receiver.reselect(&published, SELECTIONS[selection]);
                }
            }
        }
    }
    for receiver in &mut receivers {
        let mut turns = 0;
        while receiver.act(&hub, &published, (2, 500), 2).await? != Next::Head {
            turns += 1;
            prop_assert!(turns < 1000, "it comes to no end");
        }
        prop_assert!(receiver.expected.is_empty(), "neither came nor was told: {:?}", receiver.expected);
        prop_assert_eq!(receiver.cursor.is_at_end(), receiver.until.is_some());
    }
    Ok(())
}

fn is_gone(hub: &Hub, message: &Published) -> bool {
    let first = hub.store().bounds(&select(message.channel)).first;
    first == Seq::ZERO || message.seq < first
}

impl Receiver {
    async fn begin(
        hub: &Arc<Hub>,
        published: &[Published],
        patterns: &str,
        since: From,
        last: Option<u64>,
        until: Option<f64>,
    ) -> Result<Self, TestCaseError> {
        let selection = select(patterns);
        let head = published.last().map_or(Seq::ZERO, |message| message.seq);
        let part = |part: f64| Seq((head.0 as f64 * part) as u64);
        let epoch = hub.store().epoch();
        let since = match since {
            From::Latest => Since::Latest,
            From::Earliest => Since::Earliest,
            From::Position(at) => Since::Position(Position { epoch, seq: part(at) }),
            From::Seq(at) => Since::Seq(part(at)),
            From::OtherEpoch => Since::Position(Position { epoch: Epoch(epoch.0 + 1), seq: Seq(1) }),
            From::Time => Since::Ago(Duration::from_secs(3600)),
        };
        let (mut cursor, beginning) =
            Cursor::begin(hub, &selection, Subprotocol::Binary, since, last).await.unwrap();
        let until = until.map(part).filter(|until| *until >= beginning.from);
        if let Some(until) = until {
            cursor.end_at(until);
        }
        let selected: Vec<&Published> =
            published.iter().filter(|m| selection.matches(&m.channel.parse().unwrap())).collect();
        let kept = selected.iter().filter(|message| !is_gone(hub, message)).count() as u64;
        let after: Vec<&&Published> =
            selected.iter().filter(|message| message.seq > beginning.from).collect();
        let resumes = match since {
            Since::Position(position) if position.epoch == epoch => position.seq.min(head) == beginning.from,
            Since::Seq(seq) => seq.min(head) == beginning.from,
            _ => false,
        };
        let missing = after.iter().any(|message| is_gone(hub, message));
        if beginning.recovered {
            prop_assert!(resumes && !missing && beginning.missing.is_empty());
        }
        if let (Some(last), Since::Latest | Since::Earliest) = (last, since) {
            prop_assert_eq!(after.iter().filter(|m| !is_gone(hub, m)).count() as u64, last.min(kept));
        }
        // Who wants a part of the past, and not what follows a position, is not told of what is before it.
        let expected =
            after.iter().filter(|message| resumes || !is_gone(hub, message)).map(|message| message.seq);
        let expected: BTreeSet<Seq> =
            expected.filter(|seq| until.is_none_or(|until| *seq <= until)).collect();
        let known =
            after.iter().filter(|message| !resumes && is_gone(hub, message)).map(|message| message.seq);
        let known = known.collect();
        let recovered = beginning.recovered && !after.is_empty();
        let single = selection.as_channel().is_some();
        let mut receiver = Self {
            cursor,
            selection,
            single,
            expected,
            known,
            last: beginning.from,
            until,
            recovered,
            counts: false,
        };
        for missing in &beginning.missing {
            receiver.check(hub, published, missing)?;
        }
        Ok(receiver)
    }

    fn expect(&mut self, seq: Seq, channel: &str) {
        if self.selection.matches(&channel.parse().unwrap()) && self.until.is_none() {
            self.expected.insert(seq);
        }
    }

    fn reselect(&mut self, published: &[Published], patterns: &str) {
        let (old, new) = (self.selection.clone(), select(patterns));
        let waits = !self.expected.is_empty();
        let before = self.cursor.position().seq;
        self.cursor.reselect(&new);
        let at = self.cursor.position().seq;
        assert!(at == before || !waits, "a position that has something before it stays");
        for message in published {
            let channel = message.channel.parse().unwrap();
            if !new.matches(&channel) {
                self.expected.remove(&message.seq);
            } else if !old.matches(&channel) && message.seq > at && !self.known.contains(&message.seq) {
                self.expected.insert(message.seq);
            }
        }
        (self.single, self.counts, self.recovered) = (new.as_channel().is_some(), false, false);
        self.selection = new;
    }

    async fn act(
        &mut self,
        hub: &Hub,
        published: &[Published],
        (limit, bytes): (usize, u64),
        take: usize,
    ) -> Result<Next, TestCaseError> {
        let mut ready = Vec::new();
        let next = self.cursor.peek(limit, bytes, &mut ready);
        prop_assert_eq!(next == Next::Frames, !ready.is_empty());
        prop_assert!(ready.len() <= limit);
        for ready in ready.iter().take(take) {
            self.cursor.take(ready);
            for frame in ws_frame::walk(&ready.frames) {
                let envelope = decode_binary(&bytes::Bytes::copy_from_slice(frame.payload)).unwrap();
                prop_assert!(envelope.seq > self.last, "in order");
                self.last = envelope.seq;
                prop_assert!(self.expected.remove(&envelope.seq), "{} was not to come", envelope.seq);
                let message = published.iter().find(|message| message.seq == envelope.seq).unwrap();
                prop_assert_eq!((envelope.channel.as_str(), envelope.prev), (message.channel, message.prev));
            }
            (self.counts, self.recovered) = (true, false);
        }
        if next == Next::Fetch {
            for missing in self.cursor.fetch().await.unwrap() {
                self.check(hub, published, &missing)?;
            }
        }
        Ok(next)
    }

    fn check(&mut self, hub: &Hub, published: &[Published], missing: &Missing) -> TestCaseResult {
        prop_assert!(!self.recovered, "it was said that nothing is missing");
        let is_within = |message: &&Published| {
            message.channel == missing.channel.as_str()
                && message.seq > missing.after
                && message.seq < missing.before
        };
        let mut count = 0;
        for message in published.iter().filter(is_within) {
            prop_assert!(is_gone(hub, message), "{message:?} is not missing");
            let beyond = self.until.is_some_and(|until| message.seq > until);
            prop_assert!(self.expected.remove(&message.seq) || beyond, "{message:?} was told twice");
            self.known.insert(message.seq);
            count += 1;
        }
        prop_assert!(count > 0, "{missing:?} is no hole");
        if self.single && self.counts {
            prop_assert_eq!(missing.count, Some(count));
        }
        prop_assert!(missing.count.is_none_or(|told| told == count));
        Ok(())
    }
}
