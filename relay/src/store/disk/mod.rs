//! The engine that keeps everything on disk: one log for all channels, in segments, with one sync for all that was
//! appended meanwhile. The newest chunks are in memory too.
//!
//! - `record`: what the log consists of; `segment`: its files; `index`: where in them a channel's chunks are.
//! - `writer`: a thread that commits in a `group` what stands in the `queue`, at the `end` of the log, after `planning`;
//!   `care`: one that gives space back of what `retention` let go.
//! - `rules`: what holds for each channel; `state`, `channel`: what is known; `told`: who is told of commits; `reading`, `fetching`: how pages come to be, in
//!   memory of the `pool`; `lately`: who reads the same; `finding`: where to begin.
//! - `open`: from the files to the state, with the `checkpoint`, the `identity` and a `replay` of what comes behind;
//!   `volume`: the directory.
//! - `examination`: every byte looked at; `repair`: what `relay log` says and does.

mod care;
mod channel;
mod checkpoint;
mod end;
mod examination;
mod fetching;
mod finding;
mod group;
mod identity;
mod index;
mod lately;
mod open;
mod planning;
mod pool;
mod queue;
mod reading;
mod record;
mod repair;
mod replay;
mod reserve;
mod retention;
mod rules;
mod segment;
mod state;
#[cfg(test)]
mod tests;
mod told;
mod volume;
mod writer;

use std::{
    collections::BTreeSet,
    fs::File,
    future::ready,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use care::{Care, Caring};
use end::Log;
use fetching::Names;
use lately::Lately;
pub use open::OpenError;
use open::{Opened, Opening};
use queue::{Claiming, Queue, Work};
use reading::Plan;
pub use repair::{Report, check, repair};
use rules::Rules;
use shared::{
    ChannelId, Epoch, Seq,
    sender::{Levels, ProducerId},
};
use state::{Limits, State};
use tokio::sync::oneshot;
use told::Told;
use volume::{Directory, Volume};
use writer::Writer;

use super::{
    Answer, Batch, Bounds, ChannelStore, Claim, Done, Durability, Page, ReadError, Refused, Retention,
    StoreSettings, Stored, Tail, Ticket, selection::Selection,
};

/// Damages that the log tells of, one by one.
const NOTED: usize = 1000;

/// What an engine with a disk is told besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSettings {
    /// Bytes of a file of the log, about.
    pub segment: u32,
    /// What everything that is kept may count for; beyond it the oldest chunk of all goes. 0: there is no limit.
    pub limit: u64,
    /// When to try again what could not be stored.
    pub retry: Duration,
}

/// Keeps channels on disk.
#[derive(Debug)]
pub struct Disk {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    care: Mutex<Option<mpsc::Sender<Care>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Other relays are kept out while it lives.
    _lock: Option<File>,
}

/// What the engine's threads and its callers share.
#[derive(Debug)]
struct Shared {
    epoch: Epoch,
    directory: PathBuf,
    volume: Arc<dyn Volume>,
    settings: DiskSettings,
    rules: Rules,
    state: Mutex<State>,
    lately: Lately,
    tail: Told,
    /// A checkpoint waits to be written: a newer one is made when it was.
    waiting: AtomicBool,
    /// The store ends: space is given back another time.
    ending: AtomicBool,
    /// Damage that the log tells of already.
    noted: Mutex<BTreeSet<String>>,
}

impl Disk {
    /// Opens a directory, or begins anew in an empty one.
    ///
    /// # Errors
    /// If it can't be used as it is.
    pub fn open(
        path: &Path,
        disk: DiskSettings,
        settings: StoreSettings,
        now: u64,
    ) -> Result<Self, OpenError> {
        let directory = Directory::open(path)?;
        let lock = directory.lock()?.ok_or(OpenError::Locked)?;
        Self::open_volume(Arc::new(directory), path, Some(lock), disk, settings, now)
    }

