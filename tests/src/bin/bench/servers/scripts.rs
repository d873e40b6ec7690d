//! Servers that are libraries or tools: a small script on node's `ws`, one on Python's `websockets`, and websocat.
//! All of them send each line that comes over TCP to every client.

use std::{net::TcpListener, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{
    Place, Running, Server, first_line, name,
    plain::{Plain, Senders},
};
use crate::process::{Process, free_address};

/// node with `ws`, of npm.
#[derive(Debug)]
pub(super) struct NodeWs;

/// Python with `websockets`, of pip.
#[derive(Debug)]
pub(super) struct PythonWebsockets;

/// websocat, of cargo.
#[derive(Debug)]
pub(super) struct Websocat;

/// Bytes that the longest message of a work may have.
const MAX_MESSAGE: &str = "1048576";

/// Messages that websocat keeps for each client: more than are ever in flight, so that it drops none.
const QUEUE: &str = "65536";

/// The sources of the scripts.
fn scripts() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("peers")
}

impl Server for NodeWs {
    fn name(&self) -> &'static str {
        name::NODE_WS
    }

    fn version(&self, place: &Place) -> Result<String> {
        let manifest = place.folder.join("ws/node_modules/ws/package.json");
        let manifest = std::fs::read_to_string(manifest).context("ws is not set up")?;
        let manifest: serde_json::Value = serde_json::from_str(&manifest)?;
        let version = manifest["version"].as_str().context("ws has no version")?;
        Ok(format!("ws {version} on node {}", first_line("node", &["--version"])?))
    }

    fn start(&self, place: &Place) -> Result<Running> {
        let mut command = Command::new("node");
        command.arg(scripts().join("ws/server.js"));
        command.env("NODE_PATH", place.folder.join("ws/node_modules").canonicalize()?);
        serve_lines(place, "node-ws", command)
    }
}

impl Server for PythonWebsockets {
    fn name(&self) -> &'static str {
        name::PYTHON_WEBSOCKETS
    }

    fn version(&self, place: &Place) -> Result<String> {
        let python = python(place);
        let version = first_line(&python, &["-c", "import websockets; print(websockets.__version__)"])?;
        ensure!(version.starts_with(|first: char| first.is_ascii_digit()), "websockets is not set up");
        Ok(format!("websockets {version} on {}", first_line(&python, &["--version"])?))
    }

    fn start(&self, place: &Place) -> Result<Running> {
        let mut command = Command::new(python(place));
        command.arg(scripts().join("websockets/server.py"));
        serve_lines(place, "python-websockets", command)
    }
}

fn python(place: &Place) -> PathBuf {
    place.folder.join("../python/bin/python3")
}

/// Starts a script that takes lines at its first address and serves WebSockets at its second one.
fn serve_lines(place: &Place, name: &str, mut command: Command) -> Result<Running> {
    let (lines, receivers) = (free_address()?, free_address()?);
    command.args([lines.port(), receivers.port()].map(|port| port.to_string()));
    let mut process = Process::start(place.cores, &place.folder, name, &command)?;
    process.listening(&[lines, receivers])?;
    let dialect = Plain { receivers, path: "/", senders: Senders::Lines(lines), end: b"" };
    Ok(Running { process, dialect: Box::new(dialect) })
}

impl Server for Websocat {
    fn name(&self) -> &'static str {
        name::WEBSOCAT
    }

    fn version(&self, place: &Place) -> Result<String> {
        first_line(place.folder.join("websocat/bin/websocat"), &["--version"])
    }

    fn start(&self, place: &Place) -> Result<Running> {
        let receivers = free_address()?;
        // It connects to where lines come from with its first client.
        let lines = TcpListener::bind("127.0.0.1:0")?;
        let mut command = Command::new(place.folder.join("websocat/bin/websocat"));
        command.args(["--text", "--exit-on-eof", "--buffer-size", MAX_MESSAGE, "--queue-len", QUEUE]);
        command.arg(format!("ws-l:{receivers}")).arg(format!("broadcast:tcp:{}", lines.local_addr()?));
        let mut process = Process::start(place.cores, &place.folder, "websocat-out", &command)?;
        process.listening(&[receivers])?;
        let senders = Senders::LinesTo(lines);
        // A line's end stays with it: what --linemode-strip-newlines takes away comes as a message of its own.
        let dialect = Plain { receivers, path: "/", senders, end: b"\n" };
        Ok(Running { process, dialect: Box::new(dialect) })
    }
}
