//! Why there is no connection, or none any more: in words, and whether to try again.

use std::time::Duration;

use shared::{
    client::{Exit, RelayAddr},
    receiver::{CloseCode, Subprotocol},
};
use tokio_tungstenite::tungstenite::{
    self,
    error::ProtocolError,
    http::{Response, StatusCode, header},
    protocol::CloseFrame,
};

use crate::failure::{Failure, one_line, reason};

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum DialError {
    /// It may be there later, but not before so long; the failure is for who does not wait.
    Later(Failure, Duration),
    /// It makes no sense to try again.
    Final(Failure),
}

/// Why there is no connection any more.
#[derive(Debug)]
pub(crate) enum Loss {
    /// To be made again, at once if the relay said so.
    Gone {
        /// For people.
        why: String,
        /// Whether the relay said that it will be back at once.
        at_once: bool,
    },
    /// It makes no sense to try again.
    Final(Failure),
}

impl DialError {
    /// Nobody answers, or not in time.
    pub(crate) fn unreachable(relay: &RelayAddr, why: &str) -> Self {
        let failure = Failure::new(Exit::Unreachable, format!("cannot reach a relay at {relay}: {why}"))
            .hint("start one with `relay serve`, or choose another with --relay HOST:PORT");
        Self::Later(failure, Duration::ZERO)
    }

    /// What came instead of a WebSocket.
    pub(crate) fn refused_by(relay: &RelayAddr, error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(response) => Self::refused_with(relay, &response),
            tungstenite::Error::Io(error) => Self::unreachable(relay, &reason(&error)),
            tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
            | tungstenite::Error::Protocol(
                ProtocolError::HandshakeIncomplete | ProtocolError::ResetWithoutClosingHandshake,
            ) => Self::unreachable(relay, "it closed the connection"),
            tungstenite::Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => {
                let what = format!("what answers at {relay} does not speak {}", Subprotocol::Binary.name());
                Self::Final(Failure::new(Exit::Failure, what).hint("is it a relay of this version?"))
            }
            error => Self::no_relay(relay, &error.to_string()),
        }
    }

    fn refused_with(relay: &RelayAddr, response: &Response<Option<Vec<u8>>>) -> Self {
        let status = response.status();
        let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        let said = match one_line(&body) {
            line if line.is_empty() || line.starts_with('<') => format!("HTTP {status}"),
            line => format!("{line} (HTTP {})", status.as_u16()),
        };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Self::Final(Failure::new(Exit::Refused, format!("the relay refused the connection: {said}")))
            }
            StatusCode::BAD_REQUEST
            | StatusCode::NOT_FOUND
            | StatusCode::MISDIRECTED_REQUEST
            | StatusCode::URI_TOO_LONG
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                let what = format!("the relay refused the subscription: {said}");
                Self::Final(Failure::new(Exit::Failure, what))
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Self::busy(relay, response, &said),
            status if status.is_server_error() => Self::busy(relay, response, &said),
            _ => Self::no_relay(relay, &said),
        }
    }

    fn busy(relay: &RelayAddr, response: &Response<Option<Vec<u8>>>, said: &str) -> Self {
        let after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let failure =
            Failure::new(Exit::Unreachable, format!("the relay at {relay} takes no receivers now: {said}"));
        Self::Later(failure, Duration::from_secs(after.unwrap_or(0).min(300)))
    }

    fn no_relay(relay: &RelayAddr, why: &str) -> Self {
        let failure =
            Failure::new(Exit::Failure, format!("what answers at {relay} is no relay: {}", one_line(why)));
        Self::Final(failure.hint("choose another with --relay HOST:PORT"))
    }
}

impl Loss {
    /// What came is not the protocol.
    pub(crate) fn protocol(what: impl std::fmt::Display) -> Self {
        Self::Final(Failure::new(Exit::Failure, format!("the relay broke the protocol: {what}")))
    }

