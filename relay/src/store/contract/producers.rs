//! Laws about producers: each message once, in order, and only from the one whose turn it is.

use std::time::Duration;

use shared::{Seq, sender::ProducerId};

use super::{Make, Rig, batch, channel, settings};
use crate::store::{Batch, Claim, Receipt, Refused, Stamp, StoreSettings, Stored, Ticket};

/// How long a producer is kept here, in microseconds.
const KEEP: u64 = 1_000_000;

pub(super) async fn hold(make: Make<'_>) {
    what_a_producer_sent_is_stored_once(make).await;
    what_is_under_way_is_known_when_a_channel_is_open(make).await;
    batches_may_be_appended_before_earlier_ones_are_settled(make).await;
    an_unknown_producer_begins_at_its_first_pseq(make).await;
    nothing_of_a_stale_claim_is_stored(make).await;
    an_append_under_way_counts_by_its_claim_when_it_is_committed(make).await;
    what_is_under_way_when_a_claim_is_released_is_stored(make).await;
    a_producer_is_kept_while_it_is_connected_and_so_long_after(make).await;
    nothing_of_a_stale_claim_is_stored_though_the_producer_was_forgotten(make).await;
    who_releases_a_stale_claim_ends_no_newer_one(make).await;
    of_too_many_producers_the_released_one_that_was_silent_longest_goes(make).await;
    while_all_producers_are_connected_others_are_refused(make).await;
    a_claim_that_nobody_waits_for_holds_no_place(make).await;
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

    async fn claim(&self, producer: u8, epoch: u32, now: u64) -> Result<Claim, Refused> {
        let keep = Duration::from_micros(KEEP);
        self.store.claim(ProducerId([producer; 16]), epoch, keep, now).await.unwrap()
    }
}

async fn what_a_producer_sent_is_stored_once(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let claim = rig.claim(1, 0, 1).await.unwrap();
    assert_eq!(rig.open(claim, 1).await, Ok(Stored { pseq: 0, seq: Seq::ZERO, lost: 0 }));
    let receipt = rig.publish(claim, 0, 3).await.unwrap();
    let stored = Ok(Stored { pseq: 3, seq: receipt.last, lost: 0 });
    assert_eq!(rig.open(claim, 1).await, stored);
    for (after, last) in [(0, 3), (2, 4), (4, 5)] {
        assert_eq!(rig.publish(claim, after, last).await, Err(Refused::Gap { expected: 4 }));
    }
    let again = rig.claim(1, 1, 2).await.unwrap();
    assert_eq!(rig.open(again, 2).await, stored, "pseqs go on over epochs");
    rig.publish(again, 3, 4).await.unwrap();
    let other = rig.store.open(again, &channel("d"), 1).await.unwrap();
    assert_eq!(other, Ok(Stored { pseq: 0, seq: Seq::ZERO, lost: 0 }), "each channel has pseqs of its own");
    assert_eq!(rig.told().len(), 2);
}

async fn what_is_under_way_is_known_when_a_channel_is_open(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let claim = rig.claim(1, 0, 1).await.unwrap();
    let under_way = [rig.send(claim, 0, 2), rig.send(claim, 2, 3)];
    assert_eq!(rig.open(claim, 1).await.unwrap().pseq, 3);
    for ticket in under_way {
        ticket.await.unwrap();
    }
}

async fn batches_may_be_appended_before_earlier_ones_are_settled(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let claim = rig.claim(1, 0, 1).await.unwrap();
    rig.open(claim, 1).await.unwrap();
    let (one, wrong, two) = (rig.send(claim, 0, 2), rig.send(claim, 0, 2), rig.send(claim, 2, 3));
    let (one, wrong, two) = (one.await.unwrap(), wrong.await, two.await.unwrap());
    assert_eq!(wrong, Err(Refused::Gap { expected: 3 }));
    assert!(one.last < two.first);
}

