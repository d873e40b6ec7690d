//! What is known of producers: whose turn it is, and what of each is stored in each channel.

use std::{collections::HashMap, time::Duration};

use shared::{ChannelId, Seq, sender::ProducerId};

use super::{Claim, Refused, Stamp, Stored};

/// Channels that are remembered of each producer, on average.
const CHANNELS: usize = 16;

/// The producers that are remembered. Those that hold their place stay; of the others the one that was silent longest
/// goes when there are too many. When they opened too many channels in all, the one with the most of them loses the
/// one that it used least lately.
#[derive(Debug)]
pub(super) struct Producers {
    limit: usize,
    known: HashMap<ProducerId, Producer>,
    /// What is stored in how many channels is known in all.
    openings: usize,
    claims: u64,
}

/// What is known of a producer, for an engine that writes it down.
#[derive(Debug)]
pub(super) struct Remembered<'a> {
    pub(super) id: ProducerId,
    pub(super) epoch: u32,
    /// Microseconds that it is remembered for.
    pub(super) keep: u64,
    /// When it was claimed or released, or sent its last message.
    pub(super) last_time: u64,
    pub(super) stored: &'a HashMap<ChannelId, Last>,
}

/// The last pseq that is stored, and where that is.
pub(super) type Last = (u64, Seq);

#[derive(Debug)]
struct Producer {
    claim: Claim,
    /// The claim was not released yet.
    held: bool,
    /// Microseconds that it is remembered for.
    keep: u64,
    /// When it was claimed or released, or sent its last message.
    last_time: u64,
    stored: HashMap<ChannelId, Last>,
}

