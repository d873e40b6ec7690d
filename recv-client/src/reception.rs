//! What comes from the relay, taken one by one: checked against what came before, told, filtered, shown.

use std::convert::Infallible;

use shared::{
    ChannelId, Envelope, Seq,
    client::Exit,
    receiver::{Event, GapReason},
};
use tokio::time::Instant;

use crate::{
    connection::Incoming,
    failure::{Failure, one_line},
    gap::Gap,
    loss::Loss,
    notices::{Weight, elapsed},
    output::Output,
    plan::Plan,
    progress::Progress,
    resume::{Check, Greeting, Resume},
};

/// The receiving side of a run, across connections.
#[derive(Debug)]
pub(crate) struct Reception<'a> {
    plan: &'a Plan,
    progress: &'a Progress,
    /// Where it is.
    pub(crate) resume: Resume,
    /// Where messages go.
    pub(crate) output: Output,
    state: State,
}

/// What the user knows of the connection.
#[derive(Debug, Clone, Copy)]
enum State {
    /// Nothing yet.
    Starting,
    /// That it is there.
    Connected,
    /// That it is lost, since then.
    Away(Instant),
}

impl<'a> Reception<'a> {
    pub(crate) fn new(plan: &'a Plan, progress: &'a Progress, resume: Resume, output: Output) -> Self {
        Self { plan, progress, resume, output, state: State::Starting }
    }

    /// Takes what came; whether it was the last that is wanted.
    pub(crate) fn take(&mut self, incoming: Incoming) -> Result<bool, Loss> {
        match incoming {
            Incoming::Message(message) => self.message(&message),
            Incoming::Control(text) => self.control(&text).map(|()| false),
        }
    }

    /// The connection is lost. Told once until it is there again.
    pub(crate) fn lost(&mut self, why: &str) {
        self.output.remark(Weight::Detail, format_args!("lost the relay at {}: {why}", self.plan.relay));
        if !matches!(self.state, State::Away(_)) {
            self.state = State::Away(Instant::now());
            self.output.remark(Weight::Notice, "relay went away; reconnecting");
        }
    }

    /// Hands over what is due as long as it is polled; for while there is no connection.
    pub(crate) async fn pump(&mut self) -> Infallible {
        loop {
            self.hand_over();
            let due_at = self.output.due_at();
            tokio::select! {
                () = self.output.ready(), if self.output.is_due() => {}
                () = tokio::time::sleep_until(due_at.unwrap_or_else(Instant::now)), if due_at.is_some() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Hands over what is due if the writer is free.
    pub(crate) fn hand_over(&mut self) {
        self.output.hand_over(self.resume.position());
    }

    fn message(&mut self, message: &Envelope) -> Result<bool, Loss> {
        let Some(epoch) = self.resume.epoch() else {
            return Err(Loss::protocol("a message came before its hello"));
        };
        match self.resume.check(message) {
            Check::Next => {}
            Check::Duplicate => return Ok(false),
            Check::Missing(after) => {
                self.tell_gap(&Gap {
                    channel: message.channel.clone(),
                    after,
                    before: message.seq,
                    count: None,
                    reason: None,
                })?;
            }
        }
        self.resume.advance(message);
        self.output.moved();
        if self.plan.grep.as_ref().is_some_and(|regex| !regex.is_match(&message.payload)) {
            return Ok(false);
        }
        self.output.push(epoch, message);
        self.progress.add(message);
        Ok(self.plan.count == Some(self.progress.messages()))
    }

    fn control(&mut self, text: &str) -> Result<(), Loss> {
        match serde_json::from_str(text) {
            Ok(Event::Hello { epoch, from, recovered, .. }) => {
                if let Some(greeting) = self.resume.hello(epoch, from, recovered) {
                    self.output.moved();
                    self.connected(greeting)?;
                }
            }
            Ok(Event::Gap { channel, after, before, count, reason }) => {
                self.gap(channel, after, before, count, reason)?;
            }
            Ok(Event::Error { code, message, .. }) => {
                let text = one_line(&message);
                self.output.remark(Weight::Warning, format_args!("the relay reports: {text} ({code})"));
            }
            Ok(Event::Live { seq }) => {
                self.resume.reach(seq);
                self.output.moved();
                self.output.remark(Weight::Detail, format_args!("caught up at seq {seq}"));
            }
            Ok(Event::Ack { .. } | Event::Pong | Event::Message { .. }) => {}
            // A later relay may say more than this version knows.
            Err(_) => self.output.remark(Weight::Detail, format_args!("not understood: {}", one_line(text))),
        }
        Ok(())
    }

    /// The relay has said where the stream begins.
    fn connected(&mut self, greeting: Greeting) -> Result<(), Loss> {
        let new_store =
            |epoch| format!("the relay's store is new (epoch {epoch}); messages before it are gone");
        let what = self.plan.describe();
        let relay = &self.plan.relay;
        if let State::Away(since) = self.state {
            let how = match greeting {
                Greeting::Fresh => String::new(),
                Greeting::Recovered(seq) => format!(", resumed after seq {seq}"),
                Greeting::Incomplete(seq) => format!(", not everything after seq {seq} is still there"),
                Greeting::NewStore(epoch) => format!("; {}", new_store(epoch)),
            };
            let text = format_args!("reconnected after {}{how}", elapsed(since.elapsed()));
            self.output.remark(Weight::Notice, text);
        } else {
            let resumed = match greeting {
                Greeting::Recovered(seq) => format!(", resumed after seq {seq}"),
                Greeting::Incomplete(_) | Greeting::NewStore(_) | Greeting::Fresh => String::new(),
            };
            self.output.remark(
                Weight::Greeting,
                format_args!("connected to {relay}, {what}{resumed}; waiting for messages (Ctrl-C to stop)"),
            );
            if let Greeting::NewStore(epoch) = greeting
                && !self.plan.strict
            {
                self.output.remark(Weight::Warning, new_store(epoch));
            }
        }
        self.state = State::Connected;
        if let Greeting::NewStore(epoch) = greeting
            && self.plan.strict
        {
            return Err(Loss::Final(Failure::new(Exit::Incomplete, new_store(epoch))));
        }
        Ok(())
    }

    fn gap(
        &mut self,
        channel: ChannelId,
        after: Seq,
        before: Seq,
        count: Option<u64>,
        reason: GapReason,
    ) -> Result<(), Loss> {
        let gap = Gap { channel, after, before, count, reason: Some(reason) };
        if self.resume.gap(&gap) { self.tell_gap(&gap) } else { Ok(()) }
    }

    fn tell_gap(&mut self, gap: &Gap) -> Result<(), Loss> {
        if self.plan.strict {
            return Err(Loss::Final(Failure::new(Exit::Incomplete, gap.to_string())));
        }
        self.output.remark(Weight::Warning, gap);
        Ok(())
    }
}
