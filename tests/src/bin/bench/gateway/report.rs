//! Tables of what was measured, and what the relay is to reach.

use std::fmt::Write as _;

use anyhow::Result;

use super::proxies::Proxy;
use crate::{
    report::{
        self, Marks,
        table::{Table, number, spread},
    },
    results::{Results, Spread},
    work::{Figures, figure},
};

/// What stands around the part of the document that is made.
const MARKS: Marks = Marks {
    begin: "<!-- GATEWAY: made by `tests/gateway-bench`; changes here are lost. -->",
    end: "<!-- GATEWAY: end -->",
};

/// What one run has shown, in a line.
pub(super) fn line(figures: &Figures) -> String {
    let mut line = report::line(figures);
    if let Some(bytes) = figures.get(figure::BYTES_PER_CPU_SECOND) {
        // Writing to a text does not fail.
        let _ = write!(line, ", {}B/CPU s", number(*bytes));
    }
    line
}

/// Puts all of it into docs/performance.md.
pub(super) fn write(results: &Results) -> Result<()> {
    report::put(&MARKS, &text(results))
}

/// All of it.
pub(super) fn text(results: &Results) -> String {
    let Results { machine, seconds, rounds, .. } = results;
    let mut text = format!(
        "{} cores of {}, Linux {}. {rounds} rounds, {} s each; medians (least–most).\n\n",
        machine.cores,
        machine.cpu,
        machine.kernel,
        number(*seconds),
    );
    let mut versions = Table::new(["proxy", "version"]);
    for proxy in Proxy::ALL {
        let version = results.versions.get(proxy.name()).cloned();
        let missing = results.missing.get(proxy.name()).map(|why| format!("not run: {why}"));
        versions.row([proxy.name().to_owned(), version.or(missing).unwrap_or_default()]);
    }
    text.push_str(&versions.markdown());
    for failure in &results.failures {
        // Writing to a text does not fail.
        let _ = writeln!(text, "**Failed**: {failure}\n");
    }
    let works = [
        ("Echoes of 128 B over 100 connections", "echo-128"),
        ("Echoes of 64 KiB over 20 connections", "echo-65536"),
        ("Echoes of 128 B over 100 connections, a TCP server behind", "bytes-128"),
        ("Echoes of 64 KiB over 20 connections, a TCP server behind", "bytes-65536"),
    ];
    let parts = std::iter::once(("Goals", goals(results)))
        .chain(works.map(|(title, work)| (title, echoes(results, work))))
        .chain([("2 000 connections that say nothing", idle(results))]);
    for (title, table) in parts.filter(|(_, table)| !table.is_empty()) {
        // Writing to a text does not fail.
        let _ = write!(text, "### {title}\n\n{table}");
    }
    text
}

fn echoes(results: &Results, work: &str) -> String {
    let mut table = Table::new([
        "",
        "echoes per CPU-second",
        "bytes per CPU-second",
        "the relay's, to those",
        "echoes/s",
        "user space, %",
        "cores",
        "cores of the load",
    ]);
    for proxy in Proxy::ALL {
        let of = |figure, scale| spread(results.spread(work, proxy.name(), figure), scale, "");
        let ratio = (proxy != Proxy::Relay).then(|| per_cpu(results, work, Proxy::Relay, proxy)).flatten();
        table.row([
            proxy.name().to_owned(),
            of(figure::PER_CPU_SECOND, 1.0),
            of(figure::BYTES_PER_CPU_SECOND, 1.0),
            spread(ratio, 1.0, " ×"),
            of(figure::DELIVERIES, 1.0),
            of(figure::USER_SHARE, 100.0),
            of(figure::CORES, 1.0),
            of(figure::LOAD_CORES, 1.0),
        ]);
    }
    table.markdown()
}

fn idle(results: &Results) -> String {
    let mut table = Table::new(["", "resident, KiB each"]);
    for proxy in Proxy::ALL {
        let each = spread(results.spread("idle", proxy.name(), figure::RESIDENT), 1.0, "");
        table.row([proxy.name().to_owned(), each]);
    }
    table.markdown()
}

/// Echoes per CPU-second of one proxy, to those of another.
fn per_cpu(results: &Results, work: &str, proxy: Proxy, other: Proxy) -> Option<Spread> {
    results.ratio([work, proxy.name()], [work, other.name()], figure::PER_CPU_SECOND)
}

fn goals(results: &Results) -> String {
    let mut table = Table::new(["what", "goal", "measured", ""]);
    let mut goal = |what: String, bound: String, measured: Option<Spread>, met: &dyn Fn(f64) -> bool| {
        let Some(value) = measured else { return };
        let met = if met(value.median) { "met" } else { "**missed**" };
        table.row([what, bound, spread(measured, 1.0, " ×"), met.into()]);
    };
    let title = |work: &str| match work {
        "echo-128" => "128 B",
        "echo-65536" => "64 KiB",
        "bytes-128" => "128 B, TCP behind",
        _ => "64 KiB, TCP behind",
    };
    for (work, proxy, other, factor) in [
        ("echo-128", Proxy::Relay, Proxy::Haproxy, 1.0),
        ("echo-128", Proxy::Relay, Proxy::Nginx, 1.0),
        ("echo-128", Proxy::Relay, Proxy::NodeWs, 3.0),
        ("echo-65536", Proxy::Relay, Proxy::Haproxy, 1.5),
        ("echo-65536", Proxy::Relay, Proxy::Nginx, 3.0),
        ("echo-65536", Proxy::Relay, Proxy::NodeWs, 3.0),
        ("echo-128", Proxy::Relay, Proxy::NodePipe, 3.0),
        ("echo-65536", Proxy::Relay, Proxy::NodePipe, 3.0),
        ("bytes-128", Proxy::Relay, Proxy::Websockify, 3.0),
        ("bytes-65536", Proxy::Relay, Proxy::Websockify, 3.0),
        ("echo-128", Proxy::RelayRule, Proxy::Relay, 0.5),
        ("echo-65536", Proxy::RelayRule, Proxy::Relay, 0.5),
    ] {
        let what = format!("{}: {} per CPU-second, to {}", title(work), proxy.name(), other.name());
        let bound = format!("≥ {} ×", number(factor));
        goal(what, bound, per_cpu(results, work, proxy, other), &|median| median >= factor);
    }
    let memory =
        results.ratio(["idle", Proxy::Relay.name()], ["idle", Proxy::Haproxy.name()], figure::RESIDENT);
    let what = "memory of an idle connection, to that of HAProxy".to_owned();
    goal(what, "≤ 1.00 ×".to_owned(), memory, &|median| median <= 1.0);
    table.markdown()
}
