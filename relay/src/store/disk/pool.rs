//! Memory that is read into, used again and again: taking it from the system anew, and having it zeroed, would cost as
//! much as reading.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Buffers that are kept, and bytes that one may have to be.
const BUFFERS: usize = 32;
const LARGEST: usize = 1 << 20;

/// Buffers that nobody uses. Cloning gives another handle to them.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer that comes back when nobody needs its bytes any more.
struct Lent {
    bytes: Vec<u8>,
    pool: Pool,
}

impl Pool {
    /// So many bytes, as `fill` leaves them.
    ///
    /// # Errors
    /// Those of `fill`.
    pub(super) fn filled<E>(
        &self,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        let mut bytes = self.buffers().pop().unwrap_or_default();
        // What is in it from before is overwritten.
        bytes.resize(length, 0);
        fill(&mut bytes)?;
        Ok(Bytes::from_owner(Lent { bytes, pool: self.clone() }))
    }

    fn buffers(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut buffers = self.pool.buffers();
        if buffers.len() < BUFFERS && self.bytes.capacity() <= LARGEST {
            buffers.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_bytes_go_and_shows_nothing_of_before() {
        let pool = Pool::default();
        let fill = |value: u8| {
            move |bytes: &mut [u8]| {
                bytes.fill(value);
                Ok::<_, ()>(())
            }
        };
        let whole = pool.filled(100, fill(1)).unwrap();
        let part = whole.slice(10..20);
        drop(whole);
        assert_eq!((pool.buffers().len(), &part[..]), (0, &[1; 10][..]));
        drop(part);
        assert_eq!(pool.buffers().len(), 1);
        assert_eq!(&pool.filled(7, fill(2)).unwrap()[..], [2; 7]);
    }
}
