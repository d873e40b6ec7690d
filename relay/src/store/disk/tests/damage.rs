//! What is damaged is noticed and told, exactly; the way back leads to a store with a new epoch, and nothing else does.

use proptest::prelude::*;
use shared::Seq;

use super::{
    forgetful::{Faults, Forgetful},
    power::Rig,
};
use crate::store::{
    ChannelStore, Refused,
    disk::{OpenError, examination::Examination, repair::repair_volume, volume::Volume as _},
};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn texts(from: usize, count: usize) -> Vec<String> {
    (from..from + count).map(|number| format!("message {number}")).collect()
}

/// A log of so many chunks of three messages, in two channels, whose end came as it should or did not.
async fn filled(chunks: usize, clean: bool) -> Forgetful {
    let disk = Forgetful::new(1);
    let rig = Rig::open(disk.clone(), None).unwrap();
    for chunk in 0..chunks {
        rig.append(["sync", "other"][chunk % 2], &texts(3 * chunk, 3), None).await.unwrap();
    }
    if clean {
        rig.store.close().await.unwrap();
    }
    drop(rig);
    disk
}

/// The file that the relay writes on.
fn last_segment(disk: &Forgetful) -> String {
    disk.list().unwrap().into_iter().filter(|name| name.ends_with(".log")).max().unwrap()
}

#[test]
fn a_log_that_is_whole_is_sound() {
    runtime().block_on(async {
        for (chunks, clean) in [(0, true), (1, false), (60, false), (60, true)] {
            let disk = filled(chunks, clean).await;
            let found = Examination::of(&disk).unwrap();
            assert!(!found.has_losses(), "{:?}", found.findings);
            assert_eq!(found.messages, 3 * chunks as u64);
        }
    });
}

#[test]
fn a_byte_that_changed_in_what_was_stored_is_told_and_costs_that_chunk_alone() {
    runtime().block_on(async {
        let disk = filled(12, true).await;
        let before = Rig::open(disk.clone(), None).unwrap();
        let (messages, epoch) = (before.read("**", Seq::ZERO).await.0, before.store.epoch());
        before.store.close().await.unwrap();
        drop(before);
        let name = last_segment(&disk);
        let bytes = disk.bytes(&name);
        let at = bytes.windows(10).position(|window| window == b"message 16").unwrap();
        disk.flip(&name, at);
        let refused = Rig::open(disk.clone(), None).map(|_| ()).unwrap_err();
        assert!(matches!(&refused, OpenError::Damaged { .. }), "{refused}");
        assert!(refused.to_string().contains("relay log repair DIR"), "{refused}");
        let report = repair_volume(&disk).unwrap();
        assert!(
            report.text.contains("lost: 3 messages of other, after seq 12 and before 22"),
            "{}",
            report.text
        );
        let after = Rig::open(disk.clone(), None).unwrap();
        assert_ne!(after.store.epoch(), epoch);
        let kept: Vec<_> =
            messages.into_iter().filter(|message| !(16..=18).contains(&message.seq.0)).collect();
        let (read, holes) = after.read("**", Seq::ZERO).await;
        assert_eq!((read, holes), (kept, vec![]));
        after.append("other", &texts(100, 1), None).await.unwrap();
        assert!(!Examination::of(&disk).unwrap().has_losses(), "every chain is whole again");
    });
}

#[test]
fn a_segment_that_is_gone_is_noticed_though_it_is_an_old_one() {
    runtime().block_on(async {
        for clean in [true, false] {
            let disk = filled(120, clean).await;
            disk.remove("000000000002.log").unwrap();
            let refused = Rig::open(disk.clone(), None).map(|_| ()).unwrap_err();
            assert!(refused.to_string().contains("000000000002.log is not there"), "{refused}");
            let report = repair_volume(&disk).unwrap();
            assert!(report.text.contains("lost: "), "{}", report.text);
            let rig = Rig::open(disk, None).unwrap();
            assert!(rig.read("**", Seq::ZERO).await.0.len() > 200);
        }
    });
}

