//! `recv-client --durable -o FILE`: killed at random moments, and started again.

use std::fs;

use ::tests::program::{self, Program, Signal};
use shared::receiver::{Event, GapReason};

use super::{Phase, Stage, moment};
use crate::{
    cast,
    content::Content,
    history::{Gap, Message, OutputFile},
};

/// Attempts to get the rest at the end.
const ATTEMPTS: u32 = 20;

/// What became of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) file: OutputFile,
    pub(super) kills: u32,
    pub(super) troubles: Vec<String>,
}

/// Runs it again and again, and at the end until nothing more comes.
pub(super) async fn run(
    (name, wants): (&'static str, &'static str),
    stage: Stage,
    mut rng: fastrand::Rng,
) -> Outcome {
    let output = stage.folder.join(format!("{name}.json"));
    let start = |more: &[&str]| {
        let mut command = program::command("recv-client");
        command.env("XDG_STATE_HOME", stage.folder.join("state"));
        command.args(["-r", &stage.address.to_string(), "-c", wants, "--since", "earliest", "--json", "-v"]);
        command.args(["--durable", name]).arg("-o").arg(&output).args(more);
        Program::spawn("recv-client", command)
    };
    let file = OutputFile { name, wants, messages: Vec::new(), broken: Vec::new(), gaps: Vec::new() };
    let mut outcome = Outcome { file, kills: 0, troubles: Vec::new() };
    let mut scene = stage.clone();
    while stage.scene().phase == Phase::Play {
        let mut program = start(&[]);
        let over = tokio::select! {
            // It ends by itself where it can't reach a relay.
            () = moment(&mut rng, 30..1500) => false,
            () = scene.played() => true,
        };
        if !over {
            program.signal(Signal::Kill).await;
        } else {
            program.signal(Signal::Term).await;
        }
        let finished = program.finish().await;
        outcome.kills += u32::from(finished.code.is_none());
        outcome.note(&finished.stderr);
        if !matches!(finished.code, None | Some(3 | 143)) {
            outcome
                .troubles
                .push(format!("recv-client {name} ended with {:?}: {}", finished.code, finished.stderr));
        }
    }
    scene.reached(Phase::CatchUp).await;
    for attempt in 0.. {
        let finished = start(&["--timeout", "2s"]).finish().await;
        outcome.note(&finished.stderr);
        match finished.code {
            Some(124) => break,
            Some(3) if attempt < ATTEMPTS => {}
            code => {
                outcome.troubles.push(format!("recv-client {name} ended with {code:?}: {}", finished.stderr));
                break;
            }
        }
    }
    let text = fs::read(&output).unwrap_or_default();
    for line in text.split_inclusive(|&b| b == b'\n') {
        match parse(line) {
            Some(message) => outcome.file.messages.push(message),
            None => {
                outcome.file.broken.push(String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned())
            }
        }
    }
    outcome
}

impl Outcome {
    /// Takes the gaps out of what it told.
    fn note(&mut self, stderr: &str) {
        for line in stderr.lines().filter(|line| line.contains("gap on ")) {
            match parse_gap(line) {
                Some(gap) => self.file.gaps.push(gap),
                None => self.troubles.push(format!("recv-client {} said: {stderr}", self.file.name)),
            }
        }
    }
}

/// A line as it was written, with its end.
fn parse(line: &[u8]) -> Option<Message> {
    let event = serde_json::from_slice(line.strip_suffix(b"\n")?).ok()?;
    let Event::Message { channel, seq, prev, data, .. } = event else { return None };
    let (kind, payload) = data.decode().ok()?;
    let content = Content::recognise(kind, &payload, cast::solo);
    Some(Message { channel: cast::find(channel.as_str())?, seq: seq.0, prev: prev.0, content })
}

/// `warning: gap on NAME: 3 messages are missing (after seq 7, before 11): they were older than what …`
fn parse_gap(line: &str) -> Option<Gap> {
    let rest = line.split_once("gap on ")?.1;
    let (name, rest) = rest.split_once(": ")?;
    let (place, why) = rest.split_once('(')?.1.split_once("): ")?;
    let (after, before) = match place.strip_prefix("after seq ") {
        Some(place) => place.split_once(", before ")?,
        None => ("0", place.strip_prefix("before ")?),
    };
    let reason = match why {
        "this receiver was too slow" => GapReason::Lagged,
        "they were older than what the relay keeps" => GapReason::Retention,
        "the relay's store is new" => GapReason::Epoch,
        "they were not on disk yet when the relay crashed" => GapReason::Crash,
        _ => return None,
    };
    Some(Gap { channel: cast::find(name)?, after: after.parse().ok()?, before: before.parse().ok()?, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_read_as_recv_client_tells_them() {
        let gap = |after, before, reason| Some(Gap { channel: 3, after, before, reason });
        let told = "warning: gap on trim/one: 3 messages are missing (after seq 7, before 11): they were older than \
                    what the relay keeps";
        assert_eq!(parse_gap(told), gap(7, 11, GapReason::Retention));
        let told = "warning: gap on trim/one: messages are missing (before 11): this receiver was too slow";
        assert_eq!(parse_gap(told), gap(0, 11, GapReason::Lagged));
        assert_eq!(
            parse_gap("gap on trim/one: messages are missing (before 1): the relay gave no notice of it"),
            None
        );
    }

    #[test]
    fn a_line_that_lacks_its_end_or_has_two_beginnings_is_broken() {
        let line = br#"{"type":"message","channel":"keep/one","seq":2,"prev":1,"time":5,"text":"x"}"#;
        assert_eq!(parse(line), None);
        assert!(parse(&[line, &b"\n"[..]].concat()).is_some());
        assert_eq!(parse(&[&line[..20], line, b"\n"].concat()), None);
    }
}
