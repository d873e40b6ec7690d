//! Headers of WebSocket frames as a server writes them (RFC 6455, section 5.2): final, unmasked, unextended.
//! A message is one frame, so that the same bytes serve every receiver.

use bytes::BufMut;

use crate::Kind;

/// The bytes that the longest header takes.
pub const MAX_HEADER: usize = 10;

/// One frame of a run of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Text or binary, as its opcode says.
    pub kind: Kind,
    /// What it carries.
    pub payload: &'a [u8],
    /// Header and payload together.
    pub bytes: &'a [u8],
}

/// Walks over the frames of a run that [`put`] made.
#[derive(Debug, Clone)]
pub struct Frames<'a>(&'a [u8]);

/// The bytes that a header takes for a payload of that length.
pub const fn header_len(payload: usize) -> usize {
    match payload {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => MAX_HEADER,
    }
}

/// Writes the header of a message.
pub fn put_header(out: &mut impl BufMut, kind: Kind, payload: usize) {
    out.put_u8(match kind {
        Kind::Text => 0x81,
        Kind::Binary => 0x82,
    });
    match payload {
        0..=125 => out.put_u8(payload as u8),
        126..=0xffff => {
            out.put_u8(126);
            out.put_u16(payload as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(payload as u64);
        }
    }
}

/// Writes a message as one frame.
pub fn put(out: &mut impl BufMut, kind: Kind, payload: &[u8]) {
    put_header(out, kind, payload.len());
    out.put_slice(payload);
}

/// Walks over a run of whole frames.
///
/// The run must have been made by [`put`]: anything else ends the walk early.
pub fn walk(run: &[u8]) -> Frames<'_> {
    Frames(run)
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let (&opcode, &short) = (self.0.first()?, self.0.get(1)?);
        let kind = match opcode {
            0x81 => Kind::Text,
            0x82 => Kind::Binary,
            _ => return None,
        };
        let (header, length) = match short {
            0..=125 => (2, usize::from(short)),
            126 => (4, usize::from(u16::from_be_bytes(*self.0.get(2..4)?.as_array()?))),
            127 => (MAX_HEADER, usize::try_from(u64::from_be_bytes(*self.0.get(2..10)?.as_array()?)).ok()?),
            _ => return None,
        };
        let end = header.checked_add(length)?;
        let bytes = self.0.get(..end)?;
        self.0 = &self.0[end..];
        Some(Frame { kind, payload: &bytes[header..], bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lengths() -> impl Strategy<Value = usize> {
        prop_oneof![0usize..300, Just(125), Just(126), Just(65535), Just(65536), 65530usize..70000]
    }

    proptest! {
        #[test]
        fn a_run_walks_back_to_the_messages_it_was_made_of(messages in prop::collection::vec((any::<bool>(), lengths()), 0..6)) {
            let messages: Vec<_> = messages.iter().map(|&(text, n)| (if text { Kind::Text } else { Kind::Binary }, vec![b'x'; n])).collect();
            let mut run = Vec::new();
            for (kind, payload) in &messages {
                let before = run.len();
                put(&mut run, *kind, payload);
                prop_assert_eq!(run.len() - before, header_len(payload.len()) + payload.len());
            }
            let walked: Vec<_> = walk(&run).map(|f| (f.kind, f.payload.to_vec())).collect();
            prop_assert_eq!(walked, messages);
        }

        #[test]
        fn walking_arbitrary_bytes_never_panics(bytes: Vec<u8>) {
            let total: usize = walk(&bytes).map(|f| f.bytes.len()).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}
