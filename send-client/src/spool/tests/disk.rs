//! A disk in memory that forgets: after a crash only what was synced is sure to be there, and the rest may be torn.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use super::super::files::Files;

/// A disk; its clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    /// As the running system sees them, and as they are on the disk for sure.
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    /// Operations until this happens.
    trouble: Option<(u32, Trouble)>,
    /// Whether syncing does nothing, as on a disk that lies.
    lies: bool,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    data: Vec<u8>,
    synced: Vec<u8>,
}

/// What can happen to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Everything ends: this operation is done in part, and no other ever is.
    Crash,
    /// The disk is full: an append is done in part; other operations work.
    Full,
    /// Syncing fails, once.
    Sync,
    /// The process has too many files open, until it is relieved: no file is created, and no names are synced.
    Open,
}

impl Disk {
    pub(super) fn lying() -> Self {
        let disk = Self::default();
        disk.state().lies = true;
        disk
    }

    /// After so many more operations that change something, this happens.
    pub(super) fn trouble(&self, after: u32, trouble: Trouble) {
        self.state().trouble = Some((after, trouble));
    }

    /// No trouble any more.
    pub(super) fn relieve(&self) {
        self.state().trouble = None;
    }

    /// The machine starts anew: what was not synced is there, torn, or not.
    pub(super) fn crash(&self, rng: &mut fastrand::Rng) {
        let mut state = self.state();
        state.trouble = None;
        let all: Vec<String> = state.names.keys().chain(state.synced_names.keys()).cloned().collect();
        let mut names = BTreeMap::new();
        for name in all {
            let found = if rng.bool() { state.names.get(&name) } else { state.synced_names.get(&name) };
            if let Some(&inode) = found {
                names.insert(name, inode);
            }
        }
        for inode in &mut state.inodes {
            if inode.data.len() < inode.synced.len() || rng.u8(..4) == 0 {
                inode.data = inode.synced.clone();
            }
            let sure = inode.synced.len();
            inode.data.truncate(rng.usize(sure..=inode.data.len()));
            if inode.data.len() > sure && rng.bool() {
                // A part of it never came to the disk.
                let from = rng.usize(sure..inode.data.len());
                let to = rng.usize(from..=inode.data.len());
                inode.data[from..to].fill(0);
            }
            inode.synced = inode.data.clone();
        }
        (state.names, state.synced_names) = (names.clone(), names);
    }

    /// Changes a file behind the back of its owner.
    pub(super) fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.names[name];
        change(&mut state.inodes[inode].data);
        state.inodes[inode].synced = state.inodes[inode].data.clone();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    /// What happens to an operation that changes something.
    fn happens(&mut self, possible: &[Trouble]) -> Option<Trouble> {
        match &mut self.trouble {
            Some((0, Trouble::Crash)) => Some(Trouble::Crash),
            Some((0, Trouble::Open)) => possible.contains(&Trouble::Open).then_some(Trouble::Open),
            Some((0, trouble)) if possible.contains(trouble) => {
                self.trouble.take().map(|(_, trouble)| trouble)
            }
            Some((0, _)) | None => None,
            Some((left, _)) => {
                *left -= 1;
                None
            }
        }
    }

    fn inode(&mut self, name: &str) -> io::Result<&mut Inode> {
        let inode = *self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(&mut self.inodes[inode])
    }

    fn fail<T>(what: &str) -> io::Result<T> {
        Err(io::Error::other(what.to_owned()))
    }
}

impl Files for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.state().inode(name)?.data.clone())
    }

    fn read_at(&mut self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        let data = &state.inode(name)?.data;
        let end = offset as usize + into.len();
        into.copy_from_slice(data.get(offset as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let is_there = state.names.contains_key(name);
        let trouble =
            state.happens(if is_there { &[Trouble::Full] } else { &[Trouble::Full, Trouble::Open] });
        if trouble == Some(Trouble::Open) {
            return State::fail("too many open files");
        }
        if !is_there {
            let inode = state.inodes.len();
            state.inodes.push(Inode::default());
            state.names.insert(name.into(), inode);
        }
        let part = if trouble.is_some() { bytes.len() / 2 } else { bytes.len() };
        state.inode(name)?.data.extend_from_slice(&bytes[..part]);
        if trouble.is_some() { State::fail("no space left on device") } else { Ok(()) }
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if state.happens(&[Trouble::Sync]).is_some() {
            return State::fail("input/output error");
        }
        if !state.lies {
            let inode = state.inode(name)?;
            inode.synced = inode.data.clone();
        }
        Ok(())
    }

    fn cut(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut state = self.state();
        if state.happens(&[]).is_some() {
            return State::fail("crashed");
        }
        let inode = state.inode(name)?;
        inode.data.truncate(length as usize);
        inode.synced = inode.data.clone();
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if state.happens(&[]).is_some() {
            return State::fail("crashed");
        }
        state.names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        if state.happens(&[]).is_some() {
            return State::fail("crashed");
        }
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.into(), inode);
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        let mut state = self.state();
        match state.happens(&[Trouble::Sync, Trouble::Open]) {
            Some(Trouble::Open) => return State::fail("too many open files"),
            Some(_) => return State::fail("input/output error"),
            None => {}
        }
        if !state.lies {
            state.synced_names = state.names.clone();
        }
        Ok(())
    }
}
