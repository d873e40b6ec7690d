//! Where the relay's data is: a folder, or a small disk of its own that can be filled.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

/// Bytes of the small disk.
const SIZE: &str = "12m";

/// A place for data, gone with this.
#[derive(Debug)]
pub(super) struct Disk {
    folder: TempDir,
    small: bool,
    /// Since when it is full.
    since: Option<Instant>,
    /// How long it was.
    pub(super) full: Duration,
}

impl Disk {
    /// Makes one in the system's folder for what is temporary; `small`: a disk in memory, which needs root.
    pub(super) fn new(small: bool) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("crash-").tempdir().context("no temporary folder")?;
        if small {
            let options = format!("size={SIZE}");
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &options, "crash"]).arg(folder.path());
            let output = mount.output().context("there is no `mount`")?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
                bail!("--full needs a small disk, and only root may mount one: {said}");
            }
        }
        Ok(Self { folder, small, since: None, full: Duration::ZERO })
    }

    /// The folder for the data.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Takes all of the room that is left.
    pub(super) fn fill(&mut self) -> Result<()> {
        let mut filler = File::options().create(true).append(true).open(self.filler())?;
        // By pages, so that nothing is left.
        for size in [64 * 1024, 4096] {
            loop {
                match filler.write_all(&vec![0; size]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("filling the disk"),
                }
            }
        }
        self.since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Gives it back.
    pub(super) fn free(&mut self) -> Result<()> {
        if let Some(since) = self.since.take() {
            self.full += since.elapsed();
        }
        match fs::remove_file(self.filler()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("freeing the disk"),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Leaves the data where it is, for whoever looks into what went wrong; the folder.
    pub(super) fn keep(&mut self) -> PathBuf {
        self.small = false;
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.small {
            // At once or once nobody uses it any more.
            let _ = Command::new("umount").arg("--lazy").arg(self.folder.path() as &Path).status();
        }
    }
}
