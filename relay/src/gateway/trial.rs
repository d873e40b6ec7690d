//! `relay rules test`: what the rules of a route would make of messages, and which of them did it.

use std::{
    borrow::Cow,
    io::{self, BufRead, Write},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use shared::{Kind, receiver::Data};

use super::{
    course::Source,
    frame::Violation,
    message::{Message, Verdict},
    pattern::Excess,
    rules::{Meters, Rules},
    settings::RouteSettings,
};

/// The rules of a route, and where one is with them.
#[derive(Debug)]
pub struct Trial {
    rules: Rules,
    limit: usize,
    /// Of the client's messages, and of the upstream's.
    meters: [Meters; 2],
    begun: Instant,
    /// The time that the first message told, in microseconds.
    first: Option<u64>,
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A line each, of this side.
    Lines(Source),
    /// A line of JSON each, as a tap tells them; of this side where they do not say whose they are.
    Json(Source),
}

/// A message, as a tap tells it.
#[derive(Deserialize)]
struct Given<'a> {
    from: Option<Cow<'a, str>>,
    time: Option<u64>,
    #[serde(flatten, borrow)]
    data: Data<'a>,
}

/// What becomes of a message.
#[derive(Serialize)]
struct Outcome<'a> {
    verdict: &'static str,
    rules: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten)]
    data: Option<Data<'a>>,
}

impl Trial {
    /// Of this route.
    pub fn new(route: &RouteSettings) -> Self {
        Self {
            rules: Rules::new(&route.rules, route.max_message, None),
            limit: route.max_message,
            meters: Default::default(),
            begun: Instant::now(),
            first: None,
        }
    }

    /// Tells of each message what becomes of it.
    ///
    /// # Errors
    /// What can't be read, and in which line. A closed output is none.
    pub fn run(&mut self, form: Form, mut input: impl BufRead, mut output: impl Write) -> Result<(), String> {
        let mut line = Vec::new();
        for number in 1u64.. {
            line.clear();
            let read = input.read_until(b'\n', &mut line);
            if read.map_err(|error| format!("cannot read the messages: {error}"))? == 0 {
                break;
            }
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let told = self.tell(form, line).map_err(|error| format!("line {number}: {error}"))?;
            match writeln!(output, "{told}").and_then(|()| output.flush()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                other => other.map_err(|error| format!("cannot tell: {error}"))?,
            }
        }
        Ok(())
    }

    /// Tells what becomes of the message in a line.
    fn tell(&mut self, form: Form, line: &[u8]) -> Result<String, String> {
        match form {
            Form::Lines(from) => {
                let message = Message::new(Kind::of(line), line).map_err(|error| error.to_string())?;
                Ok(self.judge(from, message, self.begun, plain))
            }
            Form::Json(usual) => {
                let given: Given<'_> = serde_json::from_slice(line).map_err(|error| {
                    format!("not a message like {{\"from\": \"client\", \"text\": \"…\"}}: {error}")
                })?;
                let from = match given.from.as_deref() {
                    None => usual,
                    Some("client") => Source::Client,
                    Some("upstream") => Source::Upstream,
                    Some(other) => return Err(format!("`from` is client or upstream, not {other:?}")),
                };
                let (kind, bytes) = given.data.decode().map_err(|error| format!("no base64: {error}"))?;
                let message = Message::new(kind, &bytes).map_err(|error| error.to_string())?;
                let now = self.time(given.time);
                Ok(self
                    .judge(from, message, now, |outcome| serde_json::to_string(outcome).unwrap_or_default()))
            }
        }
    }

    /// When a message came that tells this time, counted from the first one that told any.
    fn time(&mut self, told: Option<u64>) -> Instant {
        let Some(told) = told else { return self.begun };
        let first = *self.first.get_or_insert(told);
        self.begun + Duration::from_micros(told.saturating_sub(first))
    }

    fn judge(
        &mut self,
        from: Source,
        message: Message<'_>,
        now: Instant,
        show: impl Fn(&Outcome<'_>) -> String,
    ) -> String {
        let came = message.clone();
        let mut asked = Vec::new();
        let verdict = if message.bytes().len() > self.limit {
            Verdict::Excess(Excess::Length)
        } else {
            let meters = &mut self.meters[usize::from(from == Source::Upstream)];
            self.rules.judge(from, message, meters, now, |rule| asked.push(rule.name.clone()))
        };
        let data = |message: &Message<'_>| Some(Data::new(message.kind(), message.bytes()).into_owned());
        let outcome =
            Outcome { verdict: "passes", rules: &asked, code: None, reason: None, data: data(&came) };
        show(&match verdict {
            Verdict::Pass(message) if message == came => outcome,
            Verdict::Pass(message) => Outcome { verdict: "replaced", data: data(&message), ..outcome },
            Verdict::Drop => Outcome { verdict: "dropped", ..outcome },
            Verdict::Close(closing) => Outcome {
                verdict: "closed",
                code: Some(closing.code),
                reason: Some(closing.reason.clone()),
                ..outcome
            },
            Verdict::Excess(Excess::Work) => Outcome {
                verdict: "closed",
                code: Some(1008),
                reason: Some("a rule would take too long with it".into()),
                ..outcome
            },
            Verdict::Excess(Excess::Length) => Outcome {
                verdict: "closed",
                code: Some(Violation::TooLong.code()),
                reason: Some(Violation::TooLong.to_string()),
                ..outcome
            },
        })
    }
}

