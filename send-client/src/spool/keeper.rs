//! The thread that owns the log: appending waits for the disk, and the connection must not.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use shared::sender::Alias;
use tokio::sync::mpsc;

use super::{
    files::{Files, Replacing},
    log::Log,
};

/// Orders under way at most: one of each kind.
const ORDERS: usize = 4;

/// How often what is confirmed is written down, at most.
const RECORD_EVERY: Duration = Duration::from_secs(1);

/// What the thread shall do.
#[derive(Debug)]
pub(super) enum Order {
    /// Keep these frames.
    Append(Vec<u8>),
    /// Read the next ones that were not read.
    Read,
    /// Messages up to these are confirmed.
    Confirm(Vec<(Alias, u64)>),
    /// Nothing more will come.
    Close,
}

/// What it has done. The bytes are those on disk then.
#[derive(Debug)]
pub(super) enum Report {
    /// The frames are kept; or nothing of them.
    Appended(io::Result<u64>),
    /// The frames that were read, if there are any.
    Read(io::Result<Option<Vec<u8>>>),
    /// What was not needed any more is gone.
    Confirmed(u64),
    /// The end.
    Closed,
}

/// The way to the thread. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Keeper {
    orders: mpsc::Sender<Order>,
    reports: mpsc::Receiver<Report>,
}

impl Keeper {
    /// Starts the thread.
    pub(super) fn start<F: Files + Send + 'static>(log: Log<F>) -> io::Result<Self> {
        let (orders, queue) = mpsc::channel(ORDERS);
        let (done, reports) = mpsc::channel(ORDERS);
        thread::Builder::new().name("spool".into()).spawn(move || keep(log, queue, &done))?;
        Ok(Self { orders, reports })
    }

    /// Gives an order, of a kind that is not under way; whether it could.
    pub(super) fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// The next report; none if the thread has failed. May be dropped and called again.
    pub(super) async fn report(&mut self) -> Option<Report> {
        self.reports.recv().await
    }
}

fn keep<F: Files>(mut log: Log<F>, mut orders: mpsc::Receiver<Order>, reports: &mpsc::Sender<Report>) {
    let mut recorded = Instant::now();
    while let Some(order) = orders.blocking_recv() {
        let report = match order {
            Order::Append(frames) => Report::Appended(log.append(&frames).map(|()| log.size())),
            Order::Read => Report::Read(log.read()),
            Order::Confirm(settled) => {
                // What can't go or be written down now will be the next time; nothing depends on it.
                let mut _kept = log.confirm(&settled);
                if recorded.elapsed() >= RECORD_EVERY {
                    _kept = log.record(Replacing::Quick);
                    recorded = Instant::now();
                }
                Report::Confirmed(log.size())
            }
            Order::Close => {
                let _kept = log.close();
                Report::Closed
            }
        };
        if reports.blocking_send(report).is_err() {
            return;
        }
    }
}
