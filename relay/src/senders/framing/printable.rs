//! Tells text from other bytes, in whatever pieces they come.
//!
//! Printable is valid UTF-8 without control characters other than tab, `\r`, `\n` and escape. Escape is
//! allowed because coloured log lines are lines; data that is not text shows itself by other bytes.

use std::str;

/// Whether everything so far was printable. A character that is not complete yet counts as printable.
#[derive(Debug, Default)]
pub(super) struct Printable {
    /// The beginning of a character whose other bytes have not come.
    begun: [u8; 4],
    length: usize,
}

impl Printable {
    /// Takes the next bytes; false: something is not printable. Not to be asked again after that.
    pub(super) fn goes_on_with(&mut self, mut bytes: &[u8]) -> bool {
        while self.length > 0 {
            let Some((&byte, rest)) = bytes.split_first() else { return true };
            bytes = rest;
            self.begun[self.length] = byte;
            self.length += 1;
            match str::from_utf8(&self.begun[..self.length]) {
                Ok(character) if has_only_printable(character) => self.length = 0,
                Err(error) if error.error_len().is_none() => {}
                Ok(_) | Err(_) => return false,
            }
        }
        let Some(chunk) = bytes.utf8_chunks().next() else { return true };
        let rest = &bytes[chunk.valid().len()..];
        let incomplete = str::from_utf8(rest).map_or_else(|error| error.error_len().is_none(), |_| true);
        if !incomplete || !has_only_printable(chunk.valid()) {
            return false;
        }
        self.begun[..rest.len()].copy_from_slice(rest);
        self.length = rest.len();
        true
    }
}

fn has_only_printable(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\r' | '\n' | '\x1b'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printable(pieces: &[&[u8]]) -> bool {
        let mut state = Printable::default();
        pieces.iter().all(|piece| state.goes_on_with(piece))
    }

    #[test]
    fn text_is_printable_and_an_unfinished_character_may_become_text() {
        assert!(printable(&[b"21.5 \xC2\xB0C\r\n\x1b[31mred\x1b[0m\t"]));
        assert!(printable(&[b"21.5 \xC2", b"\xB0C"]));
        assert!(printable(&[b"\xF0\x9F", b"\x8C", b"\xA1"]));
        assert!(printable(&[b"21.5 \xC2"]));
    }

    #[test]
    fn control_characters_and_broken_utf8_are_not_printable() {
        for bytes in [&b"\0"[..], b"a\x07", b"\x7f", b"\xC2\x85", b"\xFF", b"\xC2a", b"\xC0\x80", b"a\xF5WSR"]
        {
            assert!(!printable(&[bytes]), "{bytes:?}");
        }
        assert!(!printable(&[b"\xC2", b"a"]));
        assert!(!printable(&[b"\xE2", b"\x82", b"\xE2"]));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..12), text in "\\PC{0,12}", cut in 0usize..40) {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let (head, tail) = bytes.split_at(cut.min(bytes.len()));
                prop_assert_eq!(printable(&[head, tail]), printable(&[bytes]));
            }
        }
    }
}
