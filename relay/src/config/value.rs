//! Texts that mean something, alike in flags and in the file: addresses, hosts, origins, `--raw` and `--history`.
//! An error is a text that says what would be right, fit to stand after "invalid value".

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use shared::{client::DEFAULT_PORT, units};

use super::keys::{self, Unit};
use crate::{
    senders::{framing::Framing, template::ChannelTemplate},
    store::Retention,
};

/// What `--raw ADDR=CHANNEL[,FRAMING]` says: a listener for raw senders only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawListener {
    /// Where it listens.
    pub address: SocketAddr,
    /// Which channel its senders publish to.
    pub channel: ChannelTemplate,
    /// Where a message ends; `auto` unless said.
    pub framing: Option<Framing>,
}

/// Reads `HOST:PORT`, where the host is an IP address or `localhost`; port 0 takes a free one.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let named = text.strip_prefix("localhost:").map(|port| format!("{}:{port}", Ipv4Addr::LOCALHOST));
    if let Ok(address) = named.as_deref().unwrap_or(text).parse() {
        return Ok(address);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Err(format!("the port is missing; did you mean {}?", SocketAddr::new(ip, DEFAULT_PORT)));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    match (host, port.parse::<u16>()) {
        ("", Ok(port)) => {
            Err(format!("the host is missing; did you mean 127.0.0.1:{port}, for this machine only?"))
        }
        ("*", Ok(port)) => {
            Err(format!("for all addresses of this machine write 0.0.0.0:{port} or [::]:{port}"))
        }
        (_, Ok(_)) if !host.contains(':') => {
            Err("not an IP address; of names only localhost is known".to_string())
        }
        (_, Err(_)) if host.parse::<IpAddr>().is_ok() || host == "localhost" => {
            Err("the port must be a number up to 65535".to_string())
        }
        _ => Err(format!("write it as HOST:PORT, for example 127.0.0.1:{DEFAULT_PORT}")),
    }
}

/// Reads a name that `Host` may say, in any case; without a port.
pub fn host(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    if name.contains("://") || name.contains(':') {
        return Err("a name alone, without scheme and port, for example relay.example.org".into());
    }
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
        return Err("write it as a name, for example relay.example.org".into());
    }
    Ok(name)
}

/// Reads an origin, `SCHEME://HOST[:PORT]`, in the form that browsers send: lower case, no default port.
pub fn origin(text: &str) -> Result<String, String> {
    const FORM: &str = "write it as SCHEME://HOST[:PORT], for example https://example.org";
    match text {
        "*" => return Err("every origin must be named, for example https://example.org".into()),
        "null" => return Err("`null` is the origin of unknown pages and always foreign".into()),
        _ => {}
    }
    let lower = text.to_ascii_lowercase();
    let (scheme, rest) = lower.split_once("://").ok_or(FORM)?;
    let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host_fits = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    if !scheme_fits || !host_fits || port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0))
    {
        return Err(FORM.into());
    }
    if authority != rest {
        return Err(format!("an origin has no path; did you mean {scheme}://{authority}?"));
    }
    Ok(match (scheme, port) {
        ("http", Some("80")) | ("https", Some("443")) => format!("{scheme}://{host}"),
        _ => lower,
    })
}

/// Reads `ADDR=CHANNEL[,FRAMING]`.
pub fn raw_listener(text: &str) -> Result<RawListener, String> {
    let (at, rest) = text
        .split_once('=')
        .ok_or("write it as ADDR=CHANNEL[,FRAMING], for example 127.0.0.1:5000=plant/serial,line")?;
    let (channel, framing) =
        rest.split_once(',').map_or((rest, None), |(channel, framing)| (channel, Some(framing)));
    Ok(RawListener {
        address: address(at).map_err(|error| format!("address '{at}': {error}"))?,
        channel: channel.parse().map_err(|error| format!("channel '{channel}': {error}"))?,
        framing: framing
            .map(|framing| framing.parse().map_err(|error| format!("framing '{framing}': {error}")))
            .transpose()?,
    })
}

