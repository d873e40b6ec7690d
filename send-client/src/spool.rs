//! `--spool DIR`: what is given to send is kept on disk until the relay has confirmed it, over restarts of this
//! program and of the relay.
//!
//! # Layout
//! - `group`: what is written at once, with its checksum; pure. `log`: groups in segment files. `identity`: who the
//!   sender is, over its restarts. `files`: the few things that are done to a directory.
//! - `keeper`: the thread that does them. Here is what the rest of the program sees: numbering, what waits for the
//!   disk, and the way back into the outbox.
//!
//! # The way of a message
//! It gets its number and waits in the group; the group is appended and synced, and from then on its messages count
//! as taken; they are read back into the [`Outbox`] as that has room, and sent. So nothing is ever sent that a crash
//! could make forgotten: its number would be given again, and the relay would take another message for a copy.

mod error;
mod files;
mod group;
mod identity;
mod keeper;
mod log;

use std::{
    fs::{File, TryLockError},
    mem,
    path::{Path, PathBuf},
    time::Duration,
};

use shared::{
    ChannelId,
    codec::encode_sender,
    sender::{Alias, ProducerId, Publish, SenderFrame},
};
use tokio::time::{Instant, timeout};

pub use self::error::SpoolError;
use self::{
    files::Directory,
    identity::Identity,
    keeper::{Keeper, Order, Report},
    log::{Log, encode_open, frames},
};
use crate::outbox::{Message, Outbox};

/// The largest segment. What is confirmed is freed by segments.
const SEGMENT: u64 = 8 * 1024 * 1024;

/// Segments that make up the limit, at least.
const SEGMENTS: u64 = 8;

/// The least bytes that a spool may be limited to.
pub const MIN_LIMIT: u64 = 128 * 1024;

/// Bytes that wait for the disk while it is busy; beyond, nothing is taken.
const GROUP: usize = 1024 * 1024;

/// How often the disk is told what is confirmed, while there is room.
const CONFIRM_EVERY: Duration = Duration::from_millis(100);

/// How long the end waits for the disk.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// Messages on disk, and those on their way there.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    identity: Identity,
    limit: u64,
    group_limit: usize,
    numbers: Vec<Number>,
    /// Channels that the log knows, or will once the group is written.
    declared: Marks,
    /// Frames that wait for the disk, and how many messages they are.
    group: Vec<u8>,
    waiting: u64,
    /// How many messages are being written.
    writing: Option<u64>,
    reading: Reading,
    confirming: Confirming,
    /// Bytes on disk.
    size: u64,
    keeper: Keeper,
    _lock: File,
}

/// The numbers of a channel's messages.
#[derive(Debug)]
struct Number {
    channel: ChannelId,
    /// What was known to be confirmed at the start.
    settled: u64,
    next: Marks,
}

/// How far something is: given out, being written, on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marks {
    given: u64,
    writing: u64,
    kept: u64,
}

/// Whether there is more on disk that the outbox has not got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Done,
    /// There may be.
    More,
    /// It was asked for; and whether more was kept since.
    Asked {
        more: bool,
    },
}

/// What the disk was told to be confirmed.
#[derive(Debug, Clone, Copy)]
struct Confirming {
    /// How many messages in all.
    told: u64,
    at: Instant,
    busy: bool,
}

/// What the disk has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// What was given is kept, or the outbox has got more.
    Progress,
    /// So many messages could not be kept, for this reason; nothing of them is.
    Failed(u64, String),
    /// What is kept can't be read.
    Unreadable(String),
}

