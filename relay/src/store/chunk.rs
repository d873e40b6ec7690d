//! The chunk: the unit that is appended, kept, and written to sockets. Its messages are ready-made WebSocket
//! frames, back to back, in bytes of its own; the other forms are made once, when the first receiver wants them.

mod encodings;

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{BufMut, Bytes};
use shared::{
    ChannelId, Kind, Seq,
    limits::{CHUNK_BYTES, CHUNK_MESSAGES},
    receiver::{Data, Subprotocol, binary_header_len, put_binary_header},
    ws_frame,
};

pub use self::encodings::Encodings;

/// What a chunk costs in memory beyond its frames: the struct, its counters, its places in logs and views.
const OVERHEAD: u64 = 256;

/// Complete messages of one channel, committed: their seqs are known and follow each other without holes.
#[derive(Debug)]
pub struct Chunk {
    channel: ChannelId,
    first: Seq,
    prev: Seq,
    ordinal: u64,
    time: u64,
    messages: Messages,
    encoded: Mutex<[Option<Bytes>; 2]>,
}

/// Where the messages of a chunk came to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The seq of the first message; the others follow without holes.
    pub first: Seq,
    /// The seq of the message before it in the channel; 0: none.
    pub prev: Seq,
    /// How many messages the channel had before it.
    pub ordinal: u64,
    /// When it was committed: microseconds since 1970, UTC.
    pub time: u64,
}

/// The messages of a chunk before they have seqs. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Messages {
    frames: Bytes,
    /// Bytes of memory that the frames take.
    allocated: usize,
    count: u32,
    source_times: Option<Box<[u64]>>,
}

/// Collects messages into [`Messages`], up to what a chunk may hold; its buffer serves many chunks in turn.
#[derive(Debug, Default)]
pub struct ChunkBuilder {
    frames: Vec<u8>,
    count: u32,
    source_times: Vec<u64>,
}

impl Chunk {
    /// Puts messages in their place.
    pub fn new(channel: ChannelId, place: Place, messages: Messages) -> Self {
        let Place { first, prev, ordinal, time } = place;
        Self { channel, first, prev, ordinal, time, messages, encoded: Mutex::default() }
    }

    /// The channel of all its messages.
    pub fn channel(&self) -> &ChannelId {
        &self.channel
    }

    /// The seq of its first message.
    pub fn first(&self) -> Seq {
        self.first
    }

