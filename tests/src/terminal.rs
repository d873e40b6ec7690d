//! A program in a real terminal: tmux on a socket of its own.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::unix::pipe, process::Command};

use crate::{DEADLINE, missing, program};

/// The screen, in characters.
const SIZE: [&str; 4] = ["-x", "120", "-y", "40"];

/// What runs in the terminal. The program waits until the pipe is there, so that nothing that it writes is missed;
/// its exit code is told by the shell, since tmux 3.3 at times does not notice the end of a program.
const SHELL: &str = "trap : INT; read -r _; \"$0\" \"$@\"; echo $? >\"$ENDED\"; read -r _";

/// A terminal that one program runs in.
#[derive(Debug)]
pub struct Terminal {
    folder: TempDir,
    tmux: PathBuf,
    /// What the program writes comes here as well: the moment to look at the screen again.
    written: pipe::Receiver,
    /// Its exit code comes here.
    ended: pipe::Receiver,
}

impl Terminal {
    /// Starts one of the workspace's programs in a terminal; none, said aloud, where there is no tmux.
    pub async fn start(name: &str, args: &[&str]) -> Option<Self> {
        let Some(tmux) = missing::find_program(&["tmux"]) else {
            missing::not_run("a program in a terminal", "there is no tmux");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let written = fifo(&folder.path().join("written")).await;
        let ended = fifo(&folder.path().join("ended")).await;
        let terminal = Self { folder, tmux, written, ended };

        let path = |name: &str| terminal.folder.path().join(name).display().to_string();
        let state = format!("XDG_STATE_HOME={}", path("state"));
        let status = format!("ENDED={}", path("ended"));
        let binary = program::binary(name).display().to_string();
        let mut start = vec!["new-session", "-d"];
        start.extend(SIZE);
        start.extend(["-e", &state, "-e", &status, "--", "sh", "-c", SHELL, &binary]);
        start.extend(args);
        terminal.run(&start).await;
        terminal.run(&["set-option", "-g", "status", "off"]).await;
        terminal.run(&["pipe-pane", "-O", &format!("exec cat >'{}'", path("written"))]).await;
        terminal.run(&["send-keys", "Enter"]).await;
        Some(terminal)
    }

    /// Types: each argument is a text, or the name of a key as tmux has it (`Enter`, `C-d`, `Tab`).
    pub async fn keys(&self, keys: &[&str]) {
        let mut command = vec!["send-keys"];
        command.extend(keys);
        self.run(&command).await;
    }

    /// Types a text and Enter.
    pub async fn enter(&self, text: &str) {
        self.run(&["send-keys", "-l", text]).await;
        self.keys(&["Enter"]).await;
    }

    /// Pastes a text, as from a clipboard.
    pub async fn paste(&self, text: &str) {
        self.run(&["set-buffer", text]).await;
        self.run(&["paste-buffer", "-p"]).await;
    }

    /// What is on the screen and above it, without trailing empty lines.
    pub async fn screen(&self) -> String {
        let output = self.run(&["capture-pane", "-p", "-J", "-S", "-"]).await;
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Waits until the screen is as `wanted` says, and gives it.
    pub async fn shows(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let (mut last, mut piece) = (String::new(), Vec::with_capacity(4096));
        let seen = async {
            loop {
                last = self.screen().await;
                if wanted(&last) {
                    return;
                }
                // What was written does not matter, only that something was.
                piece.clear();
                self.written.read_buf(&mut piece).await.expect("a fifo can be read");
            }
        };
        let seen = tokio::time::timeout(DEADLINE, seen).await;
        assert!(seen.is_ok(), "the terminal does not show {what:?}, but:\n{last}");
        last
    }

    /// Waits until a text is on the screen.
    pub async fn shows_text(&mut self, text: &str) -> String {
        self.shows(text, |screen| screen.contains(text)).await
    }

    /// Waits until the program has ended; its exit code.
    pub async fn finish(&mut self) -> i32 {
        let mut code = Vec::new();
        let ended = async {
            while !code.ends_with(b"\n") {
                self.ended.read_buf(&mut code).await.expect("a fifo can be read");
            }
        };
        if tokio::time::timeout(DEADLINE, ended).await.is_err() {
            panic!("the program in a terminal does not end, but shows:\n{}", self.screen().await);
        }
        String::from_utf8_lossy(&code).trim().parse().expect("the shell tells an exit code")
    }

    async fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(&self.tmux);
        command.arg("-S").arg(self.folder.path().join("socket")).args(["-f", "/dev/null", "-u"]).args(args);
        command.env("LC_ALL", "C.UTF-8").env_remove("TMUX").kill_on_drop(true);
        // The first command starts the server, which hands its environment on.
        program::undisturbed(&mut command);
        let output = command.output().await.expect("tmux runs");
        assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut command = std::process::Command::new(&self.tmux);
        command.arg("-S").arg(self.folder.path().join("socket")).arg("kill-server");
        // It may have gone with its last program.
        let _ = command.output();
    }
}

/// A fifo that does not end while nobody writes: it is open for both.
async fn fifo(path: &Path) -> pipe::Receiver {
    let made = Command::new("mkfifo").arg(path).status().await.expect("mkfifo is everywhere");
    assert!(made.success(), "mkfifo failed");
    pipe::OpenOptions::new().read_write(true).open_receiver(path).expect("a fifo can be opened")
}
