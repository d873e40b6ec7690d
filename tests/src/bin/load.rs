//! A load on a relay, for the figures: one framed sender and many raw receivers in a closed loop, or idle receivers.
//! Prints what the relay did, per second and per second of its processor time.

use std::{
    cell::Cell,
    io::Write as _,
    rc::Rc,
    time::{Duration, Instant},
};

use shared::{
    Kind,
    codec::{Decoded, decode_relay, encode_preamble, encode_sender},
    limits::{MAX_MESSAGE, WINDOW_MESSAGES},
    sender::{Alias, Hello, Levels, Open, ProducerId, Publish, RelayFrame, SenderFrame},
    ws_frame,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
    task::LocalSet,
};

type Failure = Box<dyn std::error::Error>;

/// Bytes that may be on their way to the slowest receiver: the loop is closed, so that nothing piles up.
const IN_FLIGHT: u64 = 512 * 1024;

const USAGE: &str = "usage: load ADDR PID fan-out RECEIVERS BYTES SECONDS | load ADDR PID idle RECEIVERS";

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let load = async {
        match arguments[..] {
            [address, pid, "fan-out", receivers, bytes, seconds] => {
                let seconds = Duration::from_secs_f64(seconds.parse()?);
                fan_out(address, pid, receivers.parse()?, bytes.parse()?, seconds).await
            }
            [address, pid, "idle", receivers] => idle(address, pid, receivers.parse()?).await,
            _ => Err(USAGE.into()),
        }
    };
    LocalSet::new().block_on(&runtime, load)
}

/// What all receivers together have seen.
struct Seen {
    /// Bytes of frames, of each receiver.
    bytes: Vec<Cell<u64>>,
    moved: Notify,
}

async fn fan_out(
    address: &str,
    pid: &str,
    receivers: usize,
    bytes: usize,
    length: Duration,
) -> Result<(), Failure> {
    let seen = Rc::new(Seen { bytes: vec![Cell::new(0); receivers], moved: Notify::new() });
    for index in 0..receivers {
        let (socket, early) = subscribe(address, "bench").await?;
        seen.bytes[index].set(early);
        let seen = Rc::clone(&seen);
        tokio::task::spawn_local(async move { count(socket, &seen, index).await });
    }
    let mut sender = Sender::connect(address).await?;
    let frame = (ws_frame::header_len(bytes) + bytes) as u64;
    let payload = vec![b'x'; bytes];
    let (mut pseq, mut measured, mut best) = (0, None, Vec::new());
    let began = Instant::now();
    // The first part warms up; each later one is a measurement of its own.
    let part = length / 6;
    while began.elapsed() < length {
        while pseq * frame > seen.slowest() + IN_FLIGHT {
            seen.moved.notified().await;
        }
        sender.publish(&mut pseq, &payload).await?;
        let now = Instant::now();
        let (at, messages, cpu) = measured.unwrap_or((began, 0, cpu_seconds(pid)?));
        if now - at >= part {
            let delivered = seen.bytes.iter().map(Cell::get).sum::<u64>() / frame;
            let used = cpu_seconds(pid)?;
            best.push((
                (delivered - messages) as f64 / (now - at).as_secs_f64(),
                (delivered - messages) as f64 / (used - cpu),
            ));
            measured = Some((now, delivered, used));
        } else if measured.is_none() {
            measured = Some((began, 0, cpu));
        }
    }
    while seen.slowest() < pseq * frame {
        seen.moved.notified().await;
    }
    let (wall, cpu) = (median(best.iter().skip(1).map(|b| b.0)), median(best.iter().skip(1).map(|b| b.1)));
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{receivers} receivers x {bytes} B: {:.1} million messages/s, {:.1} million per relay core, {pseq} sent, all arrived",
        wall / 1e6,
        cpu / 1e6
    )?;
    Ok(())
}