impl Producers {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, known: HashMap::new(), openings: 0, claims: 0 }
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
        if self.known.len() >= self.limit && !self.known.contains_key(&id) && !self.forget_silent() {
            return Err(Refused::TooManyProducers);
        }
        self.claims += 1;
        let claim = Claim { producer: id, epoch, number: self.claims };
        let keep = u64::try_from(keep.as_micros()).unwrap_or(u64::MAX);
        let stored = self.known.remove(&id).map(|known| known.stored).unwrap_or_default();
        self.known.insert(id, Producer { claim, held: true, keep, last_time: now, stored });
        Ok(claim)
    }

    /// The claim's connection has ended.
    pub(super) fn release(&mut self, claim: Claim, now: u64) {
        if let Ok(producer) = self.current(claim) {
            producer.held = false;
            producer.last_time = producer.last_time.max(now);
        }
    }

    pub(super) fn open(
        &mut self,
        claim: Claim,
        channel: &ChannelId,
        first_pseq: u64,
    ) -> Result<Stored, Refused> {
        if !self.current(claim)?.stored.contains_key(channel) {
            self.make_room();
            self.openings += 1;
        }
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
            producer.last_time = producer.last_time.max(now);
            let known = producer.stored.insert(channel.clone(), (stamp.last, seq)).is_some();
            self.openings += usize::from(!known);
        }
    }

    /// What was known before of what a stamp is about: for [`restore`](Self::restore).
    pub(super) fn stored(&self, stamp: &Stamp, channel: &ChannelId) -> Option<Last> {
        self.known.get(&stamp.claim.producer)?.stored.get(channel).copied()
    }

    /// Takes back that a batch was stored.
    pub(super) fn restore(&mut self, stamp: &Stamp, channel: &ChannelId, before: Option<Last>) {
        let Some(producer) = self.known.get_mut(&stamp.claim.producer) else { return };
        let known = match before {
            Some(before) => producer.stored.insert(channel.clone(), before),
            None => producer.stored.remove(channel),
        };
        self.openings = self.openings + usize::from(before.is_some()) - usize::from(known.is_some());
    }

    /// Takes over what an earlier run of the relay knew of a producer, who holds nothing now.
    pub(super) fn remember(&mut self, id: ProducerId, epoch: u32, keep: Option<u64>, time: u64) {
        if self.known.len() >= self.limit && !self.known.contains_key(&id) && !self.forget_silent() {
            return;
        }
        self.claims += 1;
        let claim = Claim { producer: id, epoch, number: self.claims };
        let unknown = || Producer { claim, held: false, keep: 0, last_time: time, stored: HashMap::new() };
        let producer = self.known.entry(id).or_insert_with(unknown);
        // In a log the last message of one that was fenced may stand behind the claim of who fenced it.
        producer.claim = Claim { epoch: epoch.max(producer.claim.epoch), ..claim };
        producer.keep = keep.unwrap_or(producer.keep);
        producer.last_time = producer.last_time.max(time);
    }

    /// Takes over what was stored of it in a channel.
    pub(super) fn remember_stored(&mut self, id: ProducerId, channel: &ChannelId, pseq: u64, seq: Seq) {
        self.make_room();
        if let Some(producer) = self.known.get_mut(&id) {
            let known = producer.stored.insert(channel.clone(), (pseq, seq)).is_some();
            self.openings += usize::from(!known);
        }
    }

    /// All that is known.
    pub(super) fn all(&self) -> impl Iterator<Item = Remembered<'_>> {
        let known = self.known.iter();
        known.map(|(id, known)| Remembered {
            id: *id,
            epoch: known.claim.epoch,
            keep: known.keep,
            last_time: known.last_time,
            stored: &known.stored,
        })
    }

    pub(super) fn expire(&mut self, now: u64) {
        self.known
            .retain(|_, producer| producer.held || producer.last_time.saturating_add(producer.keep) >= now);
        self.openings = self.known.values().map(|producer| producer.stored.len()).sum();
    }

    /// Makes room for one more opening.
    fn make_room(&mut self) {
        while self.openings >= self.limit.saturating_mul(CHANNELS) {
            let most = self.known.values_mut().max_by_key(|producer| producer.stored.len());
            let Some(stored) = most.map(|producer| &mut producer.stored) else { return };
            let oldest = stored.iter().min_by_key(|(_, (_, seq))| *seq).map(|(channel, _)| channel.clone());
            let Some(oldest) = oldest else { return };
            stored.remove(&oldest);
            self.openings -= 1;
        }
    }

    /// Forgets the released producer that was silent longest; false if there is none.
    fn forget_silent(&mut self) -> bool {
        let released = self.known.iter().filter(|(_, producer)| !producer.held);
        let silent = released.min_by_key(|(_, producer)| producer.last_time).map(|(id, _)| *id);
        let forgotten = silent.and_then(|id| self.known.remove(&id));
        self.openings -= forgotten.as_ref().map_or(0, |producer| producer.stored.len());
        forgotten.is_some()
    }

    /// The producer of a claim that was not ended by another.
    fn current(&mut self, claim: Claim) -> Result<&mut Producer, Refused> {
        match self.known.get_mut(&claim.producer) {
            Some(producer) if producer.claim == claim => Ok(producer),
            Some(producer) if producer.claim.epoch > claim.epoch => Err(Refused::Fenced),
            // It is another's, or was forgotten: then whose turn it would be is not known any more.
            Some(_) | None => Err(Refused::TakenOver),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_of_ever_new_channels_cost_a_bound() {
        let mut producers = Producers::new(3);
        for round in 0..20u8 {
            let claim = producers
                .claim(ProducerId([round % 5; 16]), 0, Duration::from_secs(9), round.into())
                .unwrap();
            for channel in 0..30 {
                let channel: ChannelId = format!("{round}/{channel}").parse().unwrap();
                producers.open(claim, &channel, 1).unwrap();
            }
            producers.release(claim, round.into());
            let stored: usize = producers.known.values().map(|producer| producer.stored.len()).sum();
            assert_eq!(stored, producers.openings);
            assert!(stored <= 3 * CHANNELS && producers.known.len() <= 3);
        }
    }

    #[test]
    fn a_producer_with_few_channels_loses_none_to_one_with_many() {
        let mut producers = Producers::new(2);
        let claim = |producers: &mut Producers, id| {
            producers.claim(ProducerId([id; 16]), 0, Duration::from_secs(9), 1).unwrap()
        };
        let (few, many) = (claim(&mut producers, 1), claim(&mut producers, 2));
        for channel in 0..100 {
            let name: ChannelId = format!("{channel}").parse().unwrap();
            if channel % 20 == 0 {
                producers.open(few, &name, 7).unwrap();
            }
            producers.open(many, &name, 1).unwrap();
        }
        assert_eq!(producers.known[&few.producer].stored.len(), 5);
        assert_eq!(producers.openings, 2 * CHANNELS);
    }

    #[test]
    fn one_producer_with_too_many_channels_loses_those_it_used_least_lately() {
        let mut producers = Producers::new(1);
        let claim = producers.claim(ProducerId([1; 16]), 0, Duration::from_secs(9), 1).unwrap();
        let used: ChannelId = "used".parse().unwrap();
        producers.open(claim, &used, 1).unwrap();
        producers.store(&Stamp { claim, after: 0, last: 4 }, &used, Seq(9), 1);
        for channel in 0..100 {
            let channel: ChannelId = format!("{channel}").parse().unwrap();
            producers.open(claim, &channel, 1).unwrap();
        }
        assert_eq!(producers.open(claim, &used, 1).unwrap().pseq, 4);
        assert_eq!(producers.openings, CHANNELS);
    }
}
