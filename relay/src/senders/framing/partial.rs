//! The bytes of a message that is not complete yet.

/// Capacity that stays for the next unfinished message: most are shorter, and a sender that once had a long
/// one does not keep a megabyte for ever.
const KEPT_CAPACITY: usize = 4096;

/// The kept bytes of an unfinished message; never more than the limit, in capacity too.
#[derive(Debug)]
pub(super) struct Partial {
    bytes: Vec<u8>,
    limit: usize,
}

impl Partial {
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that still fit.
    pub(super) fn room(&self) -> usize {
        self.limit - self.bytes.len()
    }

    /// Appends bytes for which there is [`room`](Self::room).
    pub(super) fn push(&mut self, more: &[u8]) {
        assert!(more.len() <= self.room(), "an unfinished message grew beyond its limit");
        let needed = self.bytes.len() + more.len();
        if needed > self.bytes.capacity() {
            let capacity = needed.max(self.bytes.capacity() * 2).min(self.limit);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
    }

    /// Drops the oldest bytes.
    pub(super) fn drop_first(&mut self, count: usize) {
        self.bytes.drain(..count);
    }

    pub(super) fn clear(&mut self) {
        if self.bytes.capacity() > KEPT_CAPACITY {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_takes_more_than_its_limit_and_gives_much_of_it_back() {
        let mut partial = Partial::new(10_000);
        for _ in 0..10 {
            partial.push(&[7; 1000]);
            assert!(partial.capacity() <= 10_000);
        }
        assert_eq!((partial.len(), partial.room()), (10_000, 0));
        partial.clear();
        assert!(partial.is_empty() && partial.capacity() <= KEPT_CAPACITY);
    }
}
