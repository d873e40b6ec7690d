//! Receivers that come and go: how many upgrades a second a server does, and receivers that come while messages flow.

use std::{
    cell::Cell,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use shared::ws_frame;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::{JoinSet, LocalSet},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Figures, figure};
use crate::{
    load::{
        payload::{Mark, Payloads},
        websocket::upgrade_request,
    },
    process::Cpu,
    servers::{Entrance, Running},
};

/// Messages that a receiver which comes and goes takes in between.
const TAKES: u64 = 20;

/// Opens, upgrades and closes connections for so long, so many at a time; the first quarter is not measured.
pub(crate) fn run(running: &Running, at_a_time: usize, length: Duration) -> Result<Figures> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let entrance = running.dialect.entrance("bench");
        let upgraded = Rc::new(Cell::new(0u64));
        let mut tasks = JoinSet::new();
        for task in 0..at_a_time {
            let (entrance, upgraded) = (entrance.clone(), Rc::clone(&upgraded));
            tasks.spawn_local(async move {
                loop {
                    drop(upgrade(&entrance, task).await?);
                    upgraded.set(upgraded.get() + 1);
                }
            });
        }
        let sample = || {
            anyhow::Ok((Instant::now(), upgraded.get(), running.process.cpu()?, Cpu::of(std::process::id())?))
        };
        let failed = |ended: Option<std::result::Result<Result<()>, _>>| match ended {
            Some(Ok(Err(error))) => error,
            _ => anyhow!("a connection of the load ended"),
        };
        // None of them ends in the time that is measured over.
        if let Ok(ended) = timeout(length / 4, tasks.join_next()).await {
            return Err(failed(ended));
        }
        let warm = sample()?;
        if let Ok(ended) = timeout(length * 3 / 4, tasks.join_next()).await {
            return Err(failed(ended));
        }
        let end = sample()?;
        let (seconds, count) = ((end.0 - warm.0).as_secs_f64(), (end.1 - warm.1) as f64);
        let figures = [
            (figure::CONNECTIONS, count / seconds),
            (figure::CPU_PER_CONNECTION, end.2.since(warm.2).total() / count * 1e3),
            (figure::CORES, end.2.since(warm.2).total() / seconds),
            (figure::LOAD_CORES, end.3.since(warm.3).total() / seconds),
        ];
        Ok(figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    })
}

/// Receivers that come and go on a thread of their own.
#[derive(Debug)]
pub(crate) struct Churn {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Result<u64>>,
}

impl Churn {
    /// So many a second, each of which takes some messages of so many bytes.
    pub(crate) fn start(entrance: Entrance, rate: u32, bytes: usize) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, come_and_go(entrance, rate, bytes, stopped))
        });
        Self { stop, thread }
    }

    /// No more come; gives how many there were.
    ///
    /// # Errors
    /// One of them was refused, or got something else than messages in order.
    pub(crate) fn stop(self) -> Result<u64> {
        drop(self.stop);
        self.thread.join().map_err(|_| anyhow!("the thread that connects has panicked"))?
    }
}

async fn come_and_go(
    entrance: Entrance,
    rate: u32,
    bytes: usize,
    stopped: mpsc::Receiver<()>,
) -> Result<u64> {
    let payloads = Rc::new(Payloads::new(bytes));
    // It is the pace of those that come.
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut visits, mut came) = (JoinSet::new(), 0);
    while stopped.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
        ticks.tick().await;
        let (entrance, payloads) = (entrance.clone(), Rc::clone(&payloads));
        visits.spawn_local(async move { visit(&entrance, &payloads).await });
        while let Some(ended) = visits.try_join_next() {
            ended??;
            came += 1;
        }
    }
    // Those that are there may get no message any more.
    visits.abort_all();
    Ok(came)
}

/// Subscribes, takes some messages, which must follow one another, and goes.
async fn visit(entrance: &Entrance, payloads: &Payloads) -> Result<()> {
    let (mut socket, mut bytes) = upgrade(entrance, 0).await?;
    let (mut next, mut expected, mut taken) = (None, Vec::new(), 0);
    while taken < TAKES {
        let mut used = 0;
        for frame in ws_frame::walk(&bytes) {
            let mark = Mark::of(frame.payload).context("a payload that nobody published")?;
            ensure!(next.is_none_or(|next| next == mark), "{mark:?} came instead of {next:?}");
            payloads.write(mark, &mut expected);
            ensure!(frame.payload == expected, "{mark:?} has another content");
            next = Some(Mark { number: mark.number + 1, ..mark });
            used += frame.bytes.len();
            taken += 1;
        }
        bytes.drain(..used);
        ensure!(socket.read_buf(&mut bytes).await? > 0, "the server closed a receiver that had just come");
    }
    Ok(())
}

/// Connects and upgrades; gives what came behind the answer too.
async fn upgrade(entrance: &Entrance, lane: usize) -> Result<(TcpStream, Vec<u8>)> {
    let socket = TcpSocket::new_v4()?;
    // An address of its own for each lane: closed connections keep their port for a minute.
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 1, (lane % 250 + 1) as u8), 0)))?;
    let mut socket = socket.connect(entrance.address).await.context("connecting")?;
    socket.set_nodelay(true)?;
    let request = upgrade_request(entrance.address, &entrance.path, entrance.protocol);
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        ensure!(
            socket.read_buf(&mut answer).await? > 0,
            "the server closed a connection instead of upgrading it"
        );
        if let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            ensure!(answer.starts_with(b"HTTP/1.1 101"), "no upgrade: {}", String::from_utf8_lossy(&answer));
            answer.drain(..end + 4);
            return Ok((socket, answer));
        }
    }
}
