//! HTTP requests by hand, right and wrong ones.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{sender, within};

/// What the relay answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The head, status line included, as it came.
    pub head: String,
    /// What came behind it.
    pub body: String,
}

/// Sends a request as it is written, and reads the answer to it.
///
/// # Panics
/// If what comes back is no HTTP.
pub async fn request(address: SocketAddr, request: &str) -> Answer {
    let mut stream = sender::connect(address).await;
    // A relay that has heard enough may close before it has read everything.
    let _ = within("the relay to read a request", stream.write_all(request.as_bytes())).await;
    answer(&mut stream, Vec::new()).await
}

/// Reads an answer, of which these bytes were read already.
pub async fn answer(stream: &mut TcpStream, mut bytes: Vec<u8>) -> Answer {
    let read = async {
        // Until all of the body is there, or the end.
        while missing_of_body(&bytes).is_none_or(|missing| missing > 0) {
            if !stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
                break;
            }
        }
    };
    within("an answer", read).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {head:?}"));
    Answer { status, head: head.into(), body: body.into() }
}

/// Gets a path as a simple program would.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await
}

/// Sends bytes and reads until the relay closes.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = sender::connect(address).await;
    // A relay that has heard enough may close before it has read everything.
    let _ = within("the relay to read a request", stream.write_all(bytes)).await;
    let mut answer = Vec::new();
    let _ = within("the end of an answer", stream.read_to_end(&mut answer)).await;
    answer
}

/// The head of an upgrade with the key of RFC 6455's example; `more` are headers, each with its line end.
pub fn upgrade_head(host: SocketAddr, path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// How much of the body of an answer has not come; none if that is not known.
fn missing_of_body(answer: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(answer);
    let (head, _) = text.split_once("\r\n\r\n")?;
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let length: usize = length?;
    Some((head.len() + 4 + length).saturating_sub(answer.len()))
}
