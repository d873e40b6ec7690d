//! How a connection ends, and what the relay refuses.

use std::io;

use shared::{
    ErrorCode, WireError,
    sender::{Alias, Close},
};

use crate::{
    failure::{printable, reason},
    outbox::Confused,
};

/// Why something was refused, in the relay's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The number of an [`ErrorCode`], perhaps of a later version.
    pub code: u16,
    /// For people.
    pub text: String,
}

/// Why a connection ended, or did not come to be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum End {
    /// It was lost; another may be tried.
    #[error("{0}")]
    Lost(String),
    /// The relay ended it and said why.
    #[error("{0}")]
    Refused(Refusal),
    /// The relay ended it because of one channel, which was to be opened; the others can do without it.
    #[error("{1}")]
    ChannelRefused(Alias, Refusal),
}

impl Refusal {
    pub(super) fn new(code: u16, text: &str) -> Self {
        Self { code, text: printable(text) }
    }

    /// The code, if this version knows it.
    pub fn error_code(&self) -> Option<ErrorCode> {
        ErrorCode::from_number(self.code)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.text.as_str(), self.error_code()) {
            ("", Some(code)) => write!(f, "{code}"),
            ("", None) => write!(f, "code {}", self.code),
            (text, _) => f.write_str(text),
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(reason(&error))
    }
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        Self::Refused(Refusal::new(
            ErrorCode::Protocol.number(),
            &format!("what the relay says is broken, or newer: {error}"),
        ))
    }
}

impl From<Confused> for End {
    fn from(error: Confused) -> Self {
        Self::Refused(Refusal::new(ErrorCode::Protocol.number(), &format!("the relay is confused: {error}")))
    }
}

impl End {
    /// A relay that opened a channel without the level that was asked for.
    pub(super) fn level_unsupported(alias: Alias) -> Self {
        let refusal = Refusal::new(ErrorCode::LevelUnsupported.number(), "the channel does not give it");
        Self::ChannelRefused(alias, refusal)
    }

    /// What a CLOSE means; one without a code refuses nothing.
    pub(super) fn closed(close: &Close<'_>) -> Self {
        if close.code == 0 {
            Self::Lost("it closed the connection".into())
        } else {
            Self::Refused(Refusal::new(close.code, close.text))
        }
    }
}
