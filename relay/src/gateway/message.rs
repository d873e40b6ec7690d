//! A whole message, and what becomes of it. Pure.

use std::{borrow::Cow, sync::Arc};

use shared::Kind;

use super::{frame::Violation, pattern::Excess, rules::Closing};

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// UTF-8.
    Text(Cow<'a, str>),
    /// Any bytes.
    Binary(Cow<'a, [u8]>),
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It goes on; as it came if it is borrowed.
    Pass(Message<'a>),
    /// It does not.
    Drop,
    /// Nor does anything behind it.
    Close(Arc<Closing>),
    /// What rules would make of it is too much.
    Excess(Excess),
}

impl Message<'_> {
    /// What it carries.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// What kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Text(_) => Kind::Text,
            Self::Binary(_) => Kind::Binary,
        }
    }
}

impl<'a> Message<'a> {
    /// A message that lies here.
    ///
    /// # Errors
    /// If it is to be text and is none.
    pub fn new(kind: Kind, bytes: &'a [u8]) -> Result<Self, Violation> {
        match kind {
            Kind::Text => {
                std::str::from_utf8(bytes).map(|text| Self::Text(text.into())).map_err(|_| Violation::NotText)
            }
            Kind::Binary => Ok(Self::Binary(bytes.into())),
        }
    }
}
