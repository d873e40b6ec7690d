//! A short run of the oracle: `tests/crash` is the long one.

use tests::{disk::SmallDisk, missing};
use tokio::process::Command;

/// Runs it from a fixed seed; at least 20 kills.
async fn play(args: &[&str]) {
    // What the oracle starts is built by the first test that starts a program.
    tests::program::binary("relay");
    let output = Command::new(env!("CARGO_BIN_EXE_crash")).args(args).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let killed = said.lines().find_map(|line| line.strip_prefix("relay: killed ")?.split(' ').next());
    assert!(killed.is_some_and(|n| n.parse::<u32>().unwrap() >= 20), "{said}");
}

#[tokio::test]
async fn killed_at_random_everything_that_was_acknowledged_is_there_once_and_in_order() {
    play(&["--kills", "24", "--seed", "11"]).await;
}

#[tokio::test]
async fn with_a_disk_that_is_full_half_of_the_time_too() {
    match SmallDisk::mount("1m") {
        Ok(_) => play(&["--kills", "20", "--seed", "12", "--full"]).await,
        Err(why) => missing::not_run("the crash test on a full disk", &why),
    }
}
