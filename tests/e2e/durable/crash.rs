//! A short run of the oracle: `tests/crash` is the long one.

use tokio::process::Command;

#[tokio::test]
async fn killed_at_random_everything_that_was_acknowledged_is_there_once_and_in_order() {
    // What the oracle starts is built by the first test that starts a program.
    tests::program::binary("relay");
    let run = Command::new(env!("CARGO_BIN_EXE_crash")).args(["--kills", "24", "--seed", "11"]).output();
    let output = run.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let killed =
        said.lines().find_map(|line| line.strip_prefix("relay: killed ")?.split(' ').next()?.parse().ok());
    assert!(killed.is_some_and(|killed: u32| killed >= 20), "{said}");
}
