//! What each part of the way of a message costs without sockets: framing, chunk building, publishing, encodings, and
//! the cursor of a receiver. `cargo bench -p relay` measures; `cargo test` runs each once.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use relay::{
    channel::{
        cursor::{Cursor, Ready},
        hub::{ChannelRules, Hub},
    },
    config::Config,
    senders::framing::{AutoSettings, Framer, Framing},
    store::{
        chunk::{Chunk, ChunkBuilder, Encodings, Messages, Place},
        memory::Memory,
        selection::Selection,
    },
};
use shared::{
    ChannelId, ChannelPattern, Epoch, Kind, Seq,
    codec::{Decoded, decode_sender, encode_sender},
    limits::MAX_MESSAGE,
    receiver::{Since, Subprotocol},
    sender::{Alias, Publish, SenderFrame},
};

/// Messages of a chunk, of so many bytes each: what one read of a busy sender brings.
const MESSAGES: usize = 480;
const BYTES: usize = 128;

fn payloads() -> Vec<Vec<u8>> {
    (0..MESSAGES).map(|n| format!("{n:0>BYTES$}").into_bytes()).collect()
}

fn channel() -> ChannelId {
    "bench".parse().expect("it is a name")
}

fn messages() -> Messages {
    let mut builder = ChunkBuilder::default();
    payloads().iter().for_each(|payload| builder.push(Kind::Text, payload, 0));
    builder.take().expect("it has messages")
}

fn chunk(channel: &ChannelId) -> Arc<Chunk> {
    let place = Place { first: Seq(1), prev: Seq(0), ordinal: 0, time: 0 };
    Arc::new(Chunk::new(channel.clone(), place, messages()))
}

fn hub() -> Arc<Hub> {
    let store = Config::default().store;
    let rules = ChannelRules { lag: Vec::new(), retention: store.retention.clone() };
    let encodings = store.encodings;
    Hub::new(Arc::new(Memory::new(Epoch(1), store)), encodings, rules)
}

fn framing(c: &mut Criterion) {
    let mut group = c.benchmark_group("framing");
    let lines: Vec<u8> = payloads().iter().flat_map(|payload| [payload, &b"\n"[..]].concat()).collect();
    let counted: Vec<u8> =
        payloads().iter().flat_map(|payload| [format!("{BYTES} ").as_bytes(), payload].concat()).collect();
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for (framing, bytes) in
        [(Framing::Line, &lines), (Framing::OctetCount, &counted), (Framing::Auto, &lines)]
    {
        let auto = AutoSettings { undecided: Duration::from_secs(1), silence: Duration::from_millis(20) };
        let mut framer = Framer::new(&framing, MAX_MESSAGE, auto);
        let now = std::time::Instant::now();
        group.bench_function(framing.to_string(), |b| {
            b.iter(|| framer.feed(bytes, now, &mut |piece| _ = black_box(piece)));
        });
    }
    let mut frames = Vec::new();
    for (n, payload) in payloads().iter().enumerate() {
        let (alias, pseq) = (Alias(1), n as u64 + 1);
        let publish = Publish { alias, pseq, kind: Kind::Text, source_time: None, payload };
        encode_sender(&SenderFrame::Publish(publish), &mut frames);
    }
    group.bench_function("framed", |b| {
        b.iter(|| {
            let mut rest = &frames[..];
            while let Ok(Decoded::Frame(frame, length)) = decode_sender(rest, MAX_MESSAGE) {
                black_box(frame);
                rest = &rest[length..];
            }
        });
    });
}

fn building(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    let payloads = payloads();
    let mut builder = ChunkBuilder::default();
    group.bench_function("build", |b| {
        b.iter(|| {
            payloads.iter().for_each(|payload| builder.push(Kind::Text, payload, 0));
            builder.take()
        });
    });
    let (hub, channel) = (hub(), channel());
    let messages = messages();
    group.bench_function("publish", |b| b.iter(|| hub.publish(channel.clone(), messages.clone(), None)));
}

fn encodings(c: &mut Criterion) {
    let mut group = c.benchmark_group("encoding");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    let channel = channel();
    let encodings = Encodings::new(1 << 20);
    for form in [Subprotocol::Json, Subprotocol::Binary] {
        group.bench_function(form.name(), |b| {
            b.iter_batched(|| chunk(&channel), |chunk| chunk.frames(form, &encodings), BatchSize::SmallInput);
        });
    }
}

fn cursors(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
    let mut group = c.benchmark_group("cursor");
    group.throughput(Throughput::Elements(1));
    for name in ["bench", "*"] {
        let (hub, channel) = (hub(), channel());
        let selection = Selection::from(name.parse::<ChannelPattern>().expect("it is a pattern"));
        let begin = Cursor::begin(&hub, &selection, Subprotocol::Raw, Since::Latest, None);
        let Ok((mut cursor, _)) = runtime.block_on(begin) else { panic!("memory can be read") };
        let messages = messages();
        let mut ready: Vec<Ready> = Vec::new();
        // With the publish, since what there is can be taken once: its cost is in the group `chunk`.
        group.bench_function(format!("publish and take {name}"), |b| {
            b.iter(|| {
                drop(hub.publish(channel.clone(), messages.clone(), None));
                ready.clear();
                cursor.peek(62, 256 * 1024, &mut ready);
                ready.iter().for_each(|ready| cursor.take(ready));
            });
        });
    }
}

criterion_group!(way_of_the_data, framing, building, encodings, cursors);
criterion_main!(way_of_the_data);
