//! The protocol of the relay, both sides of it, without I/O and without a clock.
//!
//! # Layout
//! - [`channel_id`]: names of channels, and patterns over them.
//! - [`envelope`]: what surrounds a payload: seq, epoch, position, kind.
//! - [`sender`]: the frames between a framed sender and the relay; [`codec`]: their bytes.
//! - [`receiver`]: subprotocols, events, commands and close codes of receivers.
//! - [`ws_frame`]: the WebSocket frames that messages are kept as.
//! - [`limits`]: maxima, each with its reason. [`error`]: the codes that both sides know.
//! - [`units`]: durations and sizes in text. [`client`]: what both command-line clients mean by the same words.

pub mod channel_id;
pub mod client;
pub mod codec;
pub mod envelope;
pub mod error;
pub mod limits;
pub mod receiver;
pub mod sender;
pub mod units;
pub mod ws_frame;

pub use channel_id::{ChannelId, ChannelPattern};
pub use envelope::{Envelope, Epoch, Kind, Position, Seq};
pub use error::{ErrorCode, WireError};
