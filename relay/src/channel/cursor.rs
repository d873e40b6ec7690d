//! Where one receiver is: a position in the store and a place in a view. No queue: what it has not taken stays
//! where it is, and what is no longer there is named.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use shared::{
    ChannelId, Position, Seq,
    receiver::{GapReason, Since, Subprotocol},
};

use super::{
    LagPolicy,
    hub::{Hub, now},
    progress::Progress,
    ring::Found,
    view::View,
};
use crate::store::{Page, ReadError, chunk::Chunk, selection::Selection};

/// Bytes read from the store at a time.
const PAGE: u64 = 256 * 1024;

/// A receiver's place in a selection.
#[derive(Debug)]
pub struct Cursor {
    hub: Arc<Hub>,
    view: Arc<View>,
    progress: Arc<Progress>,
    /// How much of the view's news it has seen.
    news: u64,
    form: Subprotocol,
    /// Everything up to here was taken, or told to be missing.
    after: Seq,
    /// Read from the store, not taken yet.
    page: VecDeque<Arc<Chunk>>,
    /// Where the position is once the page is taken.
    page_through: Seq,
    /// Channels of which it is known that everything up to a seq beyond `after` is missing.
    told: HashMap<ChannelId, Seq>,
    /// How many messages the channel had up to `after`, if it is a single channel and that is known.
    ordinal: Option<u64>,
    /// It ends here: for a part of the past beside another cursor.
    until: Option<Seq>,
    /// Senders are held for it.
    blocks: bool,
}

/// The frames of a chunk that a cursor can take.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Whole frames.
    pub frames: Bytes,
    last: Seq,
    ordinal: u64,
}

/// What comes next at a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Frames, shown.
    Frames,
    /// There is nothing new.
    Head,
    /// What comes next has to be fetched from the store.
    Fetch,
}

/// Exactly these messages are missing: those after `after` and before `before`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// In which channel.
    pub channel: ChannelId,
    /// The last message that was taken, or the position it began at.
    pub after: Seq,
    /// The next message that there is.
    pub before: Seq,
    /// How many they are, if that is known.
    pub count: Option<u64>,
    /// Why: what was kept when the cursor began and went since is `lagged`.
    pub reason: GapReason,
}

/// How a cursor began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// Messages after this follow.
    pub from: Seq,
    /// `since` was a position of this epoch, and everything after it follows.
    pub recovered: bool,
    /// Why not, if `since` was a position.
    pub reason: Option<GapReason>,
    /// What is missing behind it, if `since` was a position or a seq: what the store no longer has. What
    /// [`Cursor::fetch`] gives went since then.
    pub missing: Vec<Missing>,
}