/// Reads `SIZE[,COUNT][,DUR]`: what a channel keeps.
pub fn history(text: &str) -> Result<Retention, String> {
    const FORM: &str = "write it as SIZE[,COUNT][,DUR], for example 64MiB or 64MiB,10000,1h";
    let mut parts = text.split(',');
    let size = parts.next().unwrap_or_default();
    let bytes = units::parse_size(size).map_err(|error| format!("'{size}' is {error}"))?;
    keys::within(bytes, Unit::Size, &keys::HISTORY_BOUNDS).map_err(|error| format!("the size {error}"))?;
    let mut kept = Retention { bytes, messages: None, age: None };
    for part in parts {
        match (part.parse::<u64>(), wait(part)) {
            (Ok(count), _) if kept.messages.is_none() && kept.age.is_none() => {
                keys::within(count, Unit::Count, &(1..=*keys::MESSAGES_BOUNDS.end()))
                    .map_err(|error| format!("the count {error}"))?;
                kept.messages = Some(count);
            }
            (_, Ok(age)) if kept.age.is_none() => {
                keys::within(keys::micros(age), Unit::Wait, &(1..=*keys::AGE_BOUNDS.end()))
                    .map_err(|_| "the duration must be between 1µs and 100 years")?;
                kept.age = Some(age);
            }
            _ => return Err(FORM.into()),
        }
    }
    Ok(kept)
}

/// Reads `http://HOST[:PORT]`, where a relay is; gives `HOST:PORT`.
pub fn relay_url(text: &str) -> Result<String, String> {
    const FORM: &str = "write it as http://HOST:PORT, for example http://127.0.0.1:12000";
    let rest =
        text.strip_prefix("http://").or_else(|| (!text.contains("://")).then_some(text)).ok_or(FORM)?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let url = origin(&format!("http://{authority}")).map_err(|_| FORM)?;
    let authority = url.trim_start_matches("http://");
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    Ok(if has_port { authority.into() } else { format!("{authority}:80") })
}

/// Reads the bytes that a message may have.
pub fn max_message(text: &str) -> Result<u64, String> {
    let bytes = units::parse_size(text).map_err(|error| error.to_string())?;
    keys::within(bytes, Unit::Size, &keys::MESSAGE_BOUNDS).map(|()| bytes)
}

/// Checks a filter for the log; an empty one says nothing.
pub fn log_filter(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::builder()
        .parse(text)
        .map(|_| text.to_string())
        .map_err(|_| "write it as a level or TARGET=LEVEL, for example info or warn,relay=debug".into())
}

