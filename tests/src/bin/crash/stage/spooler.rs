//! `send-client --spool`: given lines, killed in the middle of them or let end, and started again on the same spool.

use std::time::Duration;

use tests::program::{Finished, Program, Signal};
use tokio::time::{interval, timeout};

use super::{Phase, Stage, moment};
use crate::{
    cast,
    content::Ident,
    history::{Run, Spool},
};

/// Attempts to empty the spool at the end.
const DRAINS: u32 = 20;

/// How long its end may take: it has to get rid of what the runs before left, while the relay is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(25);

/// What became of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) spool: Spool,
    pub(super) kills: u32,
    pub(super) troubles: Vec<String>,
}

/// Runs it again and again, and at the end until its spool is empty.
pub(super) async fn run(
    (producer, channel, level): (u16, u16, &'static str),
    stage: Stage,
    mut rng: fastrand::Rng,
) -> Outcome {
    let mut outcome =
        Outcome { spool: Spool { producer, channel, runs: Vec::new() }, kills: 0, troubles: Vec::new() };
    let folder = stage.folder.join(format!("spool-{producer}"));
    let start = || {
        let (relay, folder) = (stage.address.to_string(), folder.to_string_lossy().into_owned());
        let args = ["-r", &relay, "-c", cast::name(channel), "--level", level, "--spool", &folder];
        Program::start("send-client", args.into_iter().chain(["--spool-wait", "200ms", "-v"]))
    };
    let mut scene = stage.clone();
    while stage.scene().phase == Phase::Play {
        let mut program = start();
        let number = outcome.spool.runs.len() as u64 + 1;
        let (lines, killed) = (rng.u64(20..400), rng.u8(0..3) > 0);
        let mut given = 0;
        // The pace of the program whose output it is.
        let mut pace = interval(Duration::from_millis(20));
        while given < lines && stage.scene().phase == Phase::Play {
            let mut batch = Vec::new();
            for _ in 0..rng.u64(1..30) {
                given += 1;
                let (_, line) = Ident::line(producer, channel, number, given).payload(false);
                batch.extend_from_slice(&line);
                batch.push(b'\n');
            }
            program.try_write(batch).await;
            pace.tick().await;
        }
        let finished = if killed {
            moment(&mut rng, 0..60).await;
            program.signal(Signal::Kill).await;
            outcome.kills += 1;
            program.finish().await
        } else {
            outcome.end(&mut program).await
        };
        let took_all = matches!(finished.code, Some(0 | 6));
        if !took_all && finished.code.is_some() {
            outcome.trouble(&finished);
        }
        outcome.spool.runs.push(Run { lines: given, took_all });
        tokio::select! {
            () = moment(&mut rng, 0..200) => {}
            () = scene.played() => {}
        }
    }
    for _ in 0..DRAINS {
        let finished = outcome.end(&mut start()).await;
        match finished.code {
            Some(0) => return outcome,
            Some(6) if stage.scene().phase < Phase::CatchUp => {}
            _ => {
                outcome.trouble(&finished);
                break;
            }
        }
    }
    outcome.troubles.push(format!("the spool of p{producer} does not get empty"));
    outcome
}

impl Outcome {
    /// Ends its input and waits for its end; one that does not come is a trouble, and is told with what it does.
    async fn end(&mut self, program: &mut Program) -> Finished {
        if let Ok(finished) = timeout(ENDS_WITHIN, program.finish()).await {
            return finished;
        }
        let tasks = std::fs::read_dir(format!("/proc/{}/task", program.id())).into_iter().flatten();
        let waits = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("wchan")).ok());
        let waits: Vec<String> = waits.collect();
        let producer = self.spool.producer;
        self.troubles.push(format!(
            "send-client of p{producer} does not end; its threads are in {waits:?}; it said: {}",
            program.stderr()
        ));
        program.signal(Signal::Kill).await;
        program.finish().await
    }

    fn trouble(&mut self, finished: &Finished) {
        let Finished { code, stderr, .. } = finished;
        let what = format!("send-client of p{} ended with {code:?}: {stderr}", self.spool.producer);
        self.troubles.push(what);
    }
}
