//! Folders on a real file system: what they take, what reaches the disk, and what is warm.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// A folder that is empty at first, and gone at the end.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

/// What a folder takes, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    /// The lengths of its files.
    pub(super) length: u64,
    /// The blocks that the file system gave them.
    pub(super) blocks: u64,
}

impl Folder {
    /// Makes it, and lets what was written before reach the disk, so that nobody pays for another's work.
    pub(super) fn new(path: PathBuf) -> Result<Self> {
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        let done = Command::new("sync").arg("--file-system").arg(&path).status().context("starting sync")?;
        ensure!(done.success(), "sync ended with {done}");
        Ok(Self(path))
    }

    /// Puts a copy of all that is in another folder into it.
    pub(super) fn copy(&self, other: &Self) -> Result<()> {
        let from = other.0.join(".");
        let done =
            Command::new("cp").arg("--archive").arg(from).arg(&self.0).status().context("starting cp")?;
        ensure!(done.success(), "cp ended with {done}");
        Ok(())
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A file system as `/proc/self/mountinfo` has it.
#[derive(Debug)]
pub(super) struct FileSystem {
    /// For example `ext4`.
    pub(super) kind: String,
    /// Major and minor number of its device.
    device: String,
}

impl FileSystem {
    /// The one that a folder is on.
    ///
    /// # Errors
    /// It is in memory, where a sync costs nothing.
    pub(super) fn of(folder: &Path) -> Result<Self> {
        let folder = folder.canonicalize().with_context(|| folder.display().to_string())?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let longest = mounts.lines().filter_map(mount).filter(|(at, _)| folder.starts_with(at));
        let (_, found) =
            longest.max_by_key(|(at, _)| at.len()).context("a folder on no file system that is mounted")?;
        let in_memory = ["tmpfs", "ramfs"].contains(&found.kind.as_str());
        ensure!(!in_memory, "{} is on {}, and a real disk is needed", folder.display(), found.kind);
        Ok(found)
    }

    /// Bytes that its device has taken from everyone so far, if it tells.
    pub(super) fn written(&self) -> Option<u64> {
        let stat = fs::read_to_string(format!("/sys/dev/block/{}/stat", self.device)).ok()?;
        // Sectors of 512 bytes, whatever the device.
        Some(stat.split_whitespace().nth(6)?.parse::<u64>().ok()? * 512)
    }
}

/// Where it is mounted, and what; proc_pid_mountinfo(5).
fn mount(line: &str) -> Option<(&str, FileSystem)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(2);
    let (device, at) = (place.next()?.to_owned(), place.nth(1)?);
    Some((at, FileSystem { kind: kind.split(' ').next()?.to_owned(), device }))
}

/// What a folder takes with all that is in it.
pub(super) fn size(folder: &Path) -> Result<Size> {
    let mut all = Size::default();
    for file in files(folder)? {
        // One that is gone since then takes nothing.
        let Ok(data) = fs::metadata(file) else { continue };
        all.length += data.len();
        all.blocks += data.blocks() * 512;
    }
    Ok(all)
}

/// Reads all of it, so that it is in the page cache.
pub(super) fn warm(folder: &Path) -> Result<()> {
    let mut buffer = vec![0; 1024 * 1024];
    for file in files(folder)? {
        let mut file = File::open(&file).with_context(|| file.display().to_string())?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(self::files(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_has_a_place_a_kind_and_a_device() {
        let (at, found) =
            mount("36 35 98:0 /mnt1 /mnt/parent rw,noatime master:1 - ext3 /dev/root rw").unwrap();
        assert_eq!((at, &found.kind[..], &found.device[..]), ("/mnt/parent", "ext3", "98:0"));
    }

    #[test]
    fn what_files_in_folders_take_is_added_up() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("one"), [0; 100]).unwrap();
        fs::write(folder.path().join("below/two"), [0; 23]).unwrap();
        assert_eq!(size(folder.path()).unwrap().length, 123);
    }
}