async fn an_unknown_producer_begins_at_its_first_pseq(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let claim = rig.claim(1, 0, 1).await.unwrap();
    assert_eq!(rig.open(claim, 7).await, Ok(Stored { pseq: 6, seq: Seq::ZERO, lost: 0 }));
    assert_eq!(rig.publish(claim, 7, 8).await, Err(Refused::Gap { expected: 7 }));
    let receipt = rig.publish(claim, 6, 8).await.unwrap();
    assert_eq!(rig.open(claim, 12).await, Ok(Stored { pseq: 11, seq: receipt.last, lost: 3 }));
    assert_eq!(rig.publish(claim, 8, 9).await, Err(Refused::Gap { expected: 12 }), "what was lost is lost");
    rig.publish(claim, 11, 12).await.unwrap();
}

async fn nothing_of_a_stale_claim_is_stored(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let (old, same) = (rig.claim(1, 1, 1).await.unwrap(), rig.claim(1, 1, 2).await.unwrap());
    assert_eq!(rig.publish(old, 0, 1).await, Err(Refused::TakenOver));
    assert_eq!(rig.open(old, 1).await, Err(Refused::TakenOver));
    rig.publish(same, 0, 1).await.unwrap();
    let newer = rig.claim(1, 2, 3).await.unwrap();
    assert_eq!(rig.publish(same, 1, 2).await, Err(Refused::Fenced));
    assert_eq!(rig.open(same, 1).await, Err(Refused::Fenced));
    assert_eq!(rig.claim(1, 1, 4).await, Err(Refused::Fenced));
    rig.publish(newer, 1, 2).await.unwrap();
    rig.claim(2, 0, 5).await.unwrap();
    rig.publish(newer, 2, 3).await.unwrap();
    assert_eq!(rig.told().len(), 3, "other producers end no claim");
}

async fn an_append_under_way_counts_by_its_claim_when_it_is_committed(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let old = rig.claim(1, 1, 1).await.unwrap();
    rig.open(old, 1).await.unwrap();
    let under_way = rig.send(old, 0, 2);
    let new = rig.claim(1, 2, 2).await.unwrap();
    let stored = rig.open(new, 1).await.unwrap();
    // Either it was committed before the new claim, which then knows of it, or it never is.
    match under_way.await {
        Ok(receipt) => assert_eq!(stored, Stored { pseq: 2, seq: receipt.last, lost: 0 }),
        Err(refused) => assert_eq!((refused, stored.pseq), (Refused::Fenced, 0)),
    }
    rig.publish(new, stored.pseq, stored.pseq + 1).await.unwrap();
}

async fn what_is_under_way_when_a_claim_is_released_is_stored(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let claim = rig.claim(1, 0, 1).await.unwrap();
    let under_way = rig.send(claim, 0, 2);
    rig.store.release(claim, 2);
    let receipt = under_way.await.unwrap();
    let again = rig.claim(1, 0, 3).await.unwrap();
    assert_eq!(rig.open(again, 1).await, Ok(Stored { pseq: 2, seq: receipt.last, lost: 0 }));
}

async fn a_producer_is_kept_while_it_is_connected_and_so_long_after(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let claim = rig.claim(1, 3, 1).await.unwrap();
    rig.publish(claim, 0, 5).await.unwrap();
    let released = 10 * KEEP;
    rig.store.trim(released).await;
    assert_eq!(rig.open(claim, 1).await.unwrap().pseq, 5, "however silent it is");
    rig.store.release(claim, released);
    rig.store.trim(released + KEEP).await;
    assert_eq!(rig.open(claim, 1).await.unwrap().pseq, 5);
    rig.store.trim(released + KEEP + 1).await;
    assert_eq!(rig.open(claim, 1).await, Err(Refused::TakenOver), "a claim does not come back");
    let anew = rig.claim(1, 0, released + KEEP + 1).await.unwrap();
    assert_eq!(rig.open(anew, 3).await, Ok(Stored { pseq: 2, seq: Seq::ZERO, lost: 0 }));
    assert_eq!(rig.open(claim, 1).await, Err(Refused::TakenOver));
}

