//! The payloads of the load: each says whose and which it is, and differs from all others.

/// Bytes of the mark that a payload begins with: four hex digits of its origin, twelve of its number.
pub(crate) const MARK: usize = 16;

/// How many different fillings there are: so few that they stay in the core's first cache.
const NOISE: usize = 8 * 1024;

/// Makes payloads of one length. They are printable and have no newline, so that servers that take lines or text
/// can carry them.
#[derive(Debug)]
pub(crate) struct Payloads {
    length: usize,
    noise: Vec<u8>,
}

/// Where a payload comes from: the channel or the sender it was made for, and its number there, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) origin: u16,
    pub(crate) number: u64,
}

impl Payloads {
    /// Payloads of so many bytes, at least those of the mark.
    pub(crate) fn new(length: usize) -> Self {
        assert!(length >= MARK, "a payload has {MARK} bytes or more");
        let mut random = fastrand::Rng::with_seed(7);
        Self { length, noise: (0..NOISE + length).map(|_| random.u8(b'!'..=b'~')).collect() }
    }

    /// Bytes of a payload.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Makes `out` the payload of that mark.
    pub(crate) fn write(&self, mark: Mark, out: &mut Vec<u8>) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bits = u64::from(mark.origin) << 48 | mark.number;
        let digits: [u8; MARK] = std::array::from_fn(|at| DIGITS[(bits >> (60 - 4 * at)) as usize & 15]);
        let from =
            (mark.number as usize).wrapping_mul(97).wrapping_add(usize::from(mark.origin) * 31) % NOISE;
        out.clear();
        out.extend_from_slice(&digits);
        out.extend_from_slice(&self.noise[from..from + self.length - MARK]);
    }
}

impl Mark {
    /// The mark at the beginning of the bytes.
    pub(crate) fn of(payload: &[u8]) -> Option<Self> {
        let digits = std::str::from_utf8(payload.get(..MARK)?).ok()?;
        let bits = u64::from_str_radix(digits, 16).ok()?;
        Some(Self { origin: (bits >> 48) as u16, number: bits & ((1 << 48) - 1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_whose_and_which_it_is_and_no_two_are_alike() {
        let payloads = Payloads::new(40);
        let (mut one, mut next) = (Vec::new(), Vec::new());
        let mark = Mark { origin: 0xfedc, number: 0x0000_8000_0000_0001 };
        payloads.write(mark, &mut one);
        payloads.write(Mark { number: mark.number + 1, ..mark }, &mut next);
        assert_eq!((one.len(), Mark::of(&one)), (40, Some(mark)));
        assert_ne!(one[MARK..], next[MARK..]);
        assert!(one.iter().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(Mark::of(b"00000000000000"), None);
    }
}
