//! Payloads made visible: nothing that they contain can move the cursor, change colours or the order of text
//! on a terminal.

use std::io::Write as _;

/// Appends the bytes with every control character but newline and tab, every mark that changes the direction
/// of text, and every byte that is no UTF-8 as `\x1b` or `\u{202e}`.
pub(crate) fn push_visible(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        push_escaped(out, chunk.valid(), |out, c| match u32::from(c) {
            0x0a | 0x09 => out.push(c as u8),
            code @ 0..=0xff => push(out, format_args!("\\x{code:02x}")),
            code => push(out, format_args!("\\u{{{code:x}}}")),
        });
        for byte in chunk.invalid() {
            push(out, format_args!("\\x{byte:02x}"));
        }
    }
}

/// Appends JSON with the same characters in the escapes of JSON, so that it is visible and still the same
/// value. They can stand only inside of its strings.
pub(crate) fn push_visible_json(out: &mut Vec<u8>, json: &str) {
    push_escaped(out, json, |out, c| push(out, format_args!("\\u{:04x}", u32::from(c))));
}

fn push_escaped(out: &mut Vec<u8>, text: &str, escape: impl Fn(&mut Vec<u8>, char)) {
    let mut plain = 0;
    for (at, c) in text.char_indices().filter(|&(_, c)| is_active(c)) {
        out.extend_from_slice(&text.as_bytes()[plain..at]);
        escape(out, c);
        plain = at + c.len_utf8();
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
}

/// Controls (C0, DEL, C1), line and paragraph separators, and the marks that reorder text.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn visible(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        push_visible(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_would_drive_a_terminal_is_shown_instead() {
        assert_eq!(visible(b"a\x1b[31mred\x07\r\n\tb"), "a\\x1b[31mred\\x07\\x0d\n\tb");
        assert_eq!(visible("\u{9b}2J \u{202e}abc".as_bytes()), "\\x9b2J \\u{202e}abc");
        assert_eq!(visible(b"\xff\xfea"), "\\xff\\xfea");
        assert_eq!(visible("gr\u{fc}n \u{1f600}".as_bytes()), "gr\u{fc}n \u{1f600}");
    }

    proptest! {
        #[test]
        fn nothing_active_is_left_whatever_the_payload(bytes: Vec<u8>, text in "\\PC*") {
            for payload in [bytes.as_slice(), text.as_bytes()] {
                prop_assert!(!visible(payload).chars().any(|c| is_active(c) && c != '\n' && c != '\t'));
            }
        }

        #[test]
        fn visible_json_is_the_same_value(text: String) {
            let json = serde_json::to_string(&text).unwrap();
            let mut out = Vec::new();
            push_visible_json(&mut out, &json);
            let out = String::from_utf8(out).unwrap();
            prop_assert!(!out.chars().any(is_active));
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }
}
