//! The relay: a raw sender publishes lines, or a framed one where it has several channels or shall be acknowledged;
//! WebSocket receivers get what they have subscribed.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    rc::Rc,
};

use anyhow::{Context as _, Result, bail, ensure};
use shared::{
    Kind,
    codec::{Decoded, decode_relay, encode_preamble, encode_sender},
    limits::{MAX_MESSAGE, WINDOW_MESSAGES},
    sender::{Alias, Hello, Levels, Open, ProducerId, Publish as Message, RelayFrame, SenderFrame},
    ws_frame,
};

use super::{Dialect, Entrance, Place, Running, Server, first_line, name, plain::Lines};
use crate::{
    load::{
        Delivery,
        payload::Payloads,
        publisher::Publish,
        verify::{Form, RelayFrames, Verify},
        websocket,
    },
    process::{Process, free_address},
};

/// A relay, as it is by default but for what is said here.
#[derive(Debug)]
pub(super) struct Relay {
    name: &'static str,
    form: Form,
    sender: Sender,
    workers: u32,
    /// More keys of its listener.
    listener: &'static str,
}

/// Who publishes to a single channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// Writes lines and hears nothing: as the core protocol of NATS does, and whatever writes to a socket.
    Raw,
    /// Numbers its messages and is told what is stored.
    Framed,
}

impl Relay {
    /// Receivers without a subprotocol.
    pub(super) const RAW: Self =
        Self { name: name::RELAY, form: Form::Raw, sender: Sender::Raw, workers: 1, listener: "" };
    /// With a sender that is told what is stored.
    pub(super) const FRAMED: Self = Self { name: name::RELAY_FRAMED, sender: Sender::Framed, ..Self::RAW };
    /// Receivers of `relay.v1.binary`.
    pub(super) const BINARY: Self = Self { name: name::RELAY_BINARY, form: Form::Binary, ..Self::RAW };
    /// Receivers of `relay.v1.json`.
    pub(super) const JSON: Self = Self { name: name::RELAY_JSON, form: Form::Json, ..Self::RAW };
    /// It waits a little for more before it writes.
    pub(super) const BATCHED: Self =
        Self { name: name::RELAY_BATCHED, listener: "batch_delay = \"4ms\"\n", ..Self::RAW };
    /// With both cores, one of which it shares with the load.
    pub(super) const TWO_WORKERS: Self = Self { name: name::RELAY_TWO_WORKERS, workers: 2, ..Self::RAW };

    /// Writes its configuration: all defaults, but that no ping comes between messages.
    fn configure(&self, place: &Place, address: SocketAddr) -> Result<PathBuf> {
        let path = place.folder.join("relay.toml");
        let Self { listener, workers, .. } = self;
        let text = format!(
            "[limits]\nworkers = {workers}\n\n[timeouts]\nping = \"10m\"\n\n\
             [[listener]]\naddress = \"{address}\"\n{listener}"
        );
        fs::write(&path, text)?;
        Ok(path)
    }
}

impl Server for Relay {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self, place: &Place) -> Result<String> {
        let relay = place.programs.join("relay");
        let config = self.configure(place, free_address()?)?;
        let check =
            Command::new(&relay).arg("check").arg(config).output().context("the relay is not built")?;
        ensure!(check.status.success(), "this relay has no such key: {}", self.listener.trim());
        first_line(relay, &["--version"])
    }

    fn start(&self, place: &Place) -> Result<Running> {
        let address = free_address()?;
        let mut command = Command::new(place.programs.join("relay"));
        command.args(["serve", "--log", "warn", "--config"]).arg(self.configure(place, address)?);
        let cores = if self.workers == 1 { place.cores } else { "0,1" };
        let mut process = Process::start(cores, &place.folder, "relay", &command)?;
        process.listening(&[address])?;
        Ok(Running { process, dialect: Box::new(Speaks { address, form: self.form, sender: self.sender }) })
    }
}

/// A relay that somebody else has started, as [`Relay::RAW`] is spoken to.
pub(crate) fn raw(process: Process, address: SocketAddr) -> Running {
    Running { process, dialect: Box::new(Speaks { address, form: Form::Raw, sender: Sender::Raw }) }
}

#[derive(Debug)]
struct Speaks {
    address: SocketAddr,
    form: Form,
    sender: Sender,
}

impl Dialect for Speaks {
    fn entrance(&self, channel: &str) -> Entrance {
        let protocol = match self.form {
            Form::Raw => None,
            Form::Binary => Some("relay.v1.binary"),
            Form::Json => Some("relay.v1.json"),
        };
        Entrance { address: self.address, path: format!("/c/{channel}"), protocol }
    }

