//! A receiver over WebSocket that comes back where it was, or further back, or at the beginning, as its habit is.

use std::{collections::VecDeque, time::Duration};

use serde_json::Value;
use shared::{Position, Seq, receiver::Subprotocol};
use tests::receiver::{Dial, Received, position};
use tokio::time::{Interval, interval};

use super::{Phase, Stage, moment};
use crate::{
    cast::{self, Habit},
    content::Content,
    history::{Asked, Event, Gap, Hello, Message, RawSession, Session},
};

/// How many messages back a restless one may go.
const BACK: usize = 400;

/// What became of a receiver.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) sessions: Vec<Session>,
    pub(super) raws: Vec<RawSession>,
    pub(super) troubles: Vec<String>,
}

/// A receiver, over its connections.
#[derive(Debug)]
struct Receiver {
    plan: cast::Receiver,
    position: Option<Position>,
    /// Where it was lately.
    places: VecDeque<u64>,
    rng: fastrand::Rng,
    outcome: Outcome,
}

/// Receives until it has everything when all was sent.
pub(super) async fn run(plan: cast::Receiver, mut stage: Stage, rng: fastrand::Rng) -> Outcome {
    let mut receiver =
        Receiver { plan, position: None, places: VecDeque::new(), rng, outcome: Outcome::default() };
    loop {
        let last = stage.scene().phase == Phase::CatchUp;
        let (connection, asked) = receiver.connect(&stage).await;
        let Some(connection) = connection else {
            moment(&mut receiver.rng, 5..60).await;
            continue;
        };
        let done = match plan.form {
            Subprotocol::Raw => receiver.receive_raw(connection, &mut stage).await,
            Subprotocol::Json | Subprotocol::Binary => {
                receiver.receive(connection, asked, &mut stage, last).await
            }
        };
        if last && done {
            return receiver.outcome;
        }
    }
}

/// Reads all there is from the earliest on, once; none if the relay went away.
pub(super) async fn read_all(stage: &Stage, name: &'static str) -> Option<Session> {
    let plan = cast::Receiver {
        name,
        wants: &["**"],
        form: Subprotocol::Binary,
        habit: Habit::Fresh,
        earliest: true,
    };
    let (position, places, rng) = (None, VecDeque::new(), fastrand::Rng::with_seed(0));
    let mut receiver = Receiver { plan, position, places, rng, outcome: Outcome::default() };
    let mut stage = stage.clone();
    let (connection, asked) = receiver.connect(&stage).await;
    let whole = receiver.receive(connection?, asked, &mut stage, true).await;
    receiver.outcome.sessions.pop().filter(|_| whole).map(|session| Session { last: true, ..session })
}

impl Receiver {
    async fn connect(&mut self, stage: &Stage) -> (Option<tests::receiver::Receiver>, Asked) {
        let asked = match (self.position, self.plan.habit) {
            (Some(position), Habit::Restless) if !self.places.is_empty() && self.rng.u8(0..3) == 0 => {
                let seq = Seq(self.places[self.rng.usize(0..self.places.len())]);
                Asked::After(Position { seq, ..position })
            }
            (Some(position), Habit::Steady | Habit::Slow | Habit::Restless) => Asked::After(position),
            _ if self.plan.earliest => Asked::Earliest,
            _ => Asked::Latest,
        };
        let since = match asked {
            Asked::After(position) => position.to_string(),
            Asked::Earliest => "earliest".into(),
            Asked::Latest => "latest".into(),
        };
        let mut path = format!("/c/{}?since={since}", self.plan.wants[0]);
        for want in &self.plan.wants[1..] {
            path += &format!("&channel={want}");
        }
        let offer = (self.plan.form != Subprotocol::Raw).then(|| self.plan.form.name());
        let mut dial = Dial::new(&path, offer);
        dial.receive_buffer = (self.plan.habit == Habit::Slow).then_some(4096);
        (dial.try_connect(stage.address).await, asked)
    }

    /// When a habit has it break off, and how long it takes over a message.
    fn habits(&mut self, last: bool) -> (Option<Interval>, Option<Interval>) {
        let restless = matches!(self.plan.habit, Habit::Restless | Habit::Fresh) && !last;
        let slow = self.plan.habit == Habit::Slow && !last;
        // The pace of a receiver, which is what is played here.
        let every = |millis| interval(Duration::from_millis(millis));
        (restless.then(|| every(self.rng.u64(50..1500))), slow.then(|| every(15)))
    }

