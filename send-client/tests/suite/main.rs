//! One binary for the tests of the client from outside, against a relay that follows a script.

#[cfg(test)]
mod fake_relay;
#[cfg(test)]
mod program;
#[cfg(test)]
mod prompt;
#[cfg(test)]
mod sender;
#[cfg(test)]
mod spool;
