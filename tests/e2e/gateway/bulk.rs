//! What a screen of another machine is: a page and a TCP server that send to each other at once, much, in pieces of
//! any size, byte for byte.

use tests::{
    frames::{FrameClient, frame},
    upstream::TcpEcho,
    within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
};

use super::{BINARY, route};

/// Bytes that go there, and come back meanwhile.
const TOTAL: usize = 200_000_000;

/// The most that one frame of the page has.
const LONGEST: usize = 200_000;

/// What is sent repeats after so many bytes: a number that no buffer is a multiple of.
const PERIOD: usize = 4_194_301;

/// The period, and as much of the next one as a frame may have.
fn content() -> Vec<u8> {
    let mut content = vec![0; PERIOD];
    fastrand::Rng::with_seed(200).fill(&mut content);
    content.extend_from_within(..LONGEST);
    content
}

async fn send(mut to: OwnedWriteHalf, content: &[u8]) -> OwnedWriteHalf {
    let mut random = fastrand::Rng::with_seed(201);
    let mut sent = 0;
    while sent < TOTAL {
        let most = [10, 2_000, LONGEST][random.usize(0..3)];
        let length = random.usize(0..=most).min(TOTAL - sent);
        let at = sent % PERIOD;
        let bytes = frame(BINARY, &content[at..at + length]);
        let (begin, rest) = bytes.split_at(random.usize(0..=bytes.len()));
        for piece in [begin, rest] {
            within("the gateway to read", to.write_all(piece)).await.unwrap();
        }
        sent += length;
    }
    to
}

/// Reads frames until all of it has come; each byte is compared as soon as it is there.
async fn receive(mut from: OwnedReadHalf, content: &[u8]) {
    let (mut buffer, mut came) = (vec![0; 256 << 10], 0);
    let (mut header, mut left) = (Vec::new(), 0);
    while came < TOTAL {
        let count = within("bytes to come back", from.read(&mut buffer)).await.unwrap();
        assert!(count > 0, "an end after {came} bytes");
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            if left == 0 {
                header.push(rest[0]);
                rest = &rest[1..];
                if let Some(length) = payload_length(&header) {
                    assert_eq!(header[0], BINARY);
                    left = length;
                    header.clear();
                }
                continue;
            }
            let at = came % PERIOD;
            let (here, behind) = rest.split_at(rest.len().min(left).min(PERIOD - at));
            assert!(here == &content[at..at + here.len()], "another byte than was sent about {came}");
            (came, left, rest) = (came + here.len(), left - here.len(), behind);
        }
    }
    assert_eq!((came, left), (TOTAL, 0));
}

/// The length that a whole header of a server's frame says.
fn payload_length(header: &[u8]) -> Option<usize> {
    match (*header.get(1)?, &header[2..]) {
        (126, &[a, b]) => Some(usize::from(u16::from_be_bytes([a, b]))),
        (127, bytes) => Some(u64::from_be_bytes(bytes.try_into().ok()?) as usize),
        (126, _) => None,
        (short, _) => Some(usize::from(short)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_megabytes_come_back_byte_for_byte_while_they_go() {
    let echo = TcpEcho::start().await;
    let config = format!("[[route]]\npath = \"/vnc\"\nupstreams = [\"tcp://{}\"]\n", echo.address());
    let relay = tests::relay::TestRelay::with_config(&config, &[]).await;
    let client = FrameClient::connect(relay.address(), "/vnc").await;
    let before = relay.rss();
    let (read, write) = client.into_stream().into_split();
    let content = content();
    let (_write, ()) = tokio::join!(send(write, &content), receive(read, &content));
    let grown = relay.peak_rss().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes of memory for what only passes");
    let counted = route(&relay, "/vnc").await;
    assert_eq!(counted["from_client"]["bytes"], TOTAL);
    assert_eq!(counted["from_upstream"]["bytes"], TOTAL);
}
