//! The opening of a raw connection: its first line, if it has one.

use std::io;

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    connection::Connection,
    senders::{
        SenderSettings,
        first_line::{Beginning, FirstLine, FirstLineError, PREFIX},
    },
};

/// Reads until it is known whether there is a first line; gives back what is not part of it.
pub(super) async fn first_line(
    connection: &mut Connection,
    settings: &SenderSettings,
) -> io::Result<Result<FirstLine, FirstLineError>> {
    let mut bytes = Vec::new();
    let mut last = false;
    let mut began = None;
    loop {
        match Beginning::of(&bytes, last) {
            Beginning::NeedMore => {}
            Beginning::Data => {
                connection.unread(Bytes::from(bytes));
                return Ok(Ok(FirstLine::default()));
            }
            Beginning::TooLong => return Ok(Err(FirstLineError::TooLong)),
            Beginning::Line { line, length } => {
                let line = FirstLine::parse(line);
                connection.unread(Bytes::copy_from_slice(&bytes[length..]));
                return Ok(line);
            }
        }
        // A few bytes that might be the prefix may as well be all there is to say; behind it the line is due.
        let patience = if bytes.len() < PREFIX.len() { settings.undecided } else { settings.hello };
        let readable = connection.readable();
        match began {
            None => readable.await?,
            Some(began) => match tokio::time::timeout_at(began + patience, readable).await {
                Ok(readable) => readable?,
                Err(_) => {
                    last = true;
                    continue;
                }
            },
        }
        let before = bytes.len();
        match connection.read_with(|read| bytes.extend_from_slice(read)) {
            Ok(()) => last = bytes.len() == before,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        }
        began.get_or_insert_with(Instant::now);
    }
}
