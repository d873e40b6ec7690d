//! The file of `--routes`: a table in JSON, of routes that are where they lead to and nothing else.

use super::{RawLimits, RawRoute, settings};
use crate::{
    config::report::{By, Mistake},
    gateway::{
        path::Prefix,
        settings::{Address, HostHeader, RouteSettings},
    },
};

/// Reads a table of upstreams in JSON: each key is a route of that name to `host` and `port`.
///
/// # Errors
/// Every mistake in it.
pub(in crate::config) fn table(source: &str, by: &By) -> Result<Vec<RawRoute>, Vec<Mistake>> {
    const FORM: &str = "write it as {\"name\": {\"host\": \"127.0.0.1\", \"port\": \"3000\"}}";
    let mistake = |message: String| Mistake::by(by.clone(), message).hint(FORM);
    let table: serde_json::Map<String, serde_json::Value> = serde_json::from_str(source)
        .map_err(|error| vec![mistake(format!("not a table in JSON: {error}"))])?;
    let mut mistakes = Vec::new();
    let mut routes = Vec::new();
    for (name, entry) in &table {
        match entry_of_table(name, entry) {
            Ok((path, upstream)) => routes.push(RawRoute {
                by: by.clone(),
                limits: RawLimits::default(),
                max_message: None,
                tap: None,
                settings: RouteSettings { host: HostHeader::Upstream, ..settings(path, vec![upstream]) },
            }),
            Err(error) => mistakes.push(mistake(format!("\"{}\": {error}", name.escape_debug()))),
        }
    }
    if mistakes.is_empty() { Ok(routes) } else { Err(mistakes) }
}

fn entry_of_table(name: &str, entry: &serde_json::Value) -> Result<(Prefix, Address), String> {
    let path: Prefix = format!("/{name}").parse()?;
    if let Some(what) = path.reserved() {
        return Err(format!("this path is the relay's own, for {what}"));
    }
    let entry = entry.as_object().ok_or("it has to be an object")?;
    if let Some(unknown) = entry.keys().find(|key| !["host", "port"].contains(&key.as_str())) {
        return Err(format!("unknown key `{}`; known are `host` and `port`", unknown.escape_debug()));
    }
    let host = entry.get("host").and_then(serde_json::Value::as_str).ok_or("`host` must be a text")?;
    let port = match entry.get("port") {
        Some(serde_json::Value::String(port)) => port.parse().ok(),
        Some(serde_json::Value::Number(port)) => port.as_u64().and_then(|port| u16::try_from(port).ok()),
        _ => None,
    };
    let port = port.ok_or("`port` must be a number from 1 to 65535")?;
    Ok((path, Address::websocket(host, port)?))
}
