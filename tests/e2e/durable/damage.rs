//! A log that is not what was written: what was never acknowledged is cut off, what was is refused until somebody says
//! `relay log repair`, and that says what is lost. And directories that can't be used.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use tests::{
    disk::SmallDisk,
    program::{Finished, Program},
    receiver::{Received, Receiver},
};

use super::{Durable, publish, texts};

/// Small segments, so that there are several.
const CONFIG: &str = "[disk]\nsegment = \"64KiB\"\n";

/// Starts a relay that can't start.
async fn refused(data: &Path) -> Finished {
    let data = data.to_string_lossy();
    let finished =
        Program::start("relay", ["serve", "--listen", "127.0.0.1:0", "--data", &data]).finish().await;
    assert_eq!((finished.code, finished.stdout.len()), (Some(1), 0), "{}", finished.stderr);
    finished
}

async fn log(command: &str, data: &Path) -> (Option<i32>, String) {
    let data = data.to_string_lossy();
    let finished = Program::start("relay", ["log", command, &data]).finish().await;
    (finished.code, String::from_utf8_lossy(&finished.stdout).into_owned() + &finished.stderr)
}

/// The segments, in their order.
fn segments(data: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    segments.sort();
    segments
}

/// Messages of 4 KiB, in several segments; the relay is killed behind them.
async fn killed(count: u64) -> (Durable, Vec<String>) {
    let mut durable = Durable::start(CONFIG).await;
    let all: Vec<String> = (1..=count).map(|n| format!("{n} {}", "x".repeat(4096))).collect();
    publish(&durable.relay, "foo", &all).await;
    durable.relay.kill().await;
    (durable, all)
}

/// Changes a bit of the message with this number, wherever it is.
fn flip(data: &Path, number: u64) -> PathBuf {
    let needle = format!("{number} xxxx");
    for path in segments(data) {
        let mut bytes = fs::read(&path).unwrap();
        // Behind a header, not within another number.
        let found = bytes
            .windows(needle.len())
            .enumerate()
            .find(|(at, window)| *window == needle.as_bytes() && !bytes[at - 1].is_ascii_digit());
        if let Some((at, _)) = found {
            bytes[at + needle.len() + 100] ^= 0x10;
            fs::write(&path, bytes).unwrap();
            return path;
        }
    }
    panic!("message {number} is not there");
}

#[tokio::test]
async fn a_torn_tail_that_nobody_was_told_of_is_cut_off_and_the_log_says_so() {
    let (mut durable, all) = killed(40).await;
    // What a crash leaves of a group that was being written: its beginning, something else, zeros.
    let last = segments(&durable.data()).pop().unwrap();
    let beginning = fs::read(&last).unwrap()[32..132].to_vec();
    for torn in [beginning, vec![0xAB; 37], vec![0; 4096]] {
        File::options().append(true).open(&last).unwrap().write_all(&torn).unwrap();
        durable.relay.start_again().await;
        assert_eq!(durable.read("foo", "?since=earliest").await.texts(), all);
        durable.relay.program().notes("cut off").await;
        durable.relay.kill().await;
        let (code, said) = log("check", &durable.data()).await;
        assert_eq!(code, Some(0), "{said}");
    }
}

#[tokio::test]
async fn a_flipped_bit_is_refused_told_and_repaired_with_a_new_epoch() {
    let (mut durable, all) = killed(40).await;
    let data = durable.data();
    durable.relay.start_again().await;
    let before = durable.read("foo", "?since=earliest").await;
    durable.relay.kill().await;
    let sound = log("check", &data).await;
    assert_eq!(sound.0, Some(0), "{}", sound.1);

    // In the middle of the segment that was written last: whole groups are behind it.
    let file = flip(&data, 36);
    assert_eq!(Some(&file), segments(&data).last());
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let refused = refused(&data).await;
    assert!(refused.stderr.contains(&name), "{}", refused.stderr);
    assert!(refused.stderr.contains(&format!("relay log repair {}", data.display())), "{}", refused.stderr);
    // Looking changes nothing.
    let bytes = |data: &Path| segments(data).iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    let damaged = bytes(&data);
    for _ in 0..2 {
        let (code, said) = log("check", &data).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&name) && said.contains("lost: ") && said.contains("of foo"), "{said}");
    }
    assert!(bytes(&data) == damaged);

    let (code, said) = log("repair", &data).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("of foo, after seq") && said.contains("new epoch"), "{said}");
    let lost: usize = said.lines().filter_map(lost_of_foo).sum();
    assert_eq!(log("check", &data).await.0, Some(0));

    durable.relay.start_again().await;
    let after = durable.read("foo", "?since=earliest").await;
    assert_ne!(after.hello["epoch"], before.hello["epoch"]);
    // Exactly what it said is gone, the damaged one among it, and the rest is what it was.
    assert!(lost > 0);
    assert_eq!(after.messages.len() + lost, all.len(), "{said}");
    assert!(!after.texts().iter().any(|text| text.starts_with("36 ")));
    assert!(after.texts().iter().all(|text| all.contains(text)));
    // Who comes back to it is told.
    let resumed = durable.read("foo", &format!("?since={}", before.position())).await;
    assert_eq!(resumed.recovered(), (false, Some("epoch")));
    publish(&durable.relay, "foo", &texts(1..=1)).await;
    assert_eq!(durable.read("foo", "?last=1").await.texts(), texts(1..=1));
}

