//! Receivers that have nothing to receive: what each costs.

use std::time::Duration;

use anyhow::Result;

use super::{Figures, figure};
use crate::{
    process::{kernel_memory, pause},
    servers::{Running, subscribe},
};

/// Receivers that make the server's allocator and runtime grow to their working size before anything is measured.
const FIRST: usize = 100;

/// Connects so many receivers; `settle` is for collectors of garbage, and for what the kernel frees later.
pub(crate) fn run(running: &Running, receivers: usize, settle: Duration) -> Result<Figures> {
    let first = FIRST.min(receivers / 2);
    let subscribe = |count| subscribe(&*running.dialect, &vec!["bench"; count]);
    let early = subscribe(first)?;
    pause(settle);
    let (resident, kernel) = (running.process.resident()?, kernel_memory()?);
    let late = subscribe(receivers - first)?;
    pause(settle);
    let each = |before: u64, after: u64| (after as f64 - before as f64) / late.len() as f64 / 1024.0;
    let figures = [
        (figure::RESIDENT, each(resident, running.process.resident()?)),
        (figure::KERNEL, each(kernel, kernel_memory()?)),
    ];
    drop((early, late));
    Ok(figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
