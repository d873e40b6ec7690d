//! The relay as a process on a port that stays free while it is away.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use tempfile::NamedTempFile;
use tests::{
    program::{self, Finished, Program, Signal},
    relay::{config_file, lasting_port},
};

/// The relay: running, or about to.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddr,
    config: NamedTempFile,
    data: std::path::PathBuf,
    program: Option<Program>,
    /// How often it was started.
    pub(super) starts: u32,
    /// What it said, era by era.
    pub(super) log: String,
}

impl Relay {
    pub(super) fn new(config: &str, data: &Path) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, lasting_port()));
        Self {
            address,
            config: config_file(config),
            data: data.to_owned(),
            program: None,
            starts: 0,
            log: String::new(),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts it, and does not wait.
    pub(super) fn launch(&mut self) {
        let mut command = program::command("relay");
        command.arg("serve").arg("--listen").arg(self.address.to_string());
        command.arg("--config").arg(self.config.path()).arg("--data").arg(&self.data);
        self.starts += 1;
        self.program = Some(Program::spawn("relay", command));
    }

    /// Waits until it is ready; what it said if it will never be.
    pub(super) async fn ready(&mut self) -> Result<(), String> {
        let Some(program) = &mut self.program else { return Err("it was not started".into()) };
        if program.try_line().await.is_some() {
            return Ok(());
        }
        let Finished { code, stderr, .. } = program.finish().await;
        self.program = None;
        self.note(&stderr);
        Err(format!("the relay did not start (exit {code:?}): {}", stderr.trim_end()))
    }

    /// Kills it, or asks it to end; what it said if it did so otherwise than it should. Where the disk may be full it
    /// may end with what it could not keep, as long as it says so.
    pub(super) async fn end(&mut self, signal: Signal, may_be_full: bool) -> Result<(), String> {
        let Some(mut program) = self.program.take() else { return Ok(()) };
        program.signal(signal).await;
        let Finished { code, stderr, .. } = program.finish().await;
        self.note(&stderr);
        let expected = if signal == Signal::Kill { None } else { Some(0) };
        let kept_less = may_be_full
            && code == Some(1)
            && stderr.contains("error: not everything that was stored is on the disk");
        if signal == Signal::Term && kept_less {
            return Ok(());
        }
        // A panic that did not end it is as bad.
        if code != expected || stderr.contains("panicked at") {
            return Err(format!("the relay ended with {code:?} and said: {}", stderr.trim_end()));
        }
        Ok(())
    }

    fn note(&mut self, said: &str) {
        self.log += &format!("era {}\n{said}", self.starts);
    }

    /// Has it check its data; what it found wrong.
    pub(super) async fn check(&self) -> Result<(), String> {
        let mut command = program::command("relay");
        command.args(["log", "check"]).arg(&self.data);
        let finished = Program::spawn("relay log check", command).finish().await;
        if finished.code == Some(0) {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&finished.stdout).into_owned() + &finished.stderr;
        Err(format!("relay log check ends with {:?}: {}", finished.code, said.trim_end()))
    }
}
