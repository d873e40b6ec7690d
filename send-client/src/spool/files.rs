//! The files of a spool's directory, as few operations as the spool needs: so that tests can take the place of the
//! disk.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// A directory without directories. Names are those of the spool.
pub(super) trait Files {
    /// The names there are.
    fn list(&self) -> io::Result<Vec<String>>;
    /// All of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Exactly these bytes of a file.
    fn read_at(&mut self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// Appends to a file, which is created.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Waits until what was appended to a file is on disk.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Cuts a file.
    fn cut(&mut self, name: &str, length: u64) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Gives a file another name, which it takes from another file.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Waits until names are on disk.
    fn sync_names(&mut self) -> io::Result<()>;
}

/// What a replaced file is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replacing {
    /// After any crash it is the old file or the new one, and the new one once this is done.
    Durable,
    /// As long as the system runs on. After it has crashed, the file may be torn.
    Quick,
}

/// Replaces a file as a whole.
pub(super) fn replace(files: &mut impl Files, name: &str, bytes: &[u8], how: Replacing) -> io::Result<()> {
    let draft = format!("{name}.new");
    if files.list()?.contains(&draft) {
        files.remove(&draft)?;
    }
    files.append(&draft, bytes)?;
    if how == Replacing::Quick {
        return files.rename(&draft, name);
    }
    files.sync(&draft)?;
    files.rename(&draft, name)?;
    files.sync_names()
}

/// A directory of the system.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// The file that is appended to.
    writing: Option<(String, File)>,
    /// The file that is read.
    reading: Option<(String, File)>,
}

impl Directory {
    /// A directory, which is created; for its owner alone, as the messages in it may be.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self { path: path.into(), writing: None, reading: None })
    }

    /// Opens a file that is there only to be locked.
    pub(super) fn lock_file(&self, name: &str) -> io::Result<File> {
        options().open(self.path.join(name))
    }

    fn writing(&mut self, name: &str) -> io::Result<&mut File> {
        let file = match self.writing.take() {
            Some((open, file)) if open == name => file,
            _ => options().open(self.path.join(name))?,
        };
        Ok(&mut self.writing.insert((name.into(), file)).1)
    }

    fn forget(&mut self, name: &str) {
        self.writing.take_if(|(open, _)| open == name);
        self.reading.take_if(|(open, _)| open == name);
    }
}

impl Files for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let names =
            fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }

    fn read_at(&mut self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let file = match self.reading.take() {
            Some((open, file)) if open == name => file,
            _ => File::open(self.path.join(name))?,
        };
        self.reading.insert((name.into(), file)).1.read_exact_at(into, offset)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.writing(name)?.write_all(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.writing(name)?.sync_data()
    }

    fn cut(&mut self, name: &str, length: u64) -> io::Result<()> {
        let file = self.writing(name)?;
        file.set_len(length)?;
        file.sync_data()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.forget(name);
        fs::remove_file(self.path.join(name))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.forget(from);
        self.forget(to);
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync_names(&mut self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options
}
