//! What every engine must hold to: one suite for all of them. [`holds`] runs it, law by law; [`model`] compares
//! random histories with a simple model; [`producers`] has the laws about who may append; [`grouped`] is an engine
//! that commits in groups and later.

pub(crate) mod grouped;
mod model;
mod producers;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shared::{
    ChannelId, Kind, Seq,
    receiver::{GapReason, Subprotocol},
    ws_frame,
};

use super::{
    Batch, ChannelStore, Hole, Receipt, Refused, Retention, StoreSettings, Ticket,
    chunk::{Chunk, ChunkBuilder, Encodings},
    selection::Selection,
};

type Make<'a> = &'a (dyn Fn(StoreSettings) -> Arc<dyn ChannelStore> + Sync);

/// Panics, with the name of the law in the backtrace, if an engine breaks one. Needs a tokio runtime.
pub(super) async fn holds(make: impl Fn(StoreSettings) -> Arc<dyn ChannelStore> + Sync) {
    seqs_grow_in_one_space_and_each_channel_is_a_chain(&make).await;
    an_empty_store_has_nothing(&make).await;
    nobody_is_shown_more_than_the_tail_was_told(&make).await;
    a_channel_keeps_so_many_bytes(&make).await;
    a_channel_keeps_so_many_messages(&make).await;
    a_channel_keeps_messages_for_so_long(&make).await;
    beyond_the_memory_of_all_the_oldest_chunk_of_all_goes(&make).await;
    a_page_is_about_as_large_as_asked_for(&make).await;
    a_retired_channel_that_comes_back_goes_on(&make).await;
    too_many_channels_are_refused(&make).await;
    who_waits_for_room_gets_it(&make).await;
    what_was_appended_before_the_end_is_settled_and_can_be_read(&make).await;
    producers::hold(&make).await;
    model::random_histories_are_read_as_they_were_written(&make);
}

/// A chunk as the tail was told of it, without what would keep it in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    channel: ChannelId,
    first: Seq,
    last: Seq,
    prev: Seq,
    ordinal: u64,
    time: u64,
    cost: u64,
    payloads: Vec<Vec<u8>>,
}

