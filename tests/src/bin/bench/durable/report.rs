//! Tables of what was measured, and what the relay is to reach.

use std::fmt::Write as _;

use anyhow::Result;

use super::{Measured, figure, servers::Server};
use crate::{
    report::{
        self, Marks,
        table::{Table, number, spread},
    },
    results::{Results, Spread},
    work::{Figures, figure as common},
};

/// What stands around the part of the document that is made.
const MARKS: Marks = Marks {
    begin: "<!-- DURABLE: made by `tests/durable-bench`; changes here are lost. -->",
    end: "<!-- DURABLE: end -->",
};

/// Seconds of a year, and what 1 000 messages of 1 KiB per second are in one, in TB.
const YEAR: f64 = 365.0 * 24.0 * 3600.0;
const TB_A_YEAR: f64 = YEAR * 1000.0 * 1024.0 / 1e12;

/// A column: its head, the figure, and what that is multiplied by.
type Column = (&'static str, &'static str, f64);

const CORES: Column = ("cores", common::CORES, 1.0);
const LOAD_CORES: Column = ("cores of the load", common::LOAD_CORES, 1.0);
const USER: Column = ("user space, %", common::USER_SHARE, 100.0);

/// What one run has shown, in a line.
pub(super) fn line(figures: &Figures) -> String {
    let shown = [
        (figure::ACKNOWLEDGED, " acked/s"),
        (figure::REPLAYED, "B/s"),
        (common::BYTES_PER_CPU_SECOND, "B/CPU s"),
        (common::P50, " ms p50"),
        (figure::BARE_P50, " ms bare"),
        (common::CORES, " cores"),
        (common::LOAD_CORES, " cores of the load"),
        (common::DELIVERIES, " deliveries/s"),
        (figure::WRITTEN, " × written"),
        (figure::MEMORY, " MiB above idle"),
        (figure::START, " s to start"),
        (figure::START_AFTER_KILL, " s after a kill"),
        (figure::DISK, " × on disk"),
        (figure::IDLE, " MiB idle"),
    ];
    let shown = shown.into_iter().filter_map(|(name, unit)| Some((*figures.get(name)?, unit)));
    shown.map(|(value, unit)| format!("{}{unit}", number(value))).collect::<Vec<_>>().join(", ")
}

/// Puts all of it into docs/performance.md.
pub(super) fn write(measured: &Measured) -> Result<()> {
    report::put(&MARKS, &text(measured))
}

/// All of it.
pub(super) fn text(Measured { file_system, results }: &Measured) -> String {
    let Results { machine, seconds, rounds, .. } = results;
    let mut text = format!(
        "{} cores of {}, Linux {}, the data on {file_system}. {rounds} rounds, {} s each; medians (least–most).\n\n",
        machine.cores,
        machine.cpu,
        machine.kernel,
        number(*seconds),
    );
    let mut versions = Table::new(["server", "version"]);
    for server in Server::ALL {
        let version = results.versions.get(server.name()).cloned();
        let missing = results.missing.get(server.name()).map(|why| format!("not run: {why}"));
        versions.row([server.name().to_owned(), version.or(missing).unwrap_or_default()]);
    }
    text.push_str(&versions.markdown());
    for failure in &results.failures {
        // Writing to a text does not fail.
        let _ = writeln!(text, "**Failed**: {failure}\n");
    }
    let published = [
        ("acknowledged/s", figure::ACKNOWLEDGED, 1.0),
        ("CPU s per million", common::CPU_PER_MILLION, 1.0),
        CORES,
        LOAD_CORES,
        ("written per payload", figure::WRITTEN, 1.0),
        ("device per payload", figure::DEVICE, 1.0),
    ];
    let waited = [
        ("p50, ms", common::P50, 1.0),
        ("p99, ms", common::P99, 1.0),
        ("bare p50, ms", figure::BARE_P50, 1.0),
        ("bare p99, ms", figure::BARE_P99, 1.0),
        ("p50 above bare, ms", figure::ABOVE_BARE, 1.0),
    ];
    let parts = [
        ("Goals", goals(results)),
        ("One sender, 1 KiB, a window of 1 000", servers(results, "one-sender", &published)),
        (
            "100 senders into 100 channels, 1 KiB, a window of 10",
            servers(results, "many-senders", &published),
        ),
        ("One message of 1 KiB at a time", servers(results, "one-at-a-time", &waited)),
        (
            "100 receivers × 128 B, kept meanwhile",
            servers(
                results,
                "fan-out",
                &[("deliveries/s", common::DELIVERIES, 1.0), USER, CORES, LOAD_CORES],
            ),
        ),
        ("What was kept, from the beginning on", replays(results)),
        ("A start with 10 million messages of 128 B in 1 000 channels", start(results)),
        ("1 000 messages of 1 KiB per second", steady(results)),
    ];
    for (title, table) in parts.iter().filter(|(_, table)| !table.is_empty()) {
        // Writing to a text does not fail.
        let _ = write!(text, "### {title}\n\n{table}");
    }
    text
}

/// A row for each server.
fn servers(results: &Results, work: &str, columns: &[Column]) -> String {
    let mut table = Table::new(std::iter::once("").chain(columns.iter().map(|column| column.0)));
    for server in Server::ALL {
        let cells = cells(results, work, server.name(), columns);
        table.row(std::iter::once(server.name().to_owned()).chain(cells));
    }
    table.markdown()
}

fn cells(results: &Results, work: &str, server: &str, columns: &[Column]) -> Vec<String> {
    let cell = |&(_, figure, scale): &Column| spread(results.spread(work, server, figure), scale, "");
    columns.iter().map(cell).collect()
}

