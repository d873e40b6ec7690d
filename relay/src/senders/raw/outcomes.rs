//! What became of what a raw sender sent, in its order: it is on its way to the store, or was refused before.

use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use shared::ErrorCode;

use crate::store::{Receipt, Refused, Ticket, chunk::Messages};

/// What may be outstanding before the store is waited for: while it brings some to a disk, more is read.
const MOST: usize = 1 << 20;

/// What is outstanding costs so much beside its bytes, about: of very small messages not many may be.
const OVERHEAD: usize = 256;

/// What is not answered yet.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    outstanding: VecDeque<Outstanding>,
    /// What they cost, in bytes.
    cost: usize,
}

#[derive(Debug)]
enum Outstanding {
    Published(Messages, Ticket),
    Refused(ErrorCode, String),
}

/// An outcome.
#[derive(Debug)]
pub(super) enum Outcome {
    /// What the store said; the messages, to be sent again if it can't take them now.
    Published(Messages, Result<Receipt, Refused>),
    /// Not published.
    Refused(ErrorCode, String),
}

impl Outstanding {
    fn cost(&self) -> usize {
        match self {
            Self::Published(messages, _) => OVERHEAD + messages.frames().len(),
            Self::Refused(..) => OVERHEAD,
        }
    }
}

impl Outcomes {
    /// These messages are on their way.
    pub(super) fn published(&mut self, messages: Messages, ticket: Ticket) {
        self.push(Outstanding::Published(messages, ticket));
    }

    /// Something is not published, and why.
    pub(super) fn refused(&mut self, code: ErrorCode, text: String) {
        self.push(Outstanding::Refused(code, text));
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// Whether nothing more should be read until some are known.
    pub(super) fn is_full(&self) -> bool {
        self.cost >= MOST
    }

    /// The next one, once it is known; pending while there is none.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = match self.outstanding.front_mut() {
            None => return Poll::Pending,
            Some(Outstanding::Published(messages, ticket)) => {
                let known = ready!(Pin::new(ticket).poll(cx));
                Outcome::Published(messages.clone(), known)
            }
            Some(Outstanding::Refused(code, text)) => Outcome::Refused(*code, mem::take(text)),
        };
        self.cost -= self.outstanding.pop_front().map_or(0, |known| known.cost());
        Poll::Ready(outcome)
    }

    /// The next one, if it is known by now.
    pub(super) fn try_next(&mut self) -> Option<Outcome> {
        match self.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }

    fn push(&mut self, outstanding: Outstanding) {
        self.cost += outstanding.cost();
        self.outstanding.push_back(outstanding);
    }
}

#[cfg(test)]
mod tests {
    use shared::{Kind, Seq};
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn outcomes_are_known_in_the_order_of_what_was_sent() {
        let mut outcomes = Outcomes::default();
        let (settle, pending) = oneshot::channel();
        outcomes.published(Messages::one(Kind::Text, b"first"), Ticket::Pending(pending));
        outcomes.refused(ErrorCode::TooBig, "second".into());
        assert!(outcomes.try_next().is_none(), "the first is not known");
        settle.send(Ok(Receipt { first: Seq(1), last: Seq(1) })).unwrap();
        assert!(
            matches!(outcomes.try_next(), Some(Outcome::Published(_, Ok(receipt))) if receipt.first == Seq(1))
        );
        assert!(
            matches!(outcomes.try_next(), Some(Outcome::Refused(ErrorCode::TooBig, text)) if text == "second")
        );
        assert!(outcomes.is_empty() && outcomes.cost == 0);
    }

    #[test]
    fn of_the_smallest_messages_no_more_are_outstanding_than_their_memory_allows() {
        let mut outcomes = Outcomes::default();
        let mut settle = Vec::new();
        while !outcomes.is_full() {
            let (sender, pending) = oneshot::channel();
            settle.push(sender);
            outcomes.published(Messages::one(Kind::Text, b""), Ticket::Pending(pending));
            outcomes.refused(ErrorCode::TooBig, String::new());
        }
        assert!(settle.len() <= MOST / OVERHEAD / 2);
        settle.remove(0).send(Ok(Receipt { first: Seq(1), last: Seq(1) })).unwrap();
        assert!(outcomes.try_next().is_some() && outcomes.try_next().is_some());
        assert!(!outcomes.is_full(), "what is known makes room");
    }
}
