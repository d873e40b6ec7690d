//! Random histories: whatever was appended, retired and let go, reading gives exactly what a simple model says.

use std::{collections::BTreeMap, thread, time::Duration};

use proptest::{prelude::*, test_runner::TestRunner};
use shared::{ChannelId, Seq, receiver::GapReason};

use super::{EVERYTHING, Make, Rig, keeping, select};
use crate::store::{Bounds, Hole, Retention, StoreSettings, selection::Selection};

const CHANNELS: [&str; 4] = ["a", "b", "a/x", "a/y"];
const SELECTIONS: [&str; 8] = ["a", "a/x", "**", "*", "a/*", "a,b", "b,a/**", "none"];
/// Microseconds after which a silent channel is retired.
const IDLE: u64 = 40;

/// What happens to a store, or is asked of it.
#[derive(Debug, Clone)]
enum Step {
    Append { channel: usize, count: usize, wait: u64 },
    Trim { wait: u64 },
    Read { selection: usize, after: f64, bytes: u64 },
    Find { selection: usize, time: u64, count: u64 },
}

/// What a store is thought to hold.
#[derive(Debug, Default)]
struct Model {
    now: u64,
    latest: u64,
    head: u64,
    channels: BTreeMap<ChannelId, Vec<Expected>>,
}

#[derive(Debug, Clone, Copy)]
struct Expected {
    first: u64,
    count: u64,
    time: u64,
    kept: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let selection = 0..SELECTIONS.len();
    prop_oneof![
        6 => (0..CHANNELS.len(), 1usize..6, 0u64..8)
            .prop_map(|(channel, count, wait)| Step::Append { channel, count, wait }),
        1 => (0u64..30).prop_map(|wait| Step::Trim { wait }),
        3 => (selection.clone(), 0.0..1.2, prop_oneof![Just(1u64), 1u64..3000, Just(u64::MAX)])
            .prop_map(|(selection, after, bytes)| Step::Read { selection, after, bytes }),
        2 => (selection, 0u64..400, 0u64..20)
            .prop_map(|(selection, time, count)| Step::Find { selection, time, count }),
    ]
}

