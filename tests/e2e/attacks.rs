//! Peers that mean harm, or behave as if they did: nobody else notices, and the relay ends when it is told to.

use shared::{codec::encode_sender, sender::SenderFrame};
use tests::{
    frames::{FrameClient, frame},
    http,
    receiver::Receiver,
    relay::TestRelay,
    sender::FramedSender,
    within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// Waits that a test can wait for.
const QUICK: &str = "[timeouts]\nstall = \"200ms\"\nclose = \"200ms\"\n";

/// Writes the same bytes for ever, and reads what comes, until the connection ends.
async fn flood(mut stream: TcpStream, bytes: Vec<u8>) {
    let (mut reader, mut writer) = stream.split();
    let read = async {
        let mut heard = vec![0; 64 * 1024];
        while matches!(reader.read(&mut heard).await, Ok(count) if count > 0) {}
    };
    let write = async { while writer.write_all(&bytes).await.is_ok() {} };
    tokio::join!(read, write);
}

/// Writes the same bytes until the relay gives the connection up, and reads nothing.
async fn write_until_given_up(mut stream: TcpStream, bytes: &[u8]) {
    within("a peer that reads nothing to be given up", async {
        while stream.write_all(bytes).await.is_ok() {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_stops_talking_lets_others_speak_and_the_relay_end() {
    let mut relay = TestRelay::with_one_worker(&[]).await;
    let address = relay.address();
    let mut floods = JoinSet::new();
    let receiver = FrameClient::connect(address, "/c/foo").await.into_stream();
    floods.spawn(flood(receiver, frame(0x89, b"ping").repeat(1000)));
    let publisher = FrameClient::connect(address, "/c/loud?publish").await.into_stream();
    floods.spawn(flood(publisher, frame(0x81, b"loud").repeat(1000)));
    let mut pings = Vec::new();
    (0..1000).for_each(|n| encode_sender(&SenderFrame::Ping(n), &mut pings));
    floods.spawn(flood(FramedSender::connect(address).await.into_stream(), pings));

    let mut other = Receiver::connect(address, "/c/quiet?publish", None).await;
    for n in 0..20 {
        other.send(n.to_string()).await;
        assert_eq!(other.text().await, n.to_string());
    }
    assert_eq!(http::get(address, "/nonsense").await.status, 404);
    assert_eq!(relay.stop().await.code, Some(0));
    floods.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_that_never_stop_writing_do_not_hold_up_the_end() {
    let mut relay = TestRelay::start(&[]).await;
    let mut floods = JoinSet::new();
    for n in 0..8 {
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        stream.write_all(format!("RELAY/1 channel=flood/{n} ack=yes\n\n").as_bytes()).await.unwrap();
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"OK ");
        floods.spawn(flood(stream, b"\n".repeat(64 * 1024)));
    }
    assert_eq!(relay.stop().await.code, Some(0));
    floods.shutdown().await;
}

#[tokio::test]
async fn a_raw_sender_that_reads_none_of_its_answers_is_given_up() {
    let relay = TestRelay::with_config(QUICK, &[]).await;
    let mut stream = TcpStream::connect(relay.address()).await.unwrap();
    stream.write_all(b"RELAY/1 channel=foo ack=yes\n").await.unwrap();
    write_until_given_up(stream, &b"\n".repeat(64 * 1024)).await;
}

#[tokio::test]
async fn a_peer_that_reads_no_answers_to_its_requests_is_given_up() {
    let relay = TestRelay::with_config(QUICK, &[]).await;
    let address = relay.address();
    let request = format!("GET /page.js HTTP/1.1\r\nHost: {address}\r\n\r\n").repeat(100);
    let stream = TcpStream::connect(address).await.unwrap();
    write_until_given_up(stream, request.as_bytes()).await;
}
