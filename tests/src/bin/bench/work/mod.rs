//! The works: what a server is made to do, and what is measured of it.
//!
//! - [`closed`]: as fast as it goes, with a bounded number of messages in flight. [`paced`]: at a fixed rate.
//! - [`idle`]: receivers that have nothing to receive. [`connections`]: receivers that come and go.
//! - [`plan`]: which works there are, and who takes part in each.

pub(crate) mod closed;
pub(crate) mod connections;
pub(crate) mod idle;
pub(crate) mod paced;
pub(crate) mod plan;

use std::{
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    load::{Load, payload::Payloads, publisher::Source, stream::Stream},
    servers::{Dialect, Running, subscribe},
};

/// What was measured, by the names of [`figure`].
pub(crate) type Figures = BTreeMap<String, f64>;

/// The names of figures.
pub(crate) mod figure {
    /// Messages that arrived per second, at all receivers together.
    pub(crate) const DELIVERIES: &str = "deliveries per second";
    /// Bytes that arrived per second, with everything around the payloads.
    pub(crate) const BYTES: &str = "bytes per second";
    /// Processor time of the server in seconds, per million messages that arrived.
    pub(crate) const CPU_PER_MILLION: &str = "cpu seconds per million";
    /// How much of the server's processor time was spent outside of the kernel, 0 to 1.
    pub(crate) const USER_SHARE: &str = "user share";
    /// Cores that the server kept busy.
    pub(crate) const CORES: &str = "cores";
    /// Cores that the load kept busy.
    pub(crate) const LOAD_CORES: &str = "cores of the load";
    /// Latency in milliseconds that half, 99 % and 99.9 % of the deliveries had at most.
    pub(crate) const P50: &str = "p50 ms";
    pub(crate) const P99: &str = "p99 ms";
    pub(crate) const P999: &str = "p999 ms";
    /// Resident memory of the server for each idle receiver, in KiB.
    pub(crate) const RESIDENT: &str = "resident KiB per receiver";
    /// Memory of the kernel for each idle receiver, both ends of its connection, in KiB.
    pub(crate) const KERNEL: &str = "kernel KiB per receiver";
    /// Upgrades per second.
    pub(crate) const CONNECTIONS: &str = "connections per second";
    /// Processor time of the server in milliseconds for a connection that comes and goes.
    pub(crate) const CPU_PER_CONNECTION: &str = "cpu ms per connection";
    /// Echoes for each second of a proxy's processor time, and their bytes, there and back.
    pub(crate) const PER_CPU_SECOND: &str = "echoes per cpu second";
    pub(crate) const BYTES_PER_CPU_SECOND: &str = "bytes per cpu second";
    /// Receivers per second that came and went while messages flowed.
    pub(crate) const VISITS: &str = "visits per second";
}

/// Who is connected to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crowd {
    /// Channels that are published to.
    pub(crate) channels: usize,
    /// Receivers: of the only channel, of a pattern over all channels, or one for each channel.
    pub(crate) receivers: usize,
    /// Connections that publish, for each channel or, where there are more channels, for up to 1 000 of them.
    pub(crate) senders: usize,
    /// Whether each receiver has subscribed to all channels by a pattern.
    pub(crate) pattern: bool,
    /// Bytes of a payload.
    pub(crate) bytes: usize,
}

/// Channels that one sender publishes to: the relay lets it open 1 024.
const CHANNELS_OF_A_SENDER: usize = 1000;

/// How long nothing may arrive while something is on its way.
const PATIENCE: Duration = Duration::from_secs(20);

impl Crowd {
    /// One sender and one channel.
    pub(crate) const fn fan_out(receivers: usize, bytes: usize) -> Self {
        Self { channels: 1, receivers, senders: 1, pattern: false, bytes }
    }

    /// The names of the channels; all are of one length.
    fn channels(self) -> Vec<String> {
        match self.channels {
            1 => vec!["bench".into()],
            count => (0..count).map(|index| format!("bench/{index:05}")).collect(),
        }
    }

    /// Connects everyone.
    fn connect(self, dialect: &dyn Dialect) -> Result<Load> {
        let payloads = Rc::new(Payloads::new(self.bytes));
        let mut load = Load::new(Rc::clone(&payloads))?;
        let mixed = self.senders > 1 && self.channels == 1 || self.pattern;
        let channels = self.channels();
        let subscribed = if self.pattern { &["bench/*".to_owned()] } else { &channels[..] };
        for channel in subscribed {
            let mut unit = Vec::new();
            dialect.expect(channel, &vec![b'x'; self.bytes], &mut unit);
            let origins = self.channels.max(self.senders);
            let verify = dialect.verify(channel, &payloads, origins, mixed);
            load.add_stream(verify.map_or_else(|| Stream::foretold(unit.len()), Stream::led));
        }
        let wanted: Vec<&str> = match subscribed {
            [only] => vec![only; self.receivers],
            each => each.iter().map(String::as_str).collect(),
        };
        for (index, socket) in subscribe(dialect, &wanted)?.into_iter().enumerate() {
            load.add_receiver(socket, index % subscribed.len(), dialect.delivery())?;
        }
        if self.channels == 1 {
            for sender in 0..self.senders {
                let (socket, protocol) = dialect.publish(&channels)?;
                load.add_publisher(socket, protocol, vec![Source::new(0, sender)])?;
            }
        } else {
            for (part, names) in channels.chunks(CHANNELS_OF_A_SENDER).enumerate() {
                let (socket, protocol) = dialect.publish(names)?;
                let first = part * CHANNELS_OF_A_SENDER;
                let stream = |index| if self.pattern { 0 } else { index };
                let sources = (first..first + names.len()).map(|index| Source::new(stream(index), index));
                load.add_publisher(socket, protocol, sources.collect())?;
            }
        }
        Ok(load)
    }
}

/// Waits until everybody has everything.
fn drain(load: &mut Load) -> Result<()> {
    let mut last = (load.received(), Instant::now());
    while !load.all_arrived() {
        load.poll(Some(Duration::from_millis(100)))?;
        let received = load.received();
        if received != last.0 {
            last = (received, Instant::now());
        }
        if last.1.elapsed() > PATIENCE {
            bail!("nothing came for {PATIENCE:?}: {}", load.what_is_missing());
        }
    }
    Ok(())
}

/// What was used and delivered at one time.
struct Sample {
    at: Instant,
    received: u64,
    server: crate::process::Cpu,
    load: crate::process::Cpu,
}

impl Sample {
    fn take(load: &Load, running: &Running) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            received: load.received(),
            server: running.process.cpu()?,
            load: crate::process::Cpu::of(std::process::id())?,
        })
    }

    /// The figures of what happened between two samples.
    fn figures(&self, before: &Self, unit: f64) -> Figures {
        let seconds = (self.at - before.at).as_secs_f64();
        let bytes = (self.received - before.received) as f64;
        let messages = bytes / unit;
        let cpu = self.server.since(before.server);
        let figures = [
            (figure::DELIVERIES, messages / seconds),
            (figure::BYTES, bytes / seconds),
            (figure::CPU_PER_MILLION, cpu.total() / messages * 1e6),
            (figure::USER_SHARE, cpu.user / cpu.total()),
            (figure::CORES, cpu.total() / seconds),
            (figure::LOAD_CORES, self.load.since(before.load).total() / seconds),
        ];
        // Nothing is said by a share of nothing.
        let told = figures.into_iter().filter(|(_, value)| value.is_finite());
        told.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
