//! Prints what is said of the gateway, as a file that says the same.

use std::fmt::{self, Write as _};

use hyper::header::HeaderName;
use ipnet::IpNet;

use super::{BALANCE, FRAMES, ON_CHANGE, PLAIN, WAITS, rules};
use crate::{
    config::{
        keys::{self, Unit},
        print::{list, quoted, word},
    },
    gateway::settings::{Address, GatewaySettings, HostHeader, Origins, RouteLimits, RouteSettings, Sort},
};

/// Prints `[gateway]` and the routes.
pub(in crate::config) fn write(out: &mut String, gateway: &GatewaySettings) -> fmt::Result {
    writeln!(out, "\n[gateway]")?;
    write_limits(out, &gateway.defaults)?;
    gateway.routes.iter().try_for_each(|route| write_route(out, route))
}

fn write_limits(out: &mut String, limits: &RouteLimits) -> fmt::Result {
    for wait in &WAITS {
        writeln!(out, "{} = {}", wait.key, Unit::Wait.print(keys::micros((wait.get)(limits))))?;
    }
    writeln!(out, "connections = {}", limits.connections)?;
    writeln!(out, "on_change = {}", quoted(word(&ON_CHANGE, limits.on_change)))
}

fn write_route(out: &mut String, route: &RouteSettings) -> fmt::Result {
    let texts = |items: &mut dyn Iterator<Item = String>| list(&items.collect::<Vec<_>>());
    writeln!(out, "\n[[route]]\npath = {}", quoted(&route.path.to_string()))?;
    writeln!(out, "upstreams = {}", texts(&mut route.upstreams.iter().map(Address::to_string)))?;
    writeln!(out, "balance = {}", quoted(word(&BALANCE, route.balance)))?;
    if let Some(names) = &route.subprotocols {
        writeln!(out, "subprotocols = {}", list(names))?;
    }
    match &route.origins {
        Origins::Unsaid => {}
        Origins::Any => writeln!(out, "origins = [\"*\"]")?,
        Origins::These(origins) => writeln!(out, "origins = {}", list(origins))?,
    }
    if let Some(allow) = &route.allow {
        writeln!(out, "allow = {}", texts(&mut allow.iter().map(IpNet::to_string)))?;
    }
    writeln!(out, "deny = {}", texts(&mut route.deny.iter().map(IpNet::to_string)))?;
    writeln!(out, "deny_paths = {}", texts(&mut route.deny_paths.iter().map(|path| format!("{path}/"))))?;
    if let Some(connections) = route.upstream_connections {
        writeln!(out, "upstream_connections = {connections}")?;
    }
    write_limits(out, &route.limits)?;
    let sort = route.upstreams.first().map_or(Sort::WebSocket, |address| address.sort);
    match sort {
        Sort::Bytes => {
            writeln!(out, "framing = {}", quoted(&route.framing.to_string()))?;
            writeln!(out, "frames = {}", quoted(word(&FRAMES, route.frames)))?;
        }
        Sort::WebSocket => write_websocket(out, route)?,
    }
    if sort == Sort::Bytes || route.is_governed() {
        writeln!(out, "max_message = {}", Unit::Size.print(route.max_message as u64))?;
    }
    // Sections below a route come behind all of its keys.
    rules::write(out, route)
}

fn write_websocket(out: &mut String, route: &RouteSettings) -> fmt::Result {
    if let Some(rewrite) = &route.rewrite {
        writeln!(out, "rewrite = {}", quoted(&format!("{rewrite}/")))?;
    }
    let host = match &route.host {
        HostHeader::Pass => "pass",
        HostHeader::Upstream => "upstream",
        HostHeader::Named(name) => name.to_str().unwrap_or_default(),
    };
    writeln!(out, "host = {}\nforwarded = {}", quoted(host), route.forwarded)?;
    let set = route.set_headers.iter().map(|(name, value)| {
        format!("{} = {}", quoted(name.as_str()), quoted(value.to_str().unwrap_or_default()))
    });
    writeln!(out, "set_headers = {{ {} }}", set.collect::<Vec<_>>().join(", "))?;
    let removed: Vec<String> = route.remove_headers.iter().map(HeaderName::to_string).collect();
    writeln!(out, "remove_headers = {}", list(&removed))?;
    writeln!(out, "plain = {}", quoted(word(&PLAIN, route.plain)))?;
    if let Some(ca) = &route.ca {
        writeln!(out, "ca = {}", quoted(ca.file()))?;
    }
    Ok(())
}
