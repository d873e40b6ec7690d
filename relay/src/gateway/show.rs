//! `relay routes`: asks a running relay what has passed on its routes, and shows it as a table.

use std::{
    fmt::Write as _,
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use serde_json::Value;
use shared::units::format_size;

/// How long the relay may take to be connected to, and to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that an answer may have; a larger one is not one.
const MAX_ANSWER: u64 = 64 << 20;

/// Asks the relay at an address `HOST:PORT`.
///
/// # Errors
/// A text that says what went wrong.
pub fn ask(address: &str) -> Result<Value, String> {
    let cannot = |error: io::Error| format!("cannot reach a relay at {address}: {error}");
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    let mut socket = None;
    for resolved in address.to_socket_addrs().map_err(cannot)? {
        match TcpStream::connect_timeout(&resolved, PATIENCE) {
            Ok(connected) => {
                socket = Some(connected);
                break;
            }
            Err(error) => last = error,
        }
    }
    let mut socket = socket.ok_or(last).map_err(cannot)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(cannot)?;
    let request = format!("GET /api/v1/routes HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).map_err(cannot)?;
    let mut answer = Vec::new();
    socket.take(MAX_ANSWER).read_to_end(&mut answer).map_err(cannot)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| format!("no relay answers at {address}"))?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(format!("the relay at {address} says: {}", body.trim_end()));
    }
    serde_json::from_str(body).map_err(|error| format!("no relay answers at {address}: {error}"))
}

/// The report of [`Gateway::report`](super::Gateway::report) for people.
pub fn table(report: &Value) -> String {
    let routes = report["routes"].as_array().map(Vec::as_slice).unwrap_or_default();
    if routes.is_empty() {
        return "no routes".into();
    }
    let head = ["path", "open", "total", "refused", "from clients", "from upstreams", "upgrade", "ended by"];
    let mut rows = vec![head.map(str::to_owned)];
    for route in routes {
        let counted = |name: &str| {
            let traffic = &route[name];
            let bytes = format_size(number(&traffic["bytes"]));
            format!("{} in {bytes}", number(&traffic["messages"]))
        };
        let removed = if route["removed"] == true { " (removed)" } else { "" };
        rows.push([
            format!("{}{removed}", text(&route["path"])),
            number(&route["connections"]["open"]).to_string(),
            number(&route["connections"]["total"]).to_string(),
            reasons(&route["connections"]["refused"]),
            counted("from_client"),
            counted("from_upstream"),
            time(&route["upgrade"]["p50_us"]),
            ends(&route["ends"]),
        ]);
    }
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        // Writing to a text does not fail.
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
        if let Some(route) = index.checked_sub(1).and_then(|index| routes.get(index)) {
            upstreams(&mut out, &route["upstreams"]);
            governing(&mut out, route);
        }
    }
    out.truncate(out.trim_end().len());
    out
}

fn upstreams(out: &mut String, upstreams: &Value) {
    for upstream in upstreams.as_array().into_iter().flatten() {
        let (open, failures) = (number(&upstream["open"]), number(&upstream["failures"]));
        let _ = write!(out, "  {}  open {open}", text(&upstream["address"]));
        if failures > 0 {
            let _ = write!(out, ", failed {failures} times");
        }
        out.push_str(if upstream["resting"] == true { ", resting\n" } else { "\n" });
    }
}

/// What rules and the tap did.
fn governing(out: &mut String, route: &Value) {
    for rule in route["rules"].as_array().into_iter().flatten() {
        let (client, upstream) = (&rule["from_client"], &rule["from_upstream"]);
        let _ = writeln!(
            out,
            "  rule {}, {}  {} from clients, {} from upstreams",
            text(&rule["name"]),
            text(&rule["action"]),
            number(&client["messages"]),
            number(&upstream["messages"])
        );
    }
    if let Some(tap) = route["tap"].as_object() {
        let (mirrored, dropped) = (number(&tap["mirrored"]), number(&tap["dropped"]));
        let _ = writeln!(out, "  tap {}  mirrored {mirrored}, dropped {dropped}", text(&tap["channel"]));
    }
}

/// `3 (limit 2, denied 1)`.
fn reasons(refused: &Value) -> String {
    let counts: Vec<(&str, u64)> =
        refused.as_object().into_iter().flatten().map(|(why, n)| (why.as_str(), number(n))).collect();
    let why: Vec<String> = counts
        .iter()
        .filter(|(_, n)| *n > 0)
        .map(|(why, n)| format!("{} {n}", why.replace('_', " ")))
        .collect();
    let total: u64 = counts.iter().map(|(_, n)| n).sum();
    if why.is_empty() { total.to_string() } else { format!("{total} ({})", why.join(", ")) }
}

/// `client 3 (closed 2, failed 1), upstream 1 (ended 1)`.
fn ends(ends: &Value) -> String {
    let sides = ends.as_object().into_iter().flatten();
    let told: Vec<String> = sides
        .filter(|(_, causes)| causes.as_object().is_some_and(|causes| !causes.is_empty()))
        .map(|(side, causes)| format!("{side} {}", reasons(causes)))
        .collect();
    if told.is_empty() { "-".into() } else { told.join(", ") }
}

fn time(micros: &Value) -> String {
    match number(micros) {
        0 => "-".into(),
        micros @ 1..=9_999 => format!("{micros} µs"),
        micros => format!("{} ms", micros / 1000),
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_becomes_a_table() {
        let report = json!({ "routes": [{
            "path": "/terminal",
            "removed": false,
            "upstreams": [{ "address": "ws://127.0.0.1:3000", "open": 1, "failures": 2, "resting": true }],
            "rules": [{
                "name": "no secrets",
                "action": "replace",
                "from_client": { "messages": 3, "bytes": 90 },
                "from_upstream": { "messages": 0, "bytes": 0 },
            }],
            "tap": { "channel": "tap/terminal", "mirrored": 7, "dropped": 1 },
            "connections": { "open": 1, "total": 12, "refused": { "limit": 2, "timed_out": 1, "denied": 0 } },
            "from_client": { "messages": 3, "bytes": 2048 },
            "from_upstream": { "messages": 4, "bytes": 10 },
            "upgrade": { "p50_us": 511 },
            "ends": { "client": { "closed": 11 }, "upstream": {}, "gateway": {} },
        }] });
        let expected = "\
path       open  total  refused                   from clients   from upstreams  upgrade  ended by
/terminal  1     12     3 (limit 2, timed out 1)  3 in 2 KiB   4 in 10 B       511 µs   client 11 (closed 11)
  ws://127.0.0.1:3000  open 1, failed 2 times, resting
  rule no secrets, replace  3 from clients, 0 from upstreams
  tap tap/terminal  mirrored 7, dropped 1";
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeeze(&table(&report)), squeeze(expected));
        assert_eq!(table(&json!({ "routes": [] })), "no routes");
    }
}
