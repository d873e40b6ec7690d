//! What a receiver asks for in its URL and its handshake, and what its commands mean. Pure.

use std::{borrow::Cow, str::FromStr};

use percent_encoding::percent_decode_str;
use shared::{
    ChannelId, ChannelPattern, ErrorCode,
    receiver::{CloseCode, Command, Since, Subprotocol},
};

use crate::store::selection::Selection;

/// What a receiver wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Which channels.
    pub selection: Selection,
    /// The channel that it publishes to unless it says another: that of the URL, if it is a single one.
    pub channel: Option<ChannelId>,
    /// From where.
    pub since: Since,
    /// With the last so many at most.
    pub last: Option<u64>,
    /// What shall be done when it is too slow, if it said.
    pub lag: Option<Lag>,
    /// Whether what a raw receiver sends is published.
    pub publish: bool,
}

/// What a receiver wants when it is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lag {
    /// To go on with what there is.
    Skip,
    /// To be closed.
    Close,
}

/// A request that can't be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// For a browser, which sees close codes only.
    pub code: CloseCode,
    /// For people.
    pub text: String,
}

/// How the offered subprotocols are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Negotiated {
    /// This form; the name is echoed if one was offered.
    Form(Subprotocol, Option<&'static str>),
    /// None of them is known; a browser needs one echoed to be told.
    Unknown {
        /// The first that is no credential.
        echo: String,
    },
}

/// What stands before a token among the offered subprotocols; never echoed.
const BEARER: &str = "relay.bearer.";

impl Request {
    /// Reads what the path names and the query says.
    ///
    /// # Errors
    /// If the name is none, a key is unknown, or a value is not what its key needs.
    pub fn parse(name: &str, query: &str, subscriptions: usize) -> Result<Self, Refusal> {
        let first = pattern(&decode(name)?)?;
        let mut request = Self {
            channel: first.as_channel(),
            selection: first.into(),
            since: Since::Latest,
            last: None,
            lag: None,
            publish: false,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value)?;
            match key {
                "channel" if request.selection.patterns().len() > subscriptions => {
                    return Err(policy(format!("at most {subscriptions} channels or patterns at once")));
                }
                "channel" => request.selection = request.selection.with(pattern(&value)?),
                "since" => request.since = parsed(key, &value)?,
                "last" => request.last = Some(parsed(key, &value)?),
                "lag" => {
                    request.lag = Some(match &*value {
                        "skip" => Lag::Skip,
                        "close" => Lag::Close,
                        _ => return Err(policy(format!("lag={value}: it is `skip` or `close`"))),
                    });
                }
                "publish" => request.publish = !matches!(&*value, "0" | "false" | "no"),
                _ => {
                    return Err(policy(format!(
                        "unknown key `{key}` in the query; known are channel, since, last, lag, publish"
                    )));
                }
            }
        }
        if request.selection.patterns().len() > subscriptions {
            return Err(policy(format!("at most {subscriptions} channels or patterns at once")));
        }
        if request.publish && request.channel.is_none() {
            return Err(policy("publish needs a single channel in the path, not a pattern".into()));
        }
        Ok(request)
    }
}

/// The first known one of the subprotocols that were offered.
pub fn negotiate<'a>(offered: impl Iterator<Item = &'a str>) -> Negotiated {
    let mut unknown = None;
    for name in offered.map(str::trim).filter(|name| !name.is_empty() && !name.starts_with(BEARER)) {
        if let Some(form) = Subprotocol::from_name(name) {
            return Negotiated::Form(form, Some(form.name()));
        }
        unknown.get_or_insert(name);
    }
    match unknown {
        Some(first) => Negotiated::Unknown { echo: first.to_owned() },
        None => Negotiated::Form(Subprotocol::Raw, None),
    }
}

/// Reads a command; else the code and the text of the error event that answers it, with the command's id if it
/// has one.
pub fn command(text: &str) -> Result<Command<'_>, (ErrorCode, String, Option<u64>)> {
    #[derive(serde::Deserialize)]
    struct Id {
        id: Option<u64>,
    }
    serde_json::from_str(text).map_err(|e| {
        let id = serde_json::from_str::<Id>(text).ok().and_then(|id| id.id);
        let code = if e.to_string().starts_with("invalid name") {
            ErrorCode::InvalidChannel
        } else {
            ErrorCode::Protocol
        };
        (code, format!("not a command: {e}"), id)
    })
}

