//! What a framed sender says: parsed, put to the protocol, and acted upon.

use std::{sync::Arc, time::Duration};

use shared::{
    ErrorCode, WireError,
    codec::{Decoded, decode_preamble, decode_sender},
    limits::{FRAME_OVERHEAD, MAX_CHANNEL_NAME, MAX_KEEP_PRODUCER_S},
    sender::{Hello, Opened, Publish, RelayFrame, Welcome},
};
use tracing::debug;

use super::{Building, FramedSession, Phase, Unsettled};
use crate::{
    channel::{hub::now, publisher::Publisher},
    senders::{
        SenderSettings,
        protocol::{Refused, Step},
    },
    store::{self, Receipt, Ticket},
};

impl FramedSession {
    /// Acts on whole frames; gives how many bytes they took.
    pub(super) async fn parse(&mut self, bytes: &[u8], greeted: &mut bool) -> Result<usize, WireError> {
        // A channel's name fits a frame, however small messages have to be.
        let max_frame = self.settings.max_message.max(MAX_CHANNEL_NAME) + FRAME_OVERHEAD;
        let mut taken = 0;
        if !*greeted {
            let Decoded::Frame((), length) = decode_preamble(bytes)? else { return Ok(0) };
            *greeted = true;
            taken = length;
        }
        let mut others = Vec::new();
        let outcome = loop {
            if matches!(self.phase, Phase::Ending(_)) {
                break Ok(taken);
            }
            match decode_sender(&bytes[taken..], max_frame) {
                Ok(Decoded::Incomplete(_)) => break Ok(taken),
                Ok(Decoded::Skipped(length)) => taken += length,
                Ok(Decoded::Frame(frame, length)) => {
                    taken += length;
                    match self.protocol.handle(frame) {
                        Step::Store(publish) => self.store(publish, &mut others),
                        step => {
                            // What is done and answered is so in the order of frames.
                            self.publish_all(&mut others);
                            self.act(step).await;
                        }
                    }
                }
                Err(e) => break Err(e),
            }
        };
        self.publish_all(&mut others);
        outcome
    }

    async fn act(&mut self, step: Step<'_>) {
        match step {
            Step::Store(_) | Step::Nothing => {}
            Step::Acknowledge(alias) => self.acknowledge(alias),
            Step::Pong(number) => self.say(&RelayFrame::Pong(number)),
            Step::Refuse(refused) => self.refuse(&refused, 0),
            Step::Done => self.end(),
            Step::Claim(hello) => self.claim(hello).await,
            Step::Open { alias, channel, first_pseq, levels: wanted } => {
                let Some(claim) = self.protocol.claim() else { return };
                let store = Arc::clone(self.hub.store());
                let levels = store.levels(&channel);
                if !levels.contains(wanted) {
                    return self.refuse(&Refused::level_unsupported(alias, &channel, levels), 0);
                }
                match store.open(claim, &channel, first_pseq).await {
                    Ok(Ok(stored)) => {
                        if stored.lost > 0 {
                            debug!(%channel, lost = stored.lost, "a sender no longer holds messages that it had");
                        }
                        self.protocol.opened(alias, stored);
                        let receivers = u32::try_from(self.hub.receivers(&channel)).unwrap_or(u32::MAX);
                        self.publishers.insert(alias, Publisher::new(&self.hub, channel));
                        let opened = Opened { alias, levels, last_pseq: stored.pseq, receivers };
                        self.say(&RelayFrame::Opened(opened));
                    }
                    Ok(Err(store::Refused::Fenced)) => self.evict(ErrorCode::Fenced),
                    Ok(Err(store::Refused::TakenOver)) => self.evict(ErrorCode::TakenOver),
                    Ok(Err(refused)) => self.refuse(&Refused::fatal(refused.code(), refused.to_string()), 0),
                    Err(e) => self.refuse(&Refused::fatal(ErrorCode::StoreUnavailable, e.to_string()), 0),
                }
            }
        }
    }