pub(super) fn random_histories_are_read_as_they_were_written(make: Make<'_>) {
    let histories = (prop::option::of(1u64..12), prop::collection::vec(step(), 1..60));
    let mut runner = TestRunner::new(ProptestConfig::default());
    let outcome = runner.run(&histories, |(messages, steps)| {
        // A thread of its own: the caller is already in a runtime.
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(history(make, messages, &steps))
        };
        thread::scope(|scope| {
            scope.spawn(run).join().unwrap_or_else(|_| Err(TestCaseError::fail("it panicked")))
        })
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

async fn history(make: Make<'_>, messages: Option<u64>, steps: &[Step]) -> Result<(), TestCaseError> {
    let settings = keeping(Retention { messages, ..EVERYTHING });
    let rig = Rig::new(make, StoreSettings { channel_idle: Duration::from_micros(IDLE), ..settings });
    let mut model = Model { now: 100, ..Model::default() };
    for step in steps {
        match *step {
            Step::Append { channel, count, wait } => {
                model.now += wait;
                let receipt = rig.append(CHANNELS[channel], count, model.now).await;
                prop_assert!(receipt.first.0 > model.head);
                model.append(CHANNELS[channel].parse().unwrap(), receipt.first.0, count as u64, messages);
            }
            Step::Trim { wait } => {
                model.now += wait;
                rig.store.trim(model.now).await;
                model.trim();
            }
            Step::Read { selection, after, bytes } => {
                // From before the first to behind the last.
                let after = Seq((model.head as f64 * after) as u64);
                let selection = select(SELECTIONS[selection]);
                let (chunks, mut holes) = rig.read_all(&selection, after, bytes).await;
                let read: Vec<(u64, u64)> = chunks.iter().map(|c| (c.first().0, c.count())).collect();
                prop_assert_eq!(read, model.after(&selection, after));
                holes.sort_by(|one, other| one.channel.cmp(&other.channel));
                let expected = model.holes(&selection, after);
                prop_assert_eq!(holes.len(), expected.len(), "{:?} and not {:?}", holes, expected);
                for (hole, expected) in holes.iter().zip(&expected) {
                    // Before what would be the next nothing is said but that it is behind the hole.
                    let before = if expected.before == Seq::ZERO { Seq::ZERO } else { hole.before };
                    prop_assert!(hole.before > hole.through);
                    prop_assert_eq!(Hole { before, ..hole.clone() }, expected.clone());
                }
                prop_assert_eq!(rig.store.bounds(&selection), model.bounds(&selection));
            }
            Step::Find { selection, time, count } => {
                let selection = select(SELECTIONS[selection]);
                let at = rig.store.find_time(&selection, time).await.unwrap();
                let chunks = model.kept(&selection);
                prop_assert!(chunks.iter().all(|chunk| (chunk.first > at.0) == (chunk.time >= time)));
                let at = rig.store.find_last(&selection, count).await.unwrap();
                let found: u64 =
                    chunks.iter().map(|c| (c.first + c.count).saturating_sub(c.first.max(at.0 + 1))).sum();
                prop_assert_eq!(found, count.min(chunks.iter().map(|chunk| chunk.count).sum()));
            }
        }
    }
    model.check_told(&rig)
}

impl Model {
    fn append(&mut self, channel: ChannelId, first: u64, count: u64, limit: Option<u64>) {
        self.latest = self.latest.max(self.now);
        self.head = first + count - 1;
        let chunks = self.channels.entry(channel).or_default();
        chunks.push(Expected { first, count, time: self.latest, kept: true });
        let mut messages: u64 = chunks.iter().filter(|chunk| chunk.kept).map(|chunk| chunk.count).sum();
        let newest = chunks.len() - 1;
        for chunk in chunks[..newest].iter_mut().filter(|chunk| chunk.kept) {
            if limit.is_some_and(|limit| messages > limit) {
                messages -= chunk.count;
                chunk.kept = false;
            }
        }
    }

    fn trim(&mut self) {
        for chunks in self.channels.values_mut() {
            if chunks.last().is_some_and(|last| last.time + IDLE < self.now) {
                chunks.iter_mut().for_each(|chunk| chunk.kept = false);
            }
        }
    }

    fn selected<'a>(
        &'a self,
        selection: &'a Selection,
    ) -> impl Iterator<Item = (&'a ChannelId, &'a [Expected])> {
        let channels = self.channels.iter().filter(|(channel, _)| selection.matches(channel));
        channels.map(|(channel, chunks)| (channel, &chunks[..]))
    }

    fn kept(&self, selection: &Selection) -> Vec<Expected> {
        let mut kept: Vec<Expected> = self
            .selected(selection)
            .flat_map(|(_, chunks)| chunks)
            .filter(|chunk| chunk.kept)
            .copied()
            .collect();
        kept.sort_by_key(|chunk| chunk.first);
        kept
    }

    fn after(&self, selection: &Selection, after: Seq) -> Vec<(u64, u64)> {
        let chunks = self.kept(selection).into_iter().filter(|chunk| chunk.first + chunk.count - 1 > after.0);
        chunks.map(|chunk| (chunk.first, chunk.count)).collect()
    }

    /// Sorted by channel; `before` 0 if there is no next message.
    fn holes(&self, selection: &Selection, after: Seq) -> Vec<Hole> {
        let hole = |(channel, chunks): (&ChannelId, &[Expected])| {
            let gone: Vec<&Expected> = chunks.iter().filter(|chunk| !chunk.kept).collect();
            let through =
                gone.last().map(|chunk| chunk.first + chunk.count - 1).filter(|last| *last > after.0)?;
            let before = chunks.iter().find(|chunk| chunk.kept).map_or(0, |chunk| chunk.first);
            let ordinal = gone.iter().map(|chunk| chunk.count).sum();
            let (through, before) = (Seq(through), Seq(before));
            Some(Hole { channel: channel.clone(), through, before, ordinal, reason: GapReason::Retention })
        };
        self.selected(selection).filter_map(hole).collect()
    }

    fn bounds(&self, selection: &Selection) -> Bounds {
        let first = self.kept(selection).first().map_or(0, |chunk| chunk.first);
        let lasts = self.selected(selection).filter_map(|(_, chunks)| chunks.last());
        Bounds {
            first: Seq(first),
            head: Seq(lasts.map(|chunk| chunk.first + chunk.count - 1).max().unwrap_or(0)),
        }
    }

    /// The tail was told of every chunk once, in order, each in its place.
    fn check_told(&self, rig: &Rig) -> Result<(), TestCaseError> {
        let told = rig.told();
        prop_assert!(told.is_sorted_by(|one, next| one.last < next.first));
        prop_assert_eq!(told.len(), self.channels.values().map(Vec::len).sum::<usize>());
        for (channel, chunks) in &self.channels {
            let (mut prev, mut ordinal) = (0, 0);
            for (told, chunk) in told.iter().filter(|told| told.channel == *channel).zip(chunks) {
                prop_assert_eq!((told.first.0, told.prev.0, told.ordinal), (chunk.first, prev, ordinal));
                prop_assert_eq!(told.time, chunk.time);
                prop_assert_eq!(&told.payloads, &payloads(channel.as_str(), chunk));
                (prev, ordinal) = (told.last.0, ordinal + chunk.count);
            }
        }
        Ok(())
    }
}

fn payloads(channel: &str, chunk: &Expected) -> Vec<Vec<u8>> {
    (0..chunk.count).map(|index| format!("{channel} at {}: {index}", chunk.time).into_bytes()).collect()
}
