//! Whatever is killed or loses power at whatever moment: what was promised is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::prelude::*;
use shared::{
    Kind, Seq,
    receiver::{GapReason, Subprotocol},
    sender::ProducerId,
    ws_frame,
};

use super::forgetful::{Faults, Forgetful};
use crate::store::{
    Batch, ChannelStore, Claim, Durability, Hole, Receipt, Refused, Retention, Stamp, StoreSettings,
    chunk::{Chunk, ChunkBuilder, Encodings, Messages},
    disk::{Disk, DiskSettings, OpenError, examination::Examination},
};

/// Kept in three ways, as their names say.
const CHANNELS: [&str; 3] = ["sync", "async", "memory"];

/// A store on a disk that forgets, and everything that its tail was told.
pub(super) struct Rig {
    pub(super) store: Disk,
    told: Arc<Mutex<Vec<Message>>>,
}

/// A message as it was told or read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Message {
    pub(super) seq: Seq,
    pub(super) channel: String,
    pub(super) payload: String,
}

pub(super) fn settings(messages: Option<u64>) -> StoreSettings {
    let pattern = |text: &str| text.parse().unwrap();
    StoreSettings {
        memory: 4000,
        encodings: 0,
        channels: 10,
        producers: 10,
        channel_idle: Duration::from_secs(1 << 30),
        trim_every: Duration::from_secs(1),
        retention: vec![(pattern("**"), Retention { bytes: u64::MAX, messages, age: None })],
        durability: vec![
            (pattern("async"), Durability::Async { flush: Duration::from_secs(3600) }),
            (pattern("memory"), Durability::Memory),
        ],
    }
}

impl Rig {
    pub(super) fn open(disk: Forgetful, messages: Option<u64>) -> Result<Self, OpenError> {
        Self::open_with(disk, settings(messages))
    }

    pub(super) fn open_with_age(disk: Forgetful, age: Duration) -> Result<Self, OpenError> {
        let mut settings = settings(None);
        settings.retention[0].1.age = Some(age);
        Self::open_with(disk, settings)
    }

    fn open_with(disk: Forgetful, settings: StoreSettings) -> Result<Self, OpenError> {
        let volume = Arc::new(disk.clone());
        let own = DiskSettings { segment: 4096, limit: 0, retry: Duration::from_millis(1) };
        let store = Disk::open_volume(volume, "DIR".as_ref(), None, own, settings, 1)?;
        let told = Arc::<Mutex<Vec<Message>>>::default();
        let tail = Arc::clone(&told);
        store.follow(Box::new(move |chunk| tail.lock().unwrap().extend(messages_of(chunk))));
        Ok(Self { store, told })
    }

    pub(super) async fn append(
        &self,
        channel: &str,
        texts: &[String],
        stamp: Option<Stamp>,
    ) -> Result<Receipt, Refused> {
        let mut builder = ChunkBuilder::default();
        texts.iter().for_each(|text| builder.push(Kind::Text, text.as_bytes(), 0));
        let (channel, messages) = (channel.parse().unwrap(), builder.take().unwrap());
        self.store.append(Batch { channel, messages, time: 1, stamp }).await
    }

    /// Appends a message at this time; its seq.
    pub(super) async fn append_at(&self, channel: &str, time: u64) -> Seq {
        let (channel, messages) = (channel.parse().unwrap(), Messages::one(Kind::Text, b"at some time"));
        self.store.append(Batch { channel, messages, time, stamp: None }).await.unwrap().first
    }

    /// The times of all chunks that are kept.
    pub(super) async fn times(&self) -> Vec<u64> {
        let everything = ["**".parse().unwrap()].into_iter().collect();
        let (mut times, mut at) = (Vec::new(), Seq::ZERO);
        while at < self.store.head() {
            let page = self.store.read(&everything, at, u64::MAX).await.unwrap();
            times.extend(page.chunks.iter().map(|chunk| chunk.time()));
            at = page.through;
        }
        times
    }

    /// Everything that is kept of some channels after a position, and the holes on the way.
    pub(super) async fn read(&self, patterns: &str, after: Seq) -> (Vec<Message>, Vec<Hole>) {
        let selection = patterns.split(',').map(|pattern| pattern.parse().unwrap()).collect();
        let (mut messages, mut holes, mut at) = (Vec::new(), Vec::new(), after);
        loop {
            let page = self.store.read(&selection, at, 700).await.unwrap();
            holes.extend(page.holes);
            messages.extend(page.chunks.iter().flat_map(messages_of).filter(|message| message.seq > at));
            if page.through == at || page.through >= self.store.head() {
                return (messages, holes);
            }
            at = page.through;
        }
    }

    pub(super) fn told(&self) -> Vec<Message> {
        self.told.lock().unwrap().clone()
    }
}

fn messages_of(chunk: &Arc<Chunk>) -> Vec<Message> {
    let frames = chunk.frames(Subprotocol::Raw, &Encodings::new(0));
    let message = |(index, frame): (usize, ws_frame::Frame<'_>)| Message {
        seq: Seq(chunk.first().0 + index as u64),
        channel: chunk.channel().to_string(),
        payload: String::from_utf8(frame.payload.to_vec()).unwrap(),
    };
    ws_frame::walk(&frames).enumerate().map(message).collect()
}

