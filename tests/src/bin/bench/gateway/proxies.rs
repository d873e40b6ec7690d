//! The proxies: how each is started. All are as they are by default, but for one worker, room for the connections, no
//! log of requests, and waits that are longer than a run.

use std::{
    env, fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{Work, upstream::Upstream};
use crate::{
    load::websocket,
    process::{Process, free_address},
    servers::{Place, first_line},
};

/// What stands between the clients and the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proxy {
    /// The relay's gateway, which does not touch what passes.
    Relay,
    /// The same with a rule that looks at every message.
    RelayRule,
    Haproxy,
    Nginx,
    /// A script on node that pipes sockets.
    NodePipe,
    /// A script on node with ws at both sides, which knows messages.
    NodeWs,
    /// WebSocket in, bytes out.
    Websockify,
    /// The least that a proxy can be.
    Bare,
}

/// A proxy that runs.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) process: Process,
    address: SocketAddr,
}

/// Where the relay has its routes; the others have but one.
const ECHO: &str = "/echo";
const BYTES: &str = "/bytes";

/// A rule that looks at every message and finds nothing.
const RULE: &str = "[[route.rule]]\nname = \"no secrets\"\nmatches = \"secret=\\\\w+\"\naction = \"replace\"\n\
                    with = \"secret=***\"\n";

impl Proxy {
    pub(super) const ALL: [Self; 8] = [
        Self::Relay,
        Self::RelayRule,
        Self::Haproxy,
        Self::Nginx,
        Self::NodePipe,
        Self::NodeWs,
        Self::Websockify,
        Self::Bare,
    ];

    /// What it is called in results and tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::RelayRule => "relay, a rule",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::NodePipe => "node, sockets",
            Self::NodeWs => "node, ws",
            Self::Websockify => "websockify",
            Self::Bare => "bare sockets",
        }
    }

    /// Whether it can do that.
    pub(super) fn takes_part(self, work: Work) -> bool {
        let bytes = matches!(work, Work::Bytes { .. });
        match self {
            Self::Relay => true,
            Self::Websockify => bytes,
            Self::Bare => matches!(work, Work::Echo { .. }),
            Self::RelayRule | Self::Haproxy | Self::Nginx | Self::NodePipe | Self::NodeWs => !bytes,
        }
    }

    /// Its version as it says itself, or why it can't be had.
    pub(super) fn version(self, place: &Place) -> Result<String> {
        match self {
            Self::Relay | Self::RelayRule => {
                let relay = place.programs.join("relay");
                let any = free_address()?;
                let config = self.relay_config(place, any, any, any)?;
                let check = Command::new(&relay)
                    .arg("check")
                    .arg(config)
                    .output()
                    .context("the relay is not built")?;
                ensure!(check.status.success(), "this relay has no such configuration");
                first_line(relay, &["--version"])
            }
            Self::Haproxy => first_line("haproxy", &["-v"]),
            Self::Nginx => Ok(first_line("nginx", &["-v"])?.trim_start_matches("nginx version: ").to_owned()),
            Self::NodePipe => Ok(format!("node {}", first_line("node", &["--version"])?)),
            Self::NodeWs => {
                let manifest =
                    fs::read_to_string(ws(place).join("ws/package.json")).context("ws is not set up")?;
                let manifest: serde_json::Value = serde_json::from_str(&manifest)?;
                let version = manifest["version"].as_str().context("ws has no version")?;
                Ok(format!("ws {version} on node {}", first_line("node", &["--version"])?))
            }
            Self::Websockify => {
                find("websockify")?;
                first_line("dpkg-query", &["--show", "--showformat=${Version}", "websockify"])
            }
            Self::Bare => Ok("of this bench".into()),
        }
    }

    /// Starts it in front of the upstream, and waits until it listens.
    pub(super) fn start(self, place: &Place, upstream: &Upstream) -> Result<Started> {
        let address = free_address()?;
        let command = match self {
            Self::Relay | Self::RelayRule => {
                let mut command = Command::new(place.programs.join("relay"));
                let config = self.relay_config(place, address, upstream.websocket, upstream.bytes)?;
                command.args(["serve", "--log", "warn", "--config"]).arg(config);
                command
            }
            Self::Haproxy => {
                let config = place.folder.join("haproxy.cfg");
                fs::write(&config, haproxy_config(address, upstream.websocket))?;
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(config);
                command
            }
            Self::Nginx => {
                let folder = place.folder.join("nginx");
                fs::create_dir_all(&folder)?;
                fs::write(folder.join("nginx.conf"), nginx_config(address, upstream.websocket))?;
                let mut command = Command::new("nginx");
                command.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "error.log"]);
                command
            }
            Self::NodePipe => script("pipe.js", place, address, upstream),
            Self::NodeWs => script("messages.js", place, address, upstream),
            Self::Websockify => {
                let mut command = Command::new("websockify");
                command.args([address.to_string(), upstream.bytes.to_string()]);
                command
            }
            Self::Bare => {
                let mut command = Command::new(env::current_exe()?);
                command.args(["bare-sockets".into(), address.to_string(), upstream.websocket.to_string()]);
                command
            }
        };
        let log = self.name().replace([' ', ','], "-");
        let mut process = Process::start(place.cores, &place.folder, &log, &command)?;
        process.listening(&[address])?;
        Ok(Started { process, address })
    }

    fn relay_config(
        self,
        place: &Place,
        address: SocketAddr,
        websocket: SocketAddr,
        bytes: SocketAddr,
    ) -> Result<PathBuf> {
        let path = place.folder.join("relay.toml");
        let rule = if self == Self::RelayRule { RULE } else { "" };
        let text = format!(
            "listen = [\"{address}\"]\n[limits]\nworkers = 1\n[gateway]\nconnections = 16384\n\
             idle_timeout = \"1h\"\n[[route]]\npath = \"{BYTES}\"\nupstreams = [\"tcp://{bytes}\"]\n\
             [[route]]\npath = \"{ECHO}\"\nupstreams = [\"ws://{websocket}\"]\n{rule}"
        );
        fs::write(&path, text)?;
        Ok(path)
    }
}

