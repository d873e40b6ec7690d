//! Maxima of the protocol: what every implementation may rely on. What an operator may change is a key of
//! the relay's configuration, with these as its defaults.

/// Bytes of a channel's or pattern's name: it fits the length byte of `relay.v1.binary`.
pub const MAX_CHANNEL_NAME: usize = 255;

/// The greatest seq: JSON numbers are exact up to here (IEEE 754 doubles have 53 bits).
pub const MAX_SEQ: u64 = (1 << 53) - 1;

/// The greatest pseq: like a seq, so that counting on never overflows.
pub const MAX_PSEQ: u64 = MAX_SEQ;

/// Bytes of payload in a chunk, unless a single message is larger: one read of a sender's socket.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// Messages in a chunk: their index fits the 10 bits that a replicated seq leaves it.
pub const CHUNK_MESSAGES: usize = 1024;

/// Default for the bytes of one message: large enough for a picture, small enough to hold many.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// What a sender frame may have beyond its message: type, alias, pseq, kind, source time, with room to grow.
pub const FRAME_OVERHEAD: usize = 64;

/// Default for the bytes that a sender may have unsettled.
pub const WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Default for the messages that a sender may have unsettled.
pub const WINDOW_MESSAGES: u32 = 1024;

/// Default for the seconds that a relay remembers a producer without a spool.
pub const KEEP_PRODUCER_S: u32 = 600;

/// The greatest such time that a sender may ask for: a week, for one that keeps a spool.
pub const MAX_KEEP_PRODUCER_S: u32 = 7 * 24 * 3600;

/// Bytes of a `RELAY/1` first line: a name, a token and the options, generously.
pub const MAX_FIRST_LINE: usize = 4096;
