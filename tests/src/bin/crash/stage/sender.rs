//! A sender of the framed protocol. It keeps what is not settled (whose payloads can be made anew), goes on after
//! every loss where the relay says that it is, and now and then breaks off, or comes back as a newer incarnation while
//! its older connection goes on sending.

use std::{net::SocketAddr, time::Duration};

use shared::{
    Epoch,
    sender::{Ack as Acked, Alias, Levels, Open, Opened, ProducerId, SenderFrame},
};
use tests::sender::{FramedSender, Heard, new_producer};
use tokio::time::{Instant, interval};

use super::{Phase, Stage, moment};
use crate::{
    cast::{self, Durability},
    content::Ident,
    history::{Ack, Lane},
};

/// What became of a sender.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) lanes: Vec<Lane>,
    pub(super) troubles: Vec<String>,
    pub(super) losses: u32,
    pub(super) fences: u32,
    /// How often the relay said that it could not store.
    pub(super) refusals: u32,
}

/// A sender, over its connections.
#[derive(Debug)]
struct Sender {
    plan: cast::Sender,
    producer: ProducerId,
    incarnation: u32,
    address: SocketAddr,
    courses: Vec<Course>,
    rng: fastrand::Rng,
    outcome: Outcome,
}

/// A channel of it; its alias is its place in the list.
#[derive(Debug)]
struct Course {
    lane: Lane,
    settled: u64,
    /// The next to be sent on this connection.
    next: u64,
    /// The store could not take it: not before then.
    rest: Option<Instant>,
}

/// How a connection ended.
#[derive(Debug)]
enum End {
    Lost,
    Done,
    /// It is to be succeeded while it is still there.
    Fence(Box<FramedSender>),
}

/// Sends until there is no more to play and everything is settled.
pub(super) async fn run(number: u16, plan: cast::Sender, mut stage: Stage, rng: fastrand::Rng) -> Outcome {
    let course = |&channel: &u16| Course {
        lane: Lane { producer: number, channel, ..Lane::default() },
        settled: 0,
        next: 1,
        rest: None,
    };
    let outcome = Outcome { lanes: Vec::new(), troubles: Vec::new(), losses: 0, fences: 0, refusals: 0 };
    let mut sender = Sender {
        plan,
        producer: new_producer(),
        incarnation: 1,
        address: stage.address,
        courses: plan.channels.iter().map(course).collect(),
        rng,
        outcome,
    };
    let mut fenced: Option<Box<FramedSender>> = None;
    loop {
        if stage.scene().phase == Phase::CatchUp {
            // Too late to be settled, which the director tells.
            break;
        }
        let Some(link) = sender.establish().await else {
            moment(&mut sender.rng, 5..60).await;
            continue;
        };
        if let Some(old) = fenced.take() {
            sender.haunt(old).await;
        }
        match sender.play(link, &mut stage).await {
            End::Done => break,
            End::Lost => sender.outcome.losses += 1,
            End::Fence(old) => {
                sender.incarnation += 1;
                sender.outcome.fences += 1;
                fenced = Some(old);
            }
        }
    }
    sender.outcome.lanes = sender.courses.into_iter().map(|course| course.lane).collect();
    sender.outcome
}

impl Sender {
    /// Connects and opens all channels; none if the relay is away or does not take it now.
    async fn establish(&mut self) -> Option<FramedSender> {
        let mut link = FramedSender::try_connect_as(self.address, self.producer, self.incarnation).await?;
        for (alias, course) in self.courses.iter().enumerate() {
            link.put(&SenderFrame::Open(Open {
                alias: Alias(alias as u16),
                levels: course.levels(),
                first_pseq: course.settled + 1,
                channel: cast::name(course.lane.channel),
            }));
        }
        link.flush().await;
        let epoch = link.welcome().epoch;
        let mut opened = 0;
        while opened < self.courses.len() {
            match link.heard().await {
                Heard::Opened(answer) => {
                    self.opened(epoch, answer);
                    opened += 1;
                }
                Heard::Error { code, fatal, .. } => {
                    self.refused(&code, fatal);
                    return None;
                }
                Heard::Close(code) => {
                    self.refused(&code, true);
                    return None;
                }
                Heard::End | Heard::Drain => return None,
                Heard::Welcome(_) | Heard::Ack(_) | Heard::Ping(_) | Heard::Pong(_) => {}
            }
        }
        Some(link)
    }

    fn opened(&mut self, epoch: Epoch, opened: Opened) {
        let Opened { alias, last_pseq, .. } = opened;
        let course = &mut self.courses[usize::from(alias.0)];
        if last_pseq < course.settled || last_pseq > course.lane.sent {
            let (number, name) = (course.lane.producer, cast::name(course.lane.channel));
            let (settled, sent) = (course.settled, course.lane.sent);
            let what =
                format!("OPENED tells p{number} #{last_pseq} in {name}: {settled} are settled, {sent} sent");
            self.outcome.troubles.push(what);
        }
        if last_pseq > course.settled {
            course.settle(Ack { epoch, levels: course.levels(), pseq: last_pseq, seq: 0 });
        }
        course.next = last_pseq + 1;
        course.rest = None;
    }