#[test]
fn a_segment_that_is_gone_is_told_of_and_repair_leads_back() {
    runtime().block_on(async {
        let disk = filled(60, true).await;
        disk.remove("000000000001.log").unwrap();
        assert!(Rig::open(disk.after_kill(), None).is_err());
        let found = Examination::of(&disk).unwrap();
        assert!(found.has_losses(), "{:?}", found.findings);
        let report = repair_volume(&disk).unwrap();
        assert!(report.text.contains("000000000001.log: is not there"), "{}", report.text);
        assert!(report.text.contains("lost: "), "{}", report.text);
        let rig = Rig::open(disk, None).unwrap();
        let (messages, holes) = rig.read("**", Seq::ZERO).await;
        assert!(!messages.is_empty() && holes.len() == 2, "{holes:?}");
    });
}

#[test]
fn a_repair_that_is_killed_never_leaves_the_epoch_with_a_loss_and_always_a_way_on() {
    runtime().block_on(async {
        for dies_after in 0..70 {
            let disk = filled(60, true).await;
            let before = Rig::open(disk.clone(), None).unwrap();
            let (messages, epoch) = (before.read("**", Seq::ZERO).await.0, before.store.epoch());
            before.store.close().await.unwrap();
            drop(before);
            let name = "000000000001.log";
            let at = disk.bytes(name).windows(10).position(|window| window == b"message 16").unwrap();
            disk.flip(name, at);
            disk.set_faults(Faults { dies_after: Some(dies_after), ..Faults::default() });
            let _ = repair_volume(&disk);
            let disk = disk.after_kill();
            // What one does then: a start, and where it asks for that, another repair.
            let found = Examination::of(&disk).unwrap();
            if found.has_losses() || Rig::open(disk.after_kill(), None).is_err() {
                repair_volume(&disk).unwrap();
            }
            let rig = Rig::open(disk, None).unwrap();
            let after = rig.read("**", Seq::ZERO).await.0;
            assert!(after.len() == messages.len() || rig.store.epoch() != epoch, "after {dies_after}");
        }
    });
}

#[test]
fn damage_to_what_was_confirmed_is_told_from_what_was_being_written() {
    runtime().block_on(async {
        let disk = filled(9, false).await;
        // The last chunk: it was confirmed, but nothing behind it says so.
        let name = last_segment(&disk);
        let whole = disk.bytes(&name);
        let at = whole.windows(10).rposition(|window| window == b"message 26").unwrap();
        disk.flip(&name, at);
        let torn = Rig::open(disk.clone(), None).unwrap();
        assert_eq!(torn.read("**", Seq::ZERO).await.0.len(), 24);
        drop(torn);
        // The same, once it was noted to be on the disk.
        let disk = filled(9, true).await;
        disk.flip(&name, at);
        assert!(matches!(Rig::open(disk.clone(), None).map(|_| ()), Err(OpenError::Damaged { .. })));
        let report = repair_volume(&disk).unwrap();
        assert!(report.text.contains("lost: 3 messages of sync, after seq 21"), "{}", report.text);
        let rig = Rig::open(disk, None).unwrap();
        assert_eq!(rig.read("**", Seq::ZERO).await.0.len(), 24);
    });
}

#[test]
fn without_its_checkpoint_a_log_is_made_anew_from_what_is_whole() {
    runtime().block_on(async {
        for file in ["checkpoint", "store"] {
            let disk = filled(50, true).await;
            let before = Rig::open(disk.clone(), None).unwrap();
            let messages = before.read("**", Seq::ZERO).await.0;
            before.store.close().await.unwrap();
            drop(before);
            disk.flip(file, 40.min(disk.bytes(file).len() - 1));
            if file == "store" {
                disk.remove(file).unwrap();
            }
            assert!(Rig::open(disk.clone(), None).is_err());
            repair_volume(&disk).unwrap();
            let after = Rig::open(disk, None).unwrap();
            assert_eq!(after.read("**", Seq::ZERO).await.0, messages);
        }
    });
}

