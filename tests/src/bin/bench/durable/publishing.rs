//! Works that publish: as fast as acknowledgements come, one message after the other, and at a fixed rate.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;

use super::{
    acknowledge::Acknowledge,
    disk::{self, FileSystem, Folder},
    figure,
    senders::{Senders, Shape},
    servers::Started,
};
use crate::{
    load::payload::{Mark, Payloads},
    process::Cpu,
    work::{Figures, figure as common},
};

/// How long an acknowledgement may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was done up to some time.
struct Sample {
    at: Instant,
    settled: u64,
    server: Cpu,
    load: Cpu,
    /// Bytes that the server has written, that its folder takes, and that the device has taken from everyone.
    written: u64,
    length: u64,
    device: Option<u64>,
}

impl Sample {
    fn take(server: &Started, data: &Folder, settled: u64) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            settled,
            server: server.process.cpu()?,
            load: Cpu::of(std::process::id())?,
            written: server.process.written()?,
            length: disk::size(data.path())?.length,
            device: FileSystem::of(data.path())?.written(),
        })
    }

    /// The figures of what happened between two samples.
    fn figures(&self, before: &Self, bytes: usize) -> Figures {
        let seconds = (self.at - before.at).as_secs_f64();
        let messages = (self.settled - before.settled) as f64;
        let payload = messages * bytes as f64;
        let cpu = self.server.since(before.server);
        let device = self.device.zip(before.device).map(|(after, before)| (after - before) as f64);
        let figures = [
            (figure::ACKNOWLEDGED, messages / seconds),
            (common::CPU_PER_MILLION, cpu.total() / messages * 1e6),
            (common::USER_SHARE, cpu.user / cpu.total()),
            (common::CORES, cpu.total() / seconds),
            (common::LOAD_CORES, self.load.since(before.load).total() / seconds),
            (figure::WRITTEN, (self.written - before.written) as f64 / payload),
            // Where segments go it may have shrunk.
            (figure::GROWN, (self.length as f64 - before.length as f64) / payload),
            (figure::DEVICE, device.unwrap_or(f64::NAN) / payload),
        ];
        let told = figures.into_iter().filter(|(_, value)| value.is_finite());
        told.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// As fast as acknowledgements come, for so long, of which the first quarter is not measured.
pub(super) fn as_fast_as_acknowledged(
    server: &Started,
    data: &Folder,
    shape: &Shape,
    length: Duration,
) -> Result<Figures> {
    let mut senders = shape.connect(server)?;
    senders.allow(u64::MAX)?;
    let began = Instant::now();
    let mut warm = None;
    while began.elapsed() < length {
        senders.step(Duration::from_millis(100))?;
        if warm.is_none() && began.elapsed() > length / 4 {
            warm = Some(Sample::take(server, data, senders.settled())?);
        }
    }
    let end = Sample::take(server, data, senders.settled())?;
    finish(server, shape, senders)?;
    Ok(end.figures(&warm.context("the run was too short")?, shape.bytes))
}

/// So many messages per second, each when it is due, for so long, of which the first quarter is not measured.
pub(super) fn paced(
    server: &Started,
    data: &Folder,
    rate: f64,
    bytes: usize,
    length: Duration,
) -> Result<Figures> {
    let shape = Shape::single(1, bytes);
    let mut senders = shape.connect(server)?;
    let began = Instant::now();
    let mut warm = None;
    while began.elapsed() < length {
        // The next one is let go when it is due and the one before is acknowledged.
        if senders.sent() == senders.settled()
            && began.elapsed().as_secs_f64() * rate >= senders.sent() as f64
        {
            senders.allow(1)?;
        }
        senders.step(Duration::ZERO)?;
        if warm.is_none() && began.elapsed() > length / 4 {
            warm = Some(Sample::take(server, data, senders.settled())?);
        }
    }
    let end = Sample::take(server, data, senders.settled())?;
    finish(server, &shape, senders)?;
    Ok(end.figures(&warm.context("the run was too short")?, bytes))
}

/// Publishes so many messages on each connection, all of which are stored then; how many they are.
pub(super) fn fill(server: &Started, shape: &Shape, each: u64) -> Result<u64> {
    let mut senders = shape.connect(server)?;
    senders.allow(each)?;
    let sent = each * shape.channels.len() as u64;
    finish_all(server, shape, senders)?;
    Ok(sent)
}

/// Lets nobody publish more, and looks whether the server has everything.
fn finish(server: &Started, shape: &Shape, mut senders: Senders) -> Result<()> {
    senders.allow(0)?;
    finish_all(server, shape, senders)
}

/// Waits for the last acknowledgement, and looks whether the server has exactly what was published.
fn finish_all(server: &Started, shape: &Shape, mut senders: Senders) -> Result<()> {
    senders.finish()?;
    let sent = senders.sent();
    drop(senders);
    let stored = server.stored(&shape.channels)?;
    ensure!(stored == sent, "{sent} messages were acknowledged, and {stored} are stored");
    Ok(())
}

/// One message after the other, each when the one before is acknowledged; between any two the same bytes are written
/// and synced to a file beside, without any server.
pub(super) fn one_at_a_time(
    server: &Started,
    data: &Folder,
    bytes: usize,
    length: Duration,
) -> Result<Figures> {
    let (socket, protocol) = server.publisher(0, &["bench".to_owned()])?;
    socket.set_nonblocking(true)?;
    let mut asked = Asked { socket, protocol, input: Vec::new(), out: Vec::new() };
    let mut bare = File::create(data.path().join("bare"))?;
    let (payloads, mut payload) = (Payloads::new(bytes), Vec::new());
    let mut histograms = [Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?];
    let began = Instant::now();
    for number in 0.. {
        payloads.write(Mark { origin: 0, number }, &mut payload);
        let times = [asked.publish(&payload)?, write_and_sync(&mut bare, &payload)?];
        if began.elapsed() > length {
            break;
        }
        if began.elapsed() > length / 4 {
            for (histogram, time) in histograms.iter_mut().zip(times) {
                histogram.record(time.as_nanos() as u64)?;
            }
        }
    }
    let [relay, bare] = histograms
        .map(|histogram| [50.0, 99.0].map(|percent| histogram.value_at_percentile(percent) as f64 / 1e6));
    let figures = [
        (common::P50, relay[0]),
        (common::P99, relay[1]),
        (figure::BARE_P50, bare[0]),
        (figure::BARE_P99, bare[1]),
        (figure::ABOVE_BARE, relay[0] - bare[0]),
    ];
    Ok(figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A connection that publishes a message and waits.
struct Asked {
    socket: TcpStream,
    protocol: Box<dyn Acknowledge>,
    input: Vec<u8>,
    out: Vec<u8>,
}

impl Asked {
    /// Publishes a message; how long it took until it was acknowledged. The load does not sleep meanwhile: the time
    /// in which it wakes is not the server's.
    fn publish(&mut self, payload: &[u8]) -> Result<Duration> {
        let began = Instant::now();
        self.protocol.put(0, payload, &mut self.out);
        let mut buffer = [0; 4096];
        loop {
            while !self.out.is_empty() {
                match self.socket.write(&self.out) {
                    Ok(count) => drop(self.out.drain(..count)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("publishing"),
                }
            }
            match self.socket.read(&mut buffer) {
                Ok(count) => {
                    ensure!(count > 0, "the server closed the connection that publishes");
                    self.input.extend_from_slice(&buffer[..count]);
                    let (taken, settled) = self.protocol.settle(&self.input, &mut self.out)?;
                    self.input.drain(..taken);
                    if settled > 0 {
                        return Ok(began.elapsed());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ensure!(began.elapsed() < PATIENCE, "no acknowledgement came for {PATIENCE:?}");
                    // A thread of the kernel that the disk needs may have come to this core.
                    thread::yield_now();
                }
                Err(error) => return Err(error).context("reading an acknowledgement"),
            }
        }
    }
}

/// What no server can do without.
fn write_and_sync(file: &mut File, bytes: &[u8]) -> Result<Duration> {
    let began = Instant::now();
    file.write_all(bytes)?;
    file.sync_data()?;
    Ok(began.elapsed())
}
