//! What a program asks of the system, watched and tampered with by `strace`.

use std::{fs, path::Path, time::Duration};

use tokio::{process::Command, time::interval};

use crate::{missing, program::Program, within};

/// A running strace.
#[derive(Debug)]
pub struct Strace {
    program: Program,
    log: tempfile::NamedTempFile,
}

impl Strace {
    /// Watches a running program; none, said aloud, where that can't be. `args` say what to look at, and what shall
    /// fail from now on.
    pub async fn attach(pid: u32, args: &[&str]) -> Option<Self> {
        if missing::find_program(&["strace"]).is_none() {
            missing::not_run("what the disk is asked for", "there is no strace (tests/run installs it)");
            return None;
        }
        let log = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut command = Command::new("strace");
        command.args(["-f", "-xx", "-s", "65536", "-p", &pid.to_string(), "-o"]).arg(log.path()).args(args);
        let mut program = Program::spawn("strace", command);
        if !program.try_notes("attached").await {
            let why = format!("strace can't attach to it: {}", program.stderr().trim_end());
            missing::not_run("what the disk is asked for", &why);
            return None;
        }
        Some(Self { program, log })
    }

    /// What was asked so far, a line for each call or part of one.
    pub fn lines(&self) -> Vec<String> {
        let text = fs::read(self.log.path()).expect("strace writes there");
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    /// Waits until a line of a call is there.
    pub async fn sees(&self, call: &str) {
        // A file that grows announces nothing: looked at again and again.
        let mut look = interval(Duration::from_millis(20));
        within(format_args!("strace to see {call}"), async {
            while !self.lines().iter().any(|line| line.contains(call)) {
                look.tick().await;
            }
        })
        .await;
    }

    /// Lets go of the program, which goes on untouched; what it asked meanwhile.
    pub async fn detach(mut self) -> Vec<String> {
        self.program.signal(crate::program::Signal::Int).await;
        self.program.finish().await;
        self.lines()
    }

    /// Waits until the program has ended; what it asked.
    pub async fn ended(mut self) -> Vec<String> {
        self.program.finish().await;
        self.lines()
    }

    /// Where it writes what it sees.
    pub fn log(&self) -> &Path {
        self.log.path()
    }
}

/// The bytes of a line that strace shows as `\x00`.
pub fn unescape(line: &str) -> Vec<u8> {
    line.split("\\x").skip(1).filter_map(|hex| u8::from_str_radix(hex.get(..2)?, 16).ok()).collect()
}
