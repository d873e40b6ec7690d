//! A server as a process: started on its cores, measured with all its threads and children, ended.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// How long a server may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

/// Processor time, in seconds, of all threads and children.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Process {
    /// Starts a program on these cores (as taskset has them); what it says goes to a file named after it in `folder`.
    pub(crate) fn start(cores: &str, folder: &Path, name: &str, command: &Command) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| log.display().to_string())?;
        // It ends with the bench, however that ends.
        let mut pinned = Command::new("setpriv");
        pinned
            .args(["--pdeathsig", "TERM", "taskset", "-c", cores])
            .arg(command.get_program())
            .args(command.get_args());
        pinned.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            pinned.current_dir(folder);
        }
        let child = pinned.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn();
        Ok(Self { child: child.with_context(|| format!("starting {name}"))?, log })
    }

    /// Waits until it listens at all these addresses.
    pub(crate) fn listening(&mut self, addresses: &[SocketAddr]) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        for address in addresses {
            while TcpStream::connect(address).is_err() {
                if let Some(status) = self.child.try_wait()? {
                    bail!("the server ended at once with {status}: {}", self.said());
                }
                if Instant::now() > until {
                    bail!("the server does not listen on {address}: {}", self.said());
                }
                pause(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Kills it, so that it can put nothing in order.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it has said this.
    pub(crate) fn said_by(&mut self, words: &str) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !fs::read_to_string(&self.log).unwrap_or_default().contains(words) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended at once with {status}: {}", self.said());
            }
            if Instant::now() > until {
                bail!("the server does not say `{words}`: {}", self.said());
            }
            pause(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    fn end(&self) -> io::Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let process = pidfd_open(id.ok_or(io::ErrorKind::NotFound)?, PidfdFlags::empty())?;
        pidfd_send_signal(&process, Signal::TERM)?;
        let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience))? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }

    /// The end of what it said.
    fn said(&self) -> String {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        said.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Its processor time so far.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        self.tree()?.into_iter().map(Cpu::of).try_fold(Cpu::default(), |sum, cpu| {
            let cpu = cpu?;
            Ok(Cpu { user: sum.user + cpu.user, system: sum.system + cpu.system })
        })
    }

    /// Its resident memory in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        self.tree()?.into_iter().map(|id| field(&format!("/proc/{id}/smaps_rollup"), "Rss:")).sum()
    }

    /// Its resident memory in bytes as it was at most since [`forget_peak`](Self::forget_peak), without children.
    pub(crate) fn peak(&self) -> Result<u64> {
        field(&format!("/proc/{}/status", self.child.id()), "VmHWM:")
    }

    /// Lets the peak of its memory begin anew, proc_pid_clear_refs(5).
    pub(crate) fn forget_peak(&self) -> Result<()> {
        let file = format!("/proc/{}/clear_refs", self.child.id());
        fs::write(&file, "5").with_context(|| file)
    }

    /// Bytes that it has made the kernel write to disks, or owe them: proc_pid_io(5).
    pub(crate) fn written(&self) -> Result<u64> {
        let io =
            fs::read_to_string(format!("/proc/{}/io", self.child.id())).context("the server has ended")?;
        let bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok());
        bytes.context("no write_bytes in /proc/PID/io")
    }

    /// It and all processes that it started, and they.
    fn tree(&self) -> Result<Vec<u32>> {
        let mut tree = vec![self.child.id()];
        let mut at = 0;
        while let Some(&id) = tree.get(at) {
            for task in fs::read_dir(format!("/proc/{id}/task")).context("the server has ended")? {
                let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
                tree.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            }
            at += 1;
        }
        Ok(tree)
    }
}

impl Drop for Process {
    /// Asks it to end, and kills it if it does not.
    fn drop(&mut self) {
        if self.end().is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

impl Cpu {
    /// The processor time of a process, proc(5); clock ticks are 10 ms.
    pub(crate) fn of(id: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).context("the server has ended")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let seconds =
            |field: usize| anyhow::Ok(fields.get(field).context("a short stat")?.parse::<f64>()? / 100.0);
        Ok(Self { user: seconds(11)?, system: seconds(12)? })
    }

    /// What was used since then.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }

    /// User and system time.
    pub(crate) fn total(self) -> f64 {
        self.user + self.system
    }
}

/// Memory of the kernel in bytes: what sockets hold, and its own objects. That of the load is in it too.
pub(crate) fn kernel_memory() -> Result<u64> {
    let sockets = fs::read_to_string("/proc/net/sockstat")?;
    let pages =
        sockets.lines().find_map(|line| line.strip_prefix("TCP:")?.split("mem ").nth(1)?.parse::<u64>().ok());
    Ok(pages.context("no TCP memory in /proc/net/sockstat")? * 4096 + field("/proc/meminfo", "Slab:")?)
}

/// A field of a file of the kernel that is in kB, in bytes.
fn field(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB"));
    Ok(value.with_context(|| format!("no {name} in {path}"))?.trim().parse::<u64>()? * 1024)
}

/// An address that nobody listens at. Its port is below those that the system gives to clients: of these a bench
/// leaves thousands that rest for a minute.
pub(crate) fn free_address() -> Result<SocketAddr> {
    const PORTS: Range<u16> = 20_000..32_000;
    let mut ports = std::iter::repeat_with(|| fastrand::u16(PORTS)).take(1000);
    let free = ports.find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
    Ok(free.context("no port is free")?.local_addr()?)
}

/// Waits before something is looked at that tells nobody when it changes: whether a server listens, what it has written
/// into a file, what memory it has given back.
#[expect(
    clippy::disallowed_methods,
    reason = "no event tells when a foreign server listens, or is done with its garbage"
)]
pub(crate) fn pause(length: Duration) {
    thread::sleep(length);
}
