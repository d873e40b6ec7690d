//! The client's process and what it prints.

use std::{path::Path, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};

use crate::fake_relay::PATIENCE;

/// A running client. Killed when dropped.
pub(crate) struct Client {
    child: Child,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

/// How a client ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Client {
    /// Starts `recv-client` with these words, and `--relay`.
    pub(crate) fn start(relay: &str, line: &str) -> Self {
        Self::start_in(Path::new("/nonexistent"), relay, line)
    }

    /// The same, keeping its state in a directory.
    pub(crate) fn start_in(state: &Path, relay: &str, line: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_recv-client"))
            .args(["--relay", relay])
            .args(line.split_whitespace())
            .env_remove("RELAY_CHANNEL")
            .env("XDG_STATE_HOME", state)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().map(|s| BufReader::new(s).lines());
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, stdout, stderr }
    }

    /// The next line of stdout.
    pub(crate) async fn line(&mut self) -> String {
        let lines = self.stdout.as_mut().unwrap();
        timeout(PATIENCE, lines.next_line())
            .await
            .expect("a line of output")
            .unwrap()
            .expect("a line of output")
    }

    /// Reads stderr up to a line that begins so.
    pub(crate) async fn told(&mut self, start: &str) -> String {
        let mut before = Vec::new();
        loop {
            match timeout(PATIENCE, self.stderr.next_line()).await {
                Ok(Ok(Some(line))) if line.starts_with(start) => return line,
                Ok(Ok(Some(line))) => before.push(line),
                _ => panic!("{start:?} was not told, but {before:?}"),
            }
        }
    }

    /// Reads no more of what it writes.
    pub(crate) fn close_stdout(&mut self) {
        self.stdout = None;
    }

    pub(crate) fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id().unwrap());
        assert!(std::process::Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }

    /// Waits for its end; what it printed and was not read yet.
    pub(crate) async fn end(mut self) -> Ended {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let read = async {
            if let Some(lines) = self.stdout {
                lines.into_inner().read_to_string(&mut stdout).await.unwrap();
            }
            self.stderr.into_inner().read_to_string(&mut stderr).await.unwrap();
            self.child.wait().await.unwrap()
        };
        let status = timeout(PATIENCE, read).await.expect("the client ends");
        Ended { code: status.code().unwrap_or(-1), stdout, stderr }
    }
}
