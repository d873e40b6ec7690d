//! What the relay is to reach, and whether it did.

use super::table::{Table, number, spread};
use crate::{
    results::{Results, Spread},
    servers::name,
    work::figure,
};

/// A goal and what was measured of it.
struct Goal {
    work: String,
    bound: Bound,
    unit: &'static str,
    measured: Option<Spread>,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// The goals that something was measured of.
pub(super) fn table(results: &Results) -> String {
    let mut table = Table::new(["what", "goal", "measured", ""]);
    for Goal { work, bound, unit, measured } in goals(results) {
        let Some(value) = measured else { continue };
        let (goal, met) = match bound {
            Bound::AtLeast(goal) => (format!("≥ {}{unit}", number(goal)), value.median >= goal),
            Bound::AtMost(goal) => (format!("≤ {}{unit}", number(goal)), value.median <= goal),
        };
        table.row([work, goal, spread(measured, 1.0, unit), if met { "met" } else { "**missed**" }.into()]);
    }
    table.markdown()
}

fn goals(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut goal = |work: String, bound, unit, measured| goals.push(Goal { work, bound, unit, measured });
    let times = |work: &str, server: &str, other: &str, figure: &str| {
        results.ratio([work, server], [work, other], figure)
    };

    for (work, title, other, factor) in [
        ("fan-out-100x128", "100 × 128 B", name::NATS, 5.0),
        ("fan-out-100x128", "100 × 128 B", name::NCHAN, 100.0),
        ("fan-out-100x128", "100 × 128 B", name::MOSQUITTO, 100.0),
        ("fan-out-100x128", "100 × 128 B", name::NODE_WS, 100.0),
        ("fan-out-100x128", "100 × 128 B", name::WEBSOCAT, 100.0),
        ("fan-out-100x128", "100 × 128 B", name::PYTHON_WEBSOCKETS, 100.0),
        ("fan-out-100x128", "100 × 128 B", name::BARE, 0.8),
        ("fan-out-1000x128", "1 000 × 128 B", name::NATS, 8.0),
        ("fan-out-10x128", "10 × 128 B", name::NATS, 5.0),
        ("fan-out-1x128", "1 × 128 B", name::NATS, 4.0),
        ("fan-out-100x16", "100 × 16 B", name::NATS, 15.0),
        ("fan-out-100x1024", "100 × 1 KiB", name::NATS, 2.5),
        ("fan-out-100x16384", "100 × 16 KiB", name::NATS, 1.5),
        ("window-100x128", "100 × 128 B, window of 64", name::NATS, 3.0),
    ] {
        let measured = times(work, name::RELAY, other, figure::DELIVERIES);
        goal(format!("{title}: deliveries, to those of {other}"), Bound::AtLeast(factor), " ×", measured);
    }
    for (form, factor) in [(name::RELAY_BINARY, 0.8), (name::RELAY_JSON, 0.7)] {
        let measured = times("forms-100x128", form, name::RELAY, figure::BYTES);
        goal(format!("{form}: bytes, to those of raw"), Bound::AtLeast(factor), " ×", measured);
    }
    for (what, figure) in [("processor time", figure::CORES), ("p99", figure::P99)] {
        let measured = times("paced-1000x100", name::RELAY, name::NATS, figure);
        let work = format!("1 000 messages/s × 100: {what}, to that of {}", name::NATS);
        goal(work, Bound::AtMost(0.75), " ×", measured);
    }
    for (what, figure, most, unit) in
        [("processor time", figure::CORES, 0.45, " cores"), ("p99", figure::P99, 6.0, " ms")]
    {
        let measured = results.spread("paced-10000x100", name::RELAY_BATCHED, figure);
        let work = format!("10 000 messages/s × 100 with batch_delay: {what}");
        goal(work, Bound::AtMost(most), unit, measured);
    }
    let measured = results.spread("idle-10000", name::RELAY, figure::RESIDENT);
    goal("an idle receiver's resident memory, at 10 000".into(), Bound::AtMost(3.0), " KiB", measured);
    let measured =
        results.ratio(["paced-10x10000", name::RELAY], ["paced-100x1000", name::RELAY], figure::P99);
    let work = "10 000 receivers × 10 messages/s: p99, to that of 1 000 × 100".into();
    goal(work, Bound::AtMost(12.0), " ×", measured);
    // Processor time for a delivery, turned over: deliveries for processor time.
    let measured = times("workers-100x128", name::RELAY, name::RELAY_TWO_WORKERS, figure::CPU_PER_MILLION);
    let work = "two workers: deliveries per CPU-second, to those of one".into();
    goal(work, Bound::AtLeast(0.8), " ×", measured);
    let measured = results.spread("fan-out-100x128", name::RELAY, figure::USER_SHARE);
    let measured = measured.map(|Spread { median, least, most }| Spread {
        median: median * 100.0,
        least: least * 100.0,
        most: most * 100.0,
    });
    goal(
        "100 × 128 B: the relay's own code, of its processor time".into(),
        Bound::AtMost(6.0),
        " %",
        measured,
    );
    goals
}
