//! Which tables there are, and in which order.

use std::fmt::Write as _;

use super::{
    goals,
    table::{Table, median, number, spread},
};
use crate::{
    results::Results,
    servers::{self, name},
    work::{
        figure,
        plan::{self, Kind, Scale, Work},
    },
};

/// All sections; `plot` gives what shows the plot in a file.
pub(super) fn all(results: &Results, plot: impl Fn(&str) -> String) -> String {
    let works = plan::all(Scale::Full);
    let servers: Vec<&str> = servers::all().iter().map(|server| server.name()).collect();
    let view = View { results, works, servers };
    let mut text = view.machine();
    let mut section = |title: &str, body: String| {
        if !body.trim().is_empty() {
            // Writing to a text does not fail.
            let _ = write!(text, "### {title}\n\n{body}");
        }
    };
    section("Goals", goals::table(results));
    section("As fast as it goes", view.closed());
    section(
        "How cost grows",
        ["receivers.svg", "bytes.svg", "channels.svg", "workers.svg"].map(&plot).concat(),
    );
    section(
        "Senders and subprotocols",
        view.servers_by("forms-100x128", &[("bytes/s", figure::BYTES, 1.0), CPU, USER]),
    );
    section(
        "Workers",
        view.servers_by("workers-100x128", &[("deliveries/s", figure::DELIVERIES, 1.0), CPU, USER]),
    );
    section("At a fixed rate", view.paced());
    section("Many of everything", view.many());
    let memory =
        [("resident, KiB each", figure::RESIDENT, 1.0), ("kernel, both ends, KiB each", figure::KERNEL, 1.0)];
    section("10 000 idle receivers", view.servers_by("idle-10000", &memory));
    let connections = [
        ("upgrades/s", figure::CONNECTIONS, 1.0),
        ("CPU ms each", figure::CPU_PER_CONNECTION, 1.0),
        ("cores of the server", figure::CORES, 1.0),
        ("cores of the load", figure::LOAD_CORES, 1.0),
    ];
    section("Connections, upgraded and closed", view.servers_by("connections", &connections));
    text
}

/// A column: its head, the figure, and what that is multiplied by.
type Column = (&'static str, &'static str, f64);

const CPU: Column = ("CPU s per million", figure::CPU_PER_MILLION, 1.0);
const USER: Column = ("user space, %", figure::USER_SHARE, 100.0);

struct View<'a> {
    results: &'a Results,
    works: Vec<Work>,
    servers: Vec<&'static str>,
}

impl View<'_> {
    fn machine(&self) -> String {
        let Results { machine, seconds, rounds, versions, missing, failures, .. } = self.results;
        let mut text = format!(
            "{} cores of {}, Linux {}. {rounds} rounds, {} s each; medians (least–most).\n\n",
            machine.cores,
            machine.cpu,
            machine.kernel,
            number(*seconds),
        );
        let mut table = Table::new(["server", "version"]);
        for server in &self.servers {
            let version = versions.get(*server).cloned();
            let missing = missing.get(*server).map(|why| format!("not run: {why}"));
            table.row([(*server).to_owned(), version.or(missing).unwrap_or_default()]);
        }
        text.push_str(&table.markdown());
        for failure in failures {
            // Writing to a text does not fail.
            let _ = writeln!(text, "**Failed**: {failure}\n");
        }
        text
    }

    /// Works as rows and servers as columns.
    fn works_by(&self, works: &[&Work], cell: impl Fn(&Work, &str) -> String) -> String {
        let mut table = Table::new(std::iter::once("").chain(self.servers.iter().copied()));
        for work in works {
            let cells = self.servers.iter().map(|server| cell(work, server));
            table.row(std::iter::once(work.title.clone()).chain(cells));
        }
        table.markdown()
    }

    /// Servers as rows and figures as columns.
    fn servers_by(&self, work: &str, columns: &[Column]) -> String {
        let mut table = Table::new(std::iter::once("").chain(columns.iter().map(|(head, _, _)| *head)));
        for server in &self.servers {
            let cells = columns
                .iter()
                .map(|(_, figure, scale)| spread(self.results.spread(work, server, figure), *scale, ""));
            table.row(std::iter::once((*server).to_owned()).chain(cells));
        }
        table.markdown()
    }

    fn closed(&self) -> String {
        let chosen = |work: &&Work| work.name.starts_with("fan-out") || work.name.starts_with("window");
        let works: Vec<&Work> = self.works.iter().filter(chosen).collect();
        let cell = |figure: &'static str, scale: f64, unit: &'static str| {
            move |work: &Work, server: &str| {
                spread(self.results.spread(&work.name, server, figure), scale, unit)
            }
        };
        let middle = |figure: &'static str, scale: f64| {
            move |work: &Work, server: &str| {
                median(self.results.spread(&work.name, server, figure), scale, "")
            }
        };
        let ratio = |work: &Work, server: &str| {
            if server == name::RELAY {
                return String::new();
            }
            let ratio =
                self.results.ratio([&work.name, name::RELAY], [&work.name, server], figure::DELIVERIES);
            spread(ratio, 1.0, " ×")
        };
        let parts = [
            ("Deliveries per second:", self.works_by(&works, cell(figure::DELIVERIES, 1.0, ""))),
            ("The relay's deliveries, to those of each:", self.works_by(&works, ratio)),
            (
                "CPU-seconds of the server per million deliveries:",
                self.works_by(&works, cell(figure::CPU_PER_MILLION, 1.0, "")),
            ),
            ("Of which in user space, %:", self.works_by(&works, middle(figure::USER_SHARE, 100.0))),
            ("Cores that the server kept busy:", self.works_by(&works, middle(figure::CORES, 1.0))),
            ("Cores that the load kept busy:", self.works_by(&works, middle(figure::LOAD_CORES, 1.0))),
        ];
        let shown = parts.into_iter().filter(|(_, table)| !table.is_empty());
        shown.map(|(title, table)| format!("{title}\n\n{table}")).collect()
    }

    fn paced(&self) -> String {
        let mut text = String::new();
        for work in self.works.iter().filter(|work| matches!(work.kind, Kind::Paced(..))) {
            let columns = [
                ("p50, ms", figure::P50, 1.0),
                ("p99, ms", figure::P99, 1.0),
                ("p99.9, ms", figure::P999, 1.0),
                ("cores", figure::CORES, 1.0),
            ];
            let table = self.servers_by(&work.name, &columns);
            if !table.is_empty() {
                // Writing to a text does not fail.
                let _ = write!(text, "{}, 128 B:\n\n{table}", work.title);
            }
        }
        text
    }

    fn many(&self) -> String {
        let many = ["fan-out-10000", "channels", "senders", "churn", "pattern"];
        let chosen = |work: &&Work| many.iter().any(|begin| work.name.starts_with(begin));
        let works: Vec<&Work> = self.works.iter().filter(chosen).collect();
        let deliveries = |work: &Work, server: &str| {
            spread(self.results.spread(&work.name, server, figure::DELIVERIES), 1.0, "")
        };
        let cpu = |work: &Work, server: &str| {
            spread(self.results.spread(&work.name, server, figure::CPU_PER_MILLION), 1.0, "")
        };
        let (deliveries, cpu) = (self.works_by(&works, deliveries), self.works_by(&works, cpu));
        if deliveries.is_empty() {
            return String::new();
        }
        format!(
            "Every message arrived, in order and whole. Deliveries per second:\n\n{deliveries}CPU-seconds of the \
             server per million deliveries:\n\n{cpu}"
        )
    }
}
