//! As fast as it goes: whenever the slowest receiver has taken something, as much is published anew, so that the
//! number of messages in flight stays bounded and nothing piles up anywhere.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Crowd, Figures, PATIENCE, Sample, connections::Churn, drain, figure};
use crate::servers::Running;

/// Bytes of payload with a WebSocket header that may be in flight to the slowest receiver.
const IN_FLIGHT: usize = 512 * 1024;

/// Bytes of them that may be in flight to all receivers: the kernel takes about so much for the sockets of all.
const IN_FLIGHT_TO_ALL: usize = 1024 * IN_FLIGHT;

/// How much may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    /// 512 KiB, and less with more than 1 024 receivers.
    Bytes,
    /// So many messages.
    Messages(u64),
}

impl Window {
    /// In messages of that crowd.
    fn messages(self, crowd: Crowd) -> u64 {
        let unit = crowd.bytes + shared::ws_frame::header_len(crowd.bytes);
        // Where each channel has its own receiver, only one of them gets a message.
        let receivers = if crowd.channels > 1 && !crowd.pattern { 1 } else { crowd.receivers };
        match self {
            Self::Bytes => (IN_FLIGHT.min(IN_FLIGHT_TO_ALL / receivers) / unit).max(2) as u64,
            Self::Messages(count) => count,
        }
    }
}

/// Runs for so long, of which the first quarter is not measured.
pub(crate) fn run(running: &Running, crowd: Crowd, window: Window, length: Duration) -> Result<Figures> {
    let dialect = &*running.dialect;
    let mut load = crowd.connect(dialect)?;
    let channels = crowd.channels();
    let expect = |stream: usize, payload: &[u8], out: &mut Vec<u8>| {
        dialect.expect(&channels[stream], payload, out);
    };
    let window_messages = window.messages(crowd).min(dialect.most_in_flight());
    // Published in pieces: a piece as small as what one read of one receiver sets free would be a chunk of its own.
    let piece = if window == Window::Bytes { (window_messages / 8).max(1) } else { 1 };
    let began = Instant::now();
    let (mut warm, mut last) = (None, (began, 0));
    while began.elapsed() < length {
        let room = window_messages.saturating_sub(load.in_flight());
        if room >= piece {
            load.publish(room, &expect)?;
        }
        load.poll(Some(Duration::from_millis(100)))?;
        if warm.is_none() && began.elapsed() > length / 4 {
            warm = Some(Sample::take(&load, running)?);
        }
        if load.received() != last.1 {
            last = (Instant::now(), load.received());
        } else if last.0.elapsed() > PATIENCE {
            bail!("nothing came for {PATIENCE:?}: {}", load.what_is_missing());
        }
    }
    let end = Sample::take(&load, running)?;
    drain(&mut load)?;
    let Some(warm) = warm else { bail!("the run was too short") };
    Ok(end.figures(&warm, load.unit()))
}

/// Runs while so many other receivers per second come and go.
pub(crate) fn with_churn(running: &Running, crowd: Crowd, rate: u32, length: Duration) -> Result<Figures> {
    let began = Instant::now();
    let churn = Churn::start(running.dialect.entrance("bench"), rate, crowd.bytes);
    let figures = run(running, crowd, Window::Bytes, length);
    let seconds = began.elapsed().as_secs_f64();
    let visits = churn.stop()?;
    let mut figures = figures?;
    figures.insert(figure::VISITS.to_owned(), visits as f64 / seconds);
    Ok(figures)
}
