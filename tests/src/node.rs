//! Scripts on node with its library `ws`.

use std::path::PathBuf;

use tokio::process::Command;

use crate::{
    missing,
    program::{self, Program},
};

/// Where Debian's package has its libraries.
const DEBIAN: &str = "/usr/share/nodejs";

/// Runs a script that uses `ws`; none, said aloud, where there is no node with it.
pub async fn run(script: &str, args: &[&str]) -> Option<Program> {
    let Some(libraries) = find().await else {
        missing::not_run("what a server on node does", "there is no node with ws (tests/run installs them)");
        return None;
    };
    let mut command = Command::new("node");
    command.env("NODE_PATH", libraries).arg("--eval").arg(script).arg("--").args(args);
    Some(Program::spawn("node", command))
}

/// The libraries of the system, or those that `tests/bench` sets up.
async fn find() -> Option<PathBuf> {
    let made = program::target_folder().join("bench/ws/node_modules");
    for libraries in [PathBuf::from(DEBIAN), made] {
        let look =
            Command::new("node").env("NODE_PATH", &libraries).args(["--eval", "require('ws')"]).output();
        if look.await.is_ok_and(|output| output.status.success()) {
            return Some(libraries);
        }
    }
    None
}
