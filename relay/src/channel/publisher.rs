//! A sender's way into one channel, and what holds it back: receivers that keep up are waited for a little, those
//! of a channel that blocks for as long as they have credit.

use std::{sync::Arc, time::Duration};

use shared::ChannelId;
use tokio::time::{Instant, timeout_at};

use super::{LagPolicy, hub::Hub, ring::Amount, view::Reach};
use crate::store::{Retention, Stamp, Ticket, chunk::Messages};

/// Publishes to one channel for one sender.
#[derive(Debug)]
pub struct Publisher {
    hub: Arc<Hub>,
    channel: ChannelId,
    policy: LagPolicy,
    /// What the channel keeps: what receivers must not fall out of.
    kept: Amount,
}

impl Publisher {
    /// A way into a channel, which is created by the first message.
    pub fn new(hub: &Arc<Hub>, channel: ChannelId) -> Self {
        let policy = hub.lag_policy(&channel);
        let Retention { bytes, messages, .. } = hub.retention(&channel);
        let kept = Amount { bytes, messages: messages.unwrap_or(u64::MAX) };
        Self { hub: Arc::clone(hub), channel, policy, kept }
    }

    /// Which channel.
    pub fn channel(&self) -> &ChannelId {
        &self.channel
    }

    /// Appends messages.
    pub fn publish(&self, messages: Messages, stamp: Option<Stamp>) -> Ticket {
        self.hub.publish(self.channel.clone(), messages, stamp)
    }

    /// Waits for receivers, as the channel's policy and the protocol say: at most `at_most` for those that keep up.
    pub async fn hold(&self, at_most: Duration) {
        // Even where a single message is kept, who has only the last one to take is waited for.
        let outrun = Reach { held_from: part(self.kept, 8, 1), given_up_from: part(self.kept, 2, 2) };
        // One deadline for all views: it is the sender that is held at most so long.
        let deadline = Instant::now() + at_most;
        for view in self.hub.views_of(&self.channel, |view| view.is_outrun(outrun)) {
            if timeout_at(deadline, view.caught_up(outrun)).await.is_err() {
                view.tire(outrun);
            }
        }
        if matches!(self.policy, LagPolicy::Block(_)) {
            let blocked = part(self.kept, 2, 1);
            for view in self.hub.views_of(&self.channel, |view| view.is_blocked(blocked)) {
                view.unblocked(blocked).await;
            }
        }
    }
}

/// That part of an amount, and not less than `least`.
fn part(whole: Amount, part: u64, least: u64) -> Amount {
    Amount { bytes: (whole.bytes / part).max(least), messages: (whole.messages / part).max(least) }
}
