//! The directory of a store, as few operations as it needs: so that tests can take the place of the disk, and let it
//! forget what was not synced.

use std::{
    fmt::Debug,
    fs::{self, File, OpenOptions},
    io::{self, IoSliceMut},
    os::unix::fs::{FileExt, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::io::{Errno, ReadWriteFlags};

/// A directory of files. Names are those of the store.
pub(super) trait Volume: Debug + Send + Sync {
    /// The names there are.
    fn list(&self) -> io::Result<Vec<String>>;
    /// An empty file, in place of one of that name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn Blob>>;
    /// A file that is there, to be read and, if it can be, written.
    fn open(&self, name: &str) -> io::Result<Arc<dyn Blob>>;
    /// Gives a file one more name, which no file has.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file another name, which it takes from another file.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Waits until names are on the disk itself.
    fn sync_names(&self) -> io::Result<()>;
}

/// A file. Who holds it can read it even when its name is gone.
pub(super) trait Blob: Debug + Send + Sync {
    /// Its length.
    fn len(&self) -> io::Result<u64>;
    /// Reads at most so many bytes; 0: behind the end.
    fn read_at(&self, into: &mut [u8], offset: u64, patience: Patience) -> io::Result<usize>;
    /// Writes all of these bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Waits until what was written is on the disk itself.
    fn sync(&self) -> io::Result<()>;
    /// Cuts it.
    fn cut(&self, length: u64) -> io::Result<()>;
}

/// Whether the disk may be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// It may.
    Wait,
    /// What the system does not have in memory is an error: [`io::ErrorKind::WouldBlock`].
    None,
}

impl dyn Blob + '_ {
    /// Exactly these bytes.
    pub(super) fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_with(into, offset, Patience::Wait)
    }

    /// Exactly these bytes, if they can be had so fast.
    pub(super) fn read_exact_with(&self, into: &mut [u8], offset: u64, patience: Patience) -> io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            match self.read_at(&mut into[done..], offset + done as u64, patience)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(())
    }
}

/// All of a file.
pub(super) fn read(volume: &dyn Volume, name: &str) -> io::Result<Vec<u8>> {
    let blob = volume.open(name)?;
    let mut bytes = vec![0; usize::try_from(blob.len()?).unwrap_or(usize::MAX)];
    blob.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Removes a file, if it is there.
pub(super) fn remove_if_there(volume: &dyn Volume, name: &str) -> io::Result<()> {
    match volume.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Replaces a file as a whole: after any crash it is the old one or the new one, and the new one once this is done.
pub(super) fn replace(volume: &dyn Volume, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = format!("{name}{DRAFT}");
    let blob = volume.create(&draft)?;
    blob.write_at(bytes, 0)?;
    blob.sync()?;
    volume.rename(&draft, name)?;
    volume.sync_names()
}

/// How the names of files end that are being written.
pub(super) const DRAFT: &str = ".new";

/// A directory of the system.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Its own, so that names can be synced when no more files can be opened.
    names: File,
}

impl Directory {
    /// A directory; it is created if it is not there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Self::existing(path)
    }

    /// A directory that is there.
    pub(super) fn existing(path: &Path) -> io::Result<Self> {
        fs::read_dir(path)?;
        Ok(Self { path: path.to_owned(), names: File::open(path)? })
    }

    /// Keeps other processes out for as long as the answer lives; none if another one is there.
    pub(super) fn lock(&self) -> io::Result<Option<File>> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

const LOCK: &str = "lock";

impl Volume for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(io::Result::transpose).collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Blob>> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).read(true).write(true).mode(0o600);
        Ok(Arc::new(options.open(self.path.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Blob>> {
        let path = self.path.join(name);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        Ok(Arc::new(file.or_else(|_| File::open(&path))?))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(self.path.join(from), self.path.join(to))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.names.sync_all()
    }
}

impl Blob for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64, patience: Patience) -> io::Result<usize> {
        loop {
            let read = match patience {
                Patience::Wait => FileExt::read_at(self, into, offset),
                Patience::None => read_cached(self, into, offset),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// Reads what the system has in memory. A file system that can't tell is one where it has to be waited for.
fn read_cached(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut into = [IoSliceMut::new(into)];
    match rustix::io::preadv2(file, &mut into, offset, ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(read),
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error.into()),
    }
}
