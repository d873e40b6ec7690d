//! A small disk of a test's own, which can be filled: in memory, and only root may mount one.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A disk, gone when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
    /// Since when it is full.
    since: Option<Instant>,
    full: Duration,
}

impl SmallDisk {
    /// Mounts one of so many bytes, in the spelling of `mount`: `12m`.
    ///
    /// # Errors
    /// In words: this process may not mount one, for example.
    pub fn mount(size: &str) -> Result<Self, String> {
        let folder =
            tempfile::Builder::new().prefix("small-disk-").tempdir().map_err(|error| error.to_string())?;
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "small-disk"]).arg(folder.path());
        let output = mount.output().map_err(|error| format!("there is no `mount`: {error}"))?;
        if !output.status.success() {
            return Err(format!(
                "a small disk can't be mounted, which needs root: {}",
                String::from_utf8_lossy(&output.stderr).trim_end()
            ));
        }
        Ok(Self { folder, since: None, full: Duration::ZERO })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all of the room that is left.
    ///
    /// # Errors
    /// Of the system, other than that there is no room.
    pub fn fill(&mut self) -> io::Result<()> {
        let mut filler = File::options().create(true).append(true).open(self.filler())?;
        // Pages at the end, so that nothing is left.
        for size in [64 * 1024, 4096] {
            loop {
                match filler.write_all(&vec![0; size]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        self.since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Gives it back.
    ///
    /// # Errors
    /// Of the system.
    pub fn free(&mut self) -> io::Result<()> {
        if let Some(since) = self.since.take() {
            self.full += since.elapsed();
        }
        match fs::remove_file(self.filler()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// How long it was full in all.
    pub fn full(&self) -> Duration {
        self.full
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // At once, or once nobody uses it any more.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
