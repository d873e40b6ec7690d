//! The loop of a run: connect, follow, come back.

use std::time::Duration;

use shared::client::{Backoff, Exit};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    connection::{Incoming, Session},
    failure::{Failure, one_line},
    loss::{DialError, Loss},
    plan::Plan,
    reception::Reception,
};

/// A connection that has held so long, or brought a message, was a good one: waits begin anew.
const CALM: Duration = Duration::from_secs(10);

/// A run across connections.
#[derive(Debug)]
pub(crate) struct Tail<'a> {
    plan: &'a Plan,
    /// What is received.
    pub(crate) reception: Reception<'a>,
    /// The connection, while there is one.
    pub(crate) session: Option<Session>,
}

/// Where a connection has led.
#[derive(Debug)]
enum Followed {
    /// To the last message that was wanted.
    Done,
    /// To its loss, after so long; whether a message came.
    Lost { loss: Loss, after: Duration, fruitful: bool },
}

impl<'a> Tail<'a> {
    pub(crate) fn new(plan: &'a Plan, reception: Reception<'a>) -> Self {
        Self { plan, reception, session: None }
    }

    /// Runs until the last message that is wanted. Dropping the future stops it anywhere; nothing is lost that
    /// `reception` has taken.
    pub(crate) async fn run(&mut self) -> Result<(), Failure> {
        let mut backoff = Backoff::default();
        let mut first = true;
        loop {
            let request = self.reception.resume.request();
            let dial = Session::dial(self.plan, request);
            let dialled = tokio::select! {
                dialled = dial => dialled,
                never = self.reception.pump() => match never {},
            };
            let wait = match dialled {
                Ok(session) => match self.follow(session).await {
                    Followed::Done => return Ok(()),
                    Followed::Lost { loss, after, fruitful } => {
                        if fruitful || after >= CALM {
                            backoff.reset();
                        }
                        self.lost(loss, &mut backoff)?
                    }
                },
                Err(DialError::Later(failure, after)) if !first => {
                    self.reception.lost(&one_line(&failure.to_string()));
                    after.max(backoff.next(fastrand::f64()))
                }
                Err(DialError::Later(failure, _) | DialError::Final(failure)) => return Err(failure),
            };
            first = false;
            tokio::select! {
                () = sleep(wait) => {}
                never = self.reception.pump() => match never {},
            }
        }
    }

    /// How long to wait before the next connection.
    fn lost(&mut self, loss: Loss, backoff: &mut Backoff) -> Result<Duration, Failure> {
        let (why, at_once) = match loss {
            Loss::Gone { why, at_once } => (why, at_once),
            Loss::Final(failure) => return Err(failure),
        };
        if !self.plan.reconnect {
            return Err(Failure::new(Exit::Incomplete, format!("the connection was lost: {why}")));
        }
        self.reception.lost(&why);
        // A relay that says so again and again is believed only the first time.
        let at_once = at_once && *backoff == Backoff::default();
        let wait = backoff.next(fastrand::f64());
        Ok(if at_once { Duration::ZERO } else { wait })
    }

    async fn follow(&mut self, session: Session) -> Followed {
        let began = Instant::now();
        let session = self.session.insert(session);
        let mut fruitful = false;
        let result = listen(session, &mut self.reception, &mut fruitful).await;
        match result {
            Ok(()) => Followed::Done,
            Err(loss) => {
                self.session = None;
                Followed::Lost { loss, after: began.elapsed(), fruitful }
            }
        }
    }
}

/// Takes what comes until the last that is wanted. Whatever is there at once is taken before anything is
/// written, so that the busier it is, the fewer writes there are.
async fn listen(
    session: &mut Session,
    reception: &mut Reception<'_>,
    fruitful: &mut bool,
) -> Result<(), Loss> {
    loop {
        while reception.output.has_room()
            && let Some(incoming) = session.next_ready()?
        {
            *fruitful |= matches!(incoming, Incoming::Message(_));
            if reception.take(incoming)? {
                return Ok(());
            }
        }
        reception.hand_over();
        let check_at = session.check_at();
        let due_at = reception.output.due_at();
        tokio::select! {
            biased;
            () = reception.output.ready(), if reception.output.is_due() => {}
            incoming = session.next(), if reception.output.has_room() => {
                let incoming = incoming?;
                *fruitful |= matches!(incoming, Incoming::Message(_));
                if reception.take(incoming)? {
                    return Ok(());
                }
            }
            () = sleep_until(due_at.unwrap_or(check_at)), if due_at.is_some() => {}
            () = sleep_until(check_at) => session.check_alive().await?,
        }
    }
}