    async fn claim(&mut self, hello: Hello<'_>) {
        let keep = match hello.keep_s {
            0 => self.settings.keep,
            seconds => Duration::from_secs(seconds.min(MAX_KEEP_PRODUCER_S).into()),
        };
        let store = Arc::clone(self.hub.store());
        match store.claim(hello.producer, hello.producer_epoch, keep, now()).await {
            Ok(Ok(claim)) => {
                self.registered = Some(self.registry.register(claim, Arc::clone(&self.hub)));
                self.protocol.claimed(claim);
                self.phase = Phase::Open;
                let SenderSettings { max_message, window_messages, window_bytes, ping_every, .. } =
                    *self.settings;
                self.say(&RelayFrame::Welcome(Welcome {
                    epoch: store.epoch(),
                    max_message: u32::try_from(max_message).unwrap_or(u32::MAX),
                    window_messages,
                    window_bytes,
                    ping_ms: u32::try_from(ping_every.as_millis()).unwrap_or(u32::MAX),
                }));
            }
            Ok(Err(refused)) => self.close(refused.code(), &refused.to_string()),
            Err(e) => self.close(ErrorCode::StoreUnavailable, &e.to_string()),
        }
    }

    /// Collects a message, or puts it to `others` where those of another alias are collected: what one read has of
    /// each is to be one chunk, also if they come by turns.
    fn store<'a>(&mut self, publish: Publish<'a>, others: &mut Vec<Publish<'a>>) {
        if self.building.as_ref().is_some_and(|building| building.alias != publish.alias) {
            others.push(publish);
        } else {
            self.collect(publish);
        }
    }

    /// Hands what was collected to the store, then the others, each alias by itself.
    fn publish_all(&mut self, others: &mut Vec<Publish<'_>>) {
        self.publish();
        others.sort_by_key(|publish| publish.alias);
        for publish in others.drain(..) {
            if self.building.as_ref().is_some_and(|building| building.alias != publish.alias) {
                self.publish();
            }
            self.collect(publish);
        }
        self.publish();
    }

    fn collect(&mut self, publish: Publish<'_>) {
        let Publish { alias, pseq, kind, source_time, payload } = publish;
        if self.builder.is_full_for(payload.len()) {
            self.publish();
        }
        self.builder.push(kind, payload, source_time.unwrap_or(0));
        let building = self.building.get_or_insert(Building { alias, last: pseq, bytes: 0 });
        building.last = pseq;
        building.bytes += payload.len();
        self.unsettled_bytes += payload.len();
    }

    /// Hands what was collected to the store.
    fn publish(&mut self) {
        let (Some(building), Some(messages)) = (self.building.take(), self.builder.take()) else { return };
        let Building { alias, last, bytes } = building;
        let (Some(publisher), Some(stamp)) = (self.publishers.get(&alias), self.protocol.hand(alias, last))
        else {
            return;
        };
        let count = messages.count();
        self.unsettled_messages += count;
        let ticket = publisher.publish(messages, Some(stamp));
        self.unsettled.push_back(Unsettled { alias, last, bytes, count, ticket });
        if !self.published.contains(&alias) {
            self.published.push(alias);
        }
        while let Some(Unsettled { ticket: Ticket::Settled(outcome), .. }) = self.unsettled.front() {
            let outcome = *outcome;
            self.settled(outcome);
        }
    }

    /// The first of the unsettled batches is settled.
    pub(super) fn settled(&mut self, outcome: Result<Receipt, store::Refused>) {
        let Some(Unsettled { alias, last, bytes, count, .. }) = self.unsettled.pop_front() else { return };
        self.unsettled_bytes -= bytes;
        self.unsettled_messages -= count;
        match outcome {
            Ok(receipt) => {
                self.protocol.settle(alias, last, receipt.last);
                self.acknowledge(alias);
            }
            Err(store::Refused::Fenced) => self.evict(ErrorCode::Fenced),
            Err(store::Refused::TakenOver) => self.evict(ErrorCode::TakenOver),
            Err(refused) => {
                // What was handed on behind it is refused too, since its predecessor is not stored.
                let settled = self.protocol.settled(alias).map_or(0, |(pseq, _)| pseq);
                let pseq = self.protocol.go_back(alias, settled);
                let retry_ms = match refused {
                    store::Refused::Unavailable { retry } => {
                        u32::try_from(retry.as_millis()).unwrap_or(u32::MAX)
                    }
                    _ => 0,
                };
                let fatal = refused.code() == ErrorCode::TooMany;
                self.refuse(
                    &Refused { code: refused.code(), fatal, alias, pseq, text: refused.to_string() },
                    retry_ms,
                );
            }
        }
    }
}
