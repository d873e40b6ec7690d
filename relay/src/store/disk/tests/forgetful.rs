//! A disk that forgets what was not synced: at a crash some of the sectors that were written since are there and others
//! are not, in no order, and of the names that were given since only the first few. It also becomes full, and fails.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::store::disk::volume::{Blob, Patience, Volume};

/// What is written as a whole or not at all.
const SECTOR: usize = 512;

/// The disk; cloning gives another handle to it.
#[derive(Debug, Clone)]
pub(super) struct Forgetful(Arc<Mutex<Platter>>);

#[derive(Debug, Clone)]
struct Platter {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    /// Names as they are for sure, and what was done to them since.
    lasting: BTreeMap<String, usize>,
    done: Vec<Renaming>,
    faults: Faults,
    /// Bytes that all files with a name may have together.
    size: usize,
    random: u64,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// After so many operations nothing works any more: the process is dead.
    pub(super) dies_after: Option<usize>,
    /// So many bytes can still be written.
    pub(super) room: Option<usize>,
    /// Syncing fails, and so does all that was written since the last time.
    pub(super) fails_to_sync: bool,
}

#[derive(Debug, Clone, Default)]
struct Content {
    now: Vec<u8>,
    lasting: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Renaming {
    Set(String, usize),
    Remove(String),
}

#[derive(Debug)]
struct Open {
    disk: Forgetful,
    file: usize,
}

impl Forgetful {
    pub(super) fn new(random: u64) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            files: Vec::new(),
            names: BTreeMap::new(),
            lasting: BTreeMap::new(),
            done: Vec::new(),
            faults: Faults::default(),
            size: usize::MAX,
            random,
        })))
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.platter().faults = faults;
    }

    /// All files together may have so many bytes.
    pub(super) fn set_size(&self, bytes: usize) {
        self.platter().size = bytes;
    }

    /// Changes a byte of a file behind everybody's back.
    pub(super) fn flip(&self, name: &str, at: usize) {
        let mut platter = self.platter();
        let file = platter.names[name];
        platter.files[file].now[at] ^= 0x10;
        platter.files[file].lasting = platter.files[file].now.clone();
    }

    /// The bytes of a file.
    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        let platter = self.platter();
        platter.files[platter.names[name]].now.clone()
    }

    /// What a machine finds that starts again after the power went.
    pub(super) fn after_power_loss(&self) -> Self {
        let mut platter = self.platter().clone();
        platter.faults = Faults::default();
        let kept = platter.below(platter.done.len() + 1);
        platter.names = platter.lasting.clone();
        for renaming in platter.done.drain(..).take(kept).collect::<Vec<_>>() {
            renaming.apply(&mut platter.names);
        }
        platter.lasting = platter.names.clone();
        for file in 0..platter.files.len() {
            let Content { now, lasting } = platter.files[file].clone();
            let mut found = lasting;
            for (sector, bytes) in now.chunks(SECTOR).enumerate() {
                if platter.below(2) == 0 {
                    let start = sector * SECTOR;
                    if found.len() < start + bytes.len() {
                        found.resize(start + bytes.len(), 0);
                    }
                    found[start..start + bytes.len()].copy_from_slice(bytes);
                }
            }
            platter.files[file] = Content { now: found.clone(), lasting: found };
        }
        Self(Arc::new(Mutex::new(platter)))
    }

    /// What a process finds that starts again after the last one was killed.
    pub(super) fn after_kill(&self) -> Self {
        let mut platter = self.platter().clone();
        platter.faults = Faults::default();
        Self(Arc::new(Mutex::new(platter)))
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platter {
    /// Pseudo-random; what was drawn once is drawn again with the same seed.
    fn below(&mut self, limit: usize) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % limit
    }

    /// One more operation that changes something.
    fn act(&mut self) -> io::Result<()> {
        match &mut self.faults.dies_after {
            Some(0) => Err(io::Error::other("the process is dead")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn rename(&mut self, renaming: Renaming) {
        renaming.apply(&mut self.names);
        self.done.push(renaming);
    }
}

impl Renaming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Set(name, file) => names.insert(name.clone(), *file),
            Self::Remove(name) => names.remove(name),
        };
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Volume for Forgetful {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.platter().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Blob>> {
        let mut platter = self.platter();
        platter.act()?;
        platter.files.push(Content::default());
        let file = platter.files.len() - 1;
        platter.rename(Renaming::Set(name.to_owned(), file));
        Ok(Arc::new(Open { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Blob>> {
        let file = *self.platter().names.get(name).ok_or_else(not_found)?;
        Ok(Arc::new(Open { disk: self.clone(), file }))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut platter = self.platter();
        platter.act()?;
        let file = *platter.names.get(from).ok_or_else(not_found)?;
        platter.rename(Renaming::Set(to.to_owned(), file));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut platter = self.platter();
        platter.act()?;
        let file = *platter.names.get(from).ok_or_else(not_found)?;
        platter.rename(Renaming::Remove(from.to_owned()));
        platter.rename(Renaming::Set(to.to_owned(), file));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut platter = self.platter();
        platter.act()?;
        platter.names.get(name).ok_or_else(not_found)?;
        platter.rename(Renaming::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut platter = self.platter();
        platter.act()?;
        platter.lasting = platter.names.clone();
        platter.done.clear();
        Ok(())
    }
}

impl Blob for Open {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.platter().files[self.file].now.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64, patience: Patience) -> io::Result<usize> {
        let mut platter = self.disk.platter();
        // What is in the system's memory is as random as anything else.
        if patience == Patience::None && platter.below(2) == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = platter.files[self.file].now.get(offset as usize..).unwrap_or_default();
        let read = bytes.len().min(into.len());
        into[..read].copy_from_slice(&bytes[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut platter = self.disk.platter();
        platter.act()?;
        let grows = (offset as usize + bytes.len()).saturating_sub(platter.files[self.file].now.len());
        let used: usize = platter.names.values().map(|file| platter.files[*file].now.len()).sum();
        let left = platter.size.saturating_sub(used);
        let room = platter
            .faults
            .room
            .unwrap_or(usize::MAX)
            .min(bytes.len() - grows.saturating_sub(left).min(bytes.len()));
        if let Some(left) = &mut platter.faults.room {
            *left -= room;
        }
        let (start, now) = (offset as usize, &mut platter.files[self.file].now);
        if now.len() < start + room {
            now.resize(start + room, 0);
        }
        now[start..start + room].copy_from_slice(&bytes[..room]);
        if room < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut platter = self.disk.platter();
        platter.act()?;
        if platter.faults.fails_to_sync {
            return Err(io::Error::other("the disk does not take it"));
        }
        let content = &mut platter.files[self.file];
        content.lasting.clone_from(&content.now);
        Ok(())
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        let mut platter = self.disk.platter();
        platter.act()?;
        platter.files[self.file].now.truncate(length as usize);
        Ok(())
    }
}
