//! The laws of the log and the identity on a disk that crashes, fills up, fails and forgets.

mod disk;

use std::collections::BTreeMap;

use proptest::prelude::*;
use shared::{
    Kind,
    codec::encode_sender,
    sender::{Alias, ProducerId, Publish, SenderFrame},
};

use self::disk::{Disk, Trouble};
use super::{
    error::SpoolError,
    files::{Files, Replacing},
    identity::{self, Identity},
    log::{Log, encode_open, frames},
};

/// Small, so that there are many.
const SEGMENT: u64 = 400;

/// Messages of channels `a` and `b` by their numbers.
type Messages = BTreeMap<(u16, u64), Vec<u8>>;

/// A group of messages for channels that the log knows or not, from these numbers on.
fn group(next: &mut [u64; 2], channels: &[u16], known: usize, text: &str) -> (Vec<u8>, Messages) {
    let (mut bytes, mut messages) = (Vec::new(), Messages::new());
    for (alias, name) in (0u16..).zip(["a", "b"]).skip(known) {
        encode_open(Alias(alias), next[usize::from(alias)], &name.parse().unwrap(), &mut bytes);
    }
    for (index, &alias) in channels.iter().enumerate() {
        let pseq = next[usize::from(alias)];
        next[usize::from(alias)] += 1;
        let payload = format!("{text} {index}").into_bytes();
        let publish =
            Publish { alias: Alias(alias), pseq, kind: Kind::Text, source_time: None, payload: &payload };
        encode_sender(&SenderFrame::Publish(publish), &mut bytes);
        messages.insert((alias, pseq), payload);
    }
    (bytes, messages)
}

/// Everything that can be read from here on.
fn read_all(log: &mut Log<impl Files>) -> Messages {
    let mut messages = Messages::new();
    while let Some(bytes) = log.read().unwrap() {
        for frame in frames(&bytes) {
            if let SenderFrame::Publish(publish) = frame.unwrap() {
                messages.insert((publish.alias.0, publish.pseq), publish.payload.to_vec());
            }
        }
    }
    messages
}

fn open(disk: &Disk) -> Log<Disk> {
    Log::open(disk.clone(), SEGMENT).unwrap()
}

/// A log with groups `g0`, `g1`, … of two messages each.
fn filled(disk: &Disk, groups: usize) -> Log<Disk> {
    let mut log = open(disk);
    let mut next = [1, 1];
    for n in 0..groups {
        let (bytes, _) = group(&mut next, &[0, 1], log.lanes().len(), &format!("g{n}"));
        log.append(&bytes).unwrap();
    }
    log
}

/// The files with messages, in their order.
fn segments(disk: &Disk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| name.ends_with(".spool")).collect()
}

