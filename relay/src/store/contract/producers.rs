//! Laws about producers: each message once, in order, and only from the one whose turn it is.

use std::time::Duration;

use shared::{Seq, sender::ProducerId};

use super::{Make, Rig, batch, channel, settings};
use crate::store::{Batch, Claim, Receipt, Refused, Stamp, StoreSettings, Stored, Ticket};

/// How long a producer is kept here, in microseconds.
const KEEP: u64 = 1_000_000;

pub(super) async fn hold(make: Make<'_>) {
    what_a_producer_sent_is_stored_once(make).await;
    batches_may_be_appended_before_earlier_ones_are_settled(make).await;
    an_unknown_producer_begins_at_its_first_pseq(make).await;
    nothing_of_a_stale_claim_is_stored(make).await;
    an_append_under_way_counts_by_its_claim_when_it_is_committed(make).await;
    a_silent_producer_is_forgotten(make).await;
    of_too_many_producers_the_one_silent_longest_is_forgotten(make).await;
}

impl Rig {
    fn send(&self, claim: Claim, after: u64, last: u64) -> Ticket {
        let count = usize::try_from(last - after).unwrap();
        self.store.append(Batch { stamp: Some(Stamp { claim, after, last }), ..batch("c", count, 1) })
    }

    /// Appends the messages of a producer after one pseq and up to another.
    async fn publish(&self, claim: Claim, after: u64, last: u64) -> Result<Receipt, Refused> {
        self.send(claim, after, last).await
    }

    async fn open(&self, claim: Claim, first_pseq: u64) -> Result<Stored, Refused> {
        self.store.open(claim, &channel("c"), first_pseq).await.unwrap()
    }

    fn claim(&self, producer: u8, epoch: u32, now: u64) -> Result<Claim, Refused> {
        self.store.claim(ProducerId([producer; 16]), epoch, Duration::from_micros(KEEP), now)
    }
}

async fn what_a_producer_sent_is_stored_once(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let claim = rig.claim(1, 0, 1).unwrap();
    assert_eq!(rig.open(claim, 1).await, Ok(Stored { pseq: 0, seq: Seq::ZERO, lost: 0 }));
    let receipt = rig.publish(claim, 0, 3).await.unwrap();
    let stored = Ok(Stored { pseq: 3, seq: receipt.last, lost: 0 });
    assert_eq!(rig.open(claim, 1).await, stored);
    for (after, last) in [(0, 3), (2, 4), (4, 5)] {
        assert_eq!(rig.publish(claim, after, last).await, Err(Refused::Gap { expected: 4 }));
    }
    let again = rig.claim(1, 1, 2).unwrap();
    assert_eq!(rig.open(again, 2).await, stored, "pseqs go on over epochs");
    rig.publish(again, 3, 4).await.unwrap();
    let other = rig.store.open(again, &channel("d"), 1).await.unwrap();
    assert_eq!(other, Ok(Stored { pseq: 0, seq: Seq::ZERO, lost: 0 }), "each channel has pseqs of its own");
    assert_eq!(rig.told().len(), 2);
}

async fn batches_may_be_appended_before_earlier_ones_are_settled(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let claim = rig.claim(1, 0, 1).unwrap();
    rig.open(claim, 1).await.unwrap();
    let (one, wrong, two) = (rig.send(claim, 0, 2), rig.send(claim, 0, 2), rig.send(claim, 2, 3));
    let (one, wrong, two) = (one.await.unwrap(), wrong.await, two.await.unwrap());
    assert_eq!(wrong, Err(Refused::Gap { expected: 3 }));
    assert!(one.last < two.first);
}

async fn an_unknown_producer_begins_at_its_first_pseq(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let claim = rig.claim(1, 0, 1).unwrap();
    assert_eq!(rig.open(claim, 7).await, Ok(Stored { pseq: 6, seq: Seq::ZERO, lost: 0 }));
    assert_eq!(rig.publish(claim, 7, 8).await, Err(Refused::Gap { expected: 7 }));
    let receipt = rig.publish(claim, 6, 8).await.unwrap();
    assert_eq!(rig.open(claim, 12).await, Ok(Stored { pseq: 11, seq: receipt.last, lost: 3 }));
    assert_eq!(rig.publish(claim, 8, 9).await, Err(Refused::Gap { expected: 12 }), "what was lost is lost");
    rig.publish(claim, 11, 12).await.unwrap();
}

async fn nothing_of_a_stale_claim_is_stored(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let (old, same) = (rig.claim(1, 1, 1).unwrap(), rig.claim(1, 1, 2).unwrap());
    assert_eq!(rig.publish(old, 0, 1).await, Err(Refused::TakenOver));
    assert_eq!(rig.open(old, 1).await, Err(Refused::TakenOver));
    rig.publish(same, 0, 1).await.unwrap();
    let newer = rig.claim(1, 2, 3).unwrap();
    assert_eq!(rig.publish(same, 1, 2).await, Err(Refused::Fenced));
    assert_eq!(rig.open(same, 1).await, Err(Refused::Fenced));
    assert_eq!(rig.claim(1, 1, 4), Err(Refused::Fenced));
    rig.publish(newer, 1, 2).await.unwrap();
    rig.claim(2, 0, 5).unwrap();
    rig.publish(newer, 2, 3).await.unwrap();
    assert_eq!(rig.told().len(), 3, "other producers end no claim");
}

async fn an_append_under_way_counts_by_its_claim_when_it_is_committed(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let old = rig.claim(1, 1, 1).unwrap();
    rig.open(old, 1).await.unwrap();
    let under_way = rig.send(old, 0, 2);
    let new = rig.claim(1, 2, 2).unwrap();
    let stored = rig.open(new, 1).await.unwrap();
    // Either it was committed before the new claim, which then knows of it, or it never is.
    match under_way.await {
        Ok(receipt) => assert_eq!(stored, Stored { pseq: 2, seq: receipt.last, lost: 0 }),
        Err(refused) => assert_eq!((refused, stored.pseq), (Refused::Fenced, 0)),
    }
    rig.publish(new, stored.pseq, stored.pseq + 1).await.unwrap();
}

async fn a_silent_producer_is_forgotten(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let claim = rig.claim(1, 3, 1).unwrap();
    rig.open(claim, 1).await.unwrap();
    rig.publish(claim, 0, 5).await.unwrap();
    rig.store.trim(1 + KEEP);
    assert_eq!(rig.open(claim, 1).await.unwrap().pseq, 5);
    rig.store.trim(2 + KEEP);
    let anew = rig.claim(1, 0, 2 + KEEP).unwrap();
    assert_eq!(rig.open(anew, 3).await, Ok(Stored { pseq: 2, seq: Seq::ZERO, lost: 0 }));
}

async fn of_too_many_producers_the_one_silent_longest_is_forgotten(make: Make<'_>) {
    let rig = Rig::new(make, StoreSettings { producers: 3, ..settings() });
    for producer in 1..=4 {
        let claim = rig.claim(producer, 5, u64::from(producer)).unwrap();
        let stamp = Some(Stamp { claim, after: 0, last: 1 });
        rig.store.append(Batch { stamp, ..batch("c", 1, u64::from(producer)) }).await.unwrap();
    }
    for producer in 2..=4 {
        assert_eq!(rig.claim(producer, 4, 9), Err(Refused::Fenced), "{producer} is known");
    }
    let claim = rig.claim(1, 4, 9).unwrap();
    assert_eq!(rig.open(claim, 1).await.unwrap().pseq, 0);
}
