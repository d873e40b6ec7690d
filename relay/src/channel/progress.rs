//! The receivers of a view, as far as others need to know them: how far each is, whether it is waited for, and how it
//! is woken.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
    time::Duration,
};

use futures_util::task::AtomicWaker;

/// In place of an index: the receiver is not waited for, since it reads the store.
const NOT_COUNTED: u64 = u64::MAX;

/// How far a receiver is.
#[derive(Debug)]
pub(super) struct Progress {
    /// The index in the view of the chunk that it wants next.
    next: AtomicU64,
    /// It was waited for in vain and counts again when it is back at the head.
    tired: AtomicBool,
    /// Microseconds that senders may still be held for it in all, where its channel says `block`.
    credit: AtomicU64,
    /// Where it stands among the receivers of its view.
    place: AtomicUsize,
    /// Wakes it, if it waits. One of its own, and not a list that all share: waiting costs it nothing but this.
    waker: AtomicWaker,
}

/// The receivers of a view, in no order.
#[derive(Debug, Default)]
pub(super) struct Receivers(Vec<Arc<Progress>>);

impl Progress {
    /// The index of the chunk that it wants next, if it takes what the view has.
    pub(super) fn next(&self) -> Option<u64> {
        Some(self.next.load(Ordering::Relaxed)).filter(|next| *next != NOT_COUNTED)
    }

    /// It wants the chunk with that index next.
    pub(super) fn is_at(&self, next: u64, head: bool) {
        self.next.store(next, Ordering::Relaxed);
        if head {
            self.tired.store(false, Ordering::Relaxed);
        }
    }

    /// It reads the store.
    pub(super) fn is_elsewhere(&self) {
        self.next.store(NOT_COUNTED, Ordering::Relaxed);
    }

    /// It was waited for in vain.
    pub(super) fn tire(&self) {
        self.tired.store(true, Ordering::Relaxed);
    }

    /// It waits for something new.
    pub(super) fn wait(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Whether it was waited for in vain since it was at the head.
    pub(super) fn is_tired(&self) -> bool {
        self.tired.load(Ordering::Relaxed)
    }

    /// Whether senders may still be held for it.
    pub(super) fn has_credit(&self) -> bool {
        self.credit.load(Ordering::Relaxed) > 0
    }

    /// Senders were held for it for so many microseconds; whether they may still be.
    pub(super) fn charge(&self, waited: u64) -> bool {
        let left = self.credit.load(Ordering::Relaxed).saturating_sub(waited);
        self.credit.store(left, Ordering::Relaxed);
        left > 0
    }
}

impl Receivers {
    /// One more, for which senders may be held for so long.
    pub(super) fn join(&mut self, credit: Duration) -> Arc<Progress> {
        let credit = u64::try_from(credit.as_micros()).unwrap_or(u64::MAX);
        let progress = Arc::new(Progress {
            next: AtomicU64::new(NOT_COUNTED),
            tired: AtomicBool::new(false),
            credit: AtomicU64::new(credit),
            place: AtomicUsize::new(self.0.len()),
            waker: AtomicWaker::new(),
        });
        self.0.push(Arc::clone(&progress));
        progress
    }

    /// One less; the last takes its place, so that this costs the same for however many.
    pub(super) fn leave(&mut self, progress: &Arc<Progress>) {
        let place = progress.place.load(Ordering::Relaxed);
        if self.0.get(place).is_some_and(|there| Arc::ptr_eq(there, progress)) {
            self.0.swap_remove(place);
            if let Some(moved) = self.0.get(place) {
                moved.place.store(place, Ordering::Relaxed);
            }
        }
    }

    /// Wakes those that wait.
    pub(super) fn wake(&self) {
        self.0.iter().for_each(|progress| progress.waker.wake());
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Progress> {
        self.0.iter().map(|progress| &**progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_leaves_all_others_in_whatever_order() {
        let mut receivers = Receivers::default();
        let mut joined: Vec<_> = (0..40).map(|_| receivers.join(Duration::ZERO)).collect();
        for round in 0..40 {
            let gone = joined.swap_remove((round * 7) % joined.len());
            receivers.leave(&gone);
            receivers.leave(&gone);
            assert_eq!(receivers.iter().count(), joined.len());
            assert!(joined.iter().all(|one| receivers.iter().any(|other| std::ptr::eq(&**one, other))));
        }
    }
}
