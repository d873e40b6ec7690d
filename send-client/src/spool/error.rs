//! Why a spool can't be used, in words, with the exit code and what can be done.

use std::{io, path::Path};

use shared::client::Exit;

use crate::failure::{Failure, reason};

/// Why a spool can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The system does not let it be read or written.
    #[error("{}", reason(.0))]
    Io(#[from] io::Error),
    /// Another process uses it.
    #[error("another send-client is using it")]
    InUse,
    /// The directory holds something else.
    #[error("it is a directory with other files, and no spool")]
    Foreign,
    /// A later version of the program wrote it.
    #[error("a newer version has written it, in format {0}")]
    Newer(u32),
    /// What is in it is not what was written.
    #[error("{file} is damaged at byte {at}: {why}")]
    Damaged {
        /// The file's name.
        file: String,
        /// Where.
        at: u64,
        /// What is wrong there.
        why: String,
    },
}

impl SpoolError {
    pub(super) fn damaged(file: &str, at: u64, why: impl Into<String>) -> Self {
        Self::Damaged { file: file.into(), at, why: why.into() }
    }

    /// As the end of the program.
    pub fn into_failure(self, path: &Path) -> Failure {
        let exit = match self {
            Self::Foreign => Exit::Usage,
            Self::Io(_) | Self::InUse | Self::Newer(_) | Self::Damaged { .. } => Exit::Failure,
        };
        let path = path.display();
        let failure = Failure::new(exit, format!("cannot use the spool {path}: {self}"));
        match self {
            Self::Io(_) => failure,
            Self::InUse => failure.hint("choose another directory, or stop the other one"),
            Self::Foreign => failure.hint("choose a directory that is empty, or not there yet"),
            Self::Newer(_) => failure.hint("use that version"),
            Self::Damaged { .. } => failure.hint(
                "nothing was changed. Set the directory aside and go on with another one; what is not confirmed in \
                 it has to be sent anew",
            ),
        }
    }
}
