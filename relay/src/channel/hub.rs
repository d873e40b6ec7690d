//! Where publishes and receivers meet: what the store commits goes to the views whose selection it is in.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use shared::{ChannelId, ChannelPattern, Position, Seq};

use super::{LagPolicy, view::View};
use crate::store::{
    Batch, ChannelStore, Retention, Stamp, Ticket,
    chunk::{Chunk, Encodings, Messages},
    selection::Selection,
};

/// The channels of a relay.
#[derive(Debug)]
pub struct Hub {
    store: Arc<dyn ChannelStore>,
    encodings: Encodings,
    rules: ChannelRules,
    views: Mutex<Views>,
    stopping: AtomicBool,
}

/// What holds for channels: the first rule of each list whose pattern matches.
#[derive(Debug, Clone, Default)]
pub struct ChannelRules {
    /// What is done with slow receivers; [`LagPolicy::Skip`] where nothing matches.
    pub lag: Vec<(ChannelPattern, LagPolicy)>,
    /// What is kept; senders are held back for receivers within half of it, in bytes and in messages.
    pub retention: Vec<(ChannelPattern, Retention)>,
}

#[derive(Debug, Default)]
struct Views {
    /// The last seq that was committed.
    head: Seq,
    /// Views of a single channel.
    exact: HashMap<ChannelId, Attached>,
    /// All others.
    patterns: HashMap<Selection, Attached>,
    /// Which of `patterns` match a channel; forgotten when they change.
    matched: HashMap<ChannelId, Arc<[Arc<View>]>>,
}

#[derive(Debug)]
struct Attached {
    view: Arc<View>,
    receivers: usize,
}

/// Channels whose matches are remembered at most: more are looked up anew.
const MATCHED: usize = 100_000;

