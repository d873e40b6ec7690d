//! The crash test: a real relay with data on disk is killed again and again under senders and receivers, some of which
//! are real programs that are killed too; then everything that happened is held against the laws of the protocol.
//! `tests/crash` builds what it needs and runs it.
//!
//! # Layout
//! - [`cast`]: who plays; [`content`]: payloads that say whose they are; [`stage`]: the run itself.
//! - [`history`]: what is recorded of it. [`check`]: the laws, pure.

mod cast;
mod check;
mod content;
mod history;
mod stage;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;

use check::{Law, Violation};
use history::{Event, History};
use stage::director::{self, Counts, Play, Played};

/// Violations of a law that are shown with what is around them.
const SHOWN: usize = 3;

/// Kills a relay at random moments under senders and receivers, and checks that nothing is lost
#[derive(Debug, Parser)]
#[command(name = "tests/crash")]
struct Cli {
    /// How often the relay is killed
    #[arg(long, value_name = "N", default_value_t = 20)]
    kills: u32,

    /// What chance is drawn from; without it another one each time, which is printed
    #[arg(long, value_name = "S")]
    seed: Option<u64>,

    /// The data is on a disk of its own, which is full half of the time; for root
    #[arg(long)]
    full: bool,

    /// End after so many minutes, also with fewer kills
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
}

// One thread: the other core is the relay's.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Cli { kills, seed, full, minutes } = Cli::parse();
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let length = minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let everybody = tokio::task::LocalSet::new();
    match everybody.run_until(run(Play { seed, kills, length, full })).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nothing is left to do where stderr is closed.
            let _ = writeln!(io::stderr().lock(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether no law was broken.
async fn run(play: Play) -> anyhow::Result<bool> {
    writeln!(io::stdout().lock(), "seed {}", play.seed)?;
    let played = director::play(play).await?;
    let violations = check::check(&played.history);
    let mut out = io::stdout().lock();
    report(&mut out, &played)?;
    show(&mut out, &played.history, &violations)?;
    if !violations.is_empty() {
        let folder = played.keep(play.seed)?;
        let all = violations.iter().map(|Violation { law, what, .. }| format!("{law:?}: {what}\n"));
        std::fs::write(folder.join("violations"), all.collect::<String>())?;
        writeln!(out, "all violations, and the relay's data, are in {}", folder.display())?;
    }
    writeln!(out, "seed {}, {} kills: {} violations", play.seed, played.counts.kills, violations.len())?;
    Ok(violations.is_empty())
}

fn report(out: &mut impl Write, played: &Played) -> io::Result<()> {
    let Played { history, counts, .. } = played;
    let Counts { kills, early, stops, played: length, .. } = counts;
    let Counts { sender_kills, receiver_kills, losses, fences, refusals, .. } = counts;
    writeln!(out, "relay: killed {kills} times, {early} of them before it was ready; stopped {stops} times")?;
    let (full, length) = (played.full().as_secs_f64(), length.as_secs_f64());
    writeln!(
        out,
        "the disk was full for {full:.1} of {length:.1} s; {refusals} times something could not be stored"
    )?;
    writeln!(out, "send-client: killed {sender_kills} times; recv-client: {receiver_kills} times")?;
    writeln!(out, "senders: {losses} connections lost, {fences} fenced")?;
    let sent: u64 = history.lanes.iter().map(|lane| lane.sent).sum();
    let settled: u64 = history.lanes.iter().map(history::Lane::settled).sum();
    let acks: usize = history.lanes.iter().map(|lane| lane.acks.len()).sum();
    let lines: u64 = history.spools.iter().flat_map(|spool| &spool.runs).map(|run| run.lines).sum();
    writeln!(
        out,
        "messages: {sent} sent, {settled} settled by {acks} acks; {lines} lines given to send-client"
    )?;
    let mut gaps: BTreeMap<String, usize> = BTreeMap::new();
    let (mut messages, mut recovered, mut resumed) = (0, 0, 0);
    for session in &history.sessions {
        for event in &session.events {
            match event {
                Event::Message(_) => messages += 1,
                Event::Gap(gap) => *gaps.entry(format!("{:?}", gap.reason)).or_default() += 1,
                Event::Live(_) => {}
            }
        }
        if matches!(session.asked, history::Asked::After(_)) {
            resumed += session.hellos.len();
            recovered += session.hellos.iter().filter(|hello| hello.recovered).count();
        }
    }
    let raw: usize = history.raws.iter().map(|raw| raw.contents.len()).sum();
    let written: usize = history.files.iter().map(|file| file.messages.len()).sum();
    writeln!(
        out,
        "deliveries: {messages} in {} connections, {raw} raw, {written} in files",
        history.sessions.len()
    )?;
    writeln!(out, "gaps: {gaps:?}; {recovered} of {resumed} resumptions recovered")
}

fn show(out: &mut impl Write, history: &History, violations: &[Violation]) -> io::Result<()> {
    let mut counts: BTreeMap<Law, usize> = BTreeMap::new();
    for Violation { law, what, near } in violations {
        let count = counts.entry(*law).or_default();
        *count += 1;
        if *count > SHOWN {
            continue;
        }
        writeln!(out, "VIOLATION of {law:?}: {what}")?;
        if let Some((channel, seq)) = near {
            for line in check::around(history, *channel, *seq) {
                writeln!(out, "    {line}")?;
            }
        }
    }
    if !counts.is_empty() {
        writeln!(out, "violations by law: {counts:?}")?;
    }
    Ok(())
}