impl Started {
    /// Opens a connection through it; it is upgraded, and nothing of it is read yet.
    pub(super) fn open(&self, bytes: bool) -> Result<TcpStream> {
        websocket::open(self.address, if bytes { BYTES } else { ECHO }, None)
    }
}

fn haproxy_config(address: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "global
            nbthread 1
            maxconn 8192
        defaults
            mode http
            timeout connect 5s
            timeout client 1h
            timeout server 1h
            timeout tunnel 1h
        listen bench
            bind {address}
            maxconn 8192
            server echo {upstream}\n"
    )
}

fn nginx_config(address: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "user root;
         daemon off;
         worker_processes 1;
         pid nginx.pid;
         error_log error.log;
         worker_rlimit_nofile 40000;
         events {{ worker_connections 32768; }}
         http {{
             access_log off;
             server {{
                 listen {address};
                 location / {{
                     proxy_pass http://{upstream};
                     proxy_http_version 1.1;
                     proxy_set_header Upgrade $http_upgrade;
                     proxy_set_header Connection upgrade;
                     proxy_read_timeout 1h;
                     proxy_send_timeout 1h;
                 }}
             }}
         }}
        "
    )
}

fn script(name: &str, place: &Place, address: SocketAddr, upstream: &Upstream) -> Command {
    let mut command = Command::new("node");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/gateway").join(name));
    command.args([address.port(), upstream.websocket.port()].map(|port| port.to_string()));
    command.env("NODE_PATH", ws(place));
    command
}

/// Where ws of npm is: it is set up for the servers of channels too.
fn ws(place: &Place) -> PathBuf {
    place.folder.join("../ws/node_modules")
}

fn find(program: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    found.with_context(|| format!("{program} is not there"))
}