impl Hub {
    /// Brings the commits of a store to receivers.
    pub fn new(store: Arc<dyn ChannelStore>, encodings: u64, rules: ChannelRules) -> Arc<Self> {
        let hub = Arc::new(Self {
            store,
            encodings: Encodings::new(encodings),
            rules,
            views: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let follower = Arc::downgrade(&hub);
        hub.store.follow(Box::new(move |chunk| {
            if let Some(hub) = follower.upgrade() {
                hub.committed(chunk);
            }
        }));
        // Asked once the hub follows: what is committed after this it is told.
        let head = hub.store.head();
        let mut views = hub.views();
        views.head = views.head.max(head);
        drop(views);
        hub
    }

    /// The store behind it.
    pub fn store(&self) -> &Arc<dyn ChannelStore> {
        &self.store
    }

    /// What bounds the memory of encodings.
    pub fn encodings(&self) -> &Encodings {
        &self.encodings
    }

    /// The position of everything that is committed by now.
    pub fn position(&self) -> Position {
        Position { epoch: self.store.epoch(), seq: self.views().head }
    }

    /// Appends messages to a channel, at this time.
    pub fn publish(&self, channel: ChannelId, messages: Messages, stamp: Option<Stamp>) -> Ticket {
        self.store.append(Batch { channel, messages, time: now(), stamp })
    }

    /// How many receivers would get a message of that channel.
    pub fn receivers(&self, channel: &ChannelId) -> usize {
        let views = self.views();
        let exact = views.exact.get(channel).map_or(0, |attached| attached.receivers);
        let patterns = views.patterns.iter().filter(|(selection, _)| selection.matches(channel));
        exact + patterns.map(|(_, attached)| attached.receivers).sum::<usize>()
    }

    /// What is done with slow receivers of a channel.
    pub fn lag_policy(&self, channel: &ChannelId) -> LagPolicy {
        first_match(&self.rules.lag, |pattern| pattern.matches(channel)).unwrap_or(LagPolicy::Skip)
    }

    /// What is done with slow receivers of a selection: as for its channel if it is a single one; for a single pattern
    /// what the rule of the same pattern says; else [`LagPolicy::Skip`], since several rules may hold in it.
    pub fn lag_policy_of(&self, selection: &Selection) -> LagPolicy {
        if let Some(channel) = selection.as_channel() {
            return self.lag_policy(&channel);
        }
        let mut patterns = selection.patterns();
        match (patterns.next(), patterns.next()) {
            (Some(only), None) => first_match(&self.rules.lag, |pattern| pattern == only),
            _ => None,
        }
        .unwrap_or(LagPolicy::Skip)
    }

    /// What a channel keeps.
    pub fn retention(&self, channel: &ChannelId) -> Retention {
        let everything = Retention { bytes: u64::MAX, messages: None, age: None };
        first_match(&self.rules.retention, |pattern| pattern.matches(channel)).unwrap_or(everything)
    }

    /// Tells every receiver to end once it has what there is.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let views = self.views();
        views.exact.values().chain(views.patterns.values()).for_each(|attached| attached.view.wake());
    }

    /// Whether receivers shall end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Lets go what is too old by now.
    pub async fn trim(&self) {
        self.store.trim(now()).await;
        let views = self.views();
        views.exact.values().chain(views.patterns.values()).for_each(|attached| attached.view.forget_gone());
    }

    /// One more receiver of a selection; its view begins now if it is the first.
    pub(super) fn attach(&self, selection: &Selection) -> Arc<View> {
        let mut views = self.views();
        let head = views.head;
        let attached = match selection.as_channel() {
            Some(channel) => views.exact.entry(channel).or_insert_with(|| Attached::new(selection, head)),
            None => {
                if !views.patterns.contains_key(selection) {
                    views.matched.clear();
                }
                views.patterns.entry(selection.clone()).or_insert_with(|| Attached::new(selection, head))
            }
        };
        attached.receivers += 1;
        Arc::clone(&attached.view)
    }

    /// One receiver less; the view ends with the last.
    pub(super) fn detach(&self, view: &View) {
        let mut views = self.views();
        let selection = view.selection();
        let channel = selection.as_channel();
        let attached = match &channel {
            Some(channel) => views.exact.get_mut(channel),
            None => views.patterns.get_mut(selection),
        };
        let Some(attached) = attached else { return };
        attached.receivers -= 1;
        if attached.receivers == 0 {
            match &channel {
                Some(channel) => drop(views.exact.remove(channel)),
                None => {
                    views.patterns.remove(selection);
                    views.matched.clear();
                }
            }
        }
    }

    /// The views that hold a channel and for which `which` says so.
    pub(super) fn views_of(&self, channel: &ChannelId, which: impl Fn(&View) -> bool) -> Vec<Arc<View>> {
        let mut found = Vec::new();
        self.views().each(channel, |view| {
            if which(view) {
                found.push(Arc::clone(view));
            }
        });
        found
    }

    fn committed(&self, chunk: &Arc<Chunk>) {
        let mut views = self.views();
        views.head = chunk.last();
        views.each(chunk.channel(), |view| view.push(chunk));
    }

    fn views(&self) -> MutexGuard<'_, Views> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attached {
    fn new(selection: &Selection, head: Seq) -> Self {
        Self { view: Arc::new(View::new(selection.clone(), head)), receivers: 0 }
    }
}

impl Views {
    fn each(&mut self, channel: &ChannelId, mut act: impl FnMut(&Arc<View>)) {
        if let Some(attached) = self.exact.get(channel) {
            act(&attached.view);
        }
        if self.patterns.is_empty() {
            return;
        }
        if !self.matched.contains_key(channel) {
            if self.matched.len() >= MATCHED {
                self.matched.clear();
            }
            let patterns = self.patterns.iter().filter(|(selection, _)| selection.matches(channel));
            let matched = patterns.map(|(_, attached)| Arc::clone(&attached.view)).collect();
            self.matched.insert(channel.clone(), matched);
        }
        self.matched[channel].iter().for_each(act);
    }
}

fn first_match<T: Copy>(
    rules: &[(ChannelPattern, T)],
    matches: impl Fn(&ChannelPattern) -> bool,
) -> Option<T> {
    rules.iter().find(|(pattern, _)| matches(pattern)).map(|(_, rule)| *rule)
}

/// Microseconds since 1970, UTC.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