    fn open_volume(
        volume: Arc<dyn Volume>,
        path: &Path,
        lock: Option<File>,
        disk: DiskSettings,
        settings: StoreSettings,
        now: u64,
    ) -> Result<Self, OpenError> {
        let limits = Limits::of(&settings, if disk.limit == 0 { u64::MAX } else { disk.limit });
        let producers = settings.producers;
        let rules = Rules { durability: settings.durability, retention: settings.retention };
        let opening = Opening {
            volume: &*volume,
            directory: path,
            limits,
            producers,
            now,
            rules: &|name| rules.of(name),
        };
        let Opened { epoch, state, producers, end, changed, unindexed } = opening.open()?;
        let shared = Arc::new(Shared {
            epoch,
            directory: path.to_owned(),
            volume,
            settings: disk,
            rules,
            state: Mutex::new(state),
            lately: Lately::default(),
            tail: Told::default(),
            waiting: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            noted: Mutex::default(),
        });
        let (care, tasks) = mpsc::channel();
        for number in unindexed {
            let _ = care.send(Care::Unindexed(number));
        }
        let queue = Arc::<Queue>::default();
        let log = Log {
            number: end.number,
            blob: end.blob,
            end: end.end,
            tip: end.tip,
            synced: end.end,
            noted: end.end,
            buffer: Vec::new(),
        };
        let writer = Writer {
            shared: Arc::clone(&shared),
            queue: Arc::clone(&queue),
            care: Some(care.clone()),
            producers,
            log,
            head: end.head,
            mark: end.mark,
            crash: end.crash,
            unwritten: changed,
            flush: None,
            failed: None,
            full: false,
            resting: None,
        };
        let caring = Caring::new(Arc::clone(&shared), Arc::clone(&queue));
        let threads = vec![
            std::thread::Builder::new().name("relay-log".into()).spawn(|| writer.run())?,
            std::thread::Builder::new().name("relay-care".into()).spawn(move || caring.run(&tasks))?,
        ];
        Ok(Self { shared, queue, care: Mutex::new(Some(care)), threads: Mutex::new(threads), _lock: lock })
    }

    /// Has the writer do something, and waits for its outcome.
    async fn ask<T>(
        &self,
        work: impl FnOnce(oneshot::Sender<Result<T, Refused>>) -> Work,
    ) -> Result<Result<T, Refused>, ReadError> {
        let (settle, outcome) = oneshot::channel();
        self.queue.push(work(settle));
        outcome.await.map_err(|_| ReadError(io::ErrorKind::BrokenPipe.into()))
    }

    /// Does something with the files, on a thread where waiting for the disk holds nobody up.
    fn with_files<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Shared) -> io::Result<T> + Send + 'static,
    ) -> Answer<'static, T> {
        let shared = Arc::clone(&self.shared);
        let done = tokio::task::spawn_blocking(move || act(&shared).inspect_err(|error| shared.note(error)));
        Box::pin(async move {
            match done.await {
                Ok(outcome) => outcome.map_err(ReadError),
                Err(error) => Err(ReadError(io::Error::other(error))),
            }
        })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something could not be read: the log says so, once.
    fn note(&self, error: &io::Error) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < NOTED && noted.insert(error.to_string()) {
            let directory = self.directory.display();
            tracing::error!(
                "{error}: who wants to read that is closed. Stop the relay, and `relay log repair {directory}` says what is lost and goes on with the rest"
            );
        }
    }

    fn rules(&self, name: &ChannelId) -> (Durability, Retention) {
        self.rules.of(name)
    }

    /// Whether a checkpoint should be made: none does that waits. Then one does.
    fn wants_checkpoint(&self) -> bool {
        !self.waiting.swap(true, Ordering::Relaxed)
    }

    fn names(&self, ids: &[u32]) -> Names {
        let state = self.state();
        ids.iter().filter_map(|id| Some((*id, state.channels.get(id)?.name.clone()))).collect()
    }
}

