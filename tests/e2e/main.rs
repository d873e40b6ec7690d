//! The end-to-end tests: the real binaries over real sockets. One binary, a module for each theme; every test
//! is named as the law that it holds.

#![expect(clippy::unwrap_used, reason = "a test that unwraps in vain has failed, as it should")]

mod alive;
mod attacks;
mod bad_input;
mod bad_requests;
mod browser;
mod channels;
mod conformance;
mod durable;
mod first_use;
mod framed_senders;
mod gateway;
mod lagging;
mod layers;
mod many;
mod prompt;
mod raw_senders;
mod receivers;
mod restart;
mod spool;
mod trace;