fn decode(text: &str) -> Result<Cow<'_, str>, Refusal> {
    percent_decode_str(text).decode_utf8().map_err(|_| policy(format!("`{text}` is not UTF-8")))
}

fn pattern(text: &str) -> Result<ChannelPattern, Refusal> {
    text.parse().map_err(|e| Refusal {
        code: CloseCode::NoSuchChannel,
        text: format!(
            "`{text}` is no channel: {e}; names use letters, digits and _ - . ~ : in segments separated by /"
        ),
    })
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(key: &str, value: &str) -> Result<T, Refusal> {
    value.parse().map_err(|e| policy(format!("{key}={value}: {e}")))
}

fn policy(text: String) -> Refusal {
    Refusal { code: CloseCode::Policy, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shared::Seq;

    #[test]
    fn a_url_says_what_a_receiver_wants() {
        let request = Request::parse("a/*", "since=12&last=5&lag=skip&channel=b&channel=c", 64).unwrap();
        assert_eq!(request.selection, ["a/*", "b", "c"].iter().map(|p| p.parse().unwrap()).collect());
        assert_eq!(request.channel, None);
        assert_eq!((request.since, request.last), (Since::Seq(Seq(12)), Some(5)));
        assert_eq!(request.lag, Some(Lag::Skip));
        assert!(Request::parse("foo", "publish", 64).unwrap().publish);
        assert!(!Request::parse("foo", "publish=0", 64).unwrap().publish);
        assert_eq!(
            Request::parse("foo", "since=1970-01-01T00%3A00%3A01Z", 64).unwrap().since,
            Since::Time(1_000_000)
        );
    }

    #[test]
    fn what_a_url_says_wrong_is_named() {
        let error = |name, query| Request::parse(name, query, 2).unwrap_err().text;
        assert!(error("my%20channel", "").contains("a space is not allowed at position 3"));
        assert!(error("foo", "since=yesterday").starts_with("since=yesterday: it is none of `earliest`"));
        assert!(error("foo", "last=x").starts_with("last=x: "));
        assert!(error("foo", "lag=block").starts_with("lag=block: it is `skip` or `close`"));
        assert!(error("foo", "sinse=1").starts_with("unknown key `sinse`"));
        assert!(error("a/*", "publish").starts_with("publish needs a single channel"));
        assert!(error("a", "channel=b&channel=c").starts_with("at most 2"));
    }

    #[test]
    fn the_first_known_subprotocol_is_taken_and_a_credential_is_never_echoed() {
        let negotiate = |offered: &'static str| negotiate(offered.split(',').filter(|s| !s.is_empty()));
        assert_eq!(negotiate(""), Negotiated::Form(Subprotocol::Raw, None));
        assert_eq!(negotiate("relay.bearer.x"), Negotiated::Form(Subprotocol::Raw, None));
        let json = Negotiated::Form(Subprotocol::Json, Some("relay.v1.json"));
        assert_eq!(negotiate("mqtt, relay.v1.json, relay.v1.raw"), json);
        assert_eq!(negotiate("relay.bearer.x, mqtt, stomp"), Negotiated::Unknown { echo: "mqtt".into() });
    }

    #[test]
    fn a_bad_command_is_answered_with_its_id() {
        let (code, _, id) = command(r#"{"type":"publish","id":7}"#).unwrap_err();
        assert_eq!((code, id), (ErrorCode::Protocol, Some(7)));
        let (code, _, id) = command(r#"{"type":"subscribe","channel":"a b"}"#).unwrap_err();
        assert_eq!((code, id), (ErrorCode::InvalidChannel, None));
        assert_eq!(command("hello").unwrap_err().0, ErrorCode::Protocol);
    }

    proptest! {
        #[test]
        fn arbitrary_urls_and_commands_never_panic(name in "\\PC{0,40}", query in "\\PC{0,60}", text in "\\PC{0,60}") {
            let _ = Request::parse(&name, &query, 64);
            let _ = command(&text);
            let _ = negotiate(text.split(','));
        }
    }
}
