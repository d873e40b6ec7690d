//! `relay rules test`: what the rules of a route make of messages, without a connection.

use std::{
    fmt::Write as _,
    io::{self, BufRead, Read as _, Write},
    time::Instant,
};

use shared::Kind;

use super::{
    course::Source,
    frame::Violation,
    messages::{Message, Verdict},
    rules::{Meters, Rules},
    settings::{GatewaySettings, RouteSettings},
};

/// The route of this path, or the only one that has rules.
///
/// # Errors
/// A text that says which there are.
pub fn route<'a>(gateway: &'a GatewaySettings, path: Option<&str>) -> Result<&'a RouteSettings, String> {
    let ruled: Vec<&RouteSettings> = gateway.routes.iter().filter(|route| !route.rules.is_empty()).collect();
    let known = || ruled.iter().map(|route| route.path.to_string()).collect::<Vec<_>>().join(", ");
    match (path, ruled.as_slice()) {
        (_, []) => Err("no route has rules; add a [[route.rule]]".into()),
        (None, [only]) => Ok(only),
        (None, _) => Err(format!("several routes have rules; say --route with one of {}", known())),
        (Some(path), _) => {
            let wanted = path.trim_end_matches('/');
            let route = ruled.iter().find(|route| route.path.as_str() == wanted);
            route.copied().ok_or_else(|| {
                format!("there is no route `{}` with rules; there are {}", path.escape_debug(), known())
            })
        }
    }
}

/// Judges each line of `input` as a message of one connection, and writes a line for it: what became of it, which rules
/// were about it, and how it goes on, with tabs between. Lines that are not UTF-8 are binary messages.
///
/// # Errors
/// If `input` can't be read, or `output` written.
pub fn run(
    route: &RouteSettings,
    from: Source,
    mut input: impl BufRead,
    mut output: impl Write,
) -> io::Result<()> {
    let rules = Rules::new(&route.rules, route.max_message, None);
    let (mut meters, mut line) = (Meters::default(), Vec::new());
    // One more byte tells that a line is too long, and one is its end.
    let most = route.max_message as u64 + 2;
    loop {
        line.clear();
        if input.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() as u64 == most {
            input.skip_until(b'\n')?;
        }
        if line.len() > route.max_message {
            writeln!(output, "closed\t-\t{} {}", Violation::TooLong.code(), Violation::TooLong)?;
            continue;
        }
        let (outcome, asked, shown) = judge(&rules, from, &line, &mut meters);
        let asked = if asked.is_empty() { "-".into() } else { asked.join(", ") };
        writeln!(output, "{outcome}\t{asked}\t{shown}")?;
    }
}

/// What becomes of a message, the names of the rules that were about it, and what goes on or is said.
fn judge(
    rules: &Rules,
    from: Source,
    line: &[u8],
    meters: &mut Meters,
) -> (&'static str, Vec<String>, String) {
    let message = Message::new(Kind::Text, line).unwrap_or_else(|_| Message::Binary(line.into()));
    let mut asked = Vec::new();
    let verdict = rules.judge(from, message, meters, Instant::now(), |rule| asked.push(rule.name.clone()));
    let (outcome, shown) = match verdict {
        Verdict::Pass(message) if message.bytes() == line => ("passed", shown(&message)),
        Verdict::Pass(message) => ("replaced", shown(&message)),
        Verdict::Drop => ("dropped", String::new()),
        Verdict::Close(closing) => ("closed", format!("{} {}", closing.code, closing.reason)),
        Verdict::TooLong => ("closed", format!("{} it is too long now", Violation::TooLong.code())),
    };
    (outcome, asked, shown)
}

/// In one line, whatever is in it.
fn shown(message: &Message<'_>) -> String {
    match message {
        Message::Binary(bytes) => bytes.escape_ascii().to_string(),
        Message::Text(text) => text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
            if c.is_control() {
                // Writing to a text does not fail.
                let _ = write!(out, "{}", c.escape_debug());
            } else {
                out.push(c);
            }
            out
        }),
    }
}
