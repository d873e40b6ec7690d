//! A running program: its input, its lines, its end. What it said is printed when its test fails.

use std::{
    env,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, Command},
    sync::watch,
    task::JoinSet,
};

use crate::within;

/// The programs of the workspace, built before the first of them is started.
const PACKAGES: [&str; 3] = ["relay", "send-client", "recv-client"];

/// Variables that would change what the programs do.
const CLEARED: [&str; 12] = [
    "RELAY_ADDR",
    "RELAY_LEVEL",
    "RELAY_SPOOL",
    "RELAY_CHANNEL",
    "RELAY_TOKEN",
    "RELAY_TOKEN_FILE",
    "RELAY_CA",
    "RELAY_CONFIG",
    "RELAY_LOG",
    "NO_COLOR",
    "CLICOLOR_FORCE",
    "RUST_LOG",
];

/// A program that runs until the test is over, at most.
pub struct Program {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Capture,
    stderr: Capture,
    readers: JoinSet<()>,
}

/// What is left of a program that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its exit code; none if a signal killed it.
    pub code: Option<i32>,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// All of its stderr.
    pub stderr: String,
}

/// The signals that a program is told something by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `Ctrl-C`.
    Int,
    /// What it was started with has changed.
    Hup,
    /// A polite request to end.
    Term,
    /// No chance to do anything.
    Kill,
}

/// The path of one of the workspace's programs, built by the first call.
///
/// # Panics
/// If it can't be built.
pub fn binary(name: &str) -> PathBuf {
    // Tried once, also where it fails: what does not build for one test does not for the next.
    static BUILT: OnceLock<bool> = OnceLock::new();
    assert!(BUILT.get_or_init(build), "the programs under test could not be built");
    profile_folder().join(name)
}

/// A command that runs one of the workspace's programs, undisturbed by the environment of the tests.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(binary(name));
    undisturbed(&mut command);
    command.env("XDG_STATE_HOME", target_folder().join("e2e-state"));
    command
}

/// Takes from a command's environment what would change what the programs do.
pub fn undisturbed(command: &mut Command) {
    for variable in CLEARED {
        command.env_remove(variable);
    }
}

/// The folder that cargo builds into.
pub fn target_folder() -> PathBuf {
    profile_folder().parent().map(Path::to_owned).expect("a profile's folder is in the target folder")
}

impl Program {
    /// Starts one of the workspace's programs.
    pub fn start(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = command(name);
        command.args(args);
        Self::spawn(name, command)
    }

    /// Starts any command, with pipes.
    pub fn spawn(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let mut readers = JoinSet::new();
        let stdout = Capture::of(child.stdout.take().expect("stdout is a pipe"), &mut readers);
        let stderr = Capture::of(child.stderr.take().expect("stderr is a pipe"), &mut readers);
        Self { name: name.into(), stdin: child.stdin.take(), child, stdout, stderr, readers }
    }

