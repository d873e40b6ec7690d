//! Tells by the first bytes what a connection is. Pure; the session reads, asks again, and gives the bytes on.
//!
//! # Rules
//! - The verdict depends on the bytes alone, not on the pieces they come in: a prefix of them says `NeedMore`
//!   or the same. It is given at the first byte that settles it; most text is settled by its first.
//! - HTTP is a registered method, a space, and a first line that ends in ` HTTP/1.0` or ` HTTP/1.1`. One that
//!   asks for a path but does not end within the header limit, or breaks off, is HTTP too (and will be refused
//!   there): a page can choose a path of any length, and it must not become messages.
//! - A page under a rebound name may also choose a method that nobody registered. Waiting for the end of the
//!   line would delay senders of plain words and numbers, so such a connection is raw, and a [`RequestGuard`]
//!   watches the first line of it.
//! - A browser's STUN over TCP is known by its cookie, bare (TURN) or behind the length of RFC 4571 (ICE). Only
//!   bytes that fit a STUN header wait for it, and text never does.
//! - An empty line first is no HTTP: browsers send none. It may become PROXY v2.

mod guard;

use memchr::memchr;
use shared::sender::PREAMBLE;

pub use guard::{RequestGuard, Watch};

/// What a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not known yet.
    NeedMore,
    /// A TLS handshake.
    Tls,
    /// A framed sender.
    Framed,
    /// A PROXY protocol header, version 1 or 2; to be told again behind it.
    ProxyProtocol,
    /// HTTP/1.
    Http,
    /// HTTP/2 in the clear: to be closed.
    Http2Preface,
    /// STUN or TURN over TCP: to be closed.
    Stun,
    /// A raw sender, under the watch of a [`RequestGuard`].
    Raw,
}

/// The methods of the IANA registry, without HTTP/2's `PRI`.
const METHODS: &[&str] = &[
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

const TLS: &[u8] = b"\x16\x03";
const PROXY_V1: &[u8] = b"PROXY ";
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQ";
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";
const STUN_COOKIE: &[u8] = b"\x21\x12\xA4\x42";

/// How far bytes agree with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    /// So far, but there are too few of them.
    Maybe,
    No,
}

/// Says what a connection is that begins with `bytes`. `ended`: no more are waited for, because the peer has
/// ended or the time is over; then it is never `NeedMore`, and nothing at all is a raw sender. A request line
/// may have `header_limit` bytes.
pub fn classify(bytes: &[u8], ended: bool, header_limit: usize) -> Verdict {
    let candidates = [
        (begins(bytes, TLS), Verdict::Tls),
        (begins(bytes, &PREAMBLE), Verdict::Framed),
        (begins(bytes, PROXY_V1), Verdict::ProxyProtocol),
        (begins(bytes, PROXY_V2), Verdict::ProxyProtocol),
        (begins(bytes, HTTP2), Verdict::Http2Preface),
        (is_stun(bytes), Verdict::Stun),
        (is_request(bytes, ended, header_limit), Verdict::Http),
    ];
    if let Some(&(_, verdict)) = candidates.iter().find(|(found, _)| *found == Match::Yes) {
        return verdict;
    }
    let open = candidates.iter().any(|(found, _)| *found == Match::Maybe);
    if open && !ended { Verdict::NeedMore } else { Verdict::Raw }
}

fn begins(bytes: &[u8], with: &[u8]) -> Match {
    if bytes.starts_with(with) {
        Match::Yes
    } else if with.starts_with(bytes) {
        Match::Maybe
    } else {
        Match::No
    }
}

/// A method, a space, and a first line that ends like a request.
fn is_request(bytes: &[u8], ended: bool, header_limit: usize) -> Match {
    let longest = METHODS.iter().map(|method| method.len()).max().unwrap_or(0);
    let Some(space) = memchr(b' ', &bytes[..bytes.len().min(longest + 1)]) else {
        let may_be = METHODS.iter().any(|method| method.as_bytes().starts_with(bytes));
        return if may_be { Match::Maybe } else { Match::No };
    };
    if !METHODS.iter().any(|method| method.as_bytes() == &bytes[..space]) {
        return Match::No;
    }
    let within = &bytes[..bytes.len().min(header_limit)];
    match memchr(b'\n', within) {
        Some(end) if ends_like_a_request(&bytes[..end]) => Match::Yes,
        Some(_) => Match::No,
        None if !ended && bytes.len() < header_limit => Match::Maybe,
        None if bytes.get(space + 1) == Some(&b'/') => Match::Yes,
        None => Match::No,
    }
}