/// Everything that was promised over the runs of a store, and what it looks like in the end.
#[derive(Debug, Default)]
struct History {
    /// What was confirmed, by its payload.
    confirmed: BTreeMap<String, (String, Seq)>,
    told: BTreeSet<Message>,
    next: usize,
    /// What is stored last of the producer.
    pseq: u64,
}

impl History {
    /// Appends until so much is appended, or nothing is taken any more.
    async fn append(&mut self, rig: &Rig, appends: &[(usize, usize)]) {
        let claim = claim(rig).await;
        for (channel, count) in appends {
            let channel = CHANNELS[*channel];
            let texts: Vec<String> =
                (0..*count).map(|index| format!("{channel}-{}", self.next + index)).collect();
            self.next += count;
            let stamp = claim.filter(|_| channel == "sync").map(|claim| Stamp {
                claim,
                after: self.pseq,
                last: self.pseq + *count as u64,
            });
            let Ok(receipt) = rig.append(channel, &texts, stamp).await else { continue };
            self.pseq = stamp.map_or(self.pseq, |stamp| stamp.last);
            for (index, text) in texts.into_iter().enumerate() {
                let seq = Seq(receipt.first.0 + index as u64);
                self.confirmed.insert(text, (channel.to_owned(), seq));
            }
        }
        for message in rig.told() {
            let other = self.told.iter().find(|other| other.seq == message.seq && **other != message);
            assert_eq!(other, None, "a seq is never reused: {message:?}");
            self.told.insert(message);
        }
    }

    /// What is there now is what was promised.
    async fn check(&mut self, rig: &Rig, limit: Option<u64>) {
        let mut all = Vec::new();
        for channel in CHANNELS {
            let (kept, holes) = rig.read(channel, Seq::ZERO).await;
            let is_covered = |seq: Seq, crash: bool| {
                let fits = |hole: &&Hole| hole.through >= seq && (hole.reason == GapReason::Crash) >= crash;
                let gone = holes.iter().filter(fits).count() > 0;
                gone && !kept.iter().any(|message| message.seq == seq)
            };
            let newest = kept.len().min(limit.map_or(usize::MAX, |limit| limit as usize));
            assert!(kept.is_sorted_by_key(|message| message.seq));
            for (payload, (_, seq)) in self.confirmed.iter().filter(|(_, (other, _))| other == channel) {
                let there = kept.iter().any(|message| (message.seq, &message.payload) == (*seq, payload));
                let lost = channel != "sync" && is_covered(*seq, true);
                let gone = limit.is_some() && is_covered(*seq, false) && newest > 0;
                assert!(there || lost || gone, "{payload} at {seq} is missing of {channel}: {holes:?}");
            }
            for told in self.told.iter().filter(|told| told.channel == channel) {
                let there = kept.contains(told);
                assert!(
                    there || is_covered(told.seq, channel != "sync" && limit.is_none()),
                    "{told:?}: {holes:?}"
                );
            }
            let payloads: BTreeSet<&String> = kept.iter().map(|message| &message.payload).collect();
            assert_eq!(payloads.len(), kept.len(), "nothing is stored twice");
            all.extend(kept);
        }
        all.sort();
        let (together, _) = rig.read("**", Seq::ZERO).await;
        assert_eq!(together, all, "several channels are read as each of them");
        let claim = claim(rig).await.unwrap();
        let stored = rig.store.open(claim, &"sync".parse().unwrap(), self.pseq + 1).await.unwrap().unwrap();
        assert!(stored.pseq >= self.pseq, "what a producer had confirmed is known");
        self.pseq = stored.pseq;
    }
}

async fn claim(rig: &Rig) -> Option<Claim> {
    let claim = rig.store.claim(ProducerId([7; 16]), 1, Duration::from_secs(9), 1).await;
    claim.ok().and_then(Result::ok)
}

fn appends() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((0..CHANNELS.len(), 1usize..30), 1..40)
}

/// What is appended in a run of a store, when it dies, and whether the power goes too.
type Run = (Vec<(usize, usize)>, usize, bool);

fn runs() -> impl Strategy<Value = Vec<Run>> {
    prop::collection::vec((appends(), 0usize..120, any::<bool>()), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn what_was_promised_is_there_after_every_crash(
        seed: u64,
        limit in prop::option::of(20u64..60),
        runs in runs(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut disk = Forgetful::new(seed);
            let mut history = History::default();
            for (appends, dies_after, power) in runs {
                let rig = Rig::open(disk.clone(), limit).unwrap();
                let epoch = rig.store.epoch();
                history.check(&rig, limit).await;
                disk.set_faults(Faults { dies_after: Some(dies_after), ..Faults::default() });
                history.append(&rig, &appends).await;
                drop(rig);
                disk = if power { disk.after_power_loss() } else { disk.after_kill() };
                let rig = Rig::open(disk.clone(), limit).unwrap();
                assert_eq!(rig.store.epoch(), epoch);
                history.check(&rig, limit).await;
                rig.store.close().await.unwrap();
                drop(rig);
                let found = Examination::of(&disk).unwrap();
                assert!(!found.has_losses(), "{:?}", found.findings);
            }
            let rig = Rig::open(disk, limit).unwrap();
            history.check(&rig, limit).await;
        });
    }
}