async fn idle(address: &str, pid: &str, receivers: usize) -> Result<(), Failure> {
    // The first ones make the allocator and the runtime grow to their working size.
    let mut sockets = Vec::new();
    for _ in 0..receivers.min(100) {
        sockets.push(subscribe(address, "idle").await?.0);
    }
    let before = resident_kib(pid)?;
    for _ in sockets.len()..receivers {
        sockets.push(subscribe(address, "idle").await?.0);
    }
    let after = resident_kib(pid)?;
    let each = (after - before) as f64 / (receivers - receivers.min(100)) as f64;
    writeln!(
        std::io::stdout().lock(),
        "{receivers} idle receivers: {each:.2} KiB of resident memory each, {after} KiB in all"
    )?;
    Ok(())
}

/// Opens a raw WebSocket; gives the frame bytes that came with the answer.
async fn subscribe(address: &str, channel: &str) -> Result<(TcpStream, u64), Failure> {
    let mut socket = TcpStream::connect(address).await?;
    let request = format!(
        "GET /c/{channel}?lag=skip HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        if socket.read_buf(&mut answer).await? == 0 {
            return Err("the relay closed the connection".into());
        }
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            if !answer.starts_with(b"HTTP/1.1 101") {
                return Err(String::from_utf8_lossy(&answer).into());
            }
            return Ok((socket, (answer.len() - end - 4) as u64));
        }
    }
}

async fn count(socket: TcpStream, seen: &Seen, index: usize) {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; 512 * 1024]);
    }
    while socket.readable().await.is_ok() {
        match BUFFER.with_borrow_mut(|buffer| socket.try_read(buffer)) {
            Ok(0) => return,
            Ok(count) => {
                seen.bytes[index].set(seen.bytes[index].get() + count as u64);
                seen.moved.notify_one();
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

impl Seen {
    fn slowest(&self) -> u64 {
        self.bytes.iter().map(Cell::get).min().unwrap_or(u64::MAX)
    }
}

struct Sender {
    socket: TcpStream,
    out: Vec<u8>,
    answers: Vec<u8>,
    acknowledged: u64,
}

impl Sender {
    async fn connect(address: &str) -> Result<Self, Failure> {
        let mut out = Vec::new();
        encode_preamble(&mut out);
        let hello =
            Hello { producer: ProducerId(*b"the load program"), producer_epoch: 1, keep_s: 1, token: b"" };
        let open = Open { alias: Alias(0), levels: Levels::ACCEPTED, first_pseq: 1, channel: "bench" };
        encode_sender(&SenderFrame::Hello(hello), &mut out);
        encode_sender(&SenderFrame::Open(open), &mut out);
        let mut socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        socket.write_all(&out).await?;
        out.clear();
        Ok(Self { socket, out, answers: Vec::new(), acknowledged: 0 })
    }

    /// Publishes as many messages as one write takes well, within the window.
    async fn publish(&mut self, pseq: &mut u64, payload: &[u8]) -> Result<(), Failure> {
        let window = u64::from(WINDOW_MESSAGES);
        while *pseq - self.acknowledged >= window / 2 {
            self.read_answers().await?;
        }
        let room = window - (*pseq - self.acknowledged);
        self.out.clear();
        for _ in 0..room {
            if self.out.len() + payload.len() > 64 * 1024 {
                break;
            }
            *pseq += 1;
            let publish =
                Publish { alias: Alias(0), pseq: *pseq, kind: Kind::Text, source_time: None, payload };
            encode_sender(&SenderFrame::Publish(publish), &mut self.out);
        }
        self.socket.write_all(&self.out).await?;
        Ok(())
    }

    async fn read_answers(&mut self) -> Result<(), Failure> {
        if self.socket.read_buf(&mut self.answers).await? == 0 {
            return Err("the relay closed the sender's connection".into());
        }
        let mut taken = 0;
        while let Decoded::Frame(frame, length) = decode_relay(&self.answers[taken..], MAX_MESSAGE)? {
            taken += length;
            match frame {
                RelayFrame::Ack(ack) => self.acknowledged = ack.pseq,
                RelayFrame::Error(refusal) => return Err(refusal.text.to_owned().into()),
                _ => {}
            }
        }
        self.answers.drain(..taken);
        Ok(())
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// User and system time of all threads of a process, proc(5); clock ticks are 10 ms.
fn cpu_seconds(pid: &str) -> Result<f64, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

fn resident_kib(pid: &str) -> Result<i64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
