//! Laws of the channel layer; [`cursors`] has those about what a cursor gives.

mod cursors;

use std::{sync::Arc, time::Duration};

use shared::{
    ChannelId, Epoch, Kind, Position, Seq,
    receiver::{Since, Subprotocol},
};
use tokio::time::Instant;

use super::{
    LagPolicy,
    cursor::{Cursor, Next},
    hub::{ChannelRules, Hub},
    publisher::Publisher,
};
use crate::store::{
    Batch, ChannelStore, Retention, StoreSettings,
    chunk::{ChunkBuilder, Messages},
    memory::Memory,
    selection::Selection,
};

const HELD: Duration = Duration::from_millis(10);

fn settings() -> StoreSettings {
    StoreSettings {
        memory: u64::MAX,
        encodings: 0,
        channels: 100,
        producers: 100,
        channel_idle: Duration::from_secs(3600),
        trim_every: Duration::from_secs(1),
        retention: Vec::new(),
        durability: Vec::new(),
    }
}

fn retention(bytes: u64, messages: Option<u64>) -> Vec<(shared::ChannelPattern, Retention)> {
    vec![("**".parse().unwrap(), Retention { bytes, messages, age: None })]
}

fn hub(settings: StoreSettings, lag: Vec<(shared::ChannelPattern, LagPolicy)>) -> Arc<Hub> {
    let rules = ChannelRules { lag, retention: settings.retention.clone() };
    Hub::new(Arc::new(Memory::new(Epoch(3), settings)), 0, rules)
}

/// A hub whose channels keep so many bytes.
fn keeping(bytes: u64, policy: LagPolicy) -> Arc<Hub> {
    let settings = StoreSettings { retention: retention(bytes, None), ..settings() };
    hub(settings, vec![("**".parse().unwrap(), policy)])
}

fn channel(name: &str) -> ChannelId {
    name.parse().unwrap()
}

fn select(patterns: &str) -> Selection {
    patterns.split(',').map(|pattern| pattern.parse().unwrap()).collect()
}

fn messages(count: usize) -> Messages {
    let mut builder = ChunkBuilder::default();
    for index in 0..count {
        builder.push(Kind::Text, index.to_string().as_bytes(), 0);
    }
    builder.take().unwrap()
}

/// Messages that cost about so many bytes.
fn bytes(count: usize) -> Messages {
    Messages::one(Kind::Binary, &vec![0; count])
}

async fn begin(hub: &Arc<Hub>, patterns: &str, since: Since) -> Cursor {
    Cursor::begin(hub, &select(patterns), Subprotocol::Raw, since, None).await.unwrap().0
}

/// Takes everything there is; gives how many chunks that were.
async fn take_all(cursor: &mut Cursor) -> usize {
    let mut taken = 0;
    loop {
        let mut ready = Vec::new();
        match cursor.peek(8, u64::MAX, &mut ready) {
            Next::Head => return taken,
            Next::Fetch => drop(cursor.fetch().await.unwrap()),
            Next::Frames => ready.iter().for_each(|ready| cursor.take(ready)),
        }
        taken += ready.len();
    }
}

/// Publishes and takes note of how long the sender was held.
async fn publish(publisher: &Publisher, size: usize) -> Duration {
    publisher.publish(bytes(size), None).await.unwrap();
    let began = Instant::now();
    publisher.hold(HELD).await;
    began.elapsed()
}

#[tokio::test]
async fn a_slow_receiver_costs_no_memory() {
    let hub = keeping(10_000, LagPolicy::Skip);
    let _slow = [begin(&hub, "c", Since::Latest).await, begin(&hub, "**", Since::Latest).await];
    let publisher = Publisher::new(&hub, channel("c"));
    publisher.publish(bytes(5000), None).await.unwrap();
    let page = hub.store().read(&select("c"), Seq::ZERO, u64::MAX).await.unwrap();
    let chunk = Arc::downgrade(&page.chunks[0]);
    drop(page);
    assert_eq!(chunk.strong_count(), 1, "the store's alone");
    publisher.publish(bytes(9000), None).await.unwrap();
    assert_eq!(chunk.strong_count(), 0);
}