/// A store and what its tail was told.
struct Rig {
    store: Arc<dyn ChannelStore>,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Rig {
    fn new(make: Make<'_>, settings: StoreSettings) -> Self {
        let (store, told) = (make(settings), Arc::new(Mutex::new(Vec::new())));
        let tail = Arc::clone(&told);
        store.follow(Box::new(move |chunk| {
            tail.lock().unwrap_or_else(PoisonError::into_inner).push(Told::of(chunk));
        }));
        Self { store, told }
    }

    fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    /// The last message that the tail was told of.
    fn told_through(&self) -> Seq {
        self.told.lock().unwrap().last().map_or(Seq::ZERO, |told| told.last)
    }

    /// Appends so many messages and waits until that is settled; the tail must know of them then.
    async fn append(&self, channel: &str, count: usize, time: u64) -> Receipt {
        let receipt = self.store.append(batch(channel, count, time)).await.unwrap();
        assert_eq!(receipt.last.0 - receipt.first.0 + 1, count as u64, "the seqs of a chunk are dense");
        let told = self.told();
        assert!(
            told.iter().any(|t| (t.first, t.last) == (receipt.first, receipt.last)),
            "the tail comes first"
        );
        receipt
    }

    /// Everything that is kept after a position, read in pages of about so many bytes, and every hole that was
    /// told on the way: of each channel the last.
    async fn read_all(&self, selection: &Selection, after: Seq, bytes: u64) -> (Vec<Arc<Chunk>>, Vec<Hole>) {
        let (mut chunks, mut holes, mut at) = (Vec::new(), Vec::<Hole>::new(), after);
        loop {
            let page = self.store.read(selection, at, bytes).await.unwrap();
            for hole in page.holes {
                holes.retain(|other| other.channel != hole.channel);
                holes.push(hole);
            }
            let reached = page.chunks.last().map_or(at, |chunk| chunk.last());
            assert!(page.through >= reached, "a page reaches as far as its chunks");
            assert!(page.chunks.iter().all(|c| c.last() > at), "a page begins after the position");
            chunks.extend(page.chunks);
            if page.through == at || page.through >= self.told_through() {
                return (chunks, holes);
            }
            at = page.through;
        }
    }

    /// The firsts of the chunks that a channel keeps.
    async fn kept(&self, channel: &str) -> Vec<Seq> {
        self.read_all(&select(channel), Seq::ZERO, u64::MAX)
            .await
            .0
            .iter()
            .map(|chunk| chunk.first())
            .collect()
    }
}

impl Told {
    fn of(chunk: &Arc<Chunk>) -> Self {
        let frames = chunk.frames(Subprotocol::Raw, &Encodings::new(0));
        Self {
            channel: chunk.channel().clone(),
            first: chunk.first(),
            last: chunk.last(),
            prev: chunk.prev(),
            ordinal: chunk.ordinal(),
            time: chunk.time(),
            cost: chunk.cost(),
            payloads: ws_frame::walk(&frames).map(|frame| frame.payload.to_vec()).collect(),
        }
    }
}

fn settings() -> StoreSettings {
    StoreSettings {
        memory: 1 << 30,
        encodings: 0,
        channels: 100,
        producers: 100,
        channel_idle: Duration::from_secs(3600),
        trim_every: Duration::from_secs(1),
        retention: Vec::new(),
        durability: Vec::new(),
    }
}

fn keeping(retention: Retention) -> StoreSettings {
    StoreSettings { retention: vec![("**".parse().unwrap(), retention)], ..settings() }
}

const EVERYTHING: Retention = Retention { bytes: u64::MAX, messages: None, age: None };

fn channel(name: &str) -> ChannelId {
    name.parse().unwrap()
}

/// Patterns, separated by commas.
fn select(patterns: &str) -> Selection {
    patterns.split(',').map(|pattern| pattern.parse().unwrap()).collect()
}

fn batch(name: &str, count: usize, time: u64) -> Batch {
    let mut builder = ChunkBuilder::default();
    for index in 0..count {
        builder.push(Kind::Text, format!("{name} at {time}: {index}").as_bytes(), 0);
    }
    Batch { channel: channel(name), messages: builder.take().unwrap(), time, stamp: None }
}

/// What is gone of the channel `c`.
fn retired(through: Seq, before: Seq, ordinal: u64) -> Hole {
    Hole { channel: channel("c"), through, before, ordinal, reason: GapReason::Retention }
}

async fn seqs_grow_in_one_space_and_each_channel_is_a_chain(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let times = [5, 7, 6, 9, 9, 8];
    let tickets: Vec<Ticket> = times
        .iter()
        .enumerate()
        .map(|(index, time)| rig.store.append(batch(["a", "b", "a/b"][index % 3], index + 1, *time)))
        .collect();
    let mut receipts = Vec::new();
    for ticket in tickets {
        receipts.push(ticket.await.unwrap());
    }
    let told = rig.told();
    assert_eq!(told.len(), times.len(), "every commit is told once");
    for (index, (told, receipt)) in told.iter().zip(&receipts).enumerate() {
        assert_eq!((told.first, told.last), (receipt.first, receipt.last), "in the order of appends");
        assert_eq!(told.last.0 - told.first.0, index as u64);
        assert_eq!(told.payloads.len(), index + 1);
    }
    assert!(told.is_sorted_by(|one, next| one.last < next.first), "seqs grow over all channels");
    assert!(told.is_sorted_by_key(|told| told.time), "time does not go back");
    for (one, next) in told.iter().zip(&told[3..]) {
        assert_eq!((next.prev, next.ordinal), (one.last, one.payloads.len() as u64), "a chain per channel");
    }
    assert!(told[..3].iter().all(|told| (told.prev, told.ordinal) == (Seq::ZERO, 0)));
}

async fn an_empty_store_has_nothing(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    for selection in [select("a"), select("**"), Selection::default()] {
        assert_eq!(
            (rig.store.bounds(&selection).first, rig.store.bounds(&selection).head),
            (Seq::ZERO, Seq::ZERO)
        );
        let (chunks, holes) = rig.read_all(&selection, Seq::ZERO, 1).await;
        assert!(chunks.is_empty() && holes.is_empty());
        assert_eq!(rig.store.find_time(&selection, 0).await.unwrap(), Seq::ZERO);
        assert_eq!(rig.store.find_last(&selection, 10).await.unwrap(), Seq::ZERO);
    }
}

async fn nobody_is_shown_more_than_the_tail_was_told(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    assert_eq!(rig.store.head(), Seq::ZERO);
    let mut tickets = Vec::new();
    for time in 1..40 {
        tickets.push(rig.store.append(batch(["a", "b"][time % 2], 2, time as u64)));
        // The tail is asked last: what it is told meanwhile may be shown.
        let page = rig.store.read(&select("**"), Seq::ZERO, u64::MAX).await.unwrap();
        assert!(page.through <= rig.told_through(), "a page ends where the tail does");
        for _ in 0..time % 5 {
            let head = rig.store.head();
            assert!(head <= rig.told_through(), "the head is not ahead");
            tokio::task::yield_now().await;
        }
    }
    for ticket in tickets {
        let last = ticket.await.unwrap().last;
        assert!(rig.store.head() >= last && rig.told_through() >= last, "what is settled is told");
    }
    assert_eq!(rig.store.head(), rig.told_through());
}

async fn a_channel_keeps_so_many_bytes(make: Make<'_>) {
    let rig = Rig::new(make, keeping(Retention { bytes: 2000, ..EVERYTHING }));
    let mut firsts = Vec::new();
    for time in 1..30 {
        firsts.push(rig.append("c", 3, time).await.first);
        rig.append("d", 1, time).await;
    }
    let kept = rig.kept("c").await;
    assert!(firsts.ends_with(&kept) && !kept.is_empty(), "the newest are kept");
    let costs: u64 = rig.told().iter().filter(|told| kept.contains(&told.first)).map(|told| told.cost).sum();
    assert!(costs <= 2000, "{costs} bytes are kept");
    let large = rig.store.append(batch("c", 500, 30)).await.unwrap();
    assert_eq!(rig.kept("c").await, [large.first], "the newest chunk stays, however large it is");
}

async fn a_channel_keeps_so_many_messages(make: Make<'_>) {
    let rig = Rig::new(make, keeping(Retention { messages: Some(5), ..EVERYTHING }));
    let mut firsts = Vec::new();
    for time in 1..5 {
        firsts.push(rig.append("c", 2, time).await.first);
    }
    assert_eq!(rig.kept("c").await, firsts[2..]);
    let (_, holes) = rig.read_all(&select("c"), firsts[0], u64::MAX).await;
    let (through, before) = (Seq(firsts[2].0 - 1), firsts[2]);
    assert_eq!(holes, [retired(through, before, 4)]);
}

async fn a_channel_keeps_messages_for_so_long(make: Make<'_>) {
    let rig = Rig::new(make, keeping(Retention { age: Some(Duration::from_micros(10)), ..EVERYTHING }));
    let firsts = [rig.append("c", 1, 100).await.first, rig.append("c", 1, 105).await.first];
    rig.store.trim(110).await;
    assert_eq!(rig.kept("c").await, firsts);
    rig.store.trim(111).await;
    assert_eq!(rig.kept("c").await, firsts[1..]);
    rig.store.trim(116).await;
    assert_eq!(rig.kept("c").await, []);
    let bounds = rig.store.bounds(&select("c"));
    assert_eq!((bounds.first, bounds.head), (Seq::ZERO, firsts[1]), "a head is not forgotten");
    let (_, holes) = rig.read_all(&select("c"), firsts[0], 1).await;
    assert_eq!((holes[0].through, holes[0].ordinal), (firsts[1], 2));
    assert!(holes[0].before > firsts[1]);
}

async fn beyond_the_memory_of_all_the_oldest_chunk_of_all_goes(make: Make<'_>) {
    let rig = Rig::new(make, StoreSettings { memory: 3000, ..settings() });
    let mut firsts = Vec::new();
    for time in 1..30 {
        for name in ["a", "b", "c"] {
            firsts.push(rig.append(name, 1 + time as usize % 3, time).await.first);
            let kept = rig.read_all(&select("**"), Seq::ZERO, u64::MAX).await.0;
            let kept: Vec<Seq> = kept.iter().map(|chunk| chunk.first()).collect();
            assert!(firsts.ends_with(&kept) && !kept.is_empty(), "the newest of all are kept");
            let costs: u64 =
                rig.told().iter().filter(|told| kept.contains(&told.first)).map(|told| told.cost).sum();
            assert!(costs <= 3000, "{costs} bytes are kept");
        }
    }
}

async fn a_page_is_about_as_large_as_asked_for(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    for time in 1..20 {
        rig.append(if time % 2 == 0 { "a" } else { "b" }, 4, time).await;
    }
    for selection in [select("a"), select("*")] {
        for bytes in [1, 500, 2000] {
            let page = rig.store.read(&selection, Seq(2), bytes).await.unwrap();
            assert!(!page.chunks.is_empty());
            let costs: u64 = page.chunks.iter().rev().skip(1).map(|chunk| chunk.cost()).sum();
            assert!(costs < bytes, "only the last chunk may go beyond");
        }
        let page = rig.store.read(&selection, Seq(2), 0).await.unwrap();
        assert!(page.chunks.is_empty() && page.through == Seq(2), "0 bytes: only holes are asked for");
    }
}

async fn a_retired_channel_that_comes_back_goes_on(make: Make<'_>) {
    let idle = Duration::from_micros(10);
    let rig = Rig::new(make, StoreSettings { channel_idle: idle, ..settings() });
    let first = rig.append("c", 3, 100).await;
    let other = rig.append("d", 1, 110).await;
    rig.store.trim(115).await;
    assert_eq!(rig.kept("c").await, []);
    assert_eq!(rig.kept("d").await, [other.first]);
    let gone = |before| [retired(first.last, before, 3)];
    let (_, holes) = rig.read_all(&select("c"), first.first, u64::MAX).await;
    assert_eq!(holes, gone(Seq(first.last.0 + 1)));
    let back = rig.append("c", 2, 120).await;
    let told = rig.told().pop().unwrap();
    assert_eq!((told.prev, told.ordinal), (first.last, 3));
    for selection in [select("c"), select("**")] {
        assert_eq!(rig.read_all(&selection, first.first, u64::MAX).await.1, gone(back.first));
        assert_eq!(rig.read_all(&selection, first.last, u64::MAX).await.1, []);
    }
}

async fn too_many_channels_are_refused(make: Make<'_>) {
    let rig =
        Rig::new(make, StoreSettings { channels: 2, channel_idle: Duration::from_micros(10), ..settings() });
    rig.append("a", 1, 1).await;
    rig.append("b", 1, 50).await;
    assert_eq!(rig.store.append(batch("c", 1, 50)).await, Err(Refused::TooManyChannels));
    assert_eq!(rig.told().len(), 2, "nothing was stored");
    rig.append("b", 1, 50).await;
    rig.store.trim(50).await;
    let receipt = rig.append("c", 1, 51).await;
    assert_eq!(receipt.first, Seq(rig.told()[2].last.0 + 1), "a retired channel leaves its place to another");
    assert_eq!(rig.store.append(batch("a", 1, 52)).await, Err(Refused::TooManyChannels));
}

async fn who_waits_for_room_gets_it(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let mut tickets = Vec::new();
    for time in 1..300 {
        if let Some(room) = rig.store.room() {
            room.await;
        }
        tickets.push(rig.store.append(batch(["a", "b"][time % 2], 3, time as u64)));
    }
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(rig.told().len(), 299);
}

async fn what_was_appended_before_the_end_is_settled_and_can_be_read(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let tickets = [("a", 1), ("b", 2), ("a", 3)].map(|(name, time)| rig.store.append(batch(name, 2, time)));
    rig.store.close().await.unwrap();
    let told = rig.told();
    assert_eq!(told.len(), 3, "it was told before the end");
    for (ticket, told) in tickets.into_iter().zip(&told) {
        assert_eq!(ticket.await, Ok(Receipt { first: told.first, last: told.last }));
    }
    assert_eq!(rig.kept("**").await, [told[0].first, told[1].first, told[2].first]);
}