    /// The seq of its last message.
    pub fn last(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.messages.count) - 1)
    }

    /// The seq of the message before it in its channel; 0: none.
    pub fn prev(&self) -> Seq {
        self.prev
    }

    /// How many messages the channel had before it.
    pub fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// How many messages it has.
    pub fn count(&self) -> u64 {
        u64::from(self.messages.count)
    }

    /// When it was committed: microseconds since 1970, UTC.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        Place { first: self.first, prev: self.prev, ordinal: self.ordinal, time: self.time }
    }

    /// Its messages.
    pub fn messages(&self) -> &Messages {
        &self.messages
    }

    /// What it costs in memory, in its raw form.
    pub fn cost(&self) -> u64 {
        let times = self.messages.source_times.as_ref().map_or(0, |t| 8 * t.len() as u64);
        self.messages.allocated as u64 + times + OVERHEAD
    }

    /// Its messages as frames of that subprotocol; kept for the next receiver that wants them.
    pub fn frames(self: &Arc<Self>, form: Subprotocol, encodings: &Encodings) -> Bytes {
        let slot = match form {
            Subprotocol::Raw => return self.messages.frames.clone(),
            Subprotocol::Json => 0,
            Subprotocol::Binary => 1,
        };
        let mut encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = &encoded[slot] {
            return bytes.clone();
        }
        let bytes = Bytes::from(self.encode(form).into_boxed_slice());
        encoded[slot] = Some(bytes.clone());
        drop(encoded);
        encodings.keep(self, slot, bytes.len() as u64);
        bytes
    }

    /// The part of [`frames`](Self::frames) that holds the messages after one seq and up to another.
    pub fn frames_between(
        self: &Arc<Self>,
        after: Seq,
        last: Seq,
        form: Subprotocol,
        encodings: &Encodings,
    ) -> Bytes {
        let frames = self.frames(form, encodings);
        let index = |seq: Seq| (seq.0 + 1).saturating_sub(self.first.0).min(self.count());
        let bytes =
            |messages: u64| ws_frame::walk(&frames).take(messages as usize).map(|f| f.bytes.len()).sum();
        let (from, to): (usize, usize) = (bytes(index(after)), bytes(index(last)));
        frames.slice(from.min(to)..to)
    }

    fn encode(&self, form: Subprotocol) -> Vec<u8> {
        let per_message = 96 + self.channel.as_str().len();
        let mut out =
            Vec::with_capacity(self.messages.frames.len() + self.messages.count as usize * per_message);
        let begin = format!(r#"{{"type":"message","channel":"{}","#, self.channel);
        let mut json = Vec::new();
        let mut prev = self.prev;
        for (index, frame) in ws_frame::walk(&self.messages.frames).enumerate() {
            let seq = Seq(self.first.0 + index as u64);
            let source = self.messages.source_times.as_ref().map_or(0, |times| times[index]);
            let time = if source == 0 { self.time } else { source };
            match form {
                Subprotocol::Raw => out.put_slice(frame.bytes),
                Subprotocol::Binary => {
                    let length = binary_header_len(&self.channel) + frame.payload.len();
                    ws_frame::put_header(&mut out, Kind::Binary, length);
                    put_binary_header(&mut out, &self.channel, seq, prev, time, frame.kind);
                    out.put_slice(frame.payload);
                }
                Subprotocol::Json => {
                    json.clear();
                    Self::put_json(&mut json, begin.as_bytes(), [seq.0, prev.0, time], &frame);
                    ws_frame::put(&mut out, Kind::Text, &json);
                }
            }
            prev = seq;
        }
        out
    }

    /// The same text as `shared::receiver::Event::Message`, written without its intermediate values: this is
    /// done for every message that any json receiver gets. `begin` is what is the same for all of the chunk.
    fn put_json(out: &mut Vec<u8>, begin: &[u8], [seq, prev, time]: [u64; 3], frame: &ws_frame::Frame<'_>) {
        out.put_slice(begin);
        for (key, number) in [(&br#""seq":"#[..], seq), (br#","prev":"#, prev), (br#","time":"#, time)] {
            out.put_slice(key);
            out.put_slice(itoa::Buffer::new().format(number).as_bytes());
        }
        let (key, text) = match Data::new(frame.kind, frame.payload) {
            Data::Text(text) => (&br#","text":"#[..], text),
            Data::Base64(text) => (&br#","base64":"#[..], text),
        };
        out.put_slice(key);
        serde_json::to_writer(&mut *out, &text).expect("writing text to memory does not fail");
        out.put_u8(b'}');
    }
}

impl Messages {
    /// A single message.
    pub fn one(kind: Kind, payload: &[u8]) -> Self {
        let mut frames = Vec::with_capacity(ws_frame::header_len(payload.len()) + payload.len());
        ws_frame::put(&mut frames, kind, payload);
        Self { allocated: frames.capacity(), frames: frames.into(), count: 1, source_times: None }
    }

    /// Messages that were stored: so many frames, which are whole, and the times that their sources told, one for
    /// each or none at all (0: not told). At least one message. The frames stay where they are, a part of what was
    /// read perhaps; they count as memory of their own all the same.
    pub fn stored(frames: Bytes, count: u32, source_times: Option<Box<[u64]>>) -> Self {
        debug_assert_eq!(ws_frame::walk(&frames).count(), count as usize, "as many frames as messages");
        debug_assert!(source_times.as_ref().is_none_or(|times| times.len() == count as usize));
        Self { allocated: frames.len(), frames, count, source_times }
    }

    /// The frames, as they are written to receivers and to a disk.
    pub fn frames(&self) -> &Bytes {
        &self.frames
    }

    /// When each came to be, if a source told of any: microseconds since 1970, UTC; 0: not told.
    pub fn source_times(&self) -> Option<&[u64]> {
        self.source_times.as_deref()
    }

    /// How many there are; at least one.
    pub fn count(&self) -> u64 {
        u64::from(self.count)
    }
}

impl ChunkBuilder {
    /// Whether another message of that length belongs in the next chunk.
    pub fn is_full_for(&self, payload: usize) -> bool {
        let full = self.count as usize >= CHUNK_MESSAGES || self.frames.len() + payload > CHUNK_BYTES;
        full && self.count > 0
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a message; `source_time` 0 if the source told none.
    pub fn push(&mut self, kind: Kind, payload: &[u8], source_time: u64) {
        ws_frame::put(&mut self.frames, kind, payload);
        if source_time != 0 && self.source_times.is_empty() {
            self.source_times.resize(self.count as usize, 0);
        }
        if source_time != 0 || !self.source_times.is_empty() {
            self.source_times.push(source_time);
        }
        self.count += 1;
    }

    /// Takes what was collected; none if there is nothing. In bytes of exactly its size, or in the buffer itself if
    /// that is about as large: a busy sender's messages are copied once then.
    pub fn take(&mut self) -> Option<Messages> {
        if self.count == 0 {
            return None;
        }
        let (frames, allocated) = if self.frames.len() >= CHUNK_BYTES - CHUNK_BYTES / 8 {
            let next = Vec::with_capacity(CHUNK_BYTES);
            let frames = mem::replace(&mut self.frames, next);
            let allocated = frames.capacity();
            (Bytes::from(frames), allocated)
        } else {
            (Bytes::copy_from_slice(&self.frames), self.frames.len())
        };
        self.frames.clear();
        let source_times = mem::take(&mut self.source_times);
        let source_times = (!source_times.is_empty()).then(|| source_times.into_boxed_slice());
        Some(Messages { frames, allocated, count: mem::take(&mut self.count), source_times })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::receiver::{Event, decode_binary};

    use super::*;

    #[test]
    fn messages_that_were_stored_are_what_they_were() {
        for source_time in [0, 7] {
            let chunk = chunk(&[(true, b"x".to_vec()), (false, vec![0; 300])], source_time);
            let Messages { ref frames, ref source_times, .. } = chunk.messages;
            let stored = Messages::stored(Bytes::copy_from_slice(frames), 2, source_times.clone());
            assert_eq!((&stored, stored.frames()), (&chunk.messages, frames));
            assert_eq!(stored.source_times(), (source_time > 0).then_some(&[source_time; 2][..]));
        }
    }

    fn chunk(messages: &[(bool, Vec<u8>)], source_time: u64) -> Arc<Chunk> {
        let mut builder = ChunkBuilder::default();
        for (text, payload) in messages {
            builder.push(if *text { Kind::of(payload) } else { Kind::Binary }, payload, source_time);
        }
        let place = Place { first: Seq(10), prev: Seq(4), ordinal: 2, time: 99 };
        Arc::new(Chunk::new("a/b".parse().unwrap(), place, builder.take().unwrap()))
    }

    proptest! {
        #[test]
        fn every_form_holds_the_same_messages(
            messages in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..300)), 1..20),
            source_time in 0u64..3,
            after in 0u64..40,
        ) {
            let chunk = chunk(&messages, source_time);
            let encodings = Encodings::new(1 << 20);
            let time = if source_time == 0 { 99 } else { source_time };
            let skipped = (after + 1).saturating_sub(10).min(messages.len() as u64) as usize;
            for form in Subprotocol::ALL {
                let run = chunk.frames_between(Seq(after), chunk.last(), form, &encodings);
                let frames: Vec<_> = ws_frame::walk(&run).collect();
                prop_assert_eq!(frames.iter().map(|f| f.bytes.len()).sum::<usize>(), run.len());
                prop_assert_eq!(frames.len(), messages.len() - skipped);
                for (index, frame) in frames.iter().enumerate() {
                    let index = index + skipped;
                    let seq = Seq(10 + index as u64);
                    let prev = if index == 0 { Seq(4) } else { Seq(seq.0 - 1) };
                    let (text, payload) = &messages[index];
                    let kind = if *text { Kind::of(payload) } else { Kind::Binary };
                    match form {
                        Subprotocol::Raw => prop_assert_eq!((frame.kind, frame.payload), (kind, &payload[..])),
                        Subprotocol::Binary => {
                            let envelope = decode_binary(&Bytes::copy_from_slice(frame.payload)).unwrap();
                            prop_assert_eq!((envelope.seq, envelope.prev, envelope.time), (seq, prev, time));
                            prop_assert_eq!((envelope.kind, &envelope.payload[..]), (kind, &payload[..]));
                        }
                        Subprotocol::Json => {
                            let channel = chunk.channel().clone();
                            let event = Event::Message { channel, seq, prev, time, data: Data::new(kind, payload) };
                            prop_assert_eq!(std::str::from_utf8(frame.payload).unwrap(), event.to_json());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_builder_is_full_by_bytes_or_by_messages_but_takes_any_single_message() {
        let mut builder = ChunkBuilder::default();
        assert!(!builder.is_full_for(10 * CHUNK_BYTES));
        builder.push(Kind::Text, &vec![b'x'; CHUNK_BYTES - 10], 0);
        assert!(builder.is_full_for(100));
        builder.take();
        for _ in 0..CHUNK_MESSAGES {
            assert!(!builder.is_full_for(0));
            builder.push(Kind::Text, b"", 0);
        }
        assert!(builder.is_full_for(0));
    }
}