impl Cursor {
    /// Begins in a selection where a receiver wants to: not before `since`, and with the last so many at most.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn begin(
        hub: &Arc<Hub>,
        selection: &Selection,
        form: Subprotocol,
        since: Since,
        last: Option<u64>,
    ) -> Result<(Self, Beginning), ReadError> {
        let view = hub.attach(selection);
        let (progress, news) = (view.join(credit(hub, selection)), view.news());
        let mut cursor = Self {
            hub: Arc::clone(hub),
            view,
            progress,
            news,
            form,
            after: Seq::ZERO,
            page: VecDeque::new(),
            page_through: Seq::ZERO,
            told: HashMap::new(),
            ordinal: None,
            until: None,
            blocks: matches!(hub.lag_policy_of(selection), LagPolicy::Block(_)),
        };
        let beginning = cursor.seek(selection, since, last).await?;
        Ok((cursor, beginning))
    }

    /// Goes on at the same position in another selection. A cursor that has taken everything there is does so from
    /// now on: nothing older comes of channels that were not selected before.
    pub fn reselect(&mut self, selection: &Selection) {
        self.catch_up();
        let view = self.hub.attach(selection);
        let (progress, news) = (view.join(credit(&self.hub, selection)), view.news());
        self.leave();
        (self.view, self.progress, self.news) = (view, progress, news);
        self.page.clear();
        self.ordinal = None;
    }

    /// Lets it end at a position that is committed.
    pub fn end_at(&mut self, until: Seq) {
        self.until = Some(until);
    }

    /// Goes on behind a cursor of a part of its past, at the end of that: what was told there to be missing beyond
    /// the end is not told again.
    pub fn go_on_from(&mut self, past: &Self) {
        for (channel, through) in &past.told {
            let told = self.told.entry(channel.clone()).or_default();
            *told = (*told).max(*through);
        }
        self.pass(Seq::ZERO);
    }

    /// Whether it has come to its end.
    pub fn is_at_end(&self) -> bool {
        self.until.is_some_and(|until| self.after >= until)
    }

    /// What it is a cursor of.
    pub fn selection(&self) -> &Selection {
        self.view.selection()
    }

    /// The last message that was taken.
    pub fn position(&self) -> Position {
        Position { epoch: self.hub.store().epoch(), seq: self.after }
    }

    /// Shows what can be taken next, whole chunks: at most `limit`, and so many that they are about `bytes`.
    pub fn peek(&mut self, limit: usize, bytes: u64, out: &mut Vec<Ready>) -> Next {
        if self.is_at_end() {
            return Next::Head;
        }
        let mut chunks = Vec::new();
        if self.page.is_empty() {
            match self.collect(limit, bytes, &mut chunks) {
                Found::Chunks(_) => {}
                Found::Head => {
                    if self.until.is_some() {
                        self.catch_up();
                    }
                    return Next::Head;
                }
                Found::Older => return Next::Fetch,
            }
        } else {
            let mut cost = 0;
            let within = |chunk: &&Arc<Chunk>| {
                let begins_within = cost == 0 || cost < bytes;
                cost += chunk.cost();
                begins_within
            };
            chunks.extend(self.page.iter().take(limit).take_while(within).cloned());
        }
        let before = out.len();
        let is_within = |chunk: &&Arc<Chunk>| self.until.is_none_or(|until| chunk.first() <= until);
        out.extend(chunks.iter().take_while(is_within).map(|chunk| self.ready(chunk)));
        if out.len() > before {
            return Next::Frames;
        }
        self.pass(self.until.unwrap_or(Seq::ZERO));
        Next::Head
    }

    /// Takes what [`peek`](Self::peek) showed first.
    pub fn take(&mut self, ready: &Ready) {
        self.pass(ready.last);
        // Only a single channel's messages can be counted without a number for each channel.
        self.ordinal = self.view.is_single().then_some(ready.ordinal);
        if self.page.pop_front().is_some() && self.page.is_empty() {
            self.pass(self.page_through);
        }
    }

    /// Reads on in the store; gives what is missing there before what can be taken then.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn fetch(&mut self) -> Result<Vec<Missing>, ReadError> {
        let store = Arc::clone(self.hub.store());
        let page = store.read(self.view.selection(), self.after, PAGE).await?;
        let mut missing = Vec::new();
        for hole in page.holes {
            let known = self.told.get(&hole.channel).copied().unwrap_or(self.after).max(self.after);
            if hole.through > known {
                let counted = self.ordinal.filter(|_| hole.reason == GapReason::Retention);
                let count = counted.map(|ordinal| hole.ordinal.saturating_sub(ordinal));
                self.told.insert(hole.channel.clone(), hole.through);
                self.ordinal = self.view.is_single().then_some(hole.ordinal);
                let reason = match hole.reason {
                    GapReason::Retention => GapReason::Lagged,
                    other => other,
                };
                let (channel, before) = (hole.channel, hole.before);
                missing.push(Missing { channel, after: known, before, count, reason });
            }
        }
        self.page = page.chunks.into();
        self.page_through = page.through;
        if self.page.is_empty() {
            self.pass(self.page_through);
        }
        Ok(missing)
    }

    /// Waits until there is something new.
    pub async fn changed(&mut self) {
        poll_fn(|cx| self.poll_changed(cx)).await;
    }

    /// Is ready when there is something new.
    pub fn poll_changed(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.view.news() == self.news {
            self.view.wait(&self.progress, cx.waker());
        }
        let news = self.view.news();
        if std::mem::replace(&mut self.news, news) == news { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Whether senders were held for this receiver for as long as its channel allows.
    pub fn is_overdrawn(&self) -> bool {
        self.blocks && !self.progress.has_credit()
    }

    async fn seek(
        &mut self,
        selection: &Selection,
        since: Since,
        last: Option<u64>,
    ) -> Result<Beginning, ReadError> {
        let store = Arc::clone(self.hub.store());
        let head = self.hub.position().seq;
        let bounds = store.bounds(selection);
        let all = Seq(bounds.first.0.saturating_sub(1));
        let other_epoch = matches!(since, Since::Position(position) if position.epoch != store.epoch());
        let wanted = match since {
            Since::Latest if last.is_some() => all,
            Since::Latest => head,
            Since::Earliest => all,
            Since::Position(_) if other_epoch => all,
            Since::Position(position) => position.seq.min(head),
            Since::Seq(seq) => seq.min(head),
            Since::Ago(ago) => {
                let ago = u64::try_from(ago.as_micros()).unwrap_or(u64::MAX);
                store.find_time(selection, now().saturating_sub(ago)).await?
            }
            Since::Time(time) => store.find_time(selection, time).await?,
        };
        let limited = match last {
            Some(count) => wanted.max(store.find_last(selection, count).await?),
            None => wanted,
        };
        self.after = limited;
        let resumes =
            matches!(since, Since::Position(_) | Since::Seq(_)) && !other_epoch && limited == wanted;
        // With the holes comes the first chunk, which is then safe: what is said to follow does follow.
        let Page { holes, chunks, through } = store.read(selection, limited, u64::from(resumes)).await?;
        let recovered =
            matches!(since, Since::Position(position) if position.seq <= head) && resumes && holes.is_empty();
        if recovered && !chunks.is_empty() {
            (self.page, self.page_through) = (chunks.into(), through);
        }
        self.told = holes.iter().map(|hole| (hole.channel.clone(), hole.through)).collect();
        let lost = holes.first().map_or(GapReason::Retention, |hole| hole.reason);
        // What was asked for by name and is gone is a loss; what is merely older than what there is is none.
        let missing = holes.into_iter().filter(|_| resumes).map(|hole| Missing {
            channel: hole.channel,
            after: limited,
            before: hole.before,
            count: None,
            reason: hole.reason,
        });
        let missing = missing.collect();
        let reason = match since {
            Since::Position(_) if other_epoch => Some(GapReason::Epoch),
            Since::Position(_) if !recovered => Some(lost),
            _ => None,
        };
        Ok(Beginning { from: limited, recovered, reason, missing })
    }

    fn collect(&mut self, limit: usize, bytes: u64, chunks: &mut Vec<Arc<Chunk>>) -> Found {
        loop {
            let found = self.view.collect(self.after, (limit, bytes), &self.progress, chunks);
            let Some(last) = chunks.last().map(|chunk| chunk.last()) else { return found };
            // What another cursor is about to take is in the view still, though it was told here to be missing.
            chunks.retain(|chunk| self.told.get(chunk.channel()).is_none_or(|told| chunk.first() > *told));
            if !chunks.is_empty() {
                return found;
            }
            self.pass(last);
            if self.is_at_end() {
                return Found::Head;
            }
        }
    }

    /// Moves on to the head if nothing of the selection lies before it.
    fn catch_up(&mut self) {
        // The head is read first: the view was told of everything up to it.
        let head = self.hub.position().seq;
        if self.page.is_empty() && self.view.has_nothing_after(self.after) {
            self.pass(head);
        }
    }

    fn ready(&self, chunk: &Arc<Chunk>) -> Ready {
        let last = self.until.map_or_else(|| chunk.last(), |until| until.min(chunk.last()));
        let frames = if chunk.first() > self.after && last == chunk.last() {
            chunk.frames(self.form, self.hub.encodings())
        } else {
            chunk.frames_between(self.after, last, self.form, self.hub.encodings())
        };
        Ready { frames, last, ordinal: chunk.ordinal() + (last.0 - chunk.first().0) + 1 }
    }

    fn leave(&self) {
        self.view.leave(&self.progress);
        self.hub.detach(&self.view);
    }

    fn pass(&mut self, through: Seq) {
        self.after = self.after.max(self.until.map_or(through, |until| until.min(through)));
        if !self.told.is_empty() {
            self.told.retain(|_, told| *told > self.after);
        }
    }
}

fn credit(hub: &Hub, selection: &Selection) -> Duration {
    match hub.lag_policy_of(selection) {
        LagPolicy::Block(limit) => limit,
        LagPolicy::Skip | LagPolicy::Close => Duration::ZERO,
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.leave();
    }
}