/// A history of appends, confirmations and crashes, held against what it was told.
fn history(disk: &Disk, rng: &mut fastrand::Rng) -> Result<(), String> {
    let mut log = open(disk);
    // What was said to be kept; groups that could not be, since then; up to where it is confirmed.
    let (mut kept, mut attempts, mut settled) = (Messages::new(), Vec::<Messages>::new(), [0, 0]);
    for step in 0..30 {
        if rng.u8(..4) == 0 {
            let trouble = [Trouble::Crash, Trouble::Full, Trouble::Sync, Trouble::Open][rng.usize(..4)];
            disk.trouble(rng.u32(..8), trouble);
        }
        let mut next = [0, 1].map(|alias| log.lanes().get(alias).map_or(1, |lane| lane.next));
        if rng.u8(..3) > 0 {
            let channels: Vec<u16> = (0..rng.usize(1..6)).map(|_| rng.u16(..2)).collect();
            let (bytes, messages) = group(&mut next, &channels, log.lanes().len(), &format!("step {step}"));
            match log.append(&bytes) {
                Ok(()) => {
                    kept.extend(messages);
                    attempts.clear();
                }
                Err(_) => attempts.push(messages),
            }
        } else {
            for (alias, settled) in settled.iter_mut().enumerate() {
                let last = kept.keys().filter(|key| usize::from(key.0) == alias).map(|key| key.1).max();
                *settled = rng.u64(*settled..=last.unwrap_or(0).max(*settled));
            }
            // Whether it could be done makes no difference.
            let _ = log.confirm(&[(Alias(0), settled[0]), (Alias(1), settled[1])]);
            let _ = log.record(if rng.bool() { Replacing::Quick } else { Replacing::Durable });
        }
        if rng.u8(..3) == 0 {
            drop(log);
            disk.crash(rng);
            log = Log::open(disk.clone(), SEGMENT).map_err(|error| format!("step {step}: {error}"))?;
            let there = read_all(&mut log);
            // Nobody was told that such a group is kept; it may be there all the same, as a whole.
            if let Some(attempt) =
                attempts.drain(..).find(|group| group.iter().all(|(k, p)| there.get(k) == Some(p)))
            {
                kept.extend(attempt);
            }
            let open = |messages: &Messages| -> Messages {
                let open = messages.iter().filter(|((alias, pseq), _)| *pseq > settled[usize::from(*alias)]);
                open.map(|(key, payload)| (*key, payload.clone())).collect()
            };
            if open(&there) != open(&kept) {
                return Err(format!("step {step}: kept {:?}, found {:?}", open(&kept), open(&there)));
            }
            for (alias, lane) in log.lanes().iter().enumerate() {
                let last = kept.keys().filter(|key| usize::from(key.0) == alias).map(|key| key.1).max();
                if lane.next != last.unwrap_or(0) + 1 || lane.settled > settled[alias] {
                    return Err(format!("step {step}: {lane:?} after {last:?}, {settled:?}"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn what_was_kept_is_there_after_any_crash_and_no_number_is_given_twice() {
    for seed in 0..3000 {
        let done = history(&Disk::default(), &mut fastrand::Rng::with_seed(seed));
        assert_eq!(done, Ok(()), "seed {seed}");
    }
}

#[test]
fn a_disk_that_does_not_sync_breaks_the_law() {
    let broken = (0..100).filter(|&seed| {
        let history = || history(&Disk::lying(), &mut fastrand::Rng::with_seed(seed));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(history)).is_ok_and(|done| done.is_err())
    });
    assert!(broken.count() > 50, "the law would hold without a sync");
}

#[test]
fn a_file_that_is_cut_anywhere_holds_the_groups_before_the_cut() {
    let disk = Disk::default();
    drop(filled(&disk, 4));
    let name = format!("{:016x}.spool", 1);
    let whole = disk.read(&name).unwrap();
    let mut counts = Vec::new();
    for length in 0..=whole.len() {
        let disk = Disk::default();
        drop(filled(&disk, 4));
        disk.edit(&name, |data| data.truncate(length));
        let mut log = open(&disk);
        let there = read_all(&mut log);
        let groups = there.len() / 2;
        let expected: Messages = (0..groups as u64)
            .flat_map(|n| [0, 1].map(|a| ((a, n + 1), format!("g{n} {a}").into_bytes())))
            .collect();
        assert_eq!(there, expected, "cut at {length}");
        counts.push(groups);
        // It goes on behind what is there.
        let mut next = [groups as u64 + 1; 2];
        let (bytes, more) = group(&mut next, &[1, 0], log.lanes().len(), "on");
        log.append(&bytes).unwrap();
        assert_eq!(read_all(&mut log), more, "cut at {length}");
    }
    assert!(counts.is_sorted() && counts.last() == Some(&4), "{counts:?}");
}

#[test]
fn what_went_bad_in_the_middle_is_told_and_nothing_is_changed() {
    let disk = Disk::default();
    drop(filled(&disk, 30));
    let segments = segments(&disk);
    assert!(segments.len() > 2, "{segments:?}");
    for (index, name) in segments.iter().enumerate() {
        let before = disk.read(name).unwrap();
        // In the last one a group must follow, or it looks like one that was being written.
        let at = if index + 1 == segments.len() { 30 } else { before.len() - 1 };
        disk.edit(name, |data| data[at] ^= 4);
        let damaged = disk.read(name).unwrap();
        let error = Log::open(disk.clone(), SEGMENT).unwrap_err();
        assert!(matches!(&error, SpoolError::Damaged { file, .. } if file == name), "{error}");
        assert_eq!(disk.read(name).unwrap(), damaged);
        disk.edit(name, |data| *data = before);
    }
    let mut gone = disk.clone();
    gone.remove(&segments[1]).unwrap();
    let error = Log::open(gone, SEGMENT).unwrap_err().to_string();
    assert!(error.ends_with(&format!("the files between it and {} are missing", segments[2])), "{error}");
}

#[test]
fn what_is_confirmed_is_freed_and_numbers_go_on() {
    let disk = Disk::default();
    let mut log = filled(&disk, 40);
    let before = log.size();
    log.confirm(&[(Alias(0), 40), (Alias(1), 20)]).unwrap();
    assert!(log.size() < before * 6 / 10, "{} of {before}", log.size());
    log.confirm(&[(Alias(1), 40)]).unwrap();
    assert!(log.size() <= 2 * SEGMENT, "{}", log.size());
    log.close().unwrap();
    let mut log = open(&disk);
    assert!(log.lanes().iter().all(|lane| (lane.next, lane.settled) == (41, 40)), "{:?}", log.lanes());
    let (bytes, more) = group(&mut [41, 41], &[0, 0, 1], 2, "more");
    log.append(&bytes).unwrap();
    let mut there = read_all(&mut log);
    there.retain(|(_, pseq), _| *pseq > 40);
    assert_eq!(there, more);
}

#[test]
fn a_full_disk_takes_nothing_and_goes_on_when_there_is_room() {
    let disk = Disk::default();
    let mut log = filled(&disk, 2);
    let (bytes, _) = group(&mut [3, 3], &[0, 1], 2, "g2");
    disk.trouble(0, Trouble::Full);
    assert_eq!(log.append(&bytes).unwrap_err().to_string(), "no space left on device");
    log.append(&bytes).unwrap();
    assert_eq!(read_all(&mut log).len(), 6);
    assert_eq!(read_all(&mut open(&disk)).len(), 6);
}

/// A log whose last segment is large enough to be replaced at any time; nothing is confirmed.
fn filled_up(disk: &Disk) -> Log<Disk> {
    let mut log = filled(disk, 40);
    let (bytes, _) = group(&mut [41, 41], &[0, 1], 2, &"x".repeat(64 * 1024));
    log.append(&bytes).unwrap();
    assert!(segments(disk).len() > 2, "{:?}", segments(disk));
    log
}

const ALL: [(Alias, u64); 2] = [(Alias(0), 41), (Alias(1), 41)];

#[test]
fn what_is_confirmed_makes_room_on_a_full_disk() {
    let disk = Disk::default();
    let mut log = filled_up(&disk);
    let last = segments(&disk).pop().unwrap();
    disk.trouble(0, Trouble::Full);
    assert_eq!(log.confirm(&ALL).unwrap_err().to_string(), "no space left on device");
    assert_eq!(segments(&disk), std::slice::from_ref(&last));
    // Now there is room for one in its place.
    log.confirm(&ALL).unwrap();
    assert!(segments(&disk).len() == 1 && !segments(&disk).contains(&last), "{:?}", segments(&disk));
}

#[test]
fn what_is_confirmed_is_written_down_at_the_end_though_the_disk_is_full() {
    let disk = Disk::default();
    let mut log = filled_up(&disk);
    disk.trouble(0, Trouble::Full);
    assert!(log.confirm(&ALL).is_err());
    // Not for a new segment, but for a few bytes there is room.
    disk.trouble(0, Trouble::Full);
    assert_eq!(log.close().unwrap_err().to_string(), "no space left on device");
    assert!(open(&disk).lanes().iter().all(|lane| lane.settled == 41), "{:?}", open(&disk).lanes());
}

#[test]
fn a_segment_that_could_not_even_be_created_spoils_nothing() {
    let disk = Disk::default();
    let mut log = open(&disk);
    let (bytes, messages) = group(&mut [1, 1], &[0, 1], 0, "g0");
    disk.trouble(0, Trouble::Open);
    for _ in 0..2 {
        assert_eq!(log.append(&bytes).unwrap_err().to_string(), "too many open files");
    }
    disk.relieve();
    log.append(&bytes).unwrap();
    assert_eq!(read_all(&mut open(&disk)), messages);
}

#[test]
fn after_a_sync_that_failed_nothing_more_is_taken() {
    let disk = Disk::default();
    let mut log = filled(&disk, 1);
    let (bytes, _) = group(&mut [2, 2], &[0, 1], 2, "g1");
    disk.trouble(1, Trouble::Sync);
    for _ in 0..2 {
        assert_eq!(log.append(&bytes).unwrap_err().to_string(), "input/output error");
    }
    assert_eq!(read_all(&mut log).len(), 2);
    assert_eq!(read_all(&mut open(&disk)).len(), 2);
}

#[test]
fn a_start_never_has_the_epoch_of_one_before() {
    for seed in 0..500 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut disk = Disk::default();
        let mut last: Option<Identity> = None;
        for _ in 0..6 {
            disk.trouble(rng.u32(..12), Trouble::Crash);
            let begun = identity::read(&disk, [7; 16]).and_then(|before| identity::begin(&mut disk, before));
            if let Ok(now) = begun {
                assert_eq!(now.id, ProducerId([7; 16]));
                assert!(last.is_none_or(|last| now.epoch > last.epoch), "seed {seed}: {last:?}, {now:?}");
                last = Some(now);
            }
            disk.crash(&mut rng);
        }
    }
}

#[test]
fn a_directory_of_something_else_or_of_a_newer_version_is_refused() {
    let mut disk = Disk::default();
    disk.append("notes.txt", b"x").unwrap();
    assert!(matches!(identity::read(&disk, [0; 16]), Err(SpoolError::Foreign)));
    let mut newer = Disk::default();
    newer.append("producer", b"{\"format\":2,\"who\":1}").unwrap();
    assert!(matches!(identity::read(&newer, [0; 16]), Err(SpoolError::Newer(2))));
    let mut torn = Disk::default();
    torn.append("0000000000000001.spool", b"").unwrap();
    assert!(matches!(identity::read(&torn, [0; 16]), Err(SpoolError::Damaged { .. })));
}

proptest! {
    #[test]
    fn any_bytes_are_opened_without_a_panic(bytes: Vec<u8>) {
        let mut disk = Disk::default();
        disk.append("0000000000000001.spool", &bytes).unwrap();
        let _ = Log::open(disk, SEGMENT);
    }
}