/// For people: what becomes of it, what it is then, and who did it.
fn plain(outcome: &Outcome<'_>) -> String {
    let shown = match &outcome.data {
        Some(Data::Text(text)) => text.chars().map(visible).collect(),
        Some(Data::Base64(text)) => format!("base64 {text}"),
        None => String::new(),
    };
    let mut told = format!("{:<8}  {shown}", outcome.verdict);
    if !outcome.rules.is_empty() {
        let names: Vec<String> = outcome.rules.iter().map(|name| format!("\"{name}\"")).collect();
        told += &format!("  by {}", names.join(", "));
    }
    if let (Some(code), Some(reason)) = (outcome.code, &outcome.reason) {
        told += &format!("  with {code} {reason}");
    }
    told
}

/// A message stays in its line, and does nothing to a terminal.
fn visible(c: char) -> String {
    if c.is_control() { c.escape_debug().to_string() } else { c.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli, config};

    /// What is told of these lines by the rules of a file.
    fn told(rules: &str, form: Form, lines: &str) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let route = "[[route]]\npath = \"/app\"\nupstreams = \"ws://a:1\"\n";
        let limit = if rules.is_empty() { "" } else { "max_message = 40\n" };
        std::fs::write(file.path(), format!("{route}{limit}{rules}")).unwrap();
        let flags = cli::Serve { config: Some(file.path().into()), ..Default::default() };
        let config = config::load(&flags).unwrap();
        let mut out = Vec::new();
        Trial::new(&config.gateway.routes[0]).run(form, lines.as_bytes(), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    const RULES: &str = "
        [[route.rule]]\nname = \"no secrets\"\nmatches = \"token=\\\\w+\"\naction = \"replace\"\nwith = \"token=***\"
        [[route.rule]]\nfrom = \"client\"\nmatches = \"spam\"\naction = \"drop\"
        [[route.rule]]\nname = \"quit\"\nmatches = \"quit\"\naction = \"close\"\ncode = 4001\nreason = \"no\"
        [[route.rule]]\nname = \"calm\"\nmessages_per_second = 1\nburst_messages = 2\naction = \"drop\"";

    #[test]
    fn each_line_is_told_with_what_becomes_of_it_and_by_which_rule() {
        let lines = "hello\na token=x and\tspam\ntoken=abc\nquit\nonce more\n\
                     0123456789012345678901234567890123456789!\n";
        let expected = "\
passes    hello
dropped   a token=x and\\tspam  by \"no secrets\", \"2\"
replaced  token=***  by \"no secrets\"
closed    quit  by \"quit\"  with 4001 no
dropped   once more  by \"calm\"
closed    0123456789012345678901234567890123456789!  with 1009 a message is longer than is allowed here
";
        assert_eq!(told(RULES, Form::Lines(Source::Client), lines).unwrap(), expected);
        let spam = told(RULES, Form::Lines(Source::Upstream), "spam\n").unwrap();
        assert_eq!(spam, "passes    spam\n");
    }

    #[test]
    fn what_a_tap_told_is_read_with_its_side_and_its_time() {
        let lines = r#"{"route":"/app","from":"upstream","time":1000000,"text":"spam"}
{"from":"client","time":1000001,"text":"spam"}
{"time":1000002,"base64":"AP8="}
{"time":1000003,"text":"a"}
{"time":1000004,"text":"b"}
{"time":3000000,"text":"c"}"#;
        let expected = r#"{"verdict":"passes","rules":[],"text":"spam"}
{"verdict":"dropped","rules":["2"],"text":"spam"}
{"verdict":"passes","rules":[],"base64":"AP8="}
{"verdict":"passes","rules":[],"text":"a"}
{"verdict":"dropped","rules":["calm"],"text":"b"}
{"verdict":"passes","rules":[],"text":"c"}
"#;
        assert_eq!(told(RULES, Form::Json(Source::Client), lines).unwrap(), expected);
    }

    #[test]
    fn what_is_no_message_is_told_with_its_line() {
        let error = told("", Form::Json(Source::Client), "{\"text\":\"a\"}\nhello\n").unwrap_err();
        assert!(error.starts_with("line 2: not a message like {\"from\""), "{error}");
        let error = told("", Form::Json(Source::Client), r#"{"from":"me","text":"a"}"#).unwrap_err();
        assert_eq!(error, "line 1: `from` is client or upstream, not \"me\"");
    }
}
