//! What passes between the relay and a receiver inside WebSocket messages: subprotocols, events, commands,
//! close codes, and where to begin.

mod close_code;
mod since;

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};

pub use close_code::CloseCode;
pub use since::{Since, SinceError};

use crate::{ChannelId, ChannelPattern, Envelope, Epoch, ErrorCode, Kind, Seq};

/// The form in which a receiver gets messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subprotocol {
    /// The payload alone; no control messages.
    Raw,
    /// One JSON object each.
    Json,
    /// A binary header and the payload; control messages as JSON text.
    Binary,
}

impl Subprotocol {
    /// Every subprotocol there is.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Json, Self::Binary];

    /// Its name in `Sec-WebSocket-Protocol`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "relay.v1.raw",
            Self::Json => "relay.v1.json",
            Self::Binary => "relay.v1.binary",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }
}

/// Why messages are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// They were older than what is kept.
    Retention,
    /// The receiver was too slow for what is kept.
    Lagged,
    /// The store is another one than that of the position.
    Epoch,
    /// They were not on disk yet when the relay crashed.
    Crash,
}

/// A payload in JSON: text as it is, other bytes in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Data<'a> {
    /// Valid UTF-8.
    #[serde(borrow)]
    Text(Cow<'a, str>),
    /// Any bytes.
    #[serde(borrow)]
    Base64(Cow<'a, str>),
}

impl<'a> Data<'a> {
    /// The JSON form of a payload. Bytes declared as text that are not UTF-8 go as base64.
    pub fn new(kind: Kind, payload: &'a [u8]) -> Self {
        match (kind, std::str::from_utf8(payload)) {
            (Kind::Text, Ok(text)) => Data::Text(text.into()),
            _ => Data::Base64(BASE64.encode(payload).into()),
        }
    }

    /// The same, with memory of its own.
    pub fn into_owned(self) -> Data<'static> {
        match self {
            Data::Text(text) => Data::Text(text.into_owned().into()),
            Data::Base64(text) => Data::Base64(text.into_owned().into()),
        }
    }

    /// The payload again; an error if the base64 is none.
    pub fn decode(&self) -> Result<(Kind, Bytes), base64::DecodeError> {
        match self {
            Data::Text(text) => Ok((Kind::Text, Bytes::copy_from_slice(text.as_bytes()))),
            Data::Base64(text) => Ok((Kind::Binary, BASE64.decode(text.as_bytes())?.into())),
        }
    }
}

/// What the relay says to a receiver: messages in `relay.v1.json`, control in that and `relay.v1.binary`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event<'a> {
    /// First of each subscription: where it begins and what there is.
    Hello {
        /// What was subscribed.
        channel: ChannelPattern,
        /// The incarnation of the store.
        epoch: Epoch,
        /// The oldest message that is kept there; 0 if none.
        first: Seq,
        /// The newest message there; 0 if none.
        head: Seq,
        /// Messages after this seq follow.
        from: Seq,
        /// Whether every message after `since` follows.
        recovered: bool,
        /// Why not.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        reason: Option<GapReason>,
    },
    /// What follows is new: the receiver has caught up.
    Live {
        /// Up to here.
        seq: Seq,
    },
    /// Exactly these messages are missing.
    Gap {
        /// In which channel.
        channel: ChannelId,
        /// Those after this seq,
        after: Seq,
        /// and before this one,
        before: Seq,
        /// so many, where that is known.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        count: Option<u64>,
        /// Why.
        reason: GapReason,
    },
    /// A command was refused.
    Error {
        /// Why.
        code: ErrorCode,
        /// For people.
        #[serde(borrow)]
        message: Cow<'a, str>,
        /// Of which command.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        id: Option<u64>,
    },
    /// A publish was stored.
    Ack {
        /// Which.
        id: u64,
        /// Where.
        seq: Seq,
    },
    /// The answer to a ping.
    Pong,
    /// A message.
    Message {
        /// Where it was published.
        channel: ChannelId,
        /// Its place in the store.
        seq: Seq,
        /// The seq of the message before it in its channel; 0: none.
        prev: Seq,
        /// Microseconds since 1970, UTC.
        time: u64,
        /// The payload.
        #[serde(flatten, borrow)]
        data: Data<'a>,
    },
}

/// What a receiver says to the relay, as JSON text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Command<'a> {
    /// Store a message; an ack or an error with the id answers.
    Publish {
        /// Chosen by the receiver.
        id: u64,
        /// Where; the channel of the URL if not said.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        channel: Option<ChannelId>,
        /// The payload.
        #[serde(flatten, borrow)]
        data: Data<'a>,
    },
    /// Another channel or pattern; a hello for it answers.
    Subscribe {
        /// Which.
        channel: ChannelPattern,
        /// From where.
        #[serde(default)]
        since: Since,
        /// With the last so many.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        last: Option<u64>,
    },
    /// No more of it.
    Unsubscribe {
        /// Of which.
        channel: ChannelPattern,
    },
    /// To be answered with a pong.
    Ping,
}

impl Event<'_> {
    /// The JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an event has only string keys and no failing values")
    }
}

impl Command<'_> {
    /// The JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a command has only string keys and no failing values")
    }
}

