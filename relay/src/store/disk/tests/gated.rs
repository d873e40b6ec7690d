//! A disk that can be made to wait: what comes meanwhile finds the writer busy.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::forgetful::Forgetful;
use crate::store::disk::volume::{Blob, Patience, Volume};

/// A disk whose log waits at gates.
#[derive(Debug, Clone)]
pub(super) struct Gated {
    pub(super) disk: Forgetful,
    /// Before a write, and before a sync, of a segment.
    pub(super) writes: Gate,
    pub(super) syncs: Gate,
    /// Before a segment is written anew.
    pub(super) rewrites: Gate,
    /// Names can't be synced.
    pub(super) names_fail: Arc<AtomicBool>,
}

/// A gate through which only as many may as were let.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    /// How many may go through; none: all.
    free: Option<usize>,
    waiting: usize,
    passed: usize,
}

#[derive(Debug)]
struct Log {
    blob: Arc<dyn Blob>,
    writes: Gate,
    syncs: Gate,
}

impl Gate {
    /// Nobody goes through any more.
    pub(super) fn close(&self) {
        self.state().free = Some(0);
    }

    /// Everybody may go through.
    pub(super) fn open(&self) {
        self.state().free = None;
        self.0.1.notify_all();
    }

    /// One more may.
    pub(super) fn let_one_through(&self) {
        let mut state = self.state();
        state.free = state.free.map(|free| free + 1);
        self.0.1.notify_all();
    }

    /// Waits until somebody stands before it.
    pub(super) fn has_somebody(&self) {
        let state = self.state();
        drop(self.0.1.wait_while(state, |state| state.waiting == 0));
    }

    /// How many went through.
    pub(super) fn passed(&self) -> usize {
        self.state().passed
    }

    fn pass(&self) {
        let mut state = self.state();
        state.waiting += 1;
        self.0.1.notify_all();
        let waited = self.0.1.wait_while(state, |state| state.free == Some(0));
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.free = state.free.map(|free| free - 1);
        state.waiting -= 1;
        state.passed += 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gated {
    /// All gates are open.
    pub(super) fn new(disk: Forgetful) -> Self {
        Self {
            disk,
            writes: Gate::default(),
            syncs: Gate::default(),
            rewrites: Gate::default(),
            names_fail: Arc::default(),
        }
    }

    fn gated(&self, name: &str, blob: Arc<dyn Blob>) -> Arc<dyn Blob> {
        if !name.ends_with(".log") {
            return blob;
        }
        Arc::new(Log { blob, writes: self.writes.clone(), syncs: self.syncs.clone() })
    }
}

impl Volume for Gated {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Blob>> {
        if name.ends_with(".log.new") {
            self.rewrites.pass();
        }
        Ok(self.gated(name, self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Blob>> {
        Ok(self.gated(name, self.disk.open(name)?))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.link(from, to)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        if self.names_fail.load(Ordering::SeqCst) {
            Err(io::ErrorKind::Other.into())
        } else {
            self.disk.sync_names()
        }
    }
}

impl Blob for Log {
    fn len(&self) -> io::Result<u64> {
        self.blob.len()
    }

    fn read_at(&self, into: &mut [u8], offset: u64, patience: Patience) -> io::Result<usize> {
        self.blob.read_at(into, offset, patience)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.writes.pass();
        self.blob.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.pass();
        self.blob.sync()
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.blob.cut(length)
    }
}