    /// Whether it caught up with what there was.
    async fn receive(
        &mut self,
        mut connection: tests::receiver::Receiver,
        asked: Asked,
        stage: &mut Stage,
        last: bool,
    ) -> bool {
        let mut session = Session {
            receiver: self.plan.name,
            wants: self.plan.wants,
            era: stage.scene().era,
            asked,
            hellos: Vec::new(),
            events: Vec::new(),
            last: false,
        };
        let (mut leave, mut pace) = self.habits(last);
        if let Some(leave) = &mut leave {
            leave.tick().await;
        }
        let mut live = false;
        while !(last && live) {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            let received = tokio::select! {
                received = connection.whenever() => received,
                () = tick(&mut leave) => break,
                () = stage.reached(Phase::CatchUp), if !last => break,
            };
            match received {
                Received::Message(envelope) => {
                    let Some(channel) = cast::find(envelope.channel.as_str()) else {
                        self.outcome.troubles.push(format!("{} is no channel of ours", envelope.channel));
                        break;
                    };
                    let content = Content::recognise(envelope.kind, &envelope.payload, cast::solo);
                    let (seq, prev) = (envelope.seq.0, envelope.prev.0);
                    session.events.push(Event::Message(Message { channel, seq, prev, content }));
                    self.reach(seq);
                    self.places.push_back(seq);
                    if self.places.len() > BACK {
                        self.places.pop_front();
                    }
                }
                Received::Control(event) => {
                    live |= event["type"] == "live";
                    if let Err(what) = self.control(&event, &mut session) {
                        self.outcome.troubles.push(format!("{}: {what}", self.plan.name));
                        break;
                    }
                    // The relay of the hello is at least of this era.
                    session.era = if session.events.is_empty() { stage.scene().era } else { session.era };
                }
                Received::Closed(..) | Received::Lost => break,
                Received::Raw(..) => {
                    self.outcome.troubles.push(format!("{} got a raw message", self.plan.name));
                    break;
                }
            }
        }
        self.outcome.sessions.push(session);
        live
    }

    fn control(&mut self, event: &Value, session: &mut Session) -> Result<(), String> {
        let number = |key: &str| event[key].as_u64().ok_or_else(|| format!("{event} has no {key}"));
        let reason = || serde_json::from_value(event["reason"].clone()).ok();
        match event["type"].as_str() {
            Some("hello") => {
                let Position { epoch, seq } = position(event, Seq(number("from")?));
                let recovered = event["recovered"].as_bool().ok_or("a hello that does not say recovered")?;
                if session.hellos.is_empty() {
                    self.position = Some(Position { epoch, seq });
                }
                session.hellos.push(Hello { epoch, from: seq.0, recovered, reason: reason() });
            }
            Some("gap") => {
                let channel = event["channel"].as_str().and_then(cast::find);
                let channel = channel.ok_or_else(|| format!("a gap of no channel of ours: {event}"))?;
                let reason = reason().ok_or_else(|| format!("a gap without a reason: {event}"))?;
                let (after, before) = (number("after")?, number("before")?);
                session.events.push(Event::Gap(Gap { channel, after, before, reason }));
            }
            Some("live") => {
                let seq = number("seq")?;
                session.events.push(Event::Live(seq));
                self.reach(seq);
            }
            _ => return Err(format!("not expected: {event}")),
        }
        Ok(())
    }

    fn reach(&mut self, seq: u64) {
        if let Some(position) = &mut self.position {
            position.seq = position.seq.max(Seq(seq));
        }
    }

    /// Reads until the connection ends, or the run.
    async fn receive_raw(&mut self, mut connection: tests::receiver::Receiver, stage: &mut Stage) -> bool {
        let mut contents = Vec::new();
        let (_, mut pace) = self.habits(false);
        loop {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            tokio::select! {
                received = connection.whenever() => match received {
                    Received::Raw(kind, payload) => {
                        contents.push(Content::recognise(kind, &payload, cast::solo));
                    }
                    Received::Closed(..) | Received::Lost => break,
                    other @ (Received::Message(_) | Received::Control(_)) => {
                        self.outcome.troubles.push(format!("{} got {other:?}", self.plan.name));
                        break;
                    }
                },
                () = stage.reached(Phase::CatchUp) => break,
            }
        }
        self.outcome.raws.push(RawSession { receiver: self.plan.name, contents });
        true
    }
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}
