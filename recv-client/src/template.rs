//! The language of `--format`: text, escapes and fields in braces.

use std::{io::Write as _, str::FromStr};

use jiff::tz::TimeZone;
use shared::{Envelope, Epoch, Kind, Position};

use crate::times;

/// A parsed `--format`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TemplateError {
    /// A name in braces that is no field.
    UnknownField(String),
    /// A `{` without its `}`, or a `}` alone.
    Brace(char),
    /// A backslash before something else than `n t r 0 \`.
    Escape(Option<char>),
    /// A format for a field that has none, or not one of strftime.
    Spec(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Data,
    Channel,
    Seq,
    Prev,
    Position,
    /// With its strftime format; RFC 3339 without.
    Time(Option<String>),
    Size,
    Kind,
}

impl Template {
    /// Appends a message of the store's `epoch`; `push_data` appends its payload in the form that suits the
    /// destination.
    pub(crate) fn render(
        &self,
        out: &mut Vec<u8>,
        epoch: Epoch,
        message: &Envelope,
        zone: &TimeZone,
        push_data: impl Fn(&mut Vec<u8>, &[u8]),
    ) {
        for part in &self.parts {
            // Writing to memory does not fail.
            let _ = match part {
                Part::Text(text) => out.write_all(text),
                Part::Data => {
                    push_data(out, &message.payload);
                    Ok(())
                }
                Part::Channel => write!(out, "{}", message.channel),
                Part::Seq => write!(out, "{}", message.seq),
                Part::Prev => write!(out, "{}", message.prev),
                Part::Position => write!(out, "{}", Position { epoch, seq: message.seq }),
                Part::Time(Some(format)) => {
                    write!(out, "{}", times::zoned(message.time, zone).strftime(format))
                }
                Part::Time(None) => {
                    write!(out, "{}", times::zoned(message.time, zone).strftime("%Y-%m-%dT%H:%M:%S%.6f%:z"))
                }
                Part::Size => write!(out, "{}", message.payload.len()),
                Part::Kind => out.write_all(match message.kind {
                    Kind::Text => b"text",
                    Kind::Binary => b"binary",
                }),
            };
        }
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            rest = match c {
                '{' | '}' if after.starts_with(c) => {
                    literal.push(c as u8);
                    &after[1..]
                }
                '{' => {
                    let (field, after) = after.split_once('}').ok_or(TemplateError::Brace('{'))?;
                    if !literal.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut literal)));
                    }
                    parts.push(parse_field(field)?);
                    after
                }
                '}' => return Err(TemplateError::Brace('}')),
                '\\' => {
                    let escaped = after.chars().next();
                    literal.push(parse_escape(escaped).ok_or(TemplateError::Escape(escaped))?);
                    &after[1..]
                }
                _ => {
                    literal.extend_from_slice(&rest.as_bytes()[..c.len_utf8()]);
                    after
                }
            };
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }
}

fn parse_field(field: &str) -> Result<Part, TemplateError> {
    let (name, spec) = field.split_once(':').map_or((field, None), |(name, spec)| (name, Some(spec)));
    let part = match name {
        "time" => {
            if let Some(spec) = spec {
                if spec.is_empty() {
                    return Err(TemplateError::Spec(
                        "{time:} lacks its format, for example {time:%T}".into(),
                    ));
                }
                times::check_format(spec).map_err(|e| TemplateError::Spec(format!("{{{field}}}: {e}")))?;
            }
            return Ok(Part::Time(spec.map(Into::into)));
        }
        "data" => Part::Data,
        "channel" => Part::Channel,
        "seq" => Part::Seq,
        "prev" => Part::Prev,
        "position" => Part::Position,
        "size" => Part::Size,
        "kind" => Part::Kind,
        _ => return Err(TemplateError::UnknownField(name.into())),
    };
    match spec {
        None => Ok(part),
        Some(_) => {
            Err(TemplateError::Spec(format!("{{{name}}} takes no format; only {{time:\u{2026}}} does")))
        }
    }
}

fn parse_escape(c: Option<char>) -> Option<u8> {
    match c? {
        'n' => Some(b'\n'),
        't' => Some(b'\t'),
        'r' => Some(b'\r'),
        '0' => Some(0),
        '\\' => Some(b'\\'),
        _ => None,
    }
}

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownField(name) => write!(
                f,
                "there is no field {{{name}}}; there are {{data}} {{channel}} {{seq}} {{prev}} {{position}} {{time}} \
                 {{size}} {{kind}}"
            ),
            Self::Brace('{') => f.write_str("a { lacks its }; write {{ for a brace"),
            Self::Brace(_) => f.write_str("a } stands alone; write }} for a brace"),
            Self::Escape(Some(c)) => write!(f, "\\{c} is no escape; there are \\n \\t \\r \\0 \\\\"),
            Self::Escape(None) => f.write_str("a \\ stands at the end; write \\\\ for a backslash"),
            Self::Spec(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for TemplateError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shared::Seq;

    fn render(template: &str) -> String {
        let message = Envelope {
            channel: "a/b".parse().unwrap(),
            seq: Seq(42),
            prev: Seq(40),
            time: 1_000_000_123_456,
            kind: Kind::Text,
            payload: "hello".into(),
        };
        let mut out = Vec::new();
        let template: Template = template.parse().unwrap();
        template
            .render(&mut out, Epoch(255), &message, &TimeZone::UTC, |out, data| out.extend_from_slice(data));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_field_is_what_it_is_called() {
        assert_eq!(render("{time:%T} {channel} {seq} {data}"), "13:46:40 a/b 42 hello");
        assert_eq!(render("{prev}|{size}|{kind}|{position}"), "40|5|text|00000000000000ff-42");
        assert_eq!(render("{time}"), "1970-01-12T13:46:40.123456+00:00");
        assert_eq!(render("{time:%s%.6f}"), "1000000.123456");
    }

    #[test]
    fn escapes_and_doubled_braces_stand_for_one_character() {
        assert_eq!(render(r"{{{seq}}}\t\n\r\0\\ü"), "{42}\t\n\r\0\\ü");
    }

    #[test]
    fn a_mistake_is_told_with_what_would_be_right() {
        let error = |text: &str| text.parse::<Template>().unwrap_err().to_string();
        assert!(error("{sequence}").starts_with("there is no field {sequence}; there are {data}"));
        assert_eq!(error("{seq"), "a { lacks its }; write {{ for a brace");
        assert_eq!(error("seq}"), "a } stands alone; write }} for a brace");
        assert_eq!(error(r"\q"), r"\q is no escape; there are \n \t \r \0 \\");
        assert_eq!(error("\\"), "a \\ stands at the end; write \\\\ for a backslash");
        assert_eq!(error("{seq:%T}"), "{seq} takes no format; only {time:\u{2026}} does");
        assert!(error("{time:%!}").starts_with("{time:%!}: "));
        assert!(error("{time:}").contains("lacks its format"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[\\PC{}\\\\%:]{0,40}") {
            let _ = text.parse::<Template>();
        }

        #[test]
        fn text_with_its_specials_doubled_is_shown_as_it_was(text in "[\\PC{}\\\\]{0,40}") {
            let doubled = text.replace('\\', r"\\").replace('{', "{{").replace('}', "}}");
            prop_assert_eq!(render(&doubled), text);
        }
    }
}
