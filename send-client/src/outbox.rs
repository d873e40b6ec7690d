//! What has been given to send and is not settled yet: numbering, windows, what an answer of the relay settles,
//! and what is to be sent again. Pure: no I/O and no clock.
//!
//! Messages are kept as the frames that go on the wire, many to a batch, so that a message costs no
//! allocation of its own. A batch belongs to one channel; batches stand in the order in which they were given,
//! and are sent in that order.

mod batch;
mod lane;

use std::collections::{HashMap, VecDeque};

use bytes::{BufMut, BytesMut};
use shared::{
    ChannelId, Kind,
    codec::encode_sender,
    sender::{Alias, Publish, SenderFrame},
};

use self::{
    batch::Batch,
    lane::{Lane, LaneState},
};

/// Bytes of frames that may be held before reading of the input stops.
pub const MAX_HELD: usize = 4 * 1024 * 1024;

/// A message on its way in.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Text or binary.
    pub kind: Kind,
    /// Microseconds since 1970, UTC, if the source told.
    pub source_time: Option<u64>,
    /// The bytes.
    pub payload: &'a [u8],
}

/// How much may be sent and not settled, as the relay said.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Messages.
    pub messages: u64,
    /// Bytes; counted with the frames' headers, so that it is never overstepped.
    pub bytes: usize,
}

/// The relay asked for, or settled, what it can't mean.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Confused {
    /// A channel's alias that was never used.
    #[error("it speaks of alias {0}, which was not opened")]
    Alias(u16),
    /// A message settled that was never given out.
    #[error("it confirms message {0}, which was not sent")]
    Unsent(u64),
    /// A message asked for again that it had settled.
    #[error("it asks again for message {0}, which it had confirmed")]
    Settled(u64),
}

/// Everything that is not settled, of all channels of this sender.
#[derive(Debug, Default)]
pub struct Outbox {
    lanes: Vec<Lane>,
    aliases: HashMap<ChannelId, Alias>,
    batches: VecDeque<Batch>,
    /// The number of `batches[0]`, counted from the beginning of the outbox.
    first_batch: u64,
    /// The number of the first batch that may hold something to send.
    cursor: u64,
    to_open: VecDeque<Alias>,
    held: usize,
    payload_bytes: u64,
    flight_messages: u64,
    flight_bytes: usize,
}

impl Outbox {
    /// The alias of a channel; one that is new will be opened. None when all 65 536 are used.
    pub fn alias(&mut self, channel: &ChannelId) -> Option<Alias> {
        if let Some(&alias) = self.aliases.get(channel) {
            let lane = &mut self.lanes[usize::from(alias.0)];
            if matches!(lane.state, LaneState::Refused | LaneState::Idle) {
                lane.state = LaneState::Closed;
                self.to_open.push_back(alias);
            }
            return Some(alias);
        }
        let alias = self.add(channel, 0, 0)?;
        self.alias(channel);
        Some(alias)
    }

    /// A channel of an earlier outbox of this producer: what was settled there, and the last number that may have
    /// been sent. It gets the next alias, and is opened when it is used.
    pub fn restore(&mut self, channel: &ChannelId, settled: u64, last: u64) {
        self.add(channel, settled, last);
    }

    fn add(&mut self, channel: &ChannelId, settled: u64, known: u64) -> Option<Alias> {
        let alias = Alias(u16::try_from(self.lanes.len()).ok()?);
        self.lanes.push(Lane::new(channel.clone(), settled, known));
        self.aliases.insert(channel.clone(), alias);
        Some(alias)
    }

    /// The channel of an alias.
    pub fn channel(&self, alias: Alias) -> Option<&ChannelId> {
        self.lanes.get(usize::from(alias.0)).map(|lane| &lane.channel)
    }

    /// Every channel used so far that was not refused.
    pub fn channels(&self) -> impl Iterator<Item = &ChannelId> {
        let used = |lane: &&Lane| !matches!(lane.state, LaneState::Refused | LaneState::Idle);
        self.lanes.iter().filter(used).map(|lane| &lane.channel)
    }

    /// Whether the others can go on without this channel: it is not open yet, and another one is.
    pub fn can_spare(&self, alias: Alias) -> bool {
        let opening =
            self.lanes.get(usize::from(alias.0)).is_some_and(|lane| lane.state == LaneState::Opening);
        opening && self.lanes.iter().any(|lane| lane.state == LaneState::Open)
    }

    /// Takes a message in that has its number already. One that is settled is passed over.
    pub fn push_kept(&mut self, alias: Alias, pseq: u64, message: Message<'_>) {
        let Some(lane) = self.lanes.get_mut(usize::from(alias.0)) else { return };
        if lane.state == LaneState::Idle && pseq >= lane.next {
            lane.state = LaneState::Closed;
            self.to_open.push_back(alias);
        }
        if pseq == lane.next {
            self.push(alias, message);
        }
    }

