//! The course of a connection that is governed: its messages are put before the rules of the route, and those that go on
//! before its tap.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use super::{
    course::{Course, Output, Source, Taken},
    message::Verdict,
    messages::Messages,
    passage::Passage,
    routes::Route,
    rules::Meters,
    tap::Origin,
    walk::Walker,
};

/// One direction of a connection whose route has rules or a tap.
#[derive(Debug)]
pub struct Governor {
    messages: Messages,
    meters: Meters,
    from: Source,
    route: Arc<Route>,
    connection: u64,
    client: SocketAddr,
}

impl Governor {
    /// Of messages of this side of a connection.
    pub fn new(passage: &Passage, from: Source) -> Self {
        let route = Arc::clone(passage.route());
        Self {
            messages: Messages::new(from == Source::Client, route.settings.max_message),
            meters: Meters::default(),
            from,
            route,
            connection: passage.number(),
            client: passage.peer(),
        }
    }
}

impl Course for Governor {
    fn take(&mut self, piece: &mut [u8], output: &mut Output) -> Taken {
        let Self { messages, meters, route, .. } = self;
        let (from, connection, client) = (self.from, self.connection, self.client);
        let Route { rules, tap, settings, .. } = &**route;
        let now = Instant::now();
        let mut turn = tap
            .as_ref()
            .and_then(|tap| tap.turn(Origin { route: settings.path.as_str(), connection, client, from }));
        let taken = messages.take(piece, output, &mut |message| {
            let verdict = rules.judge(from, message, meters, now, |_| {});
            if let (Some(turn), Verdict::Pass(message)) = (&mut turn, &verdict) {
                turn.mirror(message);
            }
            verdict
        });
        if let Some(turn) = turn {
            turn.end();
        }
        taken
    }

    fn unfinished(&mut self) -> Option<&mut Walker> {
        // Only whole frames go on.
        None
    }

    fn is_closed(&self) -> bool {
        self.messages.is_closed()
    }

    fn keep_close(&mut self) {
        self.messages.keep_close();
    }
}