    /// The relay closed it.
    pub(crate) fn closed(frame: Option<CloseFrame>) -> Self {
        let Some(frame) = frame else {
            return Self::Gone { why: "it closed the connection".into(), at_once: false };
        };
        let number = u16::from(frame.code);
        let said = match one_line(&frame.reason) {
            text if text.is_empty() => format!("close code {number}"),
            text => format!("{text} (close code {number})"),
        };
        if CloseCode::reconnects(number) {
            let at_once = number == CloseCode::Restart.number();
            return Self::Gone { why: said, at_once };
        }
        let (exit, what) = match CloseCode::from_number(number) {
            Some(CloseCode::BadToken) => (Exit::Refused, "the relay refused the token"),
            Some(CloseCode::Forbidden) => (Exit::Refused, "the relay refused the subscription"),
            Some(CloseCode::NoSuchChannel) => (Exit::Failure, "the relay has no such channel"),
            Some(CloseCode::BadSubprotocol) => (Exit::Failure, "the relay does not know this subprotocol"),
            Some(CloseCode::TooManyConnections) => (Exit::Failure, "the relay has too many connections"),
            _ => (Exit::Failure, "the relay closed the connection for good"),
        };
        Self::Final(Failure::new(exit, format!("{what}: {said}")))
    }
}

impl From<tungstenite::Error> for Loss {
    fn from(error: tungstenite::Error) -> Self {
        let why = match error {
            tungstenite::Error::Io(error) => reason(&error),
            tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
            | tungstenite::Error::Protocol(
                ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
            ) => "the connection was cut".into(),
            error => return Self::protocol(error),
        };
        Self::Gone { why, at_once: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WsCode;

    fn closed(number: u16, reason: &str) -> Loss {
        Loss::closed(Some(CloseFrame { code: WsCode::from(number), reason: reason.to_owned().into() }))
    }

    #[test]
    fn closes_of_45xx_are_final_and_others_are_not() {
        for (number, exit) in
            [(4500, Exit::Refused), (4501, Exit::Refused), (4502, Exit::Failure), (4599, Exit::Failure)]
        {
            match closed(number, "so it is") {
                Loss::Final(failure) => {
                    assert_eq!(failure.exit(), exit);
                    assert!(failure.to_string().ends_with(&format!(": so it is (close code {number})")));
                }
                gone @ Loss::Gone { .. } => panic!("{number}: {gone:?}"),
            }
        }
        for (number, restart) in [(1000, false), (1008, false), (1012, true), (4001, false)] {
            assert!(
                matches!(closed(number, ""), Loss::Gone { at_once, .. } if at_once == restart),
                "{number}"
            );
        }
    }

    #[test]
    fn an_http_answer_is_told_with_what_it_says() {
        let relay = RelayAddr::default();
        let answer = |status: u16, body: &str| {
            let response = Response::builder().status(status).header("Retry-After", "7");
            DialError::refused_with(&relay, &response.body(Some(body.as_bytes().to_vec())).unwrap())
        };
        let text = |error| match error {
            DialError::Final(failure) => (failure.exit(), failure.to_string(), 0),
            DialError::Later(failure, after) => (failure.exit(), failure.to_string(), after.as_secs()),
        };
        assert_eq!(
            text(answer(403, "this Host is not allowed\nmore")),
            (
                Exit::Refused,
                "the relay refused the connection: this Host is not allowed (HTTP 403)".into(),
                0
            )
        );
        assert_eq!(
            text(answer(404, "")),
            (Exit::Failure, "the relay refused the subscription: HTTP 404 Not Found".into(), 0)
        );
        let (exit, busy, after) = text(answer(503, "too many connections"));
        assert_eq!((exit, after), (Exit::Unreachable, 7));
        assert!(busy.ends_with("takes no receivers now: too many connections (HTTP 503)"));
        assert!(
            text(answer(200, "<html>"))
                .1
                .starts_with("what answers at 127.0.0.1:12000 is no relay: HTTP 200 OK")
        );
    }
}
