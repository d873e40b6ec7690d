//! A relay of a test's own: the real binary on a free port.

use std::{
    ffi::OsString,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::NamedTempFile;
use tokio::process::Command;

use crate::program::{self, Finished, Program, Signal};

/// A running relay, gone at the end of the test.
#[derive(Debug)]
pub struct TestRelay {
    program: Program,
    addresses: Vec<SocketAddr>,
    version: String,
    args: Vec<OsString>,
    config: Option<NamedTempFile>,
}

impl TestRelay {
    /// Starts `relay serve --listen 127.0.0.1:0` with more arguments, and waits until it is ready.
    pub async fn start(args: &[&str]) -> Self {
        Self::launch(0, None, args).await
    }

    /// Starts one with a configuration file of this content.
    pub async fn with_config(toml: &str, args: &[&str]) -> Self {
        Self::launch(0, Some(config_file(toml)), args).await
    }

    /// Starts one that can be started [`again`](Self::start_again) on its port.
    pub async fn restartable(args: &[&str]) -> Self {
        Self::launch(lasting_port(), None, args).await
    }

    /// As [`restartable`](Self::restartable), with a configuration file of this content.
    pub async fn restartable_with_config(toml: &str, args: &[&str]) -> Self {
        Self::launch(lasting_port(), Some(config_file(toml)), args).await
    }

    /// Starts one whose runtime has a single worker: a task there that lets nobody else run stops everything.
    pub async fn with_one_worker(args: &[&str]) -> Self {
        Self::with_config("[limits]\nworkers = 1\n", args).await
    }

    async fn launch(port: u16, config: Option<NamedTempFile>, more: &[&str]) -> Self {
        let mut args: Vec<OsString> = vec!["--listen".into(), format!("127.0.0.1:{port}").into()];
        if let Some(file) = &config {
            args.extend(["--config".into(), file.path().into()]);
        }
        args.extend(more.iter().map(OsString::from));
        let (program, version, addresses) = serve(program::command("relay"), &args).await;
        Self { program, addresses, version, args, config }
    }

    /// Starts it again as it was, on the same port, after it has ended.
    pub async fn start_again(&mut self) {
        (self.program, self.version, self.addresses) = serve(program::command("relay"), &self.args).await;
    }

    /// Where it listens: the first of its addresses.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Everywhere it listens: `--listen` first, then the configuration's and `--raw`, in their order.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The address as the clients' `--relay` takes it.
    pub fn host(&self) -> String {
        self.address().to_string()
    }

    /// The version that it says it is.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The program, for its lines and signals.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    pub async fn stop(&mut self) -> Finished {
        self.program.signal(Signal::Term).await;
        self.program.finish().await
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub async fn kill(&mut self) {
        self.program.signal(Signal::Kill).await;
        self.program.finish().await;
    }

    /// The most memory that it has had resident, in bytes.
    pub fn peak_rss(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The memory that it has resident, in bytes.
    pub fn rss(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Lets it have so many open files at most from now on.
    pub fn allow_open_files(&self, limit: u64) {
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        let pid = Pid::from_raw(self.program.id().cast_signed());
        prlimit(pid, Resource::Nofile, limit).expect("a limit may be lowered");
    }

    /// How many files it has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.program.id())).expect("it runs").count()
    }

    /// The processor time that it has used, in clock ticks of 10 ms.
    pub fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.program.id())).expect("it runs");
        // The program's name may have spaces: the fields are counted after its closing parenthesis.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        [11, 12].iter().map(|&i| fields[i].parse::<u64>().expect("a number of ticks")).sum()
    }

    fn status(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.program.id())).expect("it runs");
        let kib = status.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB"));
        1024 * kib.and_then(|n| n.trim().parse::<u64>().ok()).expect("the kernel tells memory in kB")
    }

    /// The configuration file, if it has one.
    pub fn config(&self) -> Option<&NamedTempFile> {
        self.config.as_ref()
    }
}

/// A file for `--config`, gone when dropped.
pub fn config_file(toml: &str) -> NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
    file.write_all(toml.as_bytes()).expect("a temporary file can be written");
    file
}

/// A port that stays free while its relay is away: below the range (32768 and up) from which the kernel takes
/// ports for outgoing connections and for port 0.
pub fn lasting_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Runs at the same time on one machine start at different places.
    let start = (std::process::id() % 100) as u16 * 100;
    (0..12_000)
        .map(|_| 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000)
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .expect("a free port between 20000 and 32000")
}

/// Starts it and reads its first line, `relay VERSION ready on ADDR[, ADDR…]`.
async fn serve(mut command: Command, args: &[OsString]) -> (Program, String, Vec<SocketAddr>) {
    command.arg("serve").args(args);
    let mut program = Program::spawn("relay", command);
    let line = program.line().await;
    let (version, addresses) = line
        .strip_prefix("relay ")
        .and_then(|rest| rest.split_once(" ready on "))
        .unwrap_or_else(|| panic!("the first line is no ready line: {line:?}"));
    let addresses = addresses.split(", ").map(|a| a.parse().expect("a ready line has addresses")).collect();
    (program, version.into(), addresses)
}