async fn nothing_of_a_stale_claim_is_stored_though_the_producer_was_forgotten(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let stale = rig.claim(1, 1, 1).await.unwrap();
    let fencing = rig.claim(1, 2, 2).await.unwrap();
    rig.store.release(fencing, 3);
    rig.store.trim(4 + KEEP).await;
    for claim in [stale, fencing] {
        assert_eq!(rig.publish(claim, 0, 1).await, Err(Refused::TakenOver));
        assert_eq!(rig.open(claim, 1).await, Err(Refused::TakenOver));
    }
    assert_eq!(rig.told(), []);
}

async fn who_releases_a_stale_claim_ends_no_newer_one(make: Make<'_>) {
    let rig = Rig::new(make, settings());
    let (old, new) = (rig.claim(1, 1, 1).await.unwrap(), rig.claim(1, 1, 2).await.unwrap());
    assert!(old.number < new.number);
    rig.store.release(old, 3);
    rig.store.trim(10 * KEEP).await;
    rig.publish(new, 0, 1).await.unwrap();
}

async fn of_too_many_producers_the_released_one_that_was_silent_longest_goes(make: Make<'_>) {
    let rig = Rig::new(make, StoreSettings { producers: 4, ..settings() });
    let mut claims = Vec::new();
    for producer in 1..=4 {
        claims.push(rig.claim(producer, 5, producer.into()).await.unwrap());
        rig.publish(claims[usize::from(producer) - 1], 0, 1).await.unwrap();
    }
    // The first is connected still; the third was the first to go.
    for (producer, time) in [(3, 10), (2, 11), (4, 12)] {
        rig.store.release(claims[producer - 1], time);
    }
    rig.claim(5, 0, 13).await.unwrap();
    for producer in [1, 2, 4] {
        assert_eq!(rig.claim(producer, 4, 14).await, Err(Refused::Fenced), "{producer} is known");
    }
    rig.claim(6, 0, 15).await.unwrap();
    for producer in [1, 4] {
        assert_eq!(rig.claim(producer, 4, 16).await, Err(Refused::Fenced), "{producer} is known");
    }
    let anew = rig.claim(2, 4, 17).await.unwrap();
    assert_eq!(rig.open(anew, 1).await.unwrap().pseq, 0);
}

async fn while_all_producers_are_connected_others_are_refused(make: Make<'_>) {
    let rig = Rig::new(make, StoreSettings { producers: 2, ..settings() });
    let claims = [rig.claim(1, 5, 1).await.unwrap(), rig.claim(2, 5, 2).await.unwrap()];
    assert_eq!(rig.claim(3, 0, 3).await, Err(Refused::TooManyProducers));
    for claim in claims {
        rig.open(claim, 1).await.unwrap();
    }
    let again = rig.claim(1, 5, 4).await.unwrap();
    assert_eq!(rig.claim(3, 0, 5).await, Err(Refused::TooManyProducers), "who connects anew is no other");
    rig.store.release(again, 6);
    rig.claim(3, 0, 7).await.unwrap();
}

async fn a_claim_that_nobody_waits_for_holds_no_place(make: Make<'_>) {
    let rig = Rig::new(make, StoreSettings { producers: 1, ..settings() });
    let keep = Duration::from_micros(KEEP);
    drop(rig.store.claim(ProducerId([1; 16]), 0, keep, 1));
    let claiming = rig.store.claim(ProducerId([1; 16]), 0, keep, 1);
    // Dropped on the way, unless it was answered at once.
    tokio::select! {
        biased;
        claim = claiming => rig.store.release(claim.unwrap().unwrap(), 1),
        () = std::future::ready(()) => {}
    }
    // The engine may notice it only when it has the answer.
    let mut outcome = rig.claim(2, 0, 2).await;
    for _ in 0..100 {
        if outcome.is_err() {
            outcome = rig.claim(2, 0, 2).await;
        }
    }
    outcome.unwrap();
}
