//! The client as a process, against a relay that is played by the test.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod client;
mod delivery;
mod failures;
mod fake_relay;
mod output;
mod resume;
