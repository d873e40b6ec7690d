//! One message as the bytes that are written for it.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
};

use clap::builder::styling::{AnsiColor, Style};
use jiff::tz::TimeZone;
use shared::{
    Envelope, Epoch,
    receiver::{Data, Event},
};

use crate::{
    escape::{push_visible, push_visible_json},
    hexdump::push_hexdump,
    template::Template,
    times::Stamp,
};

/// Bytes of a payload that a hexdump shows where it was not asked for: a screenful must not be lost to one
/// message.
const DUMP_CAP: usize = 256;

/// The form of the output.
#[derive(Debug)]
pub(crate) enum Shape {
    /// The payload; on a terminal made visible.
    Plain,
    /// As `--format` says.
    Template(Template),
    /// The message event of `relay.v1.json`.
    Json,
    /// The payload and nothing else.
    Raw,
    /// A hexdump.
    Hex,
}

/// Writes messages in one form for one destination.
#[derive(Debug)]
pub(crate) struct Renderer {
    /// The form.
    pub(crate) shape: Shape,
    /// What ends each message, but for [`Shape::Raw`].
    pub(crate) end: u8,
    /// Whether people read it: nothing in a payload may drive the terminal.
    pub(crate) terminal: bool,
    /// Whether escapes for colours are welcome.
    pub(crate) color: bool,
    /// Whether the channel stands before each message.
    pub(crate) labels: bool,
    /// The time before each message.
    pub(crate) stamp: Option<Stamp>,
    /// The zone of times in templates.
    pub(crate) zone: TimeZone,
}

impl Renderer {
    /// Appends a message of the store's `epoch`.
    pub(crate) fn push(&mut self, out: &mut Vec<u8>, epoch: Epoch, message: &Envelope) {
        match &self.shape {
            Shape::Raw => {
                out.extend_from_slice(&message.payload);
                return;
            }
            Shape::Plain => self.push_plain(out, message),
            Shape::Hex => self.push_dump(out, message, usize::MAX),
            Shape::Json => push_json(out, message, self.terminal),
            Shape::Template(template) => {
                let terminal = self.terminal;
                template.render(out, epoch, message, &self.zone, |out, data| match terminal {
                    true => push_visible(out, data),
                    false => out.extend_from_slice(data),
                });
            }
        }
        out.push(self.end);
    }

    fn push_plain(&mut self, out: &mut Vec<u8>, message: &Envelope) {
        if !self.terminal {
            self.push_lead(out, message);
            out.extend_from_slice(&message.payload);
        } else if std::str::from_utf8(&message.payload).is_ok() {
            self.push_lead(out, message);
            push_visible(out, &message.payload);
        } else {
            self.push_dump(out, message, DUMP_CAP);
        }
    }

    fn push_dump(&mut self, out: &mut Vec<u8>, message: &Envelope, cap: usize) {
        self.push_lead(out, message);
        let size = message.payload.len();
        let _ = write!(out, "{size} byte{}", if size == 1 { "" } else { "s" });
        if size > 0 {
            out.push(b'\n');
            push_hexdump(out, &message.payload, cap);
        }
    }

    /// The time and the channel, where they are wanted.
    fn push_lead(&mut self, out: &mut Vec<u8>, message: &Envelope) {
        if let Some(stamp) = &mut self.stamp {
            let dim = if self.color { Style::new().dimmed() } else { Style::new() };
            let _ = write!(out, "{dim}");
            stamp.push(out, message.time);
            let _ = write!(out, "{dim:#} ");
        }
        if self.labels {
            let style = if self.color { style_of(message.channel.as_str()) } else { Style::new() };
            let _ = write!(out, "{style}{}{style:#} \u{2502} ", message.channel);
        }
    }
}

fn push_json(out: &mut Vec<u8>, message: &Envelope, terminal: bool) {
    let event = Event::Message {
        channel: message.channel.clone(),
        seq: message.seq,
        prev: message.prev,
        time: message.time,
        data: Data::new(message.kind, &message.payload),
    };
    if terminal {
        push_visible_json(out, &event.to_json());
    } else {
        // Writing to memory does not fail, nor does an event.
        let _ = serde_json::to_writer(out, &event);
    }
}

