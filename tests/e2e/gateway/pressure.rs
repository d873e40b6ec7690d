//! A side that does not read holds the other one back, and costs a bounded amount of memory.

use std::time::Duration;

use tests::{
    frames::FrameClient,
    relay::TestRelay,
    upstream::{Upstream, server_frame},
    within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, interval},
};

use super::{WAYS, relay_to};

/// What the relay may grow by while one side does not read. What kernels buffer is not its own.
pub(super) const MOST: u64 = 8 << 20;

/// Bytes of one write.
pub(super) const PIECE: usize = 64 << 10;

/// So long nothing is taken any more before it counts as held back.
const HELD: Duration = Duration::from_millis(500);

/// Writes pieces until none is taken for a while; how many bytes were taken.
pub(super) async fn write_until_held(stream: &mut TcpStream, piece: &[u8]) -> u64 {
    let mut taken = 0;
    let mut last = Instant::now();
    // The pace at which it is looked whether there is room: nothing announces that there is none.
    let mut pace = interval(Duration::from_millis(5));
    let mut at = 0;
    while last.elapsed() < HELD {
        match stream.try_write(&piece[at..]) {
            Ok(count) => {
                taken += count as u64;
                at = (at + count) % piece.len();
                last = Instant::now();
                assert!(taken < 1 << 30, "nothing holds it back");
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                pace.tick().await;
            }
        }
    }
    taken
}

/// Reads so many bytes, which are copies of this piece, one behind the other.
pub(super) async fn read_copies(stream: &mut TcpStream, piece: &[u8], count: u64) {
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    while done < count {
        let most = buffer.len().min((count - done) as usize);
        let got = within("what was held back", stream.read(&mut buffer[..most])).await.unwrap();
        assert!(got > 0, "an end after {done} of {count} bytes");
        let mut rest = &buffer[..got];
        while !rest.is_empty() {
            let at = (done % piece.len() as u64) as usize;
            let (here, behind) = rest.split_at(rest.len().min(piece.len() - at));
            assert!(here == &piece[at..at + here.len()], "another byte about {done}");
            done += here.len() as u64;
            rest = behind;
        }
    }
}

/// A relay with a route that is governed in this way, and both ends of a connection through it.
async fn connected(way: &str) -> (TestRelay, TcpStream, TcpStream) {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), way).await;
    let (client, peer) = tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.upgraded());
    (relay, client.into_stream(), peer.into_stream())
}

/// Whoever does not read holds the other end back; it goes on when that reads, and nothing is missing.
async fn holds_back(relay: &TestRelay, from: &mut TcpStream, to: &mut TcpStream, piece: &[u8]) {
    let before = relay.rss();
    let taken = write_until_held(from, piece).await;
    let grown = relay.rss().saturating_sub(before);
    assert!(grown < MOST, "{grown} bytes of memory for an end that does not read");
    // What is left of the last piece comes along.
    let rest = piece.len() as u64 - taken % piece.len() as u64;
    let tail = &piece[piece.len() - rest as usize..];
    let (written, ()) = tokio::join!(from.write_all(tail), read_copies(to, piece, taken + rest));
    written.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_upstream_back() {
    for way in WAYS {
        let (relay, mut client, mut peer) = connected(way).await;
        holds_back(&relay, &mut peer, &mut client, &server_frame(super::BINARY, &vec![b'x'; PIECE])).await;
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_read_holds_the_client_back() {
    for way in WAYS {
        let (relay, mut client, mut peer) = connected(way).await;
        let piece = tests::frames::frame(super::BINARY, &vec![b'x'; PIECE]);
        holds_back(&relay, &mut client, &mut peer, &piece).await;
    }
}

#[tokio::test]
async fn one_direction_that_is_held_back_does_not_hold_the_other() {
    for way in WAYS {
        let (_relay, mut client, mut peer) = connected(way).await;
        let down = server_frame(super::BINARY, &vec![b'x'; PIECE]);
        let taken = write_until_held(&mut peer, &down).await;
        assert!(taken > 0);
        let up = tests::frames::frame(super::BINARY, &vec![b'y'; PIECE]);
        for _ in 0..100 {
            let (written, ()) =
                tokio::join!(client.write_all(&up), read_copies(&mut peer, &up, up.len() as u64));
            written.unwrap();
        }
    }
}

#[tokio::test]
async fn who_reads_nothing_for_the_idle_time_is_given_up() {
    for way in WAYS {
        let upstream = Upstream::start().await;
        let config = format!(
            "[gateway]\nidle_timeout = \"300ms\"\n[timeouts]\nclose = \"100ms\"\n{}",
            super::app(upstream.address(), way)
        );
        let relay = TestRelay::with_config(&config, &[]).await;
        let (client, peer) = tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.upgraded());
        let (_client, mut peer) = (client.into_stream(), peer.into_stream());
        let piece = server_frame(super::BINARY, &vec![b'x'; PIECE]);
        // As long as anything is taken it is not silent; then nobody waits for it for ever.
        while within("the end", peer.write_all(&piece)).await.is_ok() {}
        super::ended(&relay, "gateway", "idle").await;
    }
}

#[tokio::test]
async fn a_connection_that_is_held_back_holds_no_other() {
    let echo = tests::upstream::Echo::start().await;
    let upstream = Upstream::start().await;
    let config = format!(
        "[limits]\nworkers = 1\n{}[[route]]\npath = \"/echo\"\nupstreams = [\"ws://{}\"]\n",
        super::app(upstream.address(), ""),
        echo.address()
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    let (client, peer) = tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.upgraded());
    let (_client, mut peer) = (client.into_stream(), peer.into_stream());
    let mut other = FrameClient::connect(relay.address(), "/echo").await;
    let piece = server_frame(super::BINARY, &vec![b'x'; PIECE]);
    write_until_held(&mut peer, &piece).await;
    for n in 0..100 {
        super::say(&mut other, &n.to_string(), &n.to_string()).await;
    }
}