#[tokio::test]
async fn a_hub_over_a_store_that_opened_with_messages_begins_behind_them() {
    let store = Memory::new(Epoch(3), settings());
    for time in 1..=2 {
        let batch = Batch { channel: channel("c"), messages: messages(2), time, stamp: None };
        store.append(batch).await.unwrap();
    }
    let hub = Hub::new(Arc::new(store), 0, ChannelRules::default());
    assert_eq!(hub.position(), Position { epoch: Epoch(3), seq: Seq(4) });
    for patterns in ["c", "**"] {
        assert_eq!(take_all(&mut begin(&hub, patterns, Since::Latest).await).await, 0);
        assert_eq!(take_all(&mut begin(&hub, patterns, Since::Earliest).await).await, 2);
        let since = Since::Position(Position { epoch: Epoch(3), seq: Seq(2) });
        let form = Subprotocol::Raw;
        let (mut cursor, beginning) =
            Cursor::begin(&hub, &select(patterns), form, since, None).await.unwrap();
        assert!(beginning.recovered && beginning.from == Seq(2));
        assert_eq!(take_all(&mut cursor).await, 1);
    }
}

#[test]
fn a_pattern_has_the_lag_policy_of_its_own_rule_or_none() {
    let block = LagPolicy::Block(Duration::from_secs(1));
    let rules = [("a/b", LagPolicy::Close), ("a/*", block), ("**", LagPolicy::Close)];
    let hub = hub(settings(), rules.map(|(pattern, lag)| (pattern.parse().unwrap(), lag)).to_vec());
    let cases = [
        ("a/b", LagPolicy::Close),
        ("a/c", block),
        ("a/*", block),
        ("**", LagPolicy::Close),
        ("a/**", LagPolicy::Skip),
        ("a/b,a/c", LagPolicy::Skip),
        ("a/*,**", LagPolicy::Skip),
    ];
    for (patterns, lag) in cases {
        assert_eq!(hub.lag_policy_of(&select(patterns)), lag, "{patterns}");
    }
}

#[tokio::test]
async fn a_cursor_waits_for_what_it_wants_and_for_nothing_else() {
    let hub = hub(settings(), Vec::new());
    let mut cursor = begin(&hub, "a/*", Since::Latest).await;
    hub.publish(channel("b"), messages(1), None).await.unwrap();
    assert!(tokio::time::timeout(Duration::ZERO, cursor.changed()).await.is_err());
    hub.publish(channel("a/b"), messages(1), None).await.unwrap();
    cursor.changed().await;
    assert_eq!(take_all(&mut cursor).await, 1);
    hub.stop();
    cursor.changed().await;
    assert!(hub.is_stopping());
}

#[tokio::test]
async fn who_selects_another_channel_gets_nothing_older_of_it() {
    let hub = hub(settings(), Vec::new());
    let mut cursor = begin(&hub, "quiet", Since::Latest).await;
    hub.publish(channel("other"), messages(3), None).await.unwrap();
    assert_eq!(take_all(&mut cursor).await, 0);
    cursor.reselect(&select("quiet,other"));
    assert_eq!(cursor.position(), hub.position());
    assert_eq!(take_all(&mut cursor).await, 0);
    hub.publish(channel("other"), messages(3), None).await.unwrap();
    assert_eq!(take_all(&mut cursor).await, 1);
}

#[tokio::test]
async fn a_cursor_of_the_past_ends_though_nothing_comes() {
    let hub = hub(settings(), Vec::new());
    let _other = begin(&hub, "quiet", Since::Latest).await;
    hub.publish(channel("other"), messages(3), None).await.unwrap();
    let mut past = begin(&hub, "quiet", Since::Seq(Seq(1))).await;
    past.end_at(Seq(3));
    assert_eq!(take_all(&mut past).await, 0);
    assert!(past.is_at_end());
}

#[tokio::test]
async fn what_is_missing_does_not_come_though_another_cursor_still_holds_it() {
    let hub = hub(StoreSettings { retention: retention(u64::MAX, Some(1)), ..settings() }, Vec::new());
    let _other = begin(&hub, "*", Since::Latest).await;
    for name in ["x/y", "a"] {
        hub.publish(channel(name), messages(1), None).await.unwrap();
    }
    let mut holder = begin(&hub, "a", Since::Seq(Seq(1))).await;
    holder.fetch().await.unwrap();
    hub.publish(channel("a"), messages(1), None).await.unwrap();
    let (mut all, mut past) =
        (begin(&hub, "*", Since::Time(0)).await, begin(&hub, "*", Since::Time(0)).await);
    past.end_at(Seq(1));
    assert_eq!((take_all(&mut past).await, past.is_at_end()), (0, true));
    assert_eq!(take_all(&mut all).await, 1);
    assert_eq!(take_all(&mut holder).await, 2);
}