/// A channel keeps its colour, from run to run as well.
fn style_of(channel: &str) -> Style {
    const COLORS: [AnsiColor; 6] = [
        AnsiColor::Cyan,
        AnsiColor::Green,
        AnsiColor::Yellow,
        AnsiColor::Blue,
        AnsiColor::Magenta,
        AnsiColor::BrightRed,
    ];
    let mut hasher = DefaultHasher::new();
    channel.hash(&mut hasher);
    COLORS[(hasher.finish() % COLORS.len() as u64) as usize].on_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Timestamps;
    use proptest::prelude::*;
    use shared::{Kind, Seq};

    fn message(payload: &[u8]) -> Envelope {
        Envelope {
            channel: "a/b".parse().unwrap(),
            seq: Seq(7),
            prev: Seq(5),
            time: 1_000_000,
            kind: Kind::of(payload),
            payload: payload.to_vec().into(),
        }
    }

    fn renderer(shape: Shape, terminal: bool) -> Renderer {
        Renderer {
            shape,
            end: b'\n',
            terminal,
            color: false,
            labels: false,
            stamp: None,
            zone: TimeZone::UTC,
        }
    }

    fn render(mut renderer: Renderer, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        renderer.push(&mut out, Epoch(1), &message(payload));
        out
    }

    #[test]
    fn a_terminal_gets_what_is_visible_and_a_pipe_what_was_sent() {
        assert_eq!(render(renderer(Shape::Plain, true), b"\x1b[31m"), b"\\x1b[31m\n");
        assert_eq!(render(renderer(Shape::Plain, false), b"\x1b[31m"), b"\x1b[31m\n");
        assert_eq!(render(renderer(Shape::Raw, true), b"\x1b"), b"\x1b");
    }

    #[test]
    fn bytes_that_are_no_text_are_dumped_on_a_terminal_and_cut() {
        let out = String::from_utf8(render(renderer(Shape::Plain, true), &[0xff; 300])).unwrap();
        assert!(
            out.starts_with("300 bytes\n00000000  ff ff") && out.ends_with("\u{2026} 44 more bytes\n"),
            "{out}"
        );
        let whole = String::from_utf8(render(renderer(Shape::Hex, true), &[0xff; 300])).unwrap();
        assert_eq!(whole.lines().count(), 1 + 19);
    }

    #[test]
    fn time_and_channel_stand_before_a_message_and_only_a_terminal_has_colours() {
        let with_lead = |color| Renderer {
            color,
            labels: true,
            stamp: Some(Stamp::new(Timestamps::Utc, TimeZone::UTC)),
            ..renderer(Shape::Plain, true)
        };
        let plain = String::from_utf8(render(with_lead(false), b"x")).unwrap();
        assert_eq!(plain, "1970-01-01T00:00:01.000000Z a/b \u{2502} x\n");
        let colored = String::from_utf8(render(with_lead(true), b"x")).unwrap();
        assert!(colored.contains("\x1b[") && colored.ends_with("\x1b[0m \u{2502} x\n"));
    }

    #[test]
    fn json_is_the_message_event_of_the_protocol() {
        let json = r#"{"type":"message","channel":"a/b","seq":7,"prev":5,"time":1000000,"text":"hi"}"#;
        assert_eq!(render(renderer(Shape::Json, false), b"hi"), format!("{json}\n").as_bytes());
        assert_eq!(render(renderer(Shape::Json, true), b"hi"), format!("{json}\n").as_bytes());
    }

    proptest! {
        #[test]
        fn a_pipe_gets_exactly_the_bytes_and_one_separator(payload: Vec<u8>) {
            let mut expected = payload.clone();
            prop_assert_eq!(&render(renderer(Shape::Raw, false), &payload), &expected);
            expected.push(b'\n');
            prop_assert_eq!(&render(renderer(Shape::Plain, false), &payload), &expected);
            let null = Renderer { end: 0, ..renderer(Shape::Plain, false) };
            *expected.last_mut().unwrap() = 0;
            prop_assert_eq!(render(null, &payload), expected);
        }
    }
}