    /// Sends as the connection of before, which is fenced now: none of it may ever be seen.
    async fn haunt(&mut self, mut old: Box<FramedSender>) {
        for (alias, course) in self.courses.iter().enumerate() {
            let Lane { producer, channel, .. } = course.lane;
            for pseq in course.settled + 1..course.settled + 4 {
                let ident = Ident { fenced: true, ..Ident::new(producer, channel, pseq) };
                let (kind, payload) = ident.payload(cast::solo(channel));
                old.put_message(alias as u16, pseq, kind, &payload);
            }
        }
        old.flush().await;
    }

    async fn play(&mut self, mut link: FramedSender, stage: &mut Stage) -> End {
        // The pace of a device.
        let mut pace = interval(Duration::from_millis(self.rng.u64(8..16)));
        let (epoch, mut draining) = (link.welcome().epoch, false);
        loop {
            let playing = stage.scene().phase == Phase::Play;
            tokio::select! {
                biased;
                heard = link.heard_any() => match heard {
                    Heard::Ack(ack) => self.acked(epoch, ack),
                    Heard::Error { code, fatal, alias, pseq, retry_ms } => {
                        if fatal {
                            self.refused(&code, true);
                            return End::Lost;
                        }
                        self.go_back(&code, alias, pseq, retry_ms);
                    }
                    Heard::Ping(n) => {
                        link.put(&SenderFrame::Pong(n));
                        link.flush().await;
                    }
                    Heard::Close(code) => {
                        self.refused(&code, true);
                        return End::Lost;
                    }
                    Heard::Drain => draining = true,
                    Heard::End => return End::Lost,
                    Heard::Welcome(_) | Heard::Opened(_) | Heard::Pong(_) => {}
                },
                _ = pace.tick() => {
                    if !draining {
                        self.send(&mut link, playing).await;
                    }
                    let settled = self.courses.iter().all(|course| course.settled == course.lane.sent);
                    if !playing && (settled || stage.scene().phase == Phase::CatchUp) {
                        return End::Done;
                    }
                    if draining && settled {
                        return End::Lost;
                    }
                    if playing && self.rng.u32(0..300) == 0 {
                        return if self.rng.bool() { End::Lost } else { End::Fence(Box::new(link)) };
                    }
                }
            }
        }
    }

    /// Sends what was sent before and is not settled, then something new.
    async fn send(&mut self, link: &mut FramedSender, playing: bool) {
        let now = Instant::now();
        for (alias, course) in self.courses.iter_mut().enumerate() {
            if course.rest.is_some_and(|until| now < until) {
                continue;
            }
            course.rest = None;
            let new = if playing && self.rng.u32(0..3) == 0 { self.rng.u64(1..=self.plan.burst) } else { 0 };
            let end = (course.lane.sent.max(course.next - 1) + new).min(course.settled + self.plan.window);
            while course.next <= end {
                let Lane { producer, channel, .. } = course.lane;
                let ident = Ident::new(producer, channel, course.next);
                let (kind, payload) = ident.payload(cast::solo(channel));
                link.put_message(alias as u16, course.next, kind, &payload);
                course.lane.sent = course.lane.sent.max(course.next);
                course.next += 1;
            }
        }
        link.flush().await;
    }

    fn acked(&mut self, epoch: Epoch, ack: Acked) {
        let course = &mut self.courses[usize::from(ack.alias.0)];
        let levels = course.levels();
        course.settle(Ack { epoch, levels, pseq: ack.pseq, seq: ack.seq.0 });
        // What it already has it need not get again.
        course.next = course.next.max(ack.pseq + 1);
    }

    fn go_back(&mut self, code: &str, alias: u16, pseq: u64, retry_ms: u32) {
        let course = &mut self.courses[usize::from(alias)];
        course.next = course.next.min(pseq.max(course.settled + 1));
        match code {
            "gap" => {}
            "store_unavailable" => {
                self.outcome.refusals += 1;
                course.rest = Some(Instant::now() + Duration::from_millis(retry_ms.into()));
            }
            code => self.refused(code, false),
        }
    }

    /// What the relay refuses only because it is going away, or the disk is full, is no trouble.
    fn refused(&mut self, code: &str, fatal: bool) {
        match code {
            "store_unavailable" => self.outcome.refusals += 1,
            "draining" | "done" | "0" => {}
            code => {
                let number = self.courses[0].lane.producer;
                self.outcome.troubles.push(format!("p{number} was refused: {code}, fatal: {fatal}"));
            }
        }
    }
}

impl Course {
    fn levels(&self) -> Levels {
        match cast::durability(self.lane.channel) {
            Durability::Sync => Levels::ACCEPTED.and(Levels::FSYNCED),
            Durability::Async | Durability::Memory => Levels::ACCEPTED,
        }
    }

    fn settle(&mut self, ack: Ack) {
        self.settled = self.settled.max(ack.pseq);
        self.lane.acks.push(ack);
    }
}
