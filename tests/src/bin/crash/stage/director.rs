//! When what happens: the relay is started, killed and started again under everybody; then nothing new is sent, all
//! of it is settled and received, and what there is, is read.

use std::{
    io::Write as _,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tests::program::Signal;
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{Phase, Scene, Stage, disk::Disk, moment, receiver, relay::Relay, sender, spooler, tail};
use crate::{
    cast::{RECEIVERS, SENDERS, SPOOLED, TAILS},
    history::History,
};

/// How long everything may take to come to its end.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);

/// Kills after which it is told how far it is.
const TOLD_EVERY: u32 = 25;

/// What is to be played.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Play {
    pub(crate) seed: u64,
    /// How often the relay is killed.
    pub(crate) kills: u32,
    /// The end, also with fewer kills.
    pub(crate) length: Option<Duration>,
    /// Whether the data is on a small disk, which is full half of the time.
    pub(crate) full: bool,
}

/// How often what happened.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    /// Kills of the relay; those of them before it was ready; polite ends besides.
    pub(crate) kills: u32,
    pub(crate) early: u32,
    pub(crate) stops: u32,
    pub(crate) played: Duration,
    pub(crate) sender_kills: u32,
    pub(crate) receiver_kills: u32,
    pub(crate) losses: u32,
    pub(crate) fences: u32,
    pub(crate) refusals: u32,
}

/// What is left of a run.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) history: History,
    pub(crate) counts: Counts,
    disk: Disk,
    clients: TempDir,
    /// What the relay said.
    log: String,
}

/// Everybody but the relay.
#[derive(Debug)]
struct Troupe {
    senders: JoinSet<sender::Outcome>,
    spoolers: JoinSet<spooler::Outcome>,
    receivers: JoinSet<receiver::Outcome>,
    tails: JoinSet<tail::Outcome>,
}

/// Plays all of it.
pub(crate) async fn play(play: Play) -> Result<Played> {
    let mut rng = fastrand::Rng::with_seed(play.seed);
    let disk = Disk::new(play.full)?;
    let clients =
        tempfile::Builder::new().prefix("crash-clients-").tempdir().context("no temporary folder")?;
    let mut relay = Relay::new(&crate::cast::config(play.full), &disk.data());
    relay.launch();
    relay.ready().await.map_err(anyhow::Error::msg)?;
    let (scene, watch) = watch::channel(Scene { era: 1, phase: Phase::Play });
    let stage = Stage { address: relay.address(), folder: clients.path().to_owned(), scene: watch };
    let (history, counts, log) = Default::default();
    let mut played = Played { history, counts, disk, clients, log };
    let mut troupe = Troupe::enter(&stage, &mut rng);

    played.play(play, &mut relay, &scene, &mut rng).await?;
    played.disk.set_full(false)?;
    let set = |phase| scene.send_modify(|scene| scene.phase = phase);
    set(Phase::Settle);
    let settled = timeout(SETTLED_WITHIN, troupe.settled(&mut played)).await;
    set(Phase::CatchUp);
    let caught_up = timeout(SETTLED_WITHIN, troupe.caught_up(&mut played)).await;
    if settled.is_err() || caught_up.is_err() {
        let what =
            if settled.is_err() { "not everything was settled" } else { "not everything was received" };
        played.trouble(format!("{what} within {SETTLED_WITHIN:?}: {troupe:?}"));
    }

    // Before and after a polite end: the same has to be there.
    for round in 0..2 {
        match receiver::read_all(&stage, if round == 0 { "last" } else { "last, started again" }).await {
            Some(session) => played.history.sessions.push(session),
            None => played.trouble("the relay went away while everything was read".into()),
        }
        let ended = relay.end(Signal::Term, false).await;
        ended.unwrap_or_else(|what| played.trouble(what));
        relay.check().await.unwrap_or_else(|what| played.trouble(what));
        if round == 0 {
            played.start(&mut relay, &scene).await;
        }
    }
    played.log = relay.log;
    Ok(played)
}

