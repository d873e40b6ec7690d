//! At a fixed rate: each message has a time at which it is due, whatever became of those before it.

use std::time::Duration;

use anyhow::Result;

use super::{Crowd, Figures, Sample, drain, figure};
use crate::{load::latency::Latency, servers::Running};

/// Publishes so many messages per second for so long; the first quarter is not counted.
pub(crate) fn run(running: &Running, crowd: Crowd, rate: f64, length: Duration) -> Result<Figures> {
    let dialect = &*running.dialect;
    let mut load = crowd.connect(dialect)?;
    let channels = crowd.channels();
    let expect = |stream: usize, payload: &[u8], out: &mut Vec<u8>| {
        dialect.expect(&channels[stream], payload, out);
    };
    let messages = (rate * length.as_secs_f64()) as u64;
    let first = messages / 4;
    let schedule = Latency::new(rate, first)?;
    load.set_latency(schedule);
    let mut warm = None;
    while load.published() < messages {
        let due = load.latency().map_or(0, Latency::due).min(messages);
        if due > load.published() {
            load.publish(due - load.published(), &expect)?;
        }
        // The core is the load's own: it does not sleep, so that no time-out's coarseness is in the figures.
        load.poll(Some(Duration::ZERO))?;
        if warm.is_none() && load.published() >= first {
            warm = Some(Sample::take(&load, running)?);
        }
    }
    let end = Sample::take(&load, running)?;
    drain(&mut load)?;
    let mut figures = warm.map(|warm| end.figures(&warm, load.unit())).unwrap_or_default();
    let Some(latency) = load.latency() else { return Ok(figures) };
    for (name, percent) in [(figure::P50, 50.0), (figure::P99, 99.0), (figure::P999, 99.9)] {
        figures.insert(name.to_owned(), latency.percentile(percent).as_secs_f64() * 1e3);
    }
    Ok(figures)
}
