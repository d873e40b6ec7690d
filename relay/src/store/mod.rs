//! Where messages are kept. What a store is ([`ChannelStore`]), what it keeps ([`chunk`]), and the engines.
//! A store knows no senders' sockets and no receivers, and reads no clock: times are given to it.

pub mod chunk;
#[cfg(test)]
pub(crate) mod contract;
pub mod disk;
pub mod memory;
mod producers;
pub mod selection;

use std::{
    fmt::Debug,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use chunk::{Chunk, Messages};
use selection::Selection;
use shared::{
    ChannelId, ChannelPattern, Epoch, ErrorCode, Seq,
    receiver::GapReason,
    sender::{Levels, ProducerId},
};
use tokio::sync::oneshot;

/// What bounds a store as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// Bytes of memory for the chunks of all channels, encodings included; beyond it the oldest chunk of all goes.
    pub memory: u64,
    /// Bytes of those for chunks in forms other than raw; beyond it the oldest encoding goes.
    pub encodings: u64,
    /// How many channels there may be.
    pub channels: usize,
    /// How many producers are remembered, those that are connected among them.
    pub producers: usize,
    /// A channel without messages for so long is retired.
    pub channel_idle: Duration,
    /// How often it is looked for what is too old.
    pub trim_every: Duration,
    /// What each channel keeps: the first rule whose pattern matches.
    pub retention: Vec<(ChannelPattern, Retention)>,
    /// How firmly an engine with a disk keeps each channel: the first rule whose pattern matches, else
    /// [`Durability::Sync`].
    pub durability: Vec<(ChannelPattern, Durability)>,
}

/// How firmly an engine with a disk keeps a channel's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// In memory only: they are gone when the relay ends.
    Memory,
    /// Settled once they are written; on the disk itself at most so long after.
    Async {
        /// How long they may be written and not be on the disk.
        flush: Duration,
    },
    /// Settled once they are on the disk itself.
    Sync,
}

/// What a channel keeps; whole chunks go, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Bytes of memory.
    pub bytes: u64,
    /// Messages.
    pub messages: Option<u64>,
    /// Age of a chunk's last message.
    pub age: Option<Duration>,
}

/// Messages that are to be appended to a channel as one chunk.
#[derive(Debug, Clone)]
pub struct Batch {
    /// To which channel; it is created if there is none.
    pub channel: ChannelId,
    /// The messages.
    pub messages: Messages,
    /// The time: microseconds since 1970, UTC. An engine never goes back in time.
    pub time: u64,
    /// Who published them, if that is known over reconnects; committed with the messages.
    pub stamp: Option<Stamp>,
}

/// Which messages of a producer a batch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// By what right.
    pub claim: Claim,
    /// The pseq that is stored last in the channel before this batch.
    pub after: u64,
    /// The pseq that is stored last with it.
    pub last: u64,
}

/// The right of one connection to publish as a producer: held until it is released, or a newer claim ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// As whom.
    pub producer: ProducerId,
    /// The producer's incarnation.
    pub epoch: u32,
    /// Which claim: a newer one of the same producer has a greater number, and no two are the same.
    pub number: u64,
}

/// What is stored of a producer in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its last pseq.
    pub pseq: u64,
    /// Where that is; 0 if nothing of it was stored here.
    pub seq: Seq,
    /// How many messages the producer lost on its side: it no longer holds what would come next.
    pub lost: u64,
}

/// Where a batch came to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The seq of its first message; the others follow without holes.
    pub first: Seq,
    /// The seq of its last message.
    pub last: Seq,
}

/// Why a claim, an opening or an append was not confirmed. It did not happen, and has changed nothing; only after
/// [`Unavailable`](Self::Unavailable) it may have happened all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A newer incarnation of the producer has claimed its place.
    #[error("a newer incarnation of this producer is connected")]
    Fenced,
    /// Another connection of the same incarnation has claimed its place, or the place was given up long ago.
    #[error("the same producer connected anew")]
    TakenOver,
    /// The pseq is not the next one.
    #[error("message {expected} is expected next")]
    Gap {
        /// The one that is.
        expected: u64,
    },
    /// There are as many channels as there may be.
    #[error("there are as many channels as the relay allows")]
    TooManyChannels,
    /// As many producers as may be remembered are connected.
    #[error("as many producers are connected as the relay allows")]
    TooManyProducers,
    /// The store did not answer. Whether it stored the messages is unknown: with a stamp the same can be sent again,
    /// and is stored once; without one it may then be stored twice.
    #[error("the store is not available; try again in {} ms", retry.as_millis())]
    Unavailable {
        /// When to try again.
        retry: Duration,
    },
}

/// The outcome of an append: known at once, or when the engine has committed it.
#[derive(Debug)]
pub enum Ticket {
    /// It is known.
    Settled(Result<Receipt, Refused>),
    /// It is on its way.
    Pending(oneshot::Receiver<Result<Receipt, Refused>>),
}

/// What there is of a selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// The oldest message that is kept; 0: none.
    pub first: Seq,
    /// The newest message that ever was; 0: none.
    pub head: Seq,
}

/// Messages of a channel that are no longer kept, or never came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// Of which channel.
    pub channel: ChannelId,
    /// Up to this seq they are gone.
    pub through: Seq,
    /// The next message that is kept, or would be: nothing of the channel lies between `through` and this.
    pub before: Seq,
    /// How many messages the channel had up to `through`, as the ordinals of its chunks count them.
    pub ordinal: u64,
    /// Why: [`Retention`](GapReason::Retention), or [`Crash`](GapReason::Crash) if there is a message among them of
    /// which nobody knows whether it was; then they can't be counted.
    pub reason: GapReason,
}

