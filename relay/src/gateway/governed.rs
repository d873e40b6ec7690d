//! The course of a direction whose messages are governed: each is judged by the rules of the route, and mirrored by its
//! tap if it passes.

use std::{sync::Arc, time::Instant};

use super::{
    course::{Course, Output, Source, Taken},
    messages::{Message, Messages, Verdict},
    passage::Passage,
    routes::Route,
    rules::Meters,
    tap::Origin,
    walk::Walker,
};

/// One direction of a connection whose messages are governed.
#[derive(Debug)]
pub struct Governed {
    messages: Messages,
    meters: Meters,
    whose: Whose,
}

/// Whose messages they are.
#[derive(Debug)]
struct Whose {
    route: Arc<Route>,
    connection: u64,
    client: std::net::SocketAddr,
    from: Source,
}

impl Governed {
    /// What comes from there on a connection; `limit` are the bytes that a message may have.
    pub fn new(passage: &Passage, from: Source, limit: usize) -> Self {
        let route = Arc::clone(passage.route());
        Self {
            messages: Messages::new(from == Source::Client, limit),
            meters: Meters::default(),
            whose: Whose { route, connection: passage.number(), client: passage.peer(), from },
        }
    }
}

impl Course for Governed {
    fn take(&mut self, piece: &mut [u8], output: &mut Output) -> Taken {
        let Self { messages, meters, whose: Whose { route, connection, client, from } } = self;
        let path = route.settings.path.as_str();
        let origin = Origin { route: path, connection: *connection, client: *client, from: *from };
        let mut tap = route.tap.as_ref().and_then(|tap| tap.turn(origin));
        let now = Instant::now();
        let taken = messages.take(piece, output, &mut |message: Message<'_>| {
            let verdict = route.rules.judge(*from, message, meters, now, |_| {});
            if let (Some(tap), Verdict::Pass(message)) = (&mut tap, &verdict) {
                tap.mirror(message);
            }
            verdict
        });
        if let Some(tap) = tap {
            tap.end();
        }
        taken
    }

    /// What goes on are whole frames.
    fn unfinished(&mut self) -> Option<&mut Walker> {
        None
    }

    fn is_closed(&self) -> bool {
        self.messages.is_closed()
    }

    fn withhold_close(&mut self) {
        self.messages.withhold_close();
    }
}
