//! A message that is not whole yet: what there is of it, behind room for the header that it is to have. Text is looked
//! at as it comes, so that what can't become any is told at once. Pure.

use shared::Kind;

use crate::gateway::{
    frame::{MAX_HEADER, Violation},
    message::Message,
};

/// A message so far.
#[derive(Debug)]
pub(super) struct Held {
    /// What its first frame was masked with: its client chose that, and no page could.
    pub(super) key: Option<[u8; 4]>,
    pub(super) body: Body,
}

/// Behind room of the longest header.
#[derive(Debug)]
pub(super) enum Body {
    /// With the beginning of a character that is not whole.
    Text(String, Vec<u8>),
    Binary(Vec<u8>),
}

/// Memory that is taken at once for a message that is announced; more is when it comes.
const TAKEN_AT_ONCE: usize = 64 * 1024;

impl Body {
    /// Of so many bytes that its first frame announces.
    pub(super) fn new(kind: Kind, announced: u64) -> Self {
        let announced = usize::try_from(announced).unwrap_or(usize::MAX).min(TAKEN_AT_ONCE);
        let mut bytes = Vec::with_capacity(MAX_HEADER + announced);
        bytes.resize(MAX_HEADER, 0);
        match kind {
            // The room is text: bytes of 0 are.
            Kind::Text => Self::Text(String::from_utf8(bytes).unwrap_or_default(), Vec::new()),
            Kind::Binary => Self::Binary(bytes),
        }
    }

    /// What it is to be.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Text(..) => Kind::Text,
            Self::Binary(_) => Kind::Binary,
        }
    }

    /// Bytes of the message so far.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(text, begun) => text.len() - MAX_HEADER + begun.len(),
            Self::Binary(bytes) => bytes.len() - MAX_HEADER,
        }
    }

    /// Adds bytes. What can't become text is told at once.
    pub(super) fn push(&mut self, mut part: &[u8]) -> Result<(), Violation> {
        let (text, begun) = match self {
            Self::Binary(bytes) => {
                bytes.extend_from_slice(part);
                return Ok(());
            }
            Self::Text(text, begun) => (text, begun),
        };
        while let (false, Some((&byte, rest))) = (begun.is_empty(), part.split_first()) {
            begun.push(byte);
            part = rest;
            match std::str::from_utf8(begun) {
                Ok(character) => {
                    text.push_str(character);
                    begun.clear();
                }
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Violation::NotText),
            }
        }
        match std::str::from_utf8(part) {
            Ok(part) => text.push_str(part),
            Err(error) if error.error_len().is_none() => {
                let (whole, rest) = part.split_at(error.valid_up_to());
                text.push_str(std::str::from_utf8(whole).map_err(|_| Violation::NotText)?);
                begun.extend_from_slice(rest);
            }
            Err(_) => return Err(Violation::NotText),
        }
        Ok(())
    }

    /// The message, which is whole now.
    pub(super) fn message(&self) -> Result<Message<'_>, Violation> {
        match self {
            Self::Text(text, begun) if begun.is_empty() => Ok(Message::Text(text[MAX_HEADER..].into())),
            Self::Text(..) => Err(Violation::NotText),
            Self::Binary(bytes) => Ok(Message::Binary(bytes[MAX_HEADER..].into())),
        }
    }

    /// The room and the message.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text, _) => text.into_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}
