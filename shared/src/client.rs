//! What both command-line clients mean by the same words: the relay's address, exit codes, when to try again.

use std::{fmt, str::FromStr, time::Duration};

/// The port that a relay listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 12000;

/// Where a relay is: `host:port`, with or without one of `tcp:// ws:// http://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayAddr {
    host: String,
    port: u16,
}

/// A text that is no address of a relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayAddrError {
    /// TLS is not spoken by this version.
    #[error("{0}:// needs TLS, which this version does not speak; use tcp://, ws:// or http://")]
    Tls(&'static str),
    /// Neither a host nor a host and a port.
    #[error("write it as HOST:PORT, for example 127.0.0.1:{DEFAULT_PORT}")]
    Form,
}

impl RelayAddr {
    /// A name or an IP address; IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Default for RelayAddr {
    fn default() -> Self {
        Self { host: "127.0.0.1".into(), port: DEFAULT_PORT }
    }
}

impl fmt::Display for RelayAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for RelayAddr {
    type Err = RelayAddrError;

    fn from_str(text: &str) -> Result<Self, RelayAddrError> {
        let rest = match text.split_once("://") {
            Some(("tcp" | "ws" | "http", rest)) => rest,
            Some(("tls", _)) => return Err(RelayAddrError::Tls("tls")),
            Some(("wss", _)) => return Err(RelayAddrError::Tls("wss")),
            Some(("https", _)) => return Err(RelayAddrError::Tls("https")),
            Some(_) => return Err(RelayAddrError::Form),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
            let (host, after) = bracketed.split_once(']').ok_or(RelayAddrError::Form)?;
            (
                host,
                if after.is_empty() {
                    None
                } else {
                    Some(after.strip_prefix(':').ok_or(RelayAddrError::Form)?)
                },
            )
        } else if rest.matches(':').count() > 1 {
            (rest, None)
        } else {
            rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)))
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || "/?#@[]".contains(c)) {
            return Err(RelayAddrError::Form);
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port.parse().ok().filter(|&p| p > 0).ok_or(RelayAddrError::Form)?,
        };
        Ok(Self { host: host.into(), port })
    }
}

/// What a client's exit code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Another failure.
    Failure = 1,
    /// Wrong usage: a bad value found before connecting.
    Usage = 2,
    /// The relay is not reachable.
    Unreachable = 3,
    /// Credentials or permission refused.
    Refused = 4,
    /// A message was refused.
    MessageRefused = 5,
    /// The connection was lost with `--no-reconnect`, a gap with `--strict`, unconfirmed messages at exit.
    Incomplete = 6,
    /// `--timeout` passed.
    Timeout = 124,
    /// SIGINT.
    Interrupted = 130,
    /// SIGTERM.
    Terminated = 143,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// When to try again: exponential with full jitter, 250 ms to 30 s, so that many clients do not come back at
/// the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    ceiling: Duration,
}

impl Backoff {
    /// The first ceiling.
    pub const MIN: Duration = Duration::from_millis(250);
    /// The last ceiling.
    pub const MAX: Duration = Duration::from_secs(30);

    /// The next wait, for a random number from 0 to 1.
    pub fn next(&mut self, random: f64) -> Duration {
        let wait = self.ceiling.mul_f64(random.clamp(0.0, 1.0));
        self.ceiling = (self.ceiling * 2).min(Self::MAX);
        wait
    }

    /// Begins anew; for when a connection has held.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { ceiling: Self::MIN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_with_or_without_a_scheme() {
        let parse = |text: &str| text.parse::<RelayAddr>().unwrap().to_string();
        assert_eq!(parse("127.0.0.1:9"), "127.0.0.1:9");
        assert_eq!(parse("tcp://host:9"), "host:9");
        assert_eq!(parse("ws://host:9/"), "host:9");
        assert_eq!(parse("host"), "host:12000");
        assert_eq!(parse("[::1]:9"), "[::1]:9");
        assert_eq!(parse("::1"), "[::1]:12000");
        for text in
            ["", ":9", "host:", "host:x", "host:70000", "host:0", "ftp://host", "host:9/path", "a b:1"]
        {
            assert_eq!(text.parse::<RelayAddr>(), Err(RelayAddrError::Form), "{text}");
        }
        assert_eq!("tls://host:9".parse::<RelayAddr>(), Err(RelayAddrError::Tls("tls")));
    }

    #[test]
    fn waits_grow_to_thirty_seconds_and_begin_anew_after_a_reset() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..9).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        backoff.reset();
        assert_eq!(backoff.next(0.5), Duration::from_millis(125));
    }
}