impl ChannelStore for Disk {
    fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    fn levels(&self, channel: &ChannelId) -> Levels {
        match self.shared.rules(channel).0 {
            Durability::Sync => Levels(Levels::ACCEPTED.0 | Levels::FSYNCED.0),
            Durability::Memory | Durability::Async { .. } => Levels::ACCEPTED,
        }
    }

    fn follow(&self, tail: Tail) {
        self.shared.tail.set(tail);
    }

    fn head(&self) -> Seq {
        self.shared.state().head
    }

    fn claim(
        &self,
        producer: ProducerId,
        epoch: u32,
        keep: Duration,
        now: u64,
    ) -> Answer<'_, Result<Claim, Refused>> {
        let claiming = Claiming { producer, epoch, keep, now };
        Box::pin(self.ask(move |settle| Work::Claim(claiming, settle)))
    }

    fn release(&self, claim: Claim, now: u64) {
        self.queue.push(Work::Release(claim, now));
    }

    fn open(
        &self,
        claim: Claim,
        channel: &ChannelId,
        first_pseq: u64,
    ) -> Answer<'_, Result<Stored, Refused>> {
        let channel = channel.clone();
        Box::pin(self.ask(move |settle| Work::Open { claim, channel, first_pseq, settle }))
    }

    fn append(&self, batch: Batch) -> Ticket {
        let (settle, outcome) = oneshot::channel();
        self.queue.push(Work::Append(batch, settle));
        Ticket::Pending(outcome)
    }

    fn room(&self) -> Option<Done<'static>> {
        self.queue.room()
    }

    fn bounds(&self, selection: &Selection) -> Bounds {
        self.shared.state().bounds(selection)
    }

    fn read(&self, selection: &Selection, after: Seq, bytes: u64) -> Answer<'_, Page> {
        let plan = self.shared.state().plan(selection, after, bytes);
        let job = match plan {
            Plan::Given(page) => return Box::pin(ready(Ok(page))),
            Plan::Read(job) => job,
        };
        // What the system has in memory costs less than having another thread read it.
        match self.shared.read_at_once(selection, after, &job) {
            Ok(Some(page)) => Box::pin(ready(Ok(page))),
            Ok(None) => {
                let selection = selection.clone();
                self.with_files(move |shared| shared.read(&selection, after, bytes, job))
            }
            Err(error) => {
                self.shared.note(&error);
                Box::pin(ready(Err(ReadError(error))))
            }
        }
    }

    fn find_time(&self, _: &Selection, time: u64) -> Answer<'_, Seq> {
        self.with_files(move |shared| shared.find_time(time))
    }

    fn find_last(&self, selection: &Selection, count: u64) -> Answer<'_, Seq> {
        let selection = selection.clone();
        self.with_files(move |shared| shared.find_last(&selection, count))
    }

    fn trim(&self, now: u64) -> Done<'_> {
        self.queue.push(Work::Expire(now));
        let trimmed = self.with_files(move |shared| shared.trim(now));
        Box::pin(async move {
            if let Err(error) = trimmed.await {
                tracing::error!("more is kept than should be: {error}");
            }
            if let Some(care) = &*self.care.lock().unwrap_or_else(PoisonError::into_inner) {
                let _ = care.send(Care::Trimmed);
            }
        })
    }

    fn close(&self) -> Done<'_, io::Result<()>> {
        let (settle, outcome) = oneshot::channel();
        self.queue.push(Work::Close(settle));
        Box::pin(async {
            outcome.await.unwrap_or_else(|_| Err(io::Error::other("the thread that writes has ended")))
        })
    }
}

impl Drop for Disk {
    /// The threads end before the directory is free for another.
    fn drop(&mut self) {
        self.queue.abandon();
        self.care.lock().unwrap_or_else(PoisonError::into_inner).take();
        for thread in std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner)) {
            let _ = thread.join();
        }
    }
}