fn ends_like_a_request(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

/// A STUN header (RFC 8489): type, length, cookie; or one behind a length of its own (RFC 4571).
fn is_stun(bytes: &[u8]) -> Match {
    let bare = fits(
        bytes,
        |at, byte| match at {
            // The registered methods are below 0x80 and not 0; a length is a multiple of four, and small.
            0 => byte <= 1,
            1 => bytes[0] != 0 || byte != 0,
            2 => byte < 0x10,
            3 => byte % 4 == 0,
            _ => byte == STUN_COOKIE[at - 4],
        },
        8,
    );
    let framed = fits(
        bytes,
        |at, byte| match at {
            0 => byte <= 1,
            // At least the 20 bytes of a header.
            1 => bytes[0] != 0 || byte >= 20,
            // A binding request: what a browser that looks for a peer sends first.
            2 => byte == 0,
            3 => byte == 1,
            4 => byte < 0x10,
            5 => byte % 4 == 0,
            _ => byte == STUN_COOKIE[at - 6],
        },
        10,
    );
    match (bare, framed) {
        (Match::Yes, _) | (_, Match::Yes) => Match::Yes,
        (Match::Maybe, _) | (_, Match::Maybe) => Match::Maybe,
        (Match::No, Match::No) => Match::No,
    }
}

/// Whether the first `length` bytes all fit.
fn fits(bytes: &[u8], fit: impl Fn(usize, u8) -> bool, length: usize) -> Match {
    if !bytes.iter().take(length).enumerate().all(|(at, &byte)| fit(at, byte)) {
        Match::No
    } else if bytes.len() < length {
        Match::Maybe
    } else {
        Match::Yes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 64;

    fn open(bytes: &[u8]) -> Verdict {
        classify(bytes, false, LIMIT)
    }

    fn ended(bytes: &[u8]) -> Verdict {
        classify(bytes, true, LIMIT)
    }

    #[test]
    fn each_kind_is_told_by_its_first_bytes() {
        assert_eq!(open(b"\x16\x03"), Verdict::Tls);
        assert_eq!(open(b"\xF5WSR"), Verdict::Framed);
        assert_eq!(open(b"PROXY "), Verdict::ProxyProtocol);
        assert_eq!(open(b"\r\n\r\n\0\r\nQ"), Verdict::ProxyProtocol);
        assert_eq!(open(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Verdict::Http2Preface);
        assert_eq!(open(b"\0\x01\0\x08\x21\x12\xA4\x42"), Verdict::Stun);
        assert_eq!(open(b"\0\x03\0\0\x21\x12\xA4\x42rest"), Verdict::Stun);
        assert_eq!(open(b"\0\x6C\0\x01\0\x58\x21\x12\xA4\x42"), Verdict::Stun);
        assert_eq!(open(b"hello\n"), Verdict::Raw);
    }

    #[test]
    fn a_request_is_http_whatever_its_method_and_target() {
        for line in ["GET / HTTP/1.1\r\n", "POST /c/a?b HTTP/1.0\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"]
        {
            assert_eq!(open(line.as_bytes()), Verdict::Http, "{line}");
        }
        for line in ["PROPFIND /x HTTP/1.1\r\n", "CONNECT a:1 HTTP/1.1\r\n", "GET a b HTTP/1.1\r\n"] {
            assert_eq!(open(line.as_bytes()), Verdict::Http, "{line}");
        }
        for line in ["GET /\r\n", "GET / HTTP/1.2\r\n", "GET  \n", "GETS / HTTP/1.1\r\n", "PUT it here\n"] {
            assert_eq!(open(line.as_bytes()), Verdict::Raw, "{line}");
        }
    }

    #[test]
    fn a_request_for_a_path_is_never_raw_however_long_and_wherever_it_breaks_off() {
        let mut request = b"GET /".to_vec();
        request.resize(LIMIT - 1, b'x');
        assert_eq!((open(&request), ended(&request)), (Verdict::NeedMore, Verdict::Http));
        request.push(b'x');
        assert_eq!(open(&request), Verdict::Http);
        request.extend_from_slice(b"\nevil\n");
        assert_eq!(open(&request), Verdict::Http);
        assert_eq!(ended(b"POST /"), Verdict::Http);
        assert_eq!(ended(b"POST "), Verdict::Raw);
        assert_eq!(ended(b"GET 12"), Verdict::Raw);
    }

    #[test]
    fn text_and_numbers_are_raw_at_their_first_byte_or_soon_after() {
        for bytes in [
            &b"2"[..],
            b"h",
            b"{",
            b"<",
            b"-",
            b" ",
            b"\t",
            b"\n",
            b"\x1b",
            b"\xC3",
            b"HELL",
            b"TEM",
            b"RELAY",
        ] {
            assert_eq!(open(bytes), Verdict::Raw, "{bytes:?}");
        }
        for bytes in [&b"\r\n2"[..], b"\r\nG", b"\r2", b"PROXI", b"\x16\x16", b"\xF5\xF5", b"GET\n", b"GET="]
        {
            assert_eq!(open(bytes), Verdict::Raw, "{bytes:?}");
        }
    }

    #[test]
    fn counted_binary_messages_do_not_wait_for_a_cookie() {
        assert_eq!(open(b"\0\0"), Verdict::Raw);
        assert_eq!(open(b"\0\x05h"), Verdict::Raw);
        assert_eq!(open(b"\x05\0\0\0h"), Verdict::Raw);
        assert_eq!(open(b"\0\x01\0\0a"), Verdict::Raw);
    }

    #[test]
    fn what_is_cut_short_is_raw_when_nothing_more_is_waited_for() {
        for bytes in [&b""[..], b"\x16", b"\xF5WS", b"PROXY", b"\r\n", b"GET", b"PRI * ", b"\0\x01\0\0\x21"] {
            assert_eq!(open(bytes), Verdict::NeedMore, "{bytes:?}");
            assert_eq!(ended(bytes), Verdict::Raw, "{bytes:?}");
        }
    }

    /// Beginnings of every kind, with something behind them, sometimes broken.
    fn beginnings() -> impl Strategy<Value = Vec<u8>> {
        let kinds: Vec<&[u8]> = vec![
            TLS,
            &PREAMBLE,
            PROXY_V1,
            PROXY_V2,
            HTTP2,
            b"\0\x01\0\x08\x21\x12\xA4\x42",
            b"GET / HTTP/1.1\r\n",
            b"POST /very/long/path/very/long/path/very/long/path/very/long/path HTTP/1.1\r\n",
            b"hello\n",
            b"GET me\n",
            b"\0\x6C\0\x01\0\x58\x21\x12\xA4\x42",
            b"",
        ];
        let parts = (
            prop::sample::select(kinds),
            prop::collection::vec(any::<u8>(), 0..80),
            0usize..200,
            any::<u8>(),
        );
        parts.prop_map(|(kind, rest, at, byte)| {
            let mut bytes = [kind, &rest].concat();
            if let Some(broken) = bytes.get_mut(at) {
                *broken = byte;
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn the_verdict_does_not_depend_on_the_pieces(bytes in beginnings()) {
            let whole = open(&bytes);
            let mut known = Verdict::NeedMore;
            for end in 0..=bytes.len() {
                let verdict = open(&bytes[..end]);
                if known == Verdict::NeedMore {
                    known = verdict;
                }
                prop_assert_eq!(verdict, known, "after {} bytes", end);
            }
            prop_assert_eq!(known, whole);
            prop_assert_ne!(ended(&bytes), Verdict::NeedMore);
            prop_assert!(whole == Verdict::NeedMore || ended(&bytes) == whole);
        }

        #[test]
        fn no_request_line_makes_raw_messages(
            method in "(GET|POST|PUT|[!-~&&[^/\"(),:;<=>?@\\[\\]{}\\\\]]{1,30})",
            target in "/[!-~]{0,100}",
            cuts in prop::collection::vec(1usize..30, 1..20),
        ) {
            let request = format!("{method} {target} HTTP/1.1\r\nHost: evil\r\n\r\nbody\n");
            if open(request.as_bytes()) == Verdict::Raw {
                let mut guard = RequestGuard::new(LIMIT);
                let mut rest = request.as_bytes();
                let mut cuts = cuts.iter().cycle();
                let line = method.len() + target.len() + " ".len() + " HTTP/1.1\r\n".len();
                let mut watch = Watch::Open;
                while watch == Watch::Open {
                    prop_assert!(request.len() - rest.len() < line, "no later than the end of the line");
                    let (piece, more) = rest.split_at(cuts.next().copied().unwrap_or(1).min(rest.len()));
                    watch = guard.watch(piece);
                    rest = more;
                }
                prop_assert_eq!(watch, Watch::Request);
            } else {
                prop_assert_eq!(open(request.as_bytes()), Verdict::Http);
            }
        }
    }
}