/// A wait that may stand in the file: whole microseconds.
pub(super) fn wait(text: &str) -> Result<Duration, String> {
    units::parse_duration(text)
        .map(|wait| Duration::from_micros(keys::micros(wait)))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ip_or_localhost_and_a_port() {
        assert_eq!(address("localhost:0"), Ok("127.0.0.1:0".parse().unwrap()));
        assert_eq!(address("[::1]:9"), Ok("[::1]:9".parse().unwrap()));
        let error = |text: &str| address(text).unwrap_err();
        assert_eq!(error("127.0.0.1"), "the port is missing; did you mean 127.0.0.1:12000?");
        assert_eq!(error("::1"), "the port is missing; did you mean [::1]:12000?");
        assert_eq!(error("9000"), "the host is missing; did you mean 127.0.0.1:9000, for this machine only?");
        assert_eq!(
            error(":9000"),
            "the host is missing; did you mean 127.0.0.1:9000, for this machine only?"
        );
        assert_eq!(error("*:9000"), "for all addresses of this machine write 0.0.0.0:9000 or [::]:9000");
        assert_eq!(error("example.org:9000"), "not an IP address; of names only localhost is known");
        assert_eq!(error("127.0.0.1:70000"), "the port must be a number up to 65535");
        assert_eq!(error("localhost:http"), "the port must be a number up to 65535");
        assert_eq!(error(""), "write it as HOST:PORT, for example 127.0.0.1:12000");
    }

    #[test]
    fn a_host_is_a_name_alone() {
        assert_eq!(host("Relay.Example.org"), Ok("relay.example.org".into()));
        for text in ["", "a b", "https://example.org", "example.org:80", "example.org/"] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_origin_is_kept_as_browsers_send_it() {
        assert_eq!(origin("HTTPS://Example.org"), Ok("https://example.org".into()));
        assert_eq!(origin("https://example.org:443"), Ok("https://example.org".into()));
        assert_eq!(origin("http://example.org:443"), Ok("http://example.org:443".into()));
        assert_eq!(origin("http://[::1]:80"), Ok("http://[::1]".into()));
        assert_eq!(
            origin("https://example.org/").unwrap_err(),
            "an origin has no path; did you mean https://example.org?"
        );
        for text in ["", "*", "null", "example.org", "https://", "://a", "https://a:0", "https://a b"] {
            assert!(origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_relay_is_at_a_host_and_port() {
        assert_eq!(relay_url("http://127.0.0.1:12000/"), Ok("127.0.0.1:12000".into()));
        assert_eq!(relay_url("localhost:9"), Ok("localhost:9".into()));
        assert_eq!(relay_url("http://[::1]"), Ok("[::1]:80".into()));
        for text in ["https://a:1", "ws://a:1", "http://a:1/x", "http://", ""] {
            assert!(relay_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_raw_listener_says_which_part_is_wrong() {
        let listener = raw_listener("127.0.0.1:5000=plant/serial,line").unwrap();
        assert_eq!(listener.channel.to_string(), "plant/serial");
        assert_eq!(listener.framing.map(|framing| framing.to_string()).as_deref(), Some("line"));
        assert_eq!(raw_listener("localhost:0=a").unwrap().framing, None);
        assert!(raw_listener("127.0.0.1:5000").unwrap_err().starts_with("write it as ADDR=CHANNEL"));
        assert!(raw_listener("5000=a").unwrap_err().starts_with("address '5000': the host is missing"));
        assert!(raw_listener("127.0.0.1:1=my channel").unwrap_err().starts_with("channel 'my channel': "));
        assert!(raw_listener("127.0.0.1:1=a,lines").unwrap_err().starts_with("framing 'lines': "));
    }

    #[test]
    fn a_history_is_a_size_then_a_count_then_a_duration() {
        let kept = |text: &str| history(text).map(|kept| (kept.bytes, kept.messages, kept.age));
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(kept("64MiB"), Ok((64 << 20, None, None)));
        assert_eq!(kept("64MiB,100"), Ok((64 << 20, Some(100), None)));
        assert_eq!(kept("64MiB,1h"), Ok((64 << 20, None, hour)));
        assert_eq!(kept("64MiB,100,1h"), Ok((64 << 20, Some(100), hour)));
        assert_eq!(kept("big").unwrap_err(), "'big' is not a size; write it like 512, 64KiB, 1MB");
        assert_eq!(kept("1").unwrap_err(), "the size must be at least 1KiB");
        assert_eq!(kept("1MiB,0").unwrap_err(), "the count must be at least 1");
        for text in ["1MiB,1h,100", "1MiB,1,2", "1MiB,1,1h,1h", "1MiB,", "1MiB,x"] {
            assert!(kept(text).unwrap_err().starts_with("write it as SIZE[,COUNT][,DUR]"), "{text}");
        }
    }

    #[test]
    fn a_log_filter_is_checked_before_anything_starts() {
        assert_eq!(log_filter("warn,relay=debug"), Ok("warn,relay=debug".into()));
        assert!(log_filter("relay=loud").is_err());
    }
}