/// A part of what is kept of a selection, in the order of seqs.
#[derive(Debug, Default)]
pub struct Page {
    /// What is gone between the position that was asked for and the next message that is kept of its channel, even
    /// if it reaches beyond `through`. Behind messages that are kept there is none: a page ends before such a hole,
    /// and the next one has it.
    pub holes: Vec<Hole>,
    /// The chunks; the first may begin before the position.
    pub chunks: Vec<Arc<Chunk>>,
    /// Everything up to here is in the page or gone.
    pub through: Seq,
}

/// A text that says why a store could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the store can't be read: {0}")]
pub struct ReadError(pub io::Error);

/// The answer to something that may need the disk.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ReadError>> + Send + 'a>>;

/// Work of a store that may take a while.
pub type Done<'a, T = ()> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Is told each committed chunk, in the order of seqs over all channels, before its append is settled.
pub type Tail = Box<dyn Fn(&Arc<Chunk>) + Send + Sync>;

/// An engine: assigns seqs in one order over all channels, keeps what its retention says, knows producers.
///
/// Chunks may be committed in groups and later than they were appended, and may come from elsewhere: what is
/// committed is known by the tail alone.
///
/// A producer whose claim is held is never forgotten; one that was released is, when it was silent for as long as it
/// said, or when there are too many: then the one that was silent longest. An engine that opens with what it kept
/// takes every claim of before as released.
pub trait ChannelStore: Debug + Send + Sync + 'static {
    /// Which incarnation of the store this is.
    fn epoch(&self) -> Epoch;

    /// The levels that an append to that channel is settled at.
    fn levels(&self, channel: &ChannelId) -> Levels;

    /// Sets who is told of commits from now on: once, before the first append.
    fn follow(&self, tail: Tail);

    /// The last message that is committed, over all channels; 0: none. Never ahead of what the tail was told, but
    /// for what there was before it.
    fn head(&self) -> Seq;

    /// Gives a producer's place to the caller, who holds it until [`release`](Self::release); the producer is
    /// remembered for `keep` from then on, or from its last message. When it is answered, older claims have ended:
    /// no append under them is stored any more. After a [`ReadError`] or [`Refused::Unavailable`], or when the answer
    /// was dropped before it was there, they may have ended too, and the new one counts as released.
    fn claim(
        &self,
        producer: ProducerId,
        epoch: u32,
        keep: Duration,
        now: u64,
    ) -> Answer<'_, Result<Claim, Refused>>;

    /// Gives a claim's place back: its connection has ended. What is under way under it may still be stored. Nothing
    /// happens if a newer claim has ended it.
    fn release(&self, claim: Claim, now: u64);

    /// What is stored of the claim's producer in a channel. Waits for what is under way of that producer, so that
    /// the answer is final. A producer that is unknown there begins at `first_pseq`; so does one whose next message
    /// it no longer holds.
    fn open(&self, claim: Claim, channel: &ChannelId, first_pseq: u64)
    -> Answer<'_, Result<Stored, Refused>>;

    /// Appends a batch as one chunk. A stamp whose claim the store does not know is refused like one that ended.
    ///
    /// Appends of one caller that are under way together are stored in their order; when one of them is
    /// [`Unavailable`](Refused::Unavailable), those that were appended behind it before that was known are so too.
    fn append(&self, batch: Batch) -> Ticket;

    /// None where there is room for more appends; else what is done when there is. An append is taken all the same,
    /// so whoever reads what is to be appended asks before each read: what waits to be stored is bounded by that.
    fn room(&self) -> Option<Done<'static>>;

    /// What there is of a selection.
    fn bounds(&self, selection: &Selection) -> Bounds;

    /// What is kept after a position, at most about so many bytes. A page reaches beyond the position unless
    /// there is nothing, or 0 bytes are asked for: then it has the holes alone. It never reaches beyond what the
    /// tail was told.
    fn read(&self, selection: &Selection, after: Seq, bytes: u64) -> Answer<'_, Page>;

    /// The position before the first message that is at least this new.
    fn find_time(&self, selection: &Selection, time: u64) -> Answer<'_, Seq>;

    /// The position before the last so many messages that are kept.
    fn find_last(&self, selection: &Selection, count: u64) -> Answer<'_, Seq>;

    /// Lets go what is too old at this time: messages, channels, producers. One trim at a time.
    fn trim(&self, now: u64) -> Done<'_>;

    /// Ends the store: what was appended is settled, and is where its channel's durability says. What is appended
    /// later may be [`Unavailable`](Refused::Unavailable). Once; reading goes on.
    ///
    /// The outcome is an error if something that was settled could not be kept as firmly as it should.
    fn close(&self) -> Done<'_, io::Result<()>>;
}

impl Refused {
    /// Its code on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Fenced => ErrorCode::Fenced,
            Self::TakenOver => ErrorCode::TakenOver,
            Self::Gap { .. } => ErrorCode::Gap,
            Self::TooManyChannels | Self::TooManyProducers => ErrorCode::TooMany,
            Self::Unavailable { .. } => ErrorCode::StoreUnavailable,
        }
    }
}

impl Future for Ticket {
    type Output = Result<Receipt, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Settled(outcome) => Poll::Ready(*outcome),
            // An engine that ended without a word: whether it stored the batch is not known.
            Self::Pending(outcome) => Pin::new(outcome).poll(cx).map(|outcome| {
                outcome.unwrap_or(Err(Refused::Unavailable { retry: Duration::from_secs(1) }))
            }),
        }
    }
}
