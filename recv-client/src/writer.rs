//! The thread that writes. A stalled pipe or terminal holds it, and never the connection's side: signals and
//! pings are answered while it waits. The position is kept by it too, after the messages that it stands for.

use std::{io, thread};

use anyhow::Context as _;
use shared::Position;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use crate::{
    durable::Durable,
    notices::{Notices, Remark},
    sink::{Part, Sink},
};

/// Batches under way: one that is written, one that waits.
const QUEUE: usize = 1;

/// What is written at once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Messages as they are to be written.
    pub(crate) bytes: Vec<u8>,
    /// Whose they are; only for a file per channel.
    pub(crate) parts: Vec<Part>,
    /// What is said on stderr between them, so that a terminal shows it where it belongs.
    pub(crate) remarks: Vec<Remark>,
    /// Where the receiver is once they are written, if that is to be kept.
    pub(crate) position: Option<Position>,
}

/// How writing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Everything was written.
    Complete,
    /// Nobody reads stdout any more.
    Closed,
}

/// The way to the thread. Dropping it ends the thread once all is written.
#[derive(Debug)]
pub(crate) struct Writer {
    batches: mpsc::Sender<Batch>,
    spent: mpsc::Receiver<Batch>,
}

/// Tells once how writing ended.
pub(crate) type Ended = oneshot::Receiver<anyhow::Result<Ending>>;

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(
        sink: Sink,
        durable: Option<Durable>,
        notices: Notices,
    ) -> anyhow::Result<(Self, Ended)> {
        let (batches, queue) = mpsc::channel(QUEUE);
        let (spent_sender, spent) = mpsc::channel(QUEUE + 1);
        let (end, ended) = oneshot::channel();
        thread::Builder::new()
            .name("writer".into())
            // Without a receiver the process is about to end.
            .spawn(move || drop(end.send(write_all(sink, durable, notices, queue, &spent_sender))))
            .context("cannot start the writer")?;
        Ok((Self { batches, spent }, ended))
    }

    /// Hands a batch over if the thread can take it, and leaves an empty one in its place; whether it did.
    pub(crate) fn try_write(&mut self, batch: &mut Batch) -> bool {
        match self.batches.try_reserve() {
            Ok(permit) => {
                permit.send(std::mem::replace(batch, self.spent.try_recv().unwrap_or_default()));
                true
            }
            Err(TrySendError::Full(()) | TrySendError::Closed(())) => false,
        }
    }

    /// Waits until [`Self::try_write`] can succeed; for ever once the thread has ended, which [`Ended`] tells.
    pub(crate) async fn ready(&self) {
        if self.batches.reserve().await.is_err() {
            std::future::pending().await
        }
    }
}

fn write_all(
    mut sink: Sink,
    mut durable: Option<Durable>,
    notices: Notices,
    mut queue: mpsc::Receiver<Batch>,
    spent: &mpsc::Sender<Batch>,
) -> anyhow::Result<Ending> {
    while let Some(mut batch) = queue.blocking_recv() {
        if let Some(durable) = &mut durable {
            let files = sink.unfinished(&batch.bytes, &batch.parts, |path| durable.knows(path))?;
            durable.begin(files)?;
        }
        if let Err(error) = write(&mut sink, &batch, notices) {
            return if is_closed_pipe(&error) { Ok(Ending::Closed) } else { Err(error) };
        }
        if let (Some(durable), Some(position)) = (&mut durable, batch.position.take()) {
            sink.sync()?;
            durable.save(position)?;
        }
        batch.bytes.clear();
        batch.parts.clear();
        batch.remarks.clear();
        // Where there are enough already, its memory is given back.
        let _ = spent.try_send(batch);
    }
    Ok(Ending::Complete)
}

fn write(sink: &mut Sink, batch: &Batch, notices: Notices) -> anyhow::Result<()> {
    let mut from = 0;
    // Files need no order with stderr, and parts can't be cut.
    for remark in batch.remarks.iter().filter(|_| batch.parts.is_empty()) {
        sink.write(&batch.bytes[from..remark.at], &[])?;
        notices.tell(remark.weight, &remark.text);
        from = remark.at;
    }
    sink.write(&batch.bytes[from..], &batch.parts)?;
    for remark in batch.remarks.iter().filter(|_| !batch.parts.is_empty()) {
        notices.tell(remark.weight, &remark.text);
    }
    Ok(())
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