    fn subscribe(&self, channel: &str) -> Result<TcpStream> {
        let Entrance { address, path, protocol } = self.entrance(channel);
        let mut socket = websocket::open(address, &path, protocol)?;
        if protocol.is_some() {
            // A hello, then that it is live.
            while !websocket::read_frame(&mut socket)?.1.starts_with(b"{\"type\":\"live\"") {}
        }
        Ok(socket)
    }

    fn delivery(&self) -> Delivery {
        Delivery::Bytes
    }

    fn expect(&self, _channel: &str, payload: &[u8], out: &mut Vec<u8>) {
        ws_frame::put(out, Kind::Text, payload);
    }

    fn verify(
        &self,
        channel: &str,
        payloads: &Rc<Payloads>,
        origins: usize,
        mixed: bool,
    ) -> Option<Box<dyn Verify>> {
        let foretold = self.form == Form::Raw && !mixed;
        (!foretold).then(|| {
            Box::new(RelayFrames::new(self.form, channel, Rc::clone(payloads), origins)) as Box<dyn Verify>
        })
    }

    fn publish(&self, channels: &[String]) -> Result<(TcpStream, Box<dyn Publish>)> {
        if let (Sender::Raw, [channel]) = (self.sender, channels) {
            let mut socket = websocket::connect(self.address)?;
            writeln!(socket, "RELAY/1 channel={channel} framing=line")?;
            return Ok((socket, Box::new(Lines)));
        }
        let mut out = Vec::new();
        encode_preamble(&mut out);
        let producer = ProducerId(std::array::from_fn(|_| fastrand::u8(..)));
        encode_sender(
            &SenderFrame::Hello(Hello { producer, producer_epoch: 1, keep_s: 1, token: b"" }),
            &mut out,
        );
        for (alias, channel) in channels.iter().enumerate() {
            let alias = Alias(u16::try_from(alias)?);
            let open = Open { alias, levels: Levels::ACCEPTED, first_pseq: 1, channel };
            encode_sender(&SenderFrame::Open(open), &mut out);
        }
        let mut socket = websocket::connect(self.address)?;
        socket.write_all(&out)?;
        let framed =
            Framed { pseqs: vec![0; channels.len()], settled: vec![0; channels.len()], unsettled: 0 };
        Ok((socket, Box::new(framed)))
    }

    fn most_in_flight(&self) -> u64 {
        u64::MAX
    }
}

/// A framed sender within its window.
#[derive(Debug)]
struct Framed {
    /// Of each channel the last pseq.
    pseqs: Vec<u64>,
    /// Of each channel the last pseq that is settled.
    settled: Vec<u64>,
    unsettled: u64,
}

impl Publish for Framed {
    fn room(&self) -> u64 {
        // Half of the window at a time: smaller pieces would be a chunk each.
        let room = u64::from(WINDOW_MESSAGES) - self.unsettled;
        if room < u64::from(WINDOW_MESSAGES) / 2 { 0 } else { room }
    }

    fn publish(&mut self, channel: usize, payload: &[u8], out: &mut Vec<u8>) {
        self.pseqs[channel] += 1;
        self.unsettled += 1;
        let alias = Alias(channel as u16);
        let message =
            Message { alias, pseq: self.pseqs[channel], kind: Kind::Text, source_time: None, payload };
        encode_sender(&SenderFrame::Publish(message), out);
    }

    fn answers(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<()> {
        let mut taken = 0;
        while let Decoded::Frame(frame, length) = decode_relay(&input[taken..], MAX_MESSAGE)? {
            taken += length;
            match frame {
                RelayFrame::Ack(ack) => {
                    let settled =
                        self.settled.get_mut(usize::from(ack.alias.0)).context("an unknown alias")?;
                    self.unsettled -= ack.pseq - *settled;
                    *settled = ack.pseq;
                }
                RelayFrame::Error(refusal) => bail!("the relay refused a message: {}", refusal.text),
                RelayFrame::Close(close) => bail!("the relay closed a sender: {}", close.text),
                RelayFrame::Ping(number) => encode_sender(&SenderFrame::Pong(number), out),
                RelayFrame::Welcome(_)
                | RelayFrame::Opened(_)
                | RelayFrame::Pong(_)
                | RelayFrame::Drain { .. } => {}
            }
        }
        input.drain(..taken);
        Ok(())
    }
}
