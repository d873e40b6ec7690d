//! What is known of producers: whose turn it is, and what of each is stored in each channel.

use std::{collections::HashMap, time::Duration};

use shared::{ChannelId, Seq, limits::KEEP_PRODUCER_S, sender::ProducerId};

use crate::store::{Claim, Refused, Stamp, Stored};

/// The producers that are remembered; the one that was silent longest goes when there are too many.
#[derive(Debug)]
pub(super) struct Producers {
    limit: usize,
    known: HashMap<ProducerId, Producer>,
    claims: u64,
}

#[derive(Debug)]
struct Producer {
    claim: Claim,
    keep: u64,
    last_time: u64,
    stored: HashMap<ChannelId, (u64, Seq)>,
}

impl Producers {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, known: HashMap::new(), claims: 0 }
    }

    pub(super) fn claim(
        &mut self,
        id: ProducerId,
        epoch: u32,
        keep: Duration,
        now: u64,
    ) -> Result<Claim, Refused> {
        if self.known.get(&id).is_some_and(|known| known.claim.epoch > epoch) {
            return Err(Refused::Fenced);
        }
        if self.known.len() >= self.limit && !self.known.contains_key(&id) {
            let oldest = self.known.iter().min_by_key(|(_, producer)| producer.last_time).map(|(id, _)| *id);
            oldest.map(|id| self.known.remove(&id));
        }
        self.claims += 1;
        let claim = Claim { producer: id, epoch, number: self.claims };
        let keep = u64::try_from(keep.as_micros()).unwrap_or(u64::MAX);
        let producer = self.known.entry(id).or_insert_with(|| Producer {
            claim,
            keep,
            last_time: now,
            stored: HashMap::new(),
        });
        *producer = Producer { claim, keep, last_time: now, stored: std::mem::take(&mut producer.stored) };
        Ok(claim)
    }

    pub(super) fn open(
        &mut self,
        claim: Claim,
        channel: &ChannelId,
        first_pseq: u64,
    ) -> Result<Stored, Refused> {
        let producer = self.current(claim)?;
        let before = first_pseq.saturating_sub(1);
        let (pseq, seq) = producer.stored.entry(channel.clone()).or_insert((before, Seq::ZERO));
        let lost = before.saturating_sub(*pseq);
        *pseq += lost;
        Ok(Stored { pseq: *pseq, seq: *seq, lost })
    }

    /// Whether that batch may be stored.
    pub(super) fn check(&mut self, stamp: &Stamp, channel: &ChannelId) -> Result<(), Refused> {
        let producer = self.current(stamp.claim)?;
        match producer.stored.get(channel) {
            Some((pseq, _)) if *pseq != stamp.after => Err(Refused::Gap { expected: pseq + 1 }),
            _ => Ok(()),
        }
    }

    /// Notes that it was.
    pub(super) fn store(&mut self, stamp: &Stamp, channel: &ChannelId, seq: Seq, now: u64) {
        if let Some(producer) = self.known.get_mut(&stamp.claim.producer) {
            producer.last_time = now;
            producer.stored.insert(channel.clone(), (stamp.last, seq));
        }
    }

    pub(super) fn expire(&mut self, now: u64) {
        self.known.retain(|_, producer| producer.last_time.saturating_add(producer.keep) >= now);
    }

    /// The producer of a claim that still holds. One that was forgotten is remembered anew.
    fn current(&mut self, claim: Claim) -> Result<&mut Producer, Refused> {
        let keep = u64::from(KEEP_PRODUCER_S) * 1_000_000;
        let forgotten = || Producer { claim, keep, last_time: 0, stored: HashMap::new() };
        let producer = self.known.entry(claim.producer).or_insert_with(forgotten);
        if producer.claim == claim {
            Ok(producer)
        } else if producer.claim.epoch > claim.epoch {
            Err(Refused::Fenced)
        } else {
            Err(Refused::TakenOver)
        }
    }
}