fn replays(results: &Results) -> String {
    let columns = [
        ("bytes/s", figure::REPLAYED, 1.0),
        ("bytes per CPU-second", common::BYTES_PER_CPU_SECOND, 1.0),
        USER,
        CORES,
        LOAD_CORES,
        ("memory above idle, MiB", figure::MEMORY, 1.0),
    ];
    let mut table = Table::new(std::iter::once("").chain(columns.iter().map(|column| column.0)));
    for (title, work) in [
        ("1 GiB of one channel, to one receiver", "replay-1"),
        ("the same to 10 receivers at once, the sum", "replay-10"),
        ("a channel written message by message among 1 000 others", "replay-scattered"),
        ("all of these channels, by `**`", "replay-everything"),
    ] {
        let cells = cells(results, work, Server::Relay.name(), &columns);
        table.row(std::iter::once(title.to_owned()).chain(cells));
    }
    table.markdown()
}

fn start(results: &Results) -> String {
    let columns = [
        ("until it is ready, s", figure::START, 1.0),
        ("after a kill -9, s", figure::START_AFTER_KILL, 1.0),
        ("disk per payload", figure::DISK, 1.0),
        ("memory then, MiB", figure::IDLE, 1.0),
    ];
    servers(results, "start", &columns)
}

fn steady(results: &Results) -> String {
    let columns = [
        ("messages/s", figure::ACKNOWLEDGED, 1.0),
        ("written per payload", figure::WRITTEN, 1.0),
        ("device per payload", figure::DEVICE, 1.0),
        ("files grew by, per payload", figure::GROWN, 1.0),
        ("a year, TB written", figure::WRITTEN, TB_A_YEAR),
        ("a year, TB at the device", figure::DEVICE, TB_A_YEAR),
    ];
    let mut table = Table::new(std::iter::once("").chain(columns.iter().map(|column| column.0)));
    for (title, work) in [
        ("each synced alone, while old segments go", "steady"),
        ("in batches of a sender with a window of 1 000", "one-sender"),
    ] {
        let mut cells = cells(results, work, Server::Relay.name(), &columns);
        if work != "steady" {
            // As fast as it went: another rate than the one of the table.
            cells[0].clear();
        }
        table.row(std::iter::once(title.to_owned()).chain(cells));
    }
    table.markdown()
}

fn goals(results: &Results) -> String {
    let mut table = Table::new(["what", "goal", "measured", ""]);
    let mut goal = |what: &str, least: bool, bound: f64, scale: f64, unit: &str, measured: Option<Spread>| {
        let Some(value) = measured else { return };
        let median = value.median * scale;
        let (sign, met) = if least { ("≥", median >= bound) } else { ("≤", median <= bound) };
        let met = if met { "met" } else { "**missed**" };
        let goal = format!("{sign} {}{unit}", number(bound));
        table.row([what.to_owned(), goal, spread(measured, scale, unit), met.into()]);
    };
    let relay = Server::Relay.name();
    let own = |work: &str, figure: &str| results.spread(work, relay, figure);
    let to =
        |work: &str, other: Server, figure: &str| results.ratio([work, relay], [work, other.name()], figure);

    let acknowledged = figure::ACKNOWLEDGED;
    goal("one sender, window of 1 000", true, 150e3, 1.0, "/s", own("one-sender", acknowledged));
    for other in [Server::JetStream, Server::JetStreamNew, Server::JetStreamAlways] {
        let what = format!("one sender, window of 1 000: to {}", other.name());
        goal(&what, true, 1.5, 1.0, " ×", to("one-sender", other, acknowledged));
    }
    goal("100 senders, window of 10", true, 80e3, 1.0, "/s", own("many-senders", acknowledged));
    let above = own("one-at-a-time", figure::ABOVE_BARE);
    goal("one at a time: p50 above a bare write and sync", false, 0.15, 1.0, " ms", above);
    for (server, factor) in [(Server::Relay, 0.6), (Server::RelayAsync, 0.85)] {
        let what = format!("100 × 128 B: deliveries of {}, to those of memory", server.name());
        let memory = ["fan-out", Server::RelayMemory.name()];
        let ratio = results.ratio(["fan-out", server.name()], memory, common::DELIVERIES);
        goal(&what, true, factor, 1.0, " ×", ratio);
    }
    let per_core = common::BYTES_PER_CPU_SECOND;
    for (work, what, gigabytes, figure) in [
        ("replay-1", "1 GiB to one receiver, per CPU-second", 1.5, per_core),
        ("replay-10", "1 GiB to 10 at once, per CPU-second", 3.0, per_core),
        ("replay-scattered", "a channel among 1 000 others", 0.3, figure::REPLAYED),
        ("replay-everything", "`**` over all of them", 1.0, figure::REPLAYED),
    ] {
        goal(what, true, gigabytes, 1e-9, " GB/s", own(work, figure));
    }
    for (work, what) in [
        ("replay-1", "memory above idle, one receiver"),
        ("replay-10", "memory above idle, 10 receivers"),
        ("replay-scattered", "memory above idle, a channel among 1 000 others"),
        ("replay-everything", "memory above idle, `**`"),
    ] {
        goal(what, false, 64.0, 1.0, " MiB", own(work, figure::MEMORY));
    }
    goal("start with 10 million messages", false, 2.0, 1.0, " s", own("start", figure::START));
    let killed = own("start", figure::START_AFTER_KILL);
    goal("start with 10 million messages after a kill -9", false, 2.0, 1.0, " s", killed);
    goal("disk used, 128 B in batches", false, 1.25, 1.0, " × payload", own("start", figure::DISK));
    table.markdown()
}
