//! Which store a directory is: a small text file that people can read.

use std::{hash::BuildHasher as _, io};

use shared::Epoch;

use super::volume::{self, Volume};

/// The file's name.
pub(super) const NAME: &str = "store";
/// The version of everything in the directory.
pub(super) const VERSION: u64 = 1;

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) version: u64,
    pub(super) epoch: Epoch,
}

impl Identity {
    /// That of a new store.
    pub(super) fn new() -> Self {
        let epoch = Epoch(std::hash::RandomState::new().hash_one(std::time::SystemTime::now()));
        Self { version: VERSION, epoch }
    }

    /// Reads the file; none if it is not there, or says nothing that can be understood.
    pub(super) fn load(volume: &dyn Volume) -> io::Result<Option<Self>> {
        let text = match volume::read(volume, NAME) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let value = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix('=')).map(str::trim)
        };
        let version = value("version").and_then(|version| version.parse().ok());
        // What a newer version has there this one need not understand.
        let epoch = value("epoch").and_then(|epoch| epoch.parse().ok());
        Ok(match (version, epoch) {
            (Some(version), Some(epoch)) => Some(Self { version, epoch }),
            (Some(version), None) if version > VERSION => Some(Self { version, epoch: Epoch(0) }),
            _ => None,
        })
    }

    /// Writes the file.
    pub(super) fn write(&self, volume: &dyn Volume) -> io::Result<()> {
        let Self { version, epoch } = self;
        let text = format!(
            "# The log of a relay. Don't change anything here while it runs.\nversion = {version}\nepoch = {epoch}\n"
        );
        volume::replace(volume, NAME, text.as_bytes())
    }
}