/// `lost: 3 messages of foo, after …`
fn lost_of_foo(line: &str) -> Option<usize> {
    let (count, rest) = line.strip_prefix("lost: ")?.split_once(' ')?;
    rest.contains("of foo").then(|| count.parse().ok())?
}

#[tokio::test]
async fn a_segment_that_is_missing_is_refused_and_told() {
    let (durable, _) = killed(60).await;
    let data = durable.data();
    let missing = segments(&data).remove(1);
    fs::remove_file(&missing).unwrap();
    let name = missing.file_name().unwrap().to_string_lossy().into_owned();
    assert!(refused(&data).await.stderr.contains("relay log repair"));
    let (code, said) = log("check", &data).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&name) || said.contains("lost: "), "{said}");
}

#[tokio::test]
async fn a_flipped_bit_in_an_old_segment_is_told_when_it_is_read() {
    let (mut durable, all) = killed(60).await;
    let data = durable.data();
    let file = flip(&data, 20);
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    // It would take long to read all of a large log at each start.
    durable.relay.start_again().await;
    let mut receiver = Receiver::connect(durable.relay.address(), "/c/foo?since=earliest", None).await;
    let mut came = 0;
    while let Received::Raw(_, payload) = receiver.next().await {
        assert_eq!(payload, all[came]);
        came += 1;
    }
    assert!(came < 20, "nothing damaged is sent, and nothing is passed over: {came}");
    durable.relay.program().notes(&name).await;
    durable.relay.program().notes("relay log repair").await;
    // What is elsewhere is served, and senders go on.
    assert_eq!(durable.read("foo", "?last=3").await.texts(), all[57..]);
    publish(&durable.relay, "bar", &texts(1..=1)).await;
    durable.relay.kill().await;
    let (code, said) = log("repair", &data).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.lines().filter_map(lost_of_foo).sum::<usize>(), 1, "{said}");
    durable.relay.start_again().await;
    let kept = [&all[..19], &all[20..]].concat();
    assert_eq!(durable.read("foo", "?since=earliest").await.texts(), kept);
}

#[tokio::test]
async fn an_index_that_is_lost_is_made_anew_and_a_checkpoint_needs_a_repair_that_loses_nothing() {
    let (mut durable, all) = killed(60).await;
    let data = durable.data();
    for entry in fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            fs::remove_file(path).unwrap();
        }
    }
    durable.relay.start_again().await;
    assert_eq!(durable.read("foo", "?since=earliest").await.texts(), all);
    durable.relay.kill().await;
    // Who the producers are is nowhere else.
    fs::remove_file(data.join("checkpoint")).unwrap();
    assert!(refused(&data).await.stderr.contains("relay log repair"));
    assert_eq!(log("check", &data).await.0, Some(1));
    let (code, said) = log("repair", &data).await;
    assert_eq!(code, Some(0), "{said}");
    durable.relay.start_again().await;
    assert_eq!(durable.read("foo", "?since=earliest").await.texts(), all);
}

#[tokio::test]
async fn a_directory_is_used_by_one_relay_at_a_time() {
    let durable = Durable::start("").await;
    let data = durable.data();
    let expected = format!(
        "error: cannot use {} for messages: another relay is using it\n  hint: two relays need two directories\n",
        data.display()
    );
    assert_eq!(refused(&data).await.stderr, expected);
    for command in ["check", "repair"] {
        let (code, said) = log(command, &data).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("another relay is using it"), "{said}");
    }
    publish(&durable.relay, "foo", &texts(1..=1)).await;
}

#[tokio::test]
async fn a_directory_of_a_newer_version_is_refused_and_left_as_it_is() {
    let mut durable = Durable::start("").await;
    assert_eq!(durable.relay.stop().await.code, Some(0));
    let store = durable.data().join("store");
    let newer = fs::read_to_string(&store).unwrap().replace("version = 1", "version = 2");
    fs::write(&store, &newer).unwrap();
    let refused = refused(&durable.data()).await.stderr;
    assert!(refused.contains("a newer version of relay has written it (version 2)"), "{refused}");
    let (code, said) = log("repair", &durable.data()).await;
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(fs::read_to_string(&store).unwrap(), newer);
}

#[tokio::test]
async fn a_directory_that_can_not_be_written_to_is_refused() {
    // Root may write where permissions say no, and may mount what is read-only; others the other way round.
    let disk = SmallDisk::mount("4m");
    let folder = tempfile::tempdir().unwrap();
    let expected = match &disk {
        Ok(disk) => {
            let status = Command::new("mount").args(["-o", "remount,ro"]).arg(disk.path()).status();
            assert!(status.unwrap().success());
            "it is on a file system that is read-only"
        }
        Err(_) => {
            let status = Command::new("chmod").arg("555").arg(folder.path()).status();
            assert!(status.unwrap().success());
            "permission denied"
        }
    };
    let data = disk.as_ref().map_or_else(|_| folder.path(), SmallDisk::path).join("data");
    let said = refused(&data).await.stderr;
    assert_eq!(said, format!("error: cannot use {} for messages: {expected}\n", data.display()));
}