impl Played {
    async fn play(
        &mut self,
        play: Play,
        relay: &mut Relay,
        scene: &watch::Sender<Scene>,
        rng: &mut fastrand::Rng,
    ) -> Result<()> {
        let (began, mut told) = (Instant::now(), 0);
        while self.counts.kills < play.kills && play.length.is_none_or(|length| began.elapsed() < length) {
            for _ in 0..3 {
                // The disk is full half of the time, over kills and starts too.
                self.disk.set_full(play.full && rng.bool())?;
                moment(rng, 50..350).await;
            }
            let politely = rng.u8(0..8) == 0;
            let signal = if politely { Signal::Term } else { Signal::Kill };
            relay.end(signal, play.full).await.unwrap_or_else(|what| self.trouble(what));
            self.counts.stops += u32::from(politely);
            self.counts.kills += u32::from(!politely);
            while rng.u8(0..5) == 0 {
                relay.launch();
                moment(rng, 0..40).await;
                relay.end(Signal::Kill, play.full).await.unwrap_or_else(|what| self.trouble(what));
                self.counts.kills += 1;
                self.counts.early += 1;
            }
            if rng.u8(0..4) == 0 {
                moment(rng, 0..400).await;
            }
            self.start(relay, scene).await;
            if self.counts.kills >= told + TOLD_EVERY {
                told = self.counts.kills;
                writeln!(std::io::stdout().lock(), "{told} kills in {} s", began.elapsed().as_secs())?;
            }
        }
        self.counts.played = began.elapsed();
        Ok(())
    }

    async fn start(&mut self, relay: &mut Relay, scene: &watch::Sender<Scene>) {
        relay.launch();
        if let Err(what) = relay.ready().await {
            self.trouble(what);
        }
        scene.send_modify(|scene| scene.era = relay.starts);
    }

    fn trouble(&mut self, what: String) {
        self.history.troubles.push(what);
    }

    /// How long the disk was full.
    pub(crate) fn full(&self) -> Duration {
        self.disk.full()
    }

    /// Copies the relay's data to where it stays; where that is.
    pub(crate) fn keep(&self, seed: u64) -> Result<PathBuf> {
        let folder = std::env::temp_dir().join(format!("crash-seed-{seed}"));
        self.disk.keep(&folder.join("data")).context("keeping the data")?;
        let copy = Command::new("cp").arg("-r").arg(self.clients.path()).arg(folder.join("clients")).status();
        copy.context("keeping what the clients have")?;
        std::fs::write(folder.join("relay.log"), &self.log)?;
        Ok(folder)
    }
}

impl Troupe {
    fn enter(stage: &Stage, rng: &mut fastrand::Rng) -> Self {
        let (mut senders, mut spoolers) = (JoinSet::new(), JoinSet::new());
        let (mut receivers, mut tails) = (JoinSet::new(), JoinSet::new());
        for (number, plan) in SENDERS.into_iter().enumerate() {
            senders.spawn_local(sender::run(number as u16, plan, stage.clone(), rng.fork()));
        }
        for plan in SPOOLED {
            spoolers.spawn_local(spooler::run(plan, stage.clone(), rng.fork()));
        }
        for plan in RECEIVERS {
            receivers.spawn_local(receiver::run(plan, stage.clone(), rng.fork()));
        }
        for plan in TAILS {
            tails.spawn_local(tail::run(plan, stage.clone(), rng.fork()));
        }
        Self { senders, spoolers, receivers, tails }
    }

    async fn settled(&mut self, played: &mut Played) {
        let Played { history, counts, .. } = played;
        while let Some(outcome) = self.senders.join_next().await {
            let outcome = outcome.expect("a sender does not panic");
            history.lanes.extend(outcome.lanes);
            history.troubles.extend(outcome.troubles);
            counts.losses += outcome.losses;
            counts.fences += outcome.fences;
            counts.refusals += outcome.refusals;
        }
        while let Some(outcome) = self.spoolers.join_next().await {
            let outcome = outcome.expect("a spooler does not panic");
            history.spools.push(outcome.spool);
            history.troubles.extend(outcome.troubles);
            counts.sender_kills += outcome.kills;
        }
    }

    async fn caught_up(&mut self, played: &mut Played) {
        // Who was not settled in time leaves with what it has.
        self.settled(played).await;
        let Played { history, counts, .. } = played;
        while let Some(outcome) = self.receivers.join_next().await {
            let outcome = outcome.expect("a receiver does not panic");
            history.sessions.extend(outcome.sessions);
            history.raws.extend(outcome.raws);
            history.troubles.extend(outcome.troubles);
        }
        while let Some(outcome) = self.tails.join_next().await {
            let outcome = outcome.expect("a tail does not panic");
            history.files.push(outcome.file);
            history.troubles.extend(outcome.troubles);
            counts.receiver_kills += outcome.kills;
        }
    }
}