#[test]
fn nothing_is_confirmed_on_a_full_disk_and_everything_goes_on_when_there_is_room() {
    runtime().block_on(async {
        let disk = filled(10, false).await;
        let rig = Rig::open(disk.clone(), None).unwrap();
        let before = rig.read("**", Seq::ZERO).await.0;
        for room in [0, 30, 70] {
            disk.set_faults(Faults { room: Some(room), ..Faults::default() });
            let refused = rig.append("sync", &texts(500, 2), None).await;
            assert!(matches!(refused, Err(Refused::Unavailable { .. })), "{refused:?}");
            assert_eq!(rig.read("**", Seq::ZERO).await.0, before, "readers go on");
        }
        disk.set_faults(Faults::default());
        while rig.append("sync", &texts(600, 2), None).await.is_err() {}
        let after = rig.read("**", Seq::ZERO).await.0;
        drop(rig);
        assert_eq!(after.len(), before.len() + 2);
        let rig = Rig::open(disk.after_power_loss(), None).unwrap();
        assert_eq!(rig.read("**", Seq::ZERO).await.0, after);
    });
}

#[test]
fn a_disk_that_the_log_itself_has_filled_gets_room_when_retention_lets_go() {
    runtime().block_on(async {
        let disk = Forgetful::new(3);
        disk.set_size(400_000);
        let rig = Rig::open(disk.clone(), None).unwrap();
        let mut round = 0;
        while rig.append(["sync", "other"][round % 2], &texts(3 * round, 3), None).await.is_ok() {
            round += 1;
        }
        drop(rig);
        // All but a little of it may go now, but to know that takes room.
        let rig = Rig::open(disk.after_kill(), Some(30)).unwrap();
        let mut refused = 0;
        while rig.append("sync", &texts(0, 3), None).await.is_err() {
            refused += 1;
            assert!(refused < 1_000_000, "it gets out of that by itself");
            rig.store.trim(1).await;
        }
        assert_eq!(rig.read("sync", Seq::ZERO).await.0.len(), 30);
    });
}

#[test]
fn after_a_sync_that_failed_nothing_is_confirmed_until_the_log_is_opened_anew() {
    runtime().block_on(async {
        let disk = filled(10, false).await;
        let rig = Rig::open(disk.clone(), None).unwrap();
        let before = rig.read("**", Seq::ZERO).await.0;
        disk.set_faults(Faults { fails_to_sync: true, ..Faults::default() });
        assert!(rig.append("sync", &texts(500, 2), None).await.is_err());
        disk.set_faults(Faults::default());
        assert!(rig.append("sync", &texts(502, 2), None).await.is_err(), "one success means nothing");
        assert_eq!(rig.read("**", Seq::ZERO).await.0, before, "readers go on");
        rig.store.close().await.unwrap_err();
        drop(rig);
        let rig = Rig::open(disk.after_power_loss(), None).unwrap();
        assert!(rig.read("**", Seq::ZERO).await.0.starts_with(&before));
        rig.append("sync", &texts(504, 2), None).await.unwrap();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn no_flipped_bit_is_read_as_a_message_and_repair_leads_back(at in 0.0..1.0f64, clean: bool) {
        runtime().block_on(async {
            let disk = filled(40, clean).await;
            let whole = Rig::open(disk.clone(), None).unwrap();
            let messages = whole.read("**", Seq::ZERO).await.0;
            drop(whole);
            let disk = disk.after_kill();
            let name = last_segment(&disk);
            let at = (disk.bytes(&name).len() as f64 * at) as usize;
            disk.flip(&name, at);
            if Rig::open(disk.clone(), None).is_err() {
                repair_volume(&disk).unwrap();
            }
            let rig = Rig::open(disk.clone(), None).unwrap();
            let (read, _) = rig.read("**", Seq::ZERO).await;
            let mut whole = messages.iter().map(|message| (message.seq, &message.payload));
            assert!(read.iter().all(|message| whole.any(|other| other == (message.seq, &message.payload))));
            assert!(read.len() + 3 >= messages.len(), "one bit costs one chunk at most");
            drop(rig);
            assert!(!Examination::of(&disk).unwrap().has_losses());
        });
    }
}
