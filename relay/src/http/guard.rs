//! Host and Origin: a page from elsewhere, or under a name that was bound anew, must not reach in.

use std::net::IpAddr;

use hyper::{HeaderMap, header};

/// Checks `Host`: an IP address, `localhost`, or one of the configured names.
///
/// # Errors
/// The text that says what is wrong and what to do.
pub fn host(headers: &HeaderMap, names: &[String]) -> Result<(), String> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err("a request needs one Host header".into());
    };
    let host = host.to_str().map_err(|_| "the Host header is not text".to_owned())?.to_ascii_lowercase();
    let name = host_name(&host);
    let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    if is_address || name == "localhost" || names.iter().any(|known| known == name) {
        return Ok(());
    }
    Err(format!("the relay does not go by the name `{name}`; its operator can allow it with --host {name}"))
}

/// Checks `Origin`: none, the relay's own, or one of the configured ones. Gives it if there is one: then the peer
/// is a browser.
///
/// # Errors
/// The text that says what is wrong and what to do.
pub fn origin<'a>(headers: &'a HeaderMap, allowed: &[String]) -> Result<Option<&'a str>, String> {
    let Some(value) = headers.get(header::ORIGIN) else { return Ok(None) };
    let origin = value.to_str().map_err(|_| "the Origin header is not text".to_owned())?;
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let lower = origin.to_ascii_lowercase();
    let same = ["http://", "https://"]
        .iter()
        .any(|scheme| lower.strip_prefix(scheme).is_some_and(|rest| rest == host.to_ascii_lowercase()));
    if same || allowed.contains(&lower) {
        return Ok(Some(origin));
    }
    Err(format!(
        "pages from {origin} may not connect; the operator can allow them with --allow-origin {origin}"
    ))
}

/// A host without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_host_is_an_address_localhost_or_a_configured_name() {
        let check = |value: &str| host(&headers(&[(header::HOST, value)]), &["relay.example".into()]).is_ok();
        for value in [
            "127.0.0.1:12000",
            "127.0.0.1",
            "[::1]:12000",
            "[::1]",
            "localhost",
            "LOCALHOST:9",
            "relay.example",
        ] {
            assert!(check(value), "{value}");
        }
        for value in ["evil.example", "evil.example:12000", "127.0.0.1.evil.example", "localhost.evil", ""] {
            assert!(!check(value), "{value}");
        }
        assert!(host(&HeaderMap::new(), &[]).is_err());
        let mut twice = headers(&[(header::HOST, "localhost")]);
        twice.append(header::HOST, "localhost".parse().unwrap());
        assert!(host(&twice, &[]).is_err());
    }

    #[test]
    fn an_origin_is_none_our_own_or_a_configured_one() {
        let allowed = ["https://dash.example".to_owned()];
        let check = |value: &str| {
            let headers = headers(&[(header::HOST, "127.0.0.1:12000"), (header::ORIGIN, value)]);
            origin(&headers, &allowed).is_ok()
        };
        assert!(
            check("http://127.0.0.1:12000")
                && check("https://127.0.0.1:12000")
                && check("https://dash.example")
        );
        for value in
            ["null", "http://127.0.0.1", "http://127.0.0.1:1200", "http://evil.example", "file://", ""]
        {
            assert!(!check(value), "{value}");
        }
        assert_eq!(origin(&headers(&[(header::HOST, "localhost")]), &allowed), Ok(None));
    }
}
