//! Bytes as a hexdump: offset, sixteen bytes, and what of them is ASCII.

use std::io::Write as _;

const PER_LINE: usize = 16;

/// Appends lines for the first `cap` bytes, without a newline at the end, and says how many were left out.
pub(crate) fn push_hexdump(out: &mut Vec<u8>, bytes: &[u8], cap: usize) {
    let shown = &bytes[..bytes.len().min(cap)];
    for (index, line) in shown.chunks(PER_LINE).enumerate() {
        if index > 0 {
            out.push(b'\n');
        }
        push_line(out, index * PER_LINE, line);
    }
    let left = bytes.len() - shown.len();
    if left > 0 {
        let _ = write!(out, "\n\u{2026} {left} more byte{}", if left == 1 { "" } else { "s" });
    }
}

/// Writing to memory does not fail, so results are not looked at here.
fn push_line(out: &mut Vec<u8>, offset: usize, line: &[u8]) {
    let _ = write!(out, "{offset:08x} ");
    for column in 0..PER_LINE {
        if column % 8 == 0 {
            out.push(b' ');
        }
        let _ = match line.get(column) {
            Some(byte) => write!(out, "{byte:02x} "),
            None => write!(out, "   "),
        };
    }
    out.extend_from_slice(b" |");
    out.extend(line.iter().map(|&b| if b.is_ascii_graphic() || b == b' ' { b } else { b'.' }));
    out.push(b'|');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dump(bytes: &[u8], cap: usize) -> String {
        let mut out = Vec::new();
        push_hexdump(&mut out, bytes, cap);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_dump_has_the_form_that_everybody_knows() {
        assert_eq!(
            dump(b"hello, world \x00\xff and more", 256),
            "00000000  68 65 6c 6c 6f 2c 20 77  6f 72 6c 64 20 00 ff 20  |hello, world .. |\n\
             00000010  61 6e 64 20 6d 6f 72 65                           |and more|"
        );
    }

    #[test]
    fn what_is_beyond_the_cap_is_counted() {
        assert!(dump(&[0; 300], 256).ends_with("\n\u{2026} 44 more bytes"));
        assert!(dump(&[0; 257], 256).ends_with("\n\u{2026} 1 more byte"));
        assert_eq!(dump(&[0; 256], 256).lines().count(), 16);
    }

    proptest! {
        #[test]
        fn every_byte_can_be_read_back(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let read: Vec<u8> = dump(&bytes, usize::MAX)
                .lines()
                .flat_map(|line| line[10..59].split_whitespace().map(|h| u8::from_str_radix(h, 16).unwrap()).collect::<Vec<_>>())
                .collect();
            prop_assert_eq!(read, bytes);
        }
    }
}
