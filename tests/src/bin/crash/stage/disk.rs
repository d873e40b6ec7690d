//! Where the relay's data is: a folder, or a small disk of its own that can be filled.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tests::disk::SmallDisk;

/// Bytes of the small disk: the rules keep about 7 MiB, and segments that are half gone stay.
const SIZE: &str = "24m";

/// A place for data, gone with this.
#[derive(Debug)]
pub(super) enum Disk {
    Folder(TempDir),
    Small(SmallDisk),
}

impl Disk {
    /// Makes one in the system's folder for what is temporary; `small`: a disk in memory, which needs root.
    pub(super) fn new(small: bool) -> Result<Self> {
        if small {
            return Ok(Self::Small(SmallDisk::mount(SIZE).map_err(anyhow::Error::msg).context("--full")?));
        }
        Ok(Self::Folder(tempfile::Builder::new().prefix("crash-").tempdir().context("no temporary folder")?))
    }

    /// The folder for the data.
    pub(super) fn data(&self) -> PathBuf {
        let folder = match self {
            Self::Folder(folder) => folder.path(),
            Self::Small(disk) => disk.path(),
        };
        folder.join("data")
    }

    /// Takes all of the room that is left, or gives it back.
    pub(super) fn set_full(&mut self, full: bool) -> Result<()> {
        match self {
            Self::Folder(_) => Ok(()),
            Self::Small(disk) if full => disk.fill().context("filling the disk"),
            Self::Small(disk) => disk.free().context("freeing the disk"),
        }
    }

    /// How long it was full.
    pub(super) fn full(&self) -> Duration {
        match self {
            Self::Folder(_) => Duration::ZERO,
            Self::Small(disk) => disk.full(),
        }
    }

    /// Copies the data to where it stays, for whoever looks into what went wrong.
    pub(super) fn keep(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        for file in fs::read_dir(self.data())? {
            let file = file?;
            fs::copy(file.path(), folder.join(file.file_name()))?;
        }
        Ok(())
    }
}
