//! Watches the first line of a raw sender for a request with a method of any name, so that no browser's
//! request becomes messages.

use super::ends_like_a_request;

/// Bytes at the end of a line that tell a request: ` HTTP/1.1\r`.
const TAIL: usize = 10;

/// The watch over one raw sender. The session shows it every read, from the first byte on and before the
/// framer gets it, until it says [`Watch::Clear`]. Keeps a few bytes, whatever comes.
#[derive(Debug)]
pub struct RequestGuard {
    header_limit: usize,
    seen: usize,
    state: State,
}

/// What the guard says of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// It may still become a request: go on, and show the next read.
    Open,
    /// It is none.
    Clear,
    /// It is one: close the connection, publish nothing of what is held or was just read.
    Request,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// In what may be a method.
    Method,
    /// Right behind its space.
    Space,
    /// In what may be a target and a version; the last bytes, the newest last.
    Rest {
        for_path: bool,
        last: [u8; TAIL],
    },
    Known(Watch),
}

impl RequestGuard {
    /// For a new connection. A request for a path whose line has `header_limit` bytes without ending is one
    /// for certain: a page can choose a path of any length.
    pub fn new(header_limit: usize) -> Self {
        Self { header_limit, seen: 0, state: State::Method }
    }

    /// Takes what one read returned. What is not [`Watch::Open`] stays as it is.
    pub fn watch(&mut self, bytes: &[u8]) -> Watch {
        for &byte in bytes {
            if let State::Known(watch) = self.state {
                return watch;
            }
            self.state = self.after(byte);
            self.seen += 1;
        }
        match self.state {
            State::Known(watch) => watch,
            State::Method | State::Space | State::Rest { .. } => Watch::Open,
        }
    }

    /// The state after one more byte.
    fn after(&self, byte: u8) -> State {
        match self.state {
            State::Method if byte == b' ' && self.seen > 0 => State::Space,
            State::Method if is_token(byte) => State::Method,
            State::Method => State::Known(Watch::Clear),
            State::Space if byte == b'\n' => State::Known(Watch::Clear),
            State::Space => {
                let mut last = [0; TAIL];
                last[TAIL - 2] = b' ';
                last[TAIL - 1] = byte;
                State::Rest { for_path: byte == b'/', last }
            }
            State::Rest { last, .. } if byte == b'\n' => {
                State::Known(if ends_like_a_request(&last) { Watch::Request } else { Watch::Clear })
            }
            State::Rest { for_path, .. } if self.seen + 1 >= self.header_limit => {
                State::Known(if for_path { Watch::Request } else { Watch::Clear })
            }
            State::Rest { for_path, mut last } => {
                last.rotate_left(1);
                last[TAIL - 1] = byte;
                State::Rest { for_path, last }
            }
            State::Known(watch) => State::Known(watch),
        }
    }
}

/// Whether a method may have this byte (RFC 9110, `tchar`).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 64;

    fn watch(pieces: &[&str]) -> Watch {
        let mut guard = RequestGuard::new(LIMIT);
        pieces.iter().map(|piece| guard.watch(piece.as_bytes())).last().unwrap()
    }

    #[test]
    fn a_request_with_any_method_is_seen_in_any_pieces() {
        assert_eq!(watch(&["get / HTTP/1.1\r\n"]), Watch::Request);
        assert_eq!(watch(&["x-1", " ", "/", " HTTP", "/1.0", "\n"]), Watch::Request);
        assert_eq!(watch(&["12.5 what ever HTTP/1.1\r", "\n"]), Watch::Request);
        assert_eq!(watch(&["a HTTP/1.1\n"]), Watch::Request);
        assert_eq!(watch(&[&"m".repeat(LIMIT * 2), " /"]), Watch::Open);
        assert_eq!(watch(&[&"m".repeat(LIMIT * 2), " /x"]), Watch::Request);
    }

    #[test]
    fn a_long_path_is_a_request_without_its_end() {
        assert_eq!(watch(&[&format!("evil /{}", "x".repeat(LIMIT))]), Watch::Request);
        assert_eq!(watch(&[&format!("note: {}", "x".repeat(LIMIT))]), Watch::Clear);
        assert_eq!(watch(&[&format!("note {}", "x".repeat(LIMIT))]), Watch::Clear);
    }

    #[test]
    fn readings_and_lines_are_none() {
        assert_eq!(watch(&["21.5"]), Watch::Open);
        for text in
            ["21.5\n", "21.5,3", "hello world\n", " HTTP/1.1\n", "a \n", "a HTTP/1.2\n", "\0", "RELAY/1 "]
        {
            assert_eq!(watch(&[text]), Watch::Clear, "{text:?}");
            assert_eq!(watch(&[text, "GET / HTTP/1.1\r\n"]), Watch::Clear, "{text:?}");
        }
        assert_eq!(watch(&["get / HTTP/1.1\n", "data"]), Watch::Request);
    }
}