impl Spool {
    /// Opens the spool of a directory, or makes one there, and locks it; for at most about `limit` bytes on disk.
    /// `fresh` is the sender's id if it is new. Blocks while it reads what is there.
    ///
    /// # Errors
    /// It is in use, damaged, or nothing can be written there.
    pub fn open(path: &Path, limit: u64, fresh: [u8; 16]) -> Result<Self, SpoolError> {
        let mut directory = Directory::open(path)?;
        // Before anything is created there: it may be something else's.
        identity::read(&directory, fresh)?;
        let lock = directory.lock_file(identity::LOCK)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => SpoolError::InUse,
            TryLockError::Error(error) => error.into(),
        })?;
        let before = identity::read(&directory, fresh)?;
        let identity = identity::begin(&mut directory, before)?;
        let segment = (limit / SEGMENTS).min(SEGMENT);
        let log = Log::open(directory, segment)?;
        let numbers = log.lanes().iter().map(|lane| Number {
            channel: lane.channel.clone(),
            settled: lane.settled,
            next: Marks::all(lane.next),
        });
        Ok(Self {
            path: path.into(),
            identity,
            limit,
            group_limit: GROUP.min(segment as usize),
            declared: Marks::all(log.lanes().len() as u64),
            numbers: numbers.collect(),
            group: Vec::new(),
            waiting: 0,
            writing: None,
            reading: Reading::More,
            confirming: Confirming { told: 0, at: Instant::now(), busy: false },
            size: log.size(),
            keeper: Keeper::start(log)?,
            _lock: lock,
        })
    }
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who sends, and in which of its starts.
    pub fn producer(&self) -> (ProducerId, u32) {
        (self.identity.id, self.identity.epoch)
    }

    /// Bytes on disk.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that it may have on disk.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Tells an outbox that has nothing yet which channels there are, and how far.
    pub fn restore(&self, outbox: &mut Outbox) {
        for number in &self.numbers {
            outbox.restore(&number.channel, number.settled, number.next.kept - 1);
        }
    }

    /// Whether more may be taken in.
    pub fn has_room(&self) -> bool {
        self.group.len() < self.group_limit && self.size + (self.group.len() as u64) < self.limit
    }

    /// Takes a message in, under an alias of the outbox. It is kept once [`is_kept`](Self::is_kept).
    pub fn push(&mut self, outbox: &Outbox, alias: Alias, message: Message<'_>) {
        let index = usize::from(alias.0);
        while self.numbers.len() <= index {
            let Some(channel) = outbox.channel(Alias(self.numbers.len() as u16)) else { return };
            self.numbers.push(Number { channel: channel.clone(), settled: 0, next: Marks::all(1) });
        }
        while self.declared.given <= index as u64 {
            let number = &self.numbers[self.declared.given as usize];
            encode_open(
                Alias(self.declared.given as u16),
                number.next.given,
                &number.channel,
                &mut self.group,
            );
            self.declared.given += 1;
        }
        let next = &mut self.numbers[index].next.given;
        let Message { kind, source_time, payload } = message;
        let publish = Publish { alias, pseq: *next, kind, source_time, payload };
        encode_sender(&SenderFrame::Publish(publish), &mut self.group);
        *next += 1;
        self.waiting += 1;
    }

    /// Whether everything that was taken in is on disk.
    pub fn is_kept(&self) -> bool {
        self.group.is_empty() && self.writing.is_none()
    }

    /// Whether everything that was taken in has come to the outbox.
    pub fn is_handed_over(&self) -> bool {
        self.is_kept() && self.reading == Reading::Done
    }

    /// Messages that the outbox has not got.
    pub fn behind(&self, outbox: &Outbox) -> u64 {
        let next = |index| outbox.next_pseq(Alias(index as u16));
        let behind =
            self.numbers.iter().enumerate().map(|(index, n)| n.next.given.saturating_sub(next(index)));
        behind.sum()
    }

    /// Has the disk do what is to be done.
    pub fn order(&mut self, outbox: &Outbox) {
        self.write();
        if self.reading == Reading::More && outbox.has_room() && self.keeper.order(Order::Read) {
            self.reading = Reading::Asked { more: false };
        }
        let settled = outbox.confirmed() + outbox.refused();
        let due =
            self.confirming.at.elapsed() >= CONFIRM_EVERY || outbox.unsettled() == 0 || !self.has_room();
        if settled > self.confirming.told && due && !self.confirming.busy {
            self.confirm(outbox, settled);
        }
    }

    /// What the disk has done; to be given to [`take`](Self::take). May be dropped and called again.
    pub async fn report(&mut self) -> Done {
        Done(self.keeper.report().await)
    }

    /// Takes note of what the disk has done, and gives the outbox what was read.
    pub fn take(&mut self, done: Done, outbox: &mut Outbox) -> Kept {
        match done.0 {
            Some(Report::Appended(Ok(size))) => {
                (self.size, self.writing) = (size, None);
                self.each_mark(|marks| marks.kept = marks.writing);
                self.reading = match self.reading {
                    Reading::Done | Reading::More => Reading::More,
                    Reading::Asked { .. } => Reading::Asked { more: true },
                };
            }
            Some(Report::Appended(Err(error))) => {
                let lost = self.writing.take().unwrap_or_default() + mem::take(&mut self.waiting);
                self.group.clear();
                self.each_mark(|marks| *marks = Marks::all(marks.kept));
                return Kept::Failed(lost, crate::failure::reason(&error));
            }
            Some(Report::Read(Ok(Some(bytes)))) => {
                self.reading = Reading::More;
                if let Err(why) = hand_over(&bytes, outbox) {
                    return Kept::Unreadable(why);
                }
            }
            Some(Report::Read(Ok(None))) => {
                let more = self.reading == Reading::Asked { more: true };
                self.reading = if more { Reading::More } else { Reading::Done };
            }
            Some(Report::Read(Err(error))) => return Kept::Unreadable(crate::failure::reason(&error)),
            Some(Report::Confirmed(size)) => (self.size, self.confirming.busy) = (size, false),
            Some(Report::Closed) => {}
            None => return Kept::Unreadable("its thread has failed".into()),
        }
        Kept::Progress
    }

    /// Keeps what was taken in, and leaves. What could not be kept, if anything.
    pub async fn close(mut self, outbox: &mut Outbox) -> Option<(u64, String)> {
        let mut failed = None;
        let settled = outbox.confirmed() + outbox.refused();
        let close = async {
            loop {
                self.write();
                if self.is_kept() && !self.confirming.busy {
                    break;
                }
                match self.report().await {
                    // What is read now is for the next start.
                    Done(Some(Report::Read(_))) => {}
                    done => match self.take(done, outbox) {
                        Kept::Progress => {}
                        Kept::Failed(lost, why) => failed = Some((lost, why)),
                        Kept::Unreadable(_) => return,
                    },
                }
            }
            self.confirm(outbox, settled);
            self.keeper.order(Order::Close);
            while !matches!(self.report().await, Done(None | Some(Report::Closed))) {}
        };
        match timeout(CLOSE_WITHIN, close).await {
            Ok(()) => failed,
            Err(_) => {
                Some((self.writing.unwrap_or_default() + self.waiting, "the disk does not answer".into()))
            }
        }
    }

    /// Has the group written, if the disk is free.
    fn write(&mut self) {
        if self.writing.is_some() || self.group.is_empty() {
            return;
        }
        if self.keeper.order(Order::Append(mem::take(&mut self.group))) {
            self.writing = Some(mem::take(&mut self.waiting));
            self.each_mark(|marks| marks.writing = marks.given);
        }
    }

    fn confirm(&mut self, outbox: &Outbox, settled: u64) {
        let aliases = (0..=u16::MAX).map(Alias).take(self.numbers.len());
        let marks = aliases.map(|alias| (alias, outbox.settled_pseq(alias)));
        self.confirming.busy = self.keeper.order(Order::Confirm(marks.collect()));
        (self.confirming.told, self.confirming.at) = (settled, Instant::now());
    }

    fn each_mark(&mut self, change: impl Fn(&mut Marks)) {
        change(&mut self.declared);
        self.numbers.iter_mut().for_each(|number| change(&mut number.next));
    }
}

/// What the disk has done.
#[derive(Debug)]
pub struct Done(Option<Report>);

impl Marks {
    fn all(mark: u64) -> Self {
        Self { given: mark, writing: mark, kept: mark }
    }
}

/// Gives the outbox the messages of a group.
fn hand_over(bytes: &[u8], outbox: &mut Outbox) -> Result<(), String> {
    for frame in frames(bytes) {
        // The other frames say what the outbox knows: it has opened the channels already.
        if let SenderFrame::Publish(Publish { alias, pseq, kind, source_time, payload }) = frame? {
            if pseq > outbox.next_pseq(alias) {
                return Err(format!("message {pseq} does not go on where it was"));
            }
            outbox.push_kept(alias, pseq, Message { kind, source_time, payload });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
