//! The HTTP side of the port: upgrades, the page, and clear answers to everything else.

use std::time::Duration;

/// What holds for HTTP connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Bytes that a request's head may have.
    pub header_bytes: usize,
    /// How long a request's head may take.
    pub headers: Duration,
    /// Names besides `localhost` and IP addresses that `Host` may say; lower case.
    pub hosts: Vec<String>,
    /// Origins besides the relay's own that may subscribe and publish: `https://example.org`, lower case.
    pub origins: Vec<String>,
}
