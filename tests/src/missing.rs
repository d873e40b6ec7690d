//! What happens where a tool that a test needs is missing: the test says so aloud, and fails where `CI` is
//! `true`.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
};

/// Says that a test did not run, and why, past the capture of the test runner.
///
/// # Panics
/// If the variable `CI` is `true`: there everything has to run.
pub fn not_run(what: &str, why: &str) {
    assert!(env::var("CI").as_deref() != Ok("true"), "NOT RUN: {what}, {why}");
    // Nothing is left to do where stderr is closed.
    let _ = writeln!(std::io::stderr().lock(), "NOT RUN: {what}, {why}");
}

/// The first of these programs that is in `PATH`.
pub fn find_program(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