    /// Takes a message in. The alias is one that [`alias`](Self::alias) gave.
    pub fn push(&mut self, alias: Alias, message: Message<'_>) {
        let Some(lane) = self.lanes.get_mut(usize::from(alias.0)) else { return };
        let pseq = lane.next;
        lane.next += 1;
        if !self.batches.back().is_some_and(|batch| batch.takes(alias)) {
            lane.batches.push_back(self.first_batch + self.batches.len() as u64);
            self.batches.push_back(Batch::new(alias, pseq));
        }
        let Some(batch) = self.batches.back_mut() else { return };
        let before = batch.frames.len();
        let Message { kind, source_time, payload } = message;
        encode_sender(
            &SenderFrame::Publish(Publish { alias, pseq, kind, source_time, payload }),
            &mut batch.frames,
        );
        batch.ends.push(batch.frames.len() as u32);
        self.held += batch.frames.len() - before;
        self.payload_bytes += payload.len() as u64;
    }

    /// Whether more may be taken in: less than [`MAX_HELD`] is unsettled.
    pub fn has_room(&self) -> bool {
        self.held < MAX_HELD
    }

    /// Messages taken in so far.
    pub fn pushed(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.next - 1 - lane.before).sum()
    }

    /// The number of the next message of a channel.
    pub fn next_pseq(&self, alias: Alias) -> u64 {
        self.lanes.get(usize::from(alias.0)).map_or(1, |lane| lane.next)
    }

    /// Up to where everything of a channel is settled.
    pub fn settled_pseq(&self, alias: Alias) -> u64 {
        self.lanes.get(usize::from(alias.0)).map_or(0, |lane| lane.settled)
    }

    /// Bytes of payload taken in so far.
    pub fn pushed_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Messages that are not settled.
    pub fn unsettled(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.next - 1 - lane.settled).sum()
    }

    /// Messages that were refused.
    pub fn refused(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.refusals).sum()
    }

    /// Messages that the relay has stored.
    pub fn confirmed(&self) -> u64 {
        let settled = |lane: &Lane| lane.settled - lane.before + lane.refused.len() as u64;
        self.lanes.iter().map(settled).sum::<u64>() - self.refused()
    }

    /// Whether something waits that was not sent on this connection.
    pub fn has_unsent(&self) -> bool {
        self.lanes.iter().any(|lane| lane.sent + 1 < lane.next)
    }

    /// Messages that were sent on this connection and are not settled.
    pub fn in_flight(&self) -> u64 {
        self.flight_messages
    }

    /// The next channel to open on this connection: its alias, and the lowest pseq that is still held.
    pub fn next_to_open(&mut self) -> Option<(Alias, u64, &ChannelId)> {
        let alias = self.to_open.pop_front()?;
        let lane = &mut self.lanes[usize::from(alias.0)];
        lane.state = LaneState::Opening;
        Some((alias, lane.settled + 1, &lane.channel))
    }

    /// The channel is open; everything up to `last_pseq` is stored, what an earlier outbox has sent too.
    pub fn opened(&mut self, alias: Alias, last_pseq: u64) -> Result<(), Confused> {
        let lane = self.lane_mut(alias)?;
        if last_pseq >= lane.next.max(lane.known + 1) {
            return Err(Confused::Unsent(last_pseq));
        }
        lane.state = LaneState::Open;
        lane.next = lane.next.max(last_pseq + 1);
        self.settle(alias, last_pseq);
        Ok(())
    }

    /// Everything up to `pseq` is settled.
    pub fn acked(&mut self, alias: Alias, pseq: u64) -> Result<(), Confused> {
        if pseq >= self.lane_mut(alias)?.next {
            return Err(Confused::Unsent(pseq));
        }
        self.settle(alias, pseq);
        Ok(())
    }

    /// One message is settled by being refused. False if that was known.
    pub fn refuse(&mut self, alias: Alias, pseq: u64) -> Result<bool, Confused> {
        let lane = self.lane_mut(alias)?;
        if pseq >= lane.next {
            return Err(Confused::Unsent(pseq));
        }
        let new = pseq > lane.settled && lane.refused.insert(pseq);
        lane.refusals += u64::from(new);
        let settled = lane.settled;
        self.settle(alias, settled);
        Ok(new)
    }

    /// A channel can't be published to: what waits for it is given up, and told.
    pub fn refuse_channel(&mut self, alias: Alias) -> Result<u64, Confused> {
        let lane = self.lane_mut(alias)?;
        lane.state = LaneState::Refused;
        let last = lane.next - 1;
        let given_up = last - lane.settled - lane.refused.len() as u64;
        lane.refusals += given_up;
        self.settle(alias, last);
        Ok(given_up)
    }

    /// The relay misses messages: sending goes back to the one that it expects.
    pub fn gap(&mut self, alias: Alias, expected: u64) -> Result<(), Confused> {
        let lane = self.lane_mut(alias)?;
        if expected <= lane.settled {
            return Err(Confused::Settled(expected));
        }
        if lane.went_back != Some(expected) {
            lane.went_back = Some(expected);
            self.rewind(alias, expected);
        }
        Ok(())
    }

    /// The outcome of a message is unknown: it and what follows is to be sent again.
    pub fn send_again(&mut self, alias: Alias, pseq: u64) -> Result<(), Confused> {
        let lane = self.lane_mut(alias)?;
        let from = pseq.max(lane.settled + 1);
        lane.went_back = None;
        self.rewind(alias, from);
        Ok(())
    }

    /// The connection is lost: every channel is to be opened again, everything unsettled sent again.
    pub fn disconnected(&mut self) {
        self.to_open.clear();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            lane.sent = lane.settled;
            lane.went_back = None;
            if !matches!(lane.state, LaneState::Refused | LaneState::Idle) {
                lane.state = LaneState::Closed;
                self.to_open.push_back(Alias(index as u16));
            }
        }
        self.cursor = self.first_batch;
        (self.flight_messages, self.flight_bytes) = (0, 0);
    }

    /// Appends what may be sent now to `out`, about `limit` bytes at most.
    pub fn take(&mut self, window: Window, out: &mut BytesMut, limit: usize) {
        let end = self.first_batch + self.batches.len() as u64;
        let mut room = limit;
        while self.cursor < end && room > 0 {
            let batch = &self.batches[(self.cursor - self.first_batch) as usize];
            let lane = &mut self.lanes[usize::from(batch.alias.0)];
            let from = (lane.sent + 1).saturating_sub(batch.first) as usize;
            if from >= batch.ends.len() {
                if self.cursor + 1 == end {
                    return;
                }
                self.cursor += 1;
                continue;
            }
            if lane.state != LaneState::Open {
                return;
            }
            let start = batch.start(from);
            let most =
                window.messages.saturating_sub(self.flight_messages).min((batch.ends.len() - from) as u64);
            let bytes = window.bytes.saturating_sub(self.flight_bytes).min(room);
            let mut count =
                batch.ends[from..from + most as usize].partition_point(|&end| end as usize - start <= bytes);
            // A message larger than the window, or than this turn, goes alone.
            if count == 0 && (self.flight_messages == 0 || (most > 0 && bytes == room && room == limit)) {
                count = 1;
            }
            if count == 0 {
                return;
            }
            let frames = &batch.frames[start..batch.start(from + count)];
            out.put_slice(frames);
            room = room.saturating_sub(frames.len());
            lane.sent += count as u64;
            self.flight_messages += count as u64;
            self.flight_bytes += frames.len();
        }
    }

    fn lane_mut(&mut self, alias: Alias) -> Result<&mut Lane, Confused> {
        self.lanes.get_mut(usize::from(alias.0)).ok_or(Confused::Alias(alias.0))
    }

    /// Moves the watermark of a lane up to `pseq`, and over what was refused behind it.
    fn settle(&mut self, alias: Alias, pseq: u64) {
        let lane = &mut self.lanes[usize::from(alias.0)];
        let before = lane.settled;
        let mut settled = before.max(pseq);
        lane.refused = lane.refused.split_off(&(settled + 1));
        while lane.refused.remove(&(settled + 1)) {
            settled += 1;
        }
        lane.settled = settled;
        let sent = lane.sent;
        lane.sent = sent.max(settled);
        self.flight_messages -= settled.min(sent) - before.min(sent);
        let mut index = 0;
        while let Some(&number) = lane.batches.get(index) {
            let batch = &mut self.batches[(number - self.first_batch) as usize];
            if batch.first > settled {
                break;
            }
            self.held -= batch.bytes(before, settled);
            self.flight_bytes -= batch.bytes(before, settled.min(sent));
            if batch.last() <= settled {
                (batch.frames, batch.ends) = (Vec::new(), Vec::new());
                lane.batches.pop_front();
            } else {
                index += 1;
            }
        }
        while self.batches.front().is_some_and(|batch| batch.ends.is_empty()) {
            self.batches.pop_front();
            self.first_batch += 1;
        }
        self.cursor = self.cursor.max(self.first_batch);
    }

    /// Sends from `pseq` on again, if that was sent.
    fn rewind(&mut self, alias: Alias, pseq: u64) {
        let lane = &mut self.lanes[usize::from(alias.0)];
        let (to, from) = (pseq - 1, lane.sent);
        if to >= from {
            return;
        }
        lane.sent = to;
        self.flight_messages -= from - to;
        for &number in &lane.batches {
            let batch = &self.batches[(number - self.first_batch) as usize];
            if batch.first <= from && batch.last() > to {
                self.flight_bytes -= batch.bytes(to, from);
                self.cursor = self.cursor.min(number);
            }
        }
    }
}

#[cfg(test)]
mod tests;
