//! A line of `--json` → a message. A line is an object as `recv-client --json` writes it, which is an event of
//! `relay.v1.json`: `text` or `base64`, and, if they are there, `channel` and `time`. What else it has is passed
//! over, so that messages of one channel can be sent to another as they are.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use shared::{ChannelId, Kind, receiver::Data};

use crate::failure::printable;

/// Bytes that a line may have for each byte that its message may have: `\u0000` is six for one.
pub const GROWTH: usize = 6;

/// Bytes that a line may have beside its message.
pub const OVERHEAD: usize = 4096;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where to, if the line says it.
    pub channel: Option<ChannelId>,
    /// Its time at the source: microseconds since 1970, UTC.
    pub time: Option<u64>,
    /// Text or binary.
    pub kind: Kind,
    /// The bytes.
    pub payload: Bytes,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(rename = "type", borrow, default)]
    event: Option<Cow<'a, str>>,
    #[serde(default)]
    channel: Option<ChannelId>,
    #[serde(default)]
    time: Option<u64>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    base64: Option<Cow<'a, str>>,
}

/// Reads a line; none if it is an event that is no message (`hello`, `live`, `gap` and the like), which a
/// stream of a receiver has between its messages. An error says what is wrong, for people.
pub fn parse(line: &[u8]) -> Result<Option<Line>, String> {
    let object: Object<'_> = serde_json::from_slice(line).map_err(|error| {
        let text = error.to_string();
        text.strip_suffix(" at line 1 column 0").unwrap_or(&text).replace(" at line 1 column ", " at column ")
    })?;
    match object.event.as_deref() {
        None | Some("message" | "publish") => {}
        Some("hello" | "live" | "gap" | "error" | "ack" | "pong") => return Ok(None),
        Some(other) => return Err(format!("unknown type `{}`", printable(other))),
    }
    let data = match (object.text, object.base64) {
        (Some(text), None) => Data::Text(text),
        (None, Some(base64)) => Data::Base64(base64),
        (Some(_), Some(_)) => return Err("it has both `text` and `base64`".into()),
        (None, None) => return Err("it has neither `text` nor `base64`".into()),
    };
    let (kind, payload) = data.decode().map_err(|error| format!("`base64`: {error}").to_lowercase())?;
    Ok(Some(Line { channel: object.channel, time: object.time, kind, payload }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shared::{Seq, receiver::Event};

    #[test]
    fn a_line_says_what_is_wrong_with_it() {
        let error = |line: &str| parse(line.as_bytes()).unwrap_err();
        assert_eq!(error("{}"), "it has neither `text` nor `base64`");
        assert_eq!(error(r#"{"text":"a","base64":""}"#), "it has both `text` and `base64`");
        assert_eq!(error(r#"{"type":"new","text":"a"}"#), "unknown type `new`");
        assert!(error(r#"{"base64":"?"}"#).starts_with("`base64`: invalid"));
        assert!(error("hello").starts_with("expected value"));
        assert!(error(r#"{"text":"a","channel":"a b"}"#).contains("a space is not allowed at position 2"));
    }

    #[test]
    fn events_that_are_no_messages_are_passed_over() {
        assert_eq!(parse(br#"{"type":"live","seq":7}"#), Ok(None));
    }

    proptest! {
        #[test]
        fn what_a_receiver_writes_is_read_back_as_it_was(payload: Vec<u8>, text: bool, time in 0..1u64 << 53) {
            let kind = if text { Kind::of(&payload) } else { Kind::Binary };
            let channel: ChannelId = "a/b".parse().unwrap();
            let data = Data::new(kind, &payload);
            let event = Event::Message { channel: channel.clone(), seq: Seq(9), prev: Seq(8), time, data };
            let line = parse(event.to_json().as_bytes()).unwrap().unwrap();
            prop_assert_eq!(line, Line { channel: Some(channel), time: Some(time), kind, payload: payload.into() });
        }

        #[test]
        fn reading_a_line_never_panics(line: Vec<u8>) {
            let _ = parse(&line);
        }
    }
}
