//! nginx with nchan: messages come over a WebSocket and go out over WebSockets.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{
    Place, Running, Server, first_line, name,
    plain::{Plain, Senders},
};
use crate::process::{Process, free_address};

/// Where Debian puts the module.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// What it keeps of a channel, in messages: more than are ever in flight, so that nothing is lost.
const BUFFER: u32 = 10_000;

#[derive(Debug)]
pub(super) struct Nchan;

impl Server for Nchan {
    fn name(&self) -> &'static str {
        name::NCHAN
    }

    fn version(&self, _place: &Place) -> Result<String> {
        ensure!(Path::new(MODULE).exists(), "there is no {MODULE}");
        let nginx = first_line("nginx", &["-v"])?;
        let package = first_line("dpkg-query", &["--show", "--showformat=${Version}", "libnginx-mod-nchan"]);
        Ok(format!(
            "{} with nchan {}",
            nginx.trim_start_matches("nginx version: "),
            package.unwrap_or_default()
        ))
    }

    fn start(&self, place: &Place) -> Result<Running> {
        let address = free_address()?;
        let folder = place.folder.join("nginx");
        fs::create_dir_all(&folder)?;
        let config = format!(
            "load_module {MODULE};
             user root;
             daemon off;
             worker_processes 1;
             pid nginx.pid;
             error_log error.log;
             worker_rlimit_nofile 20000;
             events {{ worker_connections 16384; }}
             http {{
                 access_log off;
                 nchan_shared_memory_size 1G;
                 server {{
                     listen {address};
                     location ~ ^/publish/(.+)$ {{
                         nchan_publisher websocket;
                         nchan_channel_id $1;
                         nchan_message_buffer_length {BUFFER};
                     }}
                     location ~ ^/subscribe/(.+)$ {{
                         nchan_subscriber websocket;
                         nchan_channel_id $1;
                         nchan_subscriber_first_message newest;
                     }}
                 }}
             }}
            "
        );
        fs::write(folder.join("nginx.conf"), config)?;
        let folder = folder.canonicalize().context("the folder of nginx")?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&folder).args(["-c", "nginx.conf", "-e", "error.log"]);
        let mut process = Process::start(place.cores, &place.folder, "nginx-out", &command)?;
        process.listening(&[address])?;
        let senders = Senders::Frames("/publish/");
        let dialect = Plain { receivers: address, path: "/subscribe/", senders, end: b"" };
        Ok(Running { process, dialect: Box::new(dialect) })
    }
}
