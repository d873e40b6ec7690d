//! How messages are published so that each is acknowledged: the relay's framed protocol, and JetStream's over that of
//! NATS.

use std::{
    fmt,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use shared::{
    Kind,
    codec::{Decoded, decode_relay, encode_preamble, encode_sender},
    limits::MAX_MESSAGE,
    sender::{Alias, Hello, Levels, Open, Opened, ProducerId, Publish, RelayFrame, SenderFrame},
};

use crate::load::websocket;

/// How one connection publishes, and is told what is stored.
pub(super) trait Acknowledge: fmt::Debug {
    /// Writes what publishes a payload to one of the channels that the connection was opened for.
    fn put(&mut self, channel: usize, payload: &[u8], out: &mut Vec<u8>);

    /// Takes whole answers off the input: how many bytes they took, and how many messages they settle. What has to be
    /// said in return goes to `out`.
    ///
    /// # Errors
    /// A refusal.
    fn settle(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, u64)>;
}

/// A framed sender of the relay.
#[derive(Debug)]
pub(super) struct Framed {
    /// Of each channel the last pseq, and the last that is settled.
    pseqs: Vec<(u64, u64)>,
}

impl Framed {
    /// Opens the channels as the producer of that number, whose acknowledgements are to mean the levels.
    pub(super) fn open(
        address: SocketAddr,
        number: usize,
        channels: &[String],
        levels: Levels,
    ) -> Result<(TcpStream, Self)> {
        let (socket, opened) = open(address, number, channels, levels)?;
        for Opened { levels: given, .. } in opened {
            ensure!(
                given.contains(levels),
                "the relay acknowledges `{given}` where `{levels}` was asked for"
            );
        }
        Ok((socket, Self { pseqs: vec![(0, 0); channels.len()] }))
    }

    /// How many messages of that producer the relay says it has stored.
    pub(super) fn stored(address: SocketAddr, number: usize, channels: &[String]) -> Result<u64> {
        let (_, opened) = open(address, number, channels, Levels::ACCEPTED)?;
        Ok(opened.iter().map(|opened| opened.last_pseq).sum())
    }
}

/// Says hello and opens the channels; what was answered to each.
fn open(
    address: SocketAddr,
    number: usize,
    channels: &[String],
    levels: Levels,
) -> Result<(TcpStream, Vec<Opened>)> {
    let mut out = Vec::new();
    encode_preamble(&mut out);
    let producer = ProducerId([number.to_be_bytes(), *b"producer"].concat().try_into().unwrap_or_default());
    let hello = Hello { producer, producer_epoch: 1, keep_s: 0, token: b"" };
    encode_sender(&SenderFrame::Hello(hello), &mut out);
    for (alias, channel) in channels.iter().enumerate() {
        let alias = Alias(u16::try_from(alias)?);
        encode_sender(&SenderFrame::Open(Open { alias, levels, first_pseq: 1, channel }), &mut out);
    }
    let mut socket = websocket::connect(address)?;
    socket.write_all(&out)?;
    let (mut input, mut buffer, mut opened) = (Vec::new(), [0; 16 * 1024], Vec::new());
    while opened.len() < channels.len() {
        let count = socket.read(&mut buffer).context("waiting for channels to open")?;
        ensure!(count > 0, "the relay closed a sender that opens channels");
        input.extend_from_slice(&buffer[..count]);
        let mut taken = 0;
        while let Decoded::Frame(frame, length) = decode_relay(&input[taken..], MAX_MESSAGE)? {
            taken += length;
            match frame {
                RelayFrame::Opened(answer) => opened.push(answer),
                RelayFrame::Error(refusal) => bail!("the relay refused a channel: {}", refusal.text),
                RelayFrame::Close(close) => bail!("the relay closed a sender: {}", close.text),
                RelayFrame::Welcome(_)
                | RelayFrame::Ack(_)
                | RelayFrame::Ping(_)
                | RelayFrame::Pong(_)
                | RelayFrame::Drain { .. } => {}
            }
        }
        input.drain(..taken);
    }
    Ok((socket, opened))
}

impl Acknowledge for Framed {
    fn put(&mut self, channel: usize, payload: &[u8], out: &mut Vec<u8>) {
        let (pseq, _) = &mut self.pseqs[channel];
        *pseq += 1;
        let alias = Alias(channel as u16);
        let message = Publish { alias, pseq: *pseq, kind: Kind::Text, source_time: None, payload };
        encode_sender(&SenderFrame::Publish(message), out);
    }

    fn settle(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, u64)> {
        let (mut taken, mut messages) = (0, 0);
        while let Decoded::Frame(frame, length) = decode_relay(&input[taken..], MAX_MESSAGE)? {
            taken += length;
            match frame {
                RelayFrame::Ack(ack) => {
                    let (sent, settled) =
                        self.pseqs.get_mut(usize::from(ack.alias.0)).context("an unknown alias")?;
                    ensure!(
                        (*settled..=*sent).contains(&ack.pseq),
                        "message {} is acknowledged after {settled}, and {sent} were sent",
                        ack.pseq
                    );
                    messages += ack.pseq - *settled;
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
        Ok((taken, messages))
    }
}

/// What a client of NATS says first: no answer to each command.
const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";

/// The name of the only stream.
const STREAM: &str = "BENCH";

/// A client that publishes to JetStream, and wants a PubAck of each message in its inbox.
#[derive(Debug)]
pub(super) struct PubAcks {
    subjects: Vec<String>,
    inbox: String,
    number: u64,
}

impl PubAcks {
    /// Connects, and subscribes to an inbox of its own.
    pub(super) fn open(address: SocketAddr, number: usize, channels: &[String]) -> Result<(TcpStream, Self)> {
        let inbox = format!("_INBOX.bench{number}");
        let (mut socket, mut said) = (websocket::connect(address)?, Vec::new());
        socket.write_all(format!("{CONNECT}SUB {inbox}.* 1\r\nPING\r\n").as_bytes())?;
        hear(&mut socket, &mut said, |said| said.ends_with(b"PONG\r\n"))?;
        let subjects = channels.iter().map(|channel| channel.replace('/', ".")).collect();
        Ok((socket, Self { subjects, inbox, number: 0 }))
    }

    /// Creates the stream: all messages of the bench, in files, with no limits.
    pub(super) fn create_stream(address: SocketAddr) -> Result<()> {
        let wanted = json!({
            "name": STREAM, "subjects": ["bench", "bench.>"], "storage": "file", "retention": "limits",
            "discard": "old", "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0,
            "max_msg_size": -1, "num_replicas": 1,
        });
        ask(address, "STREAM.CREATE", &wanted.to_string())?;
        Ok(())
    }

    /// How many messages the stream has.
    pub(super) fn stored(address: SocketAddr) -> Result<u64> {
        let info = ask(address, "STREAM.INFO", "")?;
        info["state"]["messages"].as_u64().context("a stream that does not say how many messages it has")
    }
}

/// Asks something of JetStream about the stream.
fn ask(address: SocketAddr, what: &str, body: &str) -> Result<Value> {
    let (mut socket, mut said) = (websocket::connect(address)?, Vec::new());
    let subject = format!("$JS.API.{what}.{STREAM}");
    let request =
        format!("{CONNECT}SUB _INBOX.ask 1\r\nPUB {subject} _INBOX.ask {}\r\n{body}\r\n", body.len());
    socket.write_all(request.as_bytes())?;
    let answer = |said: &[u8]| {
        let from = said.windows(15).position(|bytes| bytes == b"MSG _INBOX.ask ")?;
        let Ok(Some(message)) = message(&said[from..]) else { return None };
        serde_json::from_slice::<Value>(message.payload).ok()
    };
    hear(&mut socket, &mut said, |said| answer(said).is_some())?;
    let answer = answer(&said).unwrap_or_default();
    ensure!(answer["error"].is_null(), "{what}: {}", answer["error"]);
    Ok(answer)
}

/// Reads until all of it is there.
fn hear(socket: &mut TcpStream, said: &mut Vec<u8>, enough: impl Fn(&[u8]) -> bool) -> Result<()> {
    let mut buffer = [0; 4096];
    while !enough(said) {
        let count = socket.read(&mut buffer).context("waiting for nats-server")?;
        ensure!(count > 0, "nats-server closed a client: {}", String::from_utf8_lossy(said));
        said.extend_from_slice(&buffer[..count]);
    }
    Ok(())
}

/// A whole MSG at the beginning of the bytes.
struct Message<'a> {
    payload: &'a [u8],
    length: usize,
}

/// The message that the bytes begin with, once all of it is there.
fn message(bytes: &[u8]) -> Result<Option<Message<'_>>> {
    let Some(end) = line_end(bytes) else { return Ok(None) };
    let size = bytes[..end].rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    let size: usize = std::str::from_utf8(size)?.parse().context("a MSG without a size")?;
    let from = end + 2;
    let whole = bytes.len() >= from + size + 2;
    Ok(whole.then(|| Message { payload: &bytes[from..from + size], length: from + size + 2 }))
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    (end > 0 && bytes[end - 1] == b'\r').then_some(end - 1)
}

impl Acknowledge for PubAcks {
    fn put(&mut self, channel: usize, payload: &[u8], out: &mut Vec<u8>) {
        self.number += 1;
        let Self { subjects, inbox, number } = self;
        // Writing to a vector does not fail.
        let _ = write!(out, "PUB {} {inbox}.{number} {}\r\n", subjects[channel], payload.len());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn settle(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, u64)> {
        let (mut taken, mut messages) = (0, 0);
        loop {
            let rest = &input[taken..];
            if rest.starts_with(b"MSG ") {
                let Some(Message { payload, length }) = message(rest)? else { break };
                // An error of JetStream is the first field of its answer.
                ensure!(
                    payload.starts_with(b"{\"stream\":"),
                    "JetStream: {}",
                    String::from_utf8_lossy(payload)
                );
                taken += length;
                messages += 1;
                continue;
            }
            let Some(end) = line_end(rest) else { break };
            match &rest[..end] {
                b"PING" => out.extend_from_slice(b"PONG\r\n"),
                line if line.starts_with(b"-ERR") => bail!("nats-server: {}", String::from_utf8_lossy(line)),
                _ => {}
            }
            taken += end + 2;
        }
        Ok((taken, messages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> PubAcks {
        PubAcks { subjects: vec!["bench".into()], inbox: "_INBOX.x".into(), number: 0 }
    }

    #[test]
    fn whole_pubacks_count_and_half_ones_wait() {
        let ack = b"MSG _INBOX.x.1 1 27\r\n{\"stream\":\"BENCH\", \"seq\":1}\r\n";
        let (mut input, mut out) = ([&b"PING\r\n"[..], ack].concat(), Vec::new());
        assert_eq!(client().settle(&input, &mut out).unwrap(), (input.len(), 1));
        assert_eq!(out, b"PONG\r\n");
        let whole = input.len();
        input.extend_from_slice(&ack[..ack.len() - 1]);
        assert_eq!(client().settle(&input, &mut out).unwrap(), (whole, 1));
    }

    #[test]
    fn an_error_in_an_inbox_is_no_puback() {
        let input = b"MSG _INBOX.x.1 1 24\r\n{\"error\":{\"code\":10077}}\r\n";
        assert!(client().settle(input, &mut Vec::new()).is_err());
    }
}