/// Bytes that are no message of `relay.v1.binary`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a relay.v1.binary message")]
pub struct BinaryError;

/// The version byte that begins every message of `relay.v1.binary`.
const BINARY_VERSION: u8 = 1;

/// The bytes that stand before the payload in `relay.v1.binary`.
pub fn binary_header_len(channel: &ChannelId) -> usize {
    2 + channel.as_str().len() + 8 + 8 + 8 + 1
}

/// Writes what stands before the payload in `relay.v1.binary`:
/// `u8 1, u8 length + channel, u64 seq, u64 prev, u64 time, u8 kind`.
pub fn put_binary_header(
    out: &mut impl BufMut,
    channel: &ChannelId,
    seq: Seq,
    prev: Seq,
    time: u64,
    kind: Kind,
) {
    let name = channel.as_str().as_bytes();
    out.put_u8(BINARY_VERSION);
    out.put_u8(name.len() as u8);
    out.put_slice(name);
    out.put_u64(seq.0);
    out.put_u64(prev.0);
    out.put_u64(time);
    out.put_u8(u8::from(kind == Kind::Text));
}

/// Reads a message of `relay.v1.binary`; the payload is a slice of what came.
pub fn decode_binary(message: &Bytes) -> Result<Envelope, BinaryError> {
    let (&[version, name_len], rest) = message.split_first_chunk::<2>().ok_or(BinaryError)?;
    let (name, rest) = rest.split_at_checked(usize::from(name_len)).ok_or(BinaryError)?;
    let (numbers, payload) = rest.split_first_chunk::<25>().ok_or(BinaryError)?;
    let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| numbers[at + i]));
    let kind = match numbers[24] {
        0 => Kind::Binary,
        1 => Kind::Text,
        _ => return Err(BinaryError),
    };
    if version != BINARY_VERSION {
        return Err(BinaryError);
    }
    let channel = std::str::from_utf8(name).ok().and_then(|n| n.parse().ok()).ok_or(BinaryError)?;
    Ok(Envelope {
        channel,
        seq: Seq(number(0)),
        prev: Seq(number(8)),
        time: number(16),
        kind,
        payload: message.slice_ref(payload),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> impl Strategy<Value = ChannelId> {
        "[a-zA-Z0-9_~:-]{1,20}(/[a-z.]{3,9}){0,3}".prop_filter_map("dots", |n| n.parse().ok())
    }

    proptest! {
        #[test]
        fn binary_messages_decode_to_what_was_encoded(channel in names(), seq: u64, prev: u64, time: u64, text in "\\PC{0,50}") {
            let mut bytes = Vec::new();
            put_binary_header(&mut bytes, &channel, Seq(seq), Seq(prev), time, Kind::Text);
            prop_assert_eq!(bytes.len(), binary_header_len(&channel));
            bytes.extend_from_slice(text.as_bytes());
            let payload = Bytes::from(text);
            prop_assert_eq!(decode_binary(&bytes.into()), Ok(Envelope { channel, seq: Seq(seq), prev: Seq(prev), time, kind: Kind::Text, payload }));
        }

        #[test]
        fn json_messages_decode_to_what_was_encoded(channel in names(), payload: Vec<u8>, text: bool) {
            let kind = if text { Kind::of(&payload) } else { Kind::Binary };
            let event = Event::Message { channel, seq: Seq(3), prev: Seq(1), time: 7, data: Data::new(kind, &payload) };
            let json = event.to_json();
            let back: Event<'_> = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&back, &event);
            let Event::Message { data, .. } = back else { unreachable!() };
            prop_assert_eq!(data.decode().unwrap(), (kind, Bytes::from(payload)));
        }

        #[test]
        fn decoding_arbitrary_bytes_never_panics(bytes: Vec<u8>, text in "\\PC{0,40}") {
            let _ = decode_binary(&bytes.into());
            let _ = serde_json::from_str::<Event<'_>>(&text);
            let _ = serde_json::from_str::<Command<'_>>(&text);
            let _ = text.parse::<Since>();
        }
    }

    #[test]
    fn a_message_in_json_is_spelt_as_the_protocol_has_it() {
        let event = Event::Message {
            channel: "plant/serial".parse().unwrap(),
            seq: Seq(7),
            prev: Seq(5),
            time: 1_000_000,
            data: Data::new(Kind::Text, b"1184.000"),
        };
        assert_eq!(
            event.to_json(),
            r#"{"type":"message","channel":"plant/serial","seq":7,"prev":5,"time":1000000,"text":"1184.000"}"#
        );
    }

    #[test]
    fn commands_are_spelt_as_the_protocol_has_them() {
        let command = |json| serde_json::from_str::<Command<'_>>(json).unwrap();
        assert_eq!(
            command(r#"{"type":"publish","id":1,"text":"hi"}"#),
            Command::Publish { id: 1, channel: None, data: Data::Text("hi".into()) }
        );
        assert_eq!(
            command(r#"{"type":"subscribe","channel":"a/*","since":5}"#),
            Command::Subscribe { channel: "a/*".parse().unwrap(), since: Since::Seq(Seq(5)), last: None }
        );
        assert_eq!(command(r#"{"type":"ping"}"#), Command::Ping);
    }
}
