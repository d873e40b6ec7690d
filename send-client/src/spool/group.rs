//! The unit on disk: what was kept at once, with a checksum. Pure: bytes in, bytes out.
//!
//! A group is `magic 4 B, its number u64, length u32, CRC-32 u32 of number, length and frames`, then the frames of
//! the framed protocol: OPEN says what a channel is called in those that follow and which number comes next in it,
//! PUBLISH is a message. Big-endian, as the protocol is. Groups are numbered over all segments, so that one that
//! was cut off and one that went bad can be told apart: behind the former there is no later one.

use crc32fast::Hasher;
use memchr::memmem;

/// Bytes before the frames.
pub(super) const HEADER: usize = 20;

const MAGIC: [u8; 4] = *b"\xABrsg";

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// The group of the expected number: its frames.
    Group(&'a [u8]),
    /// Nothing: the bytes are at their end.
    End,
    /// Something else than the expected group.
    Bad,
}

/// Appends a group of these frames, less than 4 GiB.
pub(super) fn seal(number: u64, frames: &[u8], out: &mut Vec<u8>) {
    let length = frames.len() as u32;
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&checksum(number, length, frames).to_be_bytes());
    out.extend_from_slice(frames);
}

/// Looks for the group of this number at the beginning of the bytes.
pub(super) fn find(bytes: &[u8], number: u64) -> Found<'_> {
    match group(bytes) {
        _ if bytes.is_empty() => Found::End,
        Some((found, frames)) if found == number => Found::Group(frames),
        _ => Found::Bad,
    }
}

/// How many frames' bytes a header announces; none if it is not the header of this group.
pub(super) fn announced(header: &[u8; HEADER], number: u64) -> Option<usize> {
    let (magic, rest) = header.split_first_chunk()?;
    let (found, rest) = rest.split_first_chunk()?;
    let (length, _) = rest.split_first_chunk()?;
    (*magic == MAGIC && u64::from_be_bytes(*found) == number).then(|| u32::from_be_bytes(*length) as usize)
}

/// Whether a whole group of this number or a later one is anywhere in the bytes. A group is written only after
/// the one before it is on disk, so then something before it went bad.
pub(super) fn has_later(bytes: &[u8], number: u64) -> bool {
    memmem::find_iter(bytes, &MAGIC).any(|at| group(&bytes[at..]).is_some_and(|(found, _)| found >= number))
}

/// The whole group that the bytes begin with: its number and its frames.
fn group(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (magic, rest) = bytes.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let (number, length) = (u64::from_be_bytes(*number), u32::from_be_bytes(*length));
    let frames = rest.get(..length as usize)?;
    let whole = *magic == MAGIC && checksum(number, length, frames) == u32::from_be_bytes(*sum);
    whole.then_some((number, frames))
}

fn checksum(number: u64, length: u32, frames: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&number.to_be_bytes());
    hasher.update(&length.to_be_bytes());
    hasher.update(frames);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed(number: u64, frames: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        seal(number, frames, &mut out);
        out
    }

    proptest! {
        #[test]
        fn a_group_is_found_again_and_a_cut_one_is_bad(frames: Vec<u8>, number: u64, cut: usize) {
            let bytes = sealed(number, &frames);
            prop_assert_eq!(find(&bytes, number), Found::Group(&frames));
            let header: [u8; HEADER] = bytes[..HEADER].try_into().unwrap();
            prop_assert_eq!(announced(&header, number), Some(frames.len()));
            prop_assert_eq!(announced(&header, number.wrapping_add(1)), None);
            let cut = cut % bytes.len();
            let expected = if cut == 0 { Found::End } else { Found::Bad };
            prop_assert_eq!(find(&bytes[..cut], number), expected);
            prop_assert!(!has_later(&bytes[..cut], 0));
        }

        #[test]
        fn a_flipped_bit_makes_a_group_bad_and_one_behind_it_is_seen(
            frames: Vec<u8>, bit: usize, between in prop::collection::vec(any::<u8>(), 0..50)
        ) {
            let mut bytes = sealed(7, &frames);
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(find(&bytes, 7), Found::Bad);
            bytes.extend_from_slice(&between);
            prop_assert!(!has_later(&bytes, 8));
            seal(8, b"later", &mut bytes);
            prop_assert!(has_later(&bytes, 8));
            prop_assert!(!has_later(&bytes, 9));
        }

        #[test]
        fn any_bytes_are_looked_at_without_a_panic(bytes: Vec<u8>, number: u64) {
            let _ = find(&bytes, number);
            let _ = has_later(&bytes, number);
        }
    }
}