#[tokio::test]
async fn what_the_past_was_told_to_miss_is_not_told_again() {
    let hub = hub(StoreSettings { retention: retention(u64::MAX, Some(1)), ..settings() }, Vec::new());
    let mut past = begin(&hub, "c", Since::Seq(Seq::ZERO)).await;
    hub.publish(channel("c"), messages(2), None).await.unwrap();
    let mut cursor = begin(&hub, "c", Since::Latest).await;
    past.end_at(Seq(2));
    for _ in 0..2 {
        hub.publish(channel("c"), messages(2), None).await.unwrap();
    }
    assert_eq!(past.peek(1, 1, &mut Vec::new()), Next::Fetch);
    assert_eq!(past.fetch().await.unwrap().len(), 1);
    cursor.go_on_from(&past);
    assert_eq!(cursor.fetch().await.unwrap(), []);
    assert_eq!(take_all(&mut cursor).await, 1);
}

#[tokio::test]
async fn receivers_of_a_channel_are_counted_in_whatever_they_want() {
    let hub = hub(settings(), Vec::new());
    let one = begin(&hub, "a", Since::Latest).await;
    let mut others = vec![begin(&hub, "a", Since::Latest).await, begin(&hub, "*", Since::Latest).await];
    assert_eq!((hub.receivers(&channel("a")), hub.receivers(&channel("b"))), (3, 1));
    others[1].reselect(&select("b,c"));
    assert_eq!((hub.receivers(&channel("a")), hub.receivers(&channel("b"))), (2, 1));
    drop((one, others));
    assert_eq!((hub.receivers(&channel("a")), hub.receivers(&channel("b"))), (0, 0));
    assert!(hub.views_of(&channel("a"), |_| true).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_sender_is_held_for_a_receiver_until_it_has_caught_up() {
    let hub = keeping(80_000, LagPolicy::Skip);
    let publisher = Publisher::new(&hub, channel("c"));
    let mut receiver = begin(&hub, "c", Since::Latest).await;
    take_all(&mut receiver).await;
    assert_eq!(publish(&publisher, 9_000).await, Duration::ZERO, "within an eighth of what is kept");
    let catches_up = async {
        tokio::time::sleep(Duration::from_millis(4)).await;
        take_all(&mut receiver).await;
    };
    let (held, ()) = tokio::join!(publish(&publisher, 2_000), catches_up);
    assert_eq!(held, Duration::from_millis(4));
}

#[tokio::test(start_paused = true)]
async fn a_sender_is_held_for_receivers_of_a_channel_that_keeps_few_messages() {
    for (kept, free) in [(1, 0), (4, 0), (24, 2)] {
        let hub = hub(StoreSettings { retention: retention(u64::MAX, Some(kept)), ..settings() }, Vec::new());
        let publisher = Publisher::new(&hub, channel("c"));
        let mut receiver = begin(&hub, "c", Since::Latest).await;
        take_all(&mut receiver).await;
        for _ in 0..free {
            assert_eq!(publish(&publisher, 1).await, Duration::ZERO, "within an eighth of {kept}");
        }
        let catches_up = async {
            tokio::time::sleep(Duration::from_millis(4)).await;
            take_all(&mut receiver).await
        };
        let (held, taken) = tokio::join!(publish(&publisher, 1), catches_up);
        assert_eq!((held, taken), (Duration::from_millis(4), free + 1));
        assert_eq!(publisher.publish(messages(40), None).await.map(|_| ()), Ok(()));
        let began = Instant::now();
        publisher.hold(HELD).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "it is too far behind");
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_blocks_and_keeps_few_messages_loses_none() {
    let settings = StoreSettings { retention: retention(u64::MAX, Some(3)), ..settings() };
    let block = LagPolicy::Block(Duration::from_secs(1));
    let hub = hub(settings, vec![("**".parse().unwrap(), block)]);
    let publisher = Publisher::new(&hub, channel("c"));
    let mut receiver = begin(&hub, "c", Since::Latest).await;
    take_all(&mut receiver).await;
    let sends = async {
        for _ in 0..20 {
            publish(&publisher, 1).await;
        }
    };
    let takes = async {
        let mut taken = 0;
        while taken < 20 {
            receiver.changed().await;
            tokio::time::sleep(Duration::from_millis(15)).await;
            taken += take_all(&mut receiver).await;
        }
    };
    let both = async { tokio::join!(sends, takes) };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("none is lost");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_was_waited_for_in_vain_counts_again_when_it_is_back_at_the_head() {
    let hub = keeping(80_000, LagPolicy::Skip);
    let publisher = Publisher::new(&hub, channel("c"));
    let mut receiver = begin(&hub, "c", Since::Latest).await;
    take_all(&mut receiver).await;
    assert_eq!(publish(&publisher, 11_000).await, HELD);
    assert_eq!(publish(&publisher, 11_000).await, Duration::ZERO);
    let mut ready = Vec::new();
    receiver.peek(1, 1, &mut ready);
    receiver.take(&ready[0]);
    receiver.peek(1, 1, &mut Vec::new());
    assert_eq!(publish(&publisher, 11_000).await, Duration::ZERO, "it moves, but is not back");
    take_all(&mut receiver).await;
    assert_eq!(publish(&publisher, 11_000).await, HELD);
}

#[tokio::test(start_paused = true)]
async fn no_sender_is_held_for_a_receiver_that_is_far_behind_or_reads_the_store() {
    let hub = keeping(80_000, LagPolicy::Skip);
    let publisher = Publisher::new(&hub, channel("c"));
    let mut receiver = begin(&hub, "c", Since::Latest).await;
    take_all(&mut receiver).await;
    assert_eq!(publish(&publisher, 45_000).await, Duration::ZERO);
    let mut late = begin(&hub, "c", Since::Earliest).await;
    assert_eq!(late.peek(1, 1, &mut Vec::new()), Next::Frames, "the view of another receiver has it");
    drop((receiver, late));
    let mut late = begin(&hub, "c", Since::Earliest).await;
    assert_eq!(late.peek(1, 1, &mut Vec::new()), Next::Fetch);
    assert_eq!(publish(&publisher, 20_000).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_sender_is_held_for_all_receivers_together_no_longer_than_for_one() {
    let hub = keeping(80_000, LagPolicy::Skip);
    let publisher = Publisher::new(&hub, channel("c"));
    let mut receivers = Vec::new();
    for patterns in ["c", "*", "**", "c,d"] {
        receivers.push(begin(&hub, patterns, Since::Latest).await);
        take_all(receivers.last_mut().unwrap()).await;
    }
    assert_eq!(publish(&publisher, 11_000).await, HELD);
    assert_eq!(publish(&publisher, 11_000).await, Duration::ZERO, "all of them are tired");
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_blocks_holds_senders_until_the_credit_is_used() {
    const CREDIT: Duration = Duration::from_secs(1);
    let hub = keeping(80_000, LagPolicy::Block(CREDIT));
    let publisher = Publisher::new(&hub, channel("c"));
    let mut receiver = begin(&hub, "c", Since::Latest).await;
    take_all(&mut receiver).await;
    assert_eq!(publish(&publisher, 50_000).await, CREDIT);
    assert!(receiver.is_overdrawn());
    receiver.changed().await;
    assert_eq!(publish(&publisher, 20_000).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_pays_once_for_senders_that_are_held_together_and_only_while_they_are() {
    let hub = keeping(80_000, LagPolicy::Block(Duration::from_secs(1)));
    let publishers = [Publisher::new(&hub, channel("c")), Publisher::new(&hub, channel("c"))];
    let mut receiver = begin(&hub, "c", Since::Latest).await;
    take_all(&mut receiver).await;
    let catches_up = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        take_all(&mut receiver).await;
    };
    let (one, other) = (publish(&publishers[0], 50_000), publish(&publishers[1], 100));
    let (one, other, ()) = tokio::join!(one, other, catches_up);
    assert_eq!((one, other), (Duration::from_millis(700), Duration::from_millis(700)));
    assert!(!receiver.is_overdrawn());
    let held = publish(&publishers[0], 50_000).await;
    assert!(
        held.abs_diff(Duration::from_millis(300)) <= Duration::from_millis(20),
        "{held:?} is what is left"
    );
    assert!(receiver.is_overdrawn());
}
