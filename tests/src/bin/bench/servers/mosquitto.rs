//! mosquitto: a client publishes over TCP, subscribers come over WebSocket. Both speak MQTT 3.1.1 at QoS 0, where the
//! broker sends each message once and waits for nobody; none is lost as long as its queue has no limit.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    rc::Rc,
};

use anyhow::{Context as _, Result, ensure};
use bytes::BufMut as _;

use super::{Dialect, Entrance, Place, Running, Server, name};
use crate::{
    load::{
        Delivery,
        payload::Payloads,
        publisher::Publish,
        verify::Verify,
        websocket::{self, Opcode},
    },
    process::{Process, free_address},
};

/// MQTT 3.1.1, a clean session, no keep-alive, and a name that the broker gives.
const CONNECT: &[u8] = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00";
/// That it is accepted.
const CONNACK: &[u8] = b"\x20\x02\x00\x00";
/// That the first subscription has QoS 0.
const SUBACK: &[u8] = b"\x90\x03\x00\x01\x00";

#[derive(Debug)]
pub(super) struct Mosquitto;

impl Server for Mosquitto {
    fn name(&self) -> &'static str {
        name::MOSQUITTO
    }

    fn version(&self, _place: &Place) -> Result<String> {
        let output = Command::new(program()).arg("-h").output().context("mosquitto is not there")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    fn start(&self, place: &Place) -> Result<Running> {
        let (tcp, ws) = (free_address()?, free_address()?);
        let config = place.folder.join("mosquitto.conf");
        let text = format!(
            "user root\nallow_anonymous true\npersistence false\nmax_queued_messages 0\nset_tcp_nodelay true\n\
             listener {} {}\nlistener {} {}\nprotocol websockets\n",
            tcp.port(),
            tcp.ip(),
            ws.port(),
            ws.ip()
        );
        fs::write(&config, text)?;
        let mut command = Command::new(program());
        command.arg("-c").arg(config);
        let mut process = Process::start(place.cores, &place.folder, "mosquitto", &command)?;
        process.listening(&[tcp, ws])?;
        Ok(Running { process, dialect: Box::new(Speaks { tcp, ws }) })
    }
}

/// Debian has it where not every user's PATH looks.
fn program() -> &'static str {
    "/usr/sbin/mosquitto"
}

#[derive(Debug)]
struct Speaks {
    tcp: SocketAddr,
    ws: SocketAddr,
}

impl Dialect for Speaks {
    fn entrance(&self, _channel: &str) -> Entrance {
        Entrance { address: self.ws, path: "/mqtt".into(), protocol: Some("mqtt") }
    }

    fn subscribe(&self, channel: &str) -> Result<TcpStream> {
        let mut socket = websocket::open(self.ws, "/mqtt", Some("mqtt"))?;
        let mut subscribe = vec![0x82, (5 + channel.len()) as u8, 0, 1];
        put_text(channel, &mut subscribe);
        subscribe.push(0);
        for (packet, answer) in [(CONNECT, CONNACK), (&subscribe, SUBACK)] {
            let mut out = Vec::new();
            websocket::put_frame(&mut out, Opcode::Binary, packet);
            socket.write_all(&out)?;
            let (_, said) = websocket::read_frame(&mut socket)?;
            ensure!(said == answer, "mosquitto answers {said:x?}");
        }
        Ok(socket)
    }

    fn delivery(&self) -> Delivery {
        Delivery::InFrames { asides: b"" }
    }

    fn expect(&self, channel: &str, payload: &[u8], out: &mut Vec<u8>) {
        put_publish(channel, payload, out);
    }

    fn verify(&self, _: &str, _: &Rc<Payloads>, _: usize, _: bool) -> Option<Box<dyn Verify>> {
        None
    }

    fn publish(&self, channels: &[String]) -> Result<(TcpStream, Box<dyn Publish>)> {
        let mut socket = websocket::connect(self.tcp)?;
        socket.write_all(CONNECT)?;
        let mut said = [0; CONNACK.len()];
        socket.read_exact(&mut said)?;
        ensure!(said == CONNACK, "mosquitto answers {said:x?}");
        Ok((socket, Box::new(Publishes { topics: channels.to_vec() })))
    }

    fn most_in_flight(&self) -> u64 {
        4096
    }
}

#[derive(Debug)]
struct Publishes {
    topics: Vec<String>,
}

impl Publish for Publishes {
    fn room(&self) -> u64 {
        u64::MAX
    }

    fn publish(&mut self, channel: usize, payload: &[u8], out: &mut Vec<u8>) {
        put_publish(&self.topics[channel], payload, out);
    }

    fn answers(&mut self, input: &mut Vec<u8>, _out: &mut Vec<u8>) -> Result<()> {
        ensure!(input.is_empty(), "mosquitto says {input:x?} to what was published at QoS 0");
        Ok(())
    }
}

/// A PUBLISH of QoS 0, MQTT 3.1.1 section 3.3.
fn put_publish(topic: &str, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x30);
    let mut left = 2 + topic.len() + payload.len();
    // The length, seven bits at a time, section 2.2.3.
    loop {
        let more = if left > 0x7f { 0x80 } else { 0 };
        out.push((left & 0x7f) as u8 | more);
        left >>= 7;
        if left == 0 {
            break;
        }
    }
    put_text(topic, out);
    out.extend_from_slice(payload);
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}
