//! The connection or the way to one, and what is waited for there and at the disk.

use std::{
    fmt,
    future::{Future, pending},
    pin::Pin,
};

use tokio::time::{Instant, sleep_until};

use crate::{
    connection::{Connection, End, Event},
    outbox::Outbox,
    spool::{Done, Spool},
};

/// The connection, or the way to the next one.
pub(super) enum Link {
    Up(Connection),
    Waiting(Instant),
    Connecting(Pin<Box<dyn Future<Output = Result<Connection, End>> + Send>>),
}

/// What of the link or of the disk was waited for.
pub(super) enum Step {
    Event(Result<Event, End>),
    Time,
    Attempt(Result<Connection, End>),
    Disk(Done),
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up(_) => "Up",
            Self::Waiting(_) => "Waiting",
            Self::Connecting(_) => "Connecting",
        })
    }
}

/// Waits for the link and the disk. May be dropped and called again.
pub(super) async fn step(link: &mut Link, outbox: &mut Outbox, spool: Option<&mut Spool>) -> Step {
    let link = async {
        match link {
            Link::Up(connection) => Step::Event(connection.step(outbox).await),
            Link::Waiting(until) => {
                sleep_until(*until).await;
                Step::Time
            }
            Link::Connecting(attempt) => Step::Attempt(attempt.await),
        }
    };
    let disk = async {
        match spool {
            Some(spool) => Step::Disk(spool.report().await),
            None => pending().await,
        }
    };
    tokio::select! {
        step = link => step,
        step = disk => step,
    }
}