    /// Writes to its stdin.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("its input has not been ended");
        let write = async {
            stdin.write_all(bytes.as_ref()).await?;
            stdin.flush().await
        };
        within(format_args!("{} to read its input", self.name), write).await.expect("it reads its input");
    }

    /// Writes to its stdin, or as much of it as is read before it leaves.
    pub async fn try_write(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("its input has not been ended");
        let write = stdin.write_all(bytes.as_ref());
        let _left = within(format_args!("{} to read its input", self.name), write).await;
    }

    /// Closes its stdin.
    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// The next line of its stdout, without its end.
    pub async fn line(&mut self) -> String {
        within(format_args!("a line of {}", self.name), self.stdout.line())
            .await
            .unwrap_or_else(|| panic!("{} ended without another line", self.name))
    }

    /// The next line of its stdout, without its end; none if it ended without one.
    pub async fn try_line(&mut self) -> Option<String> {
        within(format_args!("a line of {}", self.name), self.stdout.line()).await
    }

    /// Waits until its stdout contains a text.
    pub async fn says(&mut self, text: &str) {
        let found = within(format_args!("{} to say {text:?}", self.name), self.stdout.contains(text)).await;
        assert!(found, "{} ended and did not say {text:?}", self.name);
    }

    /// Waits until its stderr contains a text.
    pub async fn notes(&mut self, text: &str) {
        assert!(self.try_notes(text).await, "{} ended and did not note {text:?}", self.name);
    }

    /// Waits until its stderr contains a text, or until it has ended without; which it was.
    pub async fn try_notes(&mut self, text: &str) -> bool {
        within(format_args!("{} to note {text:?}", self.name), self.stderr.contains(text)).await
    }

    /// What its stderr has so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// What its stdout has so far.
    pub fn stdout(&self) -> Vec<u8> {
        self.stdout.bytes.borrow().clone()
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it has ended.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap_or_else(|| panic!("{} has ended", self.name))
    }

    /// Sends it a signal.
    pub async fn signal(&mut self, signal: Signal) {
        let name = match signal {
            Signal::Hup => "HUP",
            Signal::Int => "INT",
            Signal::Term => "TERM",
            Signal::Kill => "KILL",
        };
        // The shell's own `kill`: the program of that name is not on every machine.
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.id())]).status().await;
        assert!(status.is_ok_and(|s| s.success()), "cannot signal {}", self.name);
    }

    /// Ends its input and waits until it has ended.
    pub async fn finish(&mut self) -> Finished {
        self.end_input();
        self.ended().await
    }

    /// Waits until it has ended, though its input is still open.
    pub async fn ended(&mut self) -> Finished {
        let name = &self.name;
        let status =
            within(format_args!("the end of {name}"), self.child.wait()).await.expect("it can be awaited");
        let drained = async { while self.readers.join_next().await.is_some() {} };
        within(format_args!("the end of the output of {name}"), drained).await;
        Finished { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Program {
    #[expect(
        clippy::print_stderr,
        reason = "the test runner captures it and shows it for a test that failed"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let tail = |bytes: &[u8]| {
                String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(4096)..]).into_owned()
            };
            let (stdout, stderr) = (tail(&self.stdout.bytes.borrow()), tail(&self.stderr.bytes.borrow()));
            eprintln!("--- {} said\n{stdout}--- and noted\n{stderr}---", self.name);
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({})", self.name)
    }
}

impl Finished {
    /// Its stdout as lines.
    pub fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.stdout).lines().map(str::to_owned).collect()
    }
}

/// What a pipe has given so far.
struct Capture {
    bytes: watch::Receiver<Vec<u8>>,
    read: usize,
}

impl Capture {
    fn of(mut pipe: impl AsyncRead + Unpin + Send + 'static, readers: &mut JoinSet<()>) -> Self {
        let (sender, bytes) = watch::channel(Vec::new());
        readers.spawn(async move {
            let mut piece = Vec::with_capacity(64 * 1024);
            while pipe.read_buf(&mut piece).await.is_ok_and(|n| n > 0) {
                sender.send_modify(|all| all.append(&mut piece));
            }
        });
        Self { bytes, read: 0 }
    }

    /// Waits until the bytes have something; none if they end without it.
    async fn find<T>(&mut self, mut find: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = find(&self.bytes.borrow_and_update()) {
                return Some(found);
            }
            if self.bytes.changed().await.is_err() {
                return find(&self.bytes.borrow());
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        let from = self.read;
        let line = self
            .find(|bytes| {
                let end = bytes[from..].iter().position(|&b| b == b'\n')?;
                Some(bytes[from..from + end].to_vec())
            })
            .await?;
        self.read += line.len() + 1;
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    async fn contains(&mut self, text: &str) -> bool {
        self.find(|bytes| String::from_utf8_lossy(bytes).contains(text).then_some(())).await.is_some()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.borrow()).into_owned()
    }
}

/// The folder that cargo puts binaries into: that of this one, which tests are a folder below.
fn profile_folder() -> PathBuf {
    let this = env::current_exe().expect("a binary has a path");
    let folder = this.parent().expect("a binary is in a folder");
    let folder = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    folder.map(Path::to_owned).expect("a folder of tests is in that of the binaries")
}

/// Cargo does not build other packages' binaries for a test, so they are built here; a no-op when fresh.
fn build() -> bool {
    let folder = profile_folder();
    let profile = match folder.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let mut cargo = std::process::Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--profile", profile]).current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.arg("--target-dir").arg(target_folder());
    for package in PACKAGES {
        cargo.args(["--package", package]);
    }
    cargo.status().is_ok_and(|status| status.success())
}
