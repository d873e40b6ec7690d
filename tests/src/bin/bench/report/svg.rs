//! Plots in SVG: how the cost of a delivery grows. Both axes are logarithmic, so that a straight line is a power and
//! what is flat does not grow. Colours are legible on light and on dark.

use std::fmt::Write as _;

use crate::{
    results::Results,
    servers::name,
    work::{figure, plan::thousands},
};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 168.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 52.0;

/// Of the first server to the last.
const COLOURS: [&str; 8] =
    ["#d9480f", "#868e96", "#1c7ed6", "#2b8a3e", "#9c36b5", "#c2255c", "#0c8599", "#a07800"];

/// Servers in the order of their colours.
const SERVERS: [&str; 8] = [
    name::RELAY,
    name::BARE,
    name::NATS,
    name::NCHAN,
    name::MOSQUITTO,
    name::NODE_WS,
    name::WEBSOCAT,
    name::PYTHON_WEBSOCKETS,
];

/// A plot.
#[derive(Debug)]
pub(super) struct Plot {
    /// The name of its file.
    pub(super) file: &'static str,
    pub(super) title: &'static str,
    x_label: &'static str,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    server: &'static str,
    colour: &'static str,
    points: Vec<(f64, f64)>,
}

/// The plots that something was measured for.
pub(super) fn all(results: &Results) -> Vec<Plot> {
    let plot = |file, title, x_label, works: Vec<(f64, String)>| {
        let lines = SERVERS.iter().zip(COLOURS).map(|(server, colour)| {
            let cost = |work: &str| Some(results.spread(work, server, figure::CPU_PER_MILLION)?.median);
            let points = works.iter().filter_map(|(x, work)| Some((*x, cost(work)?)));
            Line { server, colour, points: points.collect() }
        });
        Plot { file, title, x_label, lines: lines.filter(|line| !line.points.is_empty()).collect() }
    };
    let receivers = [1, 10, 100, 1000, 10_000].map(|n| (f64::from(n), format!("fan-out-{n}x128")));
    let bytes = [16, 128, 1024, 4096, 16_384, 65_536].map(|n| (f64::from(n), format!("fan-out-100x{n}")));
    let channels = [1, 10, 100, 1000, 10_000].map(|n| (f64::from(n), format!("channels-{n}")));
    let mut plots = vec![
        plot("receivers.svg", "Cost of a delivery of 128 B, by receivers", "receivers", receivers.into()),
        plot(
            "bytes.svg",
            "Cost of a delivery to one of 100 receivers, by size",
            "bytes of a message",
            bytes.into(),
        ),
        plot(
            "channels.svg",
            "Cost of a delivery of 128 B, by channels with one receiver",
            "channels",
            channels.into(),
        ),
    ];
    let workers = [(1.0, name::RELAY), (2.0, name::RELAY_TWO_WORKERS)];
    let cost = |server| Some(results.spread("workers-100x128", server, figure::CPU_PER_MILLION)?.median);
    let points: Vec<(f64, f64)> =
        workers.iter().filter_map(|&(x, server)| Some((x, cost(server)?))).collect();
    plots.push(Plot {
        file: "workers.svg",
        title: "Cost of a delivery of 128 B to one of 100 receivers, by workers",
        x_label: "workers",
        lines: vec![Line { server: name::RELAY, colour: COLOURS[0], points }],
    });
    plots.retain(|plot| plot.lines.iter().any(|line| line.points.len() > 1));
    plots
}

impl Plot {
    /// The picture.
    pub(super) fn draw(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let mut xs: Vec<f64> = points().map(|point| point.0).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let (x_least, x_most) = (xs.first().copied().unwrap_or(1.0), xs.last().copied().unwrap_or(10.0));
        let y_least = points().map(|point| point.1).fold(f64::INFINITY, f64::min).log10().floor();
        let y_most = points().map(|point| point.1).fold(0.0, f64::max).log10().ceil().max(y_least + 1.0);
        let x_at = |x: f64| {
            let part = (x / x_least).ln() / (x_most / x_least).ln();
            LEFT + part * (WIDTH - LEFT - RIGHT)
        };
        let y_at = |y: f64| {
            let part = (y.log10() - y_least) / (y_most - y_least);
            HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
        };
        let mut out = Drawing::begin(self.title);
        for decade in y_least as i32..=y_most as i32 {
            let value = 10f64.powi(decade);
            let y = y_at(value);
            out.add(format_args!(
                r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/>"#,
                WIDTH - RIGHT
            ));
            out.text(LEFT - 8.0, y + 4.0, "end", &cost(value));
        }
        for &x in &xs {
            out.text(x_at(x), HEIGHT - BOTTOM + 18.0, "middle", &thousands(x as usize));
        }
        out.text(LEFT, TOP - 20.0, "start", self.title);
        out.text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 12.0, "middle", self.x_label);
        out.add(format_args!(
            r#"<text transform="translate(14 {:.0}) rotate(-90)" text-anchor="middle">CPU time for a delivery</text>"#,
            f64::midpoint(TOP, HEIGHT - BOTTOM)
        ));
        let mut labels: Vec<(f64, &Line)> =
            self.lines.iter().filter_map(|line| Some((y_at(line.points.last()?.1), line))).collect();
        labels.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut above = f64::NEG_INFINITY;
        for (y, line) in labels {
            let path: Vec<String> =
                line.points.iter().map(|&(x, y)| format!("{:.1},{:.1}", x_at(x), y_at(y))).collect();
            out.add(format_args!(r#"<polyline stroke="{}" points="{}"/>"#, line.colour, path.join(" ")));
            for &(x, y) in &line.points {
                out.add(format_args!(
                    r#"<circle fill="{}" cx="{:.1}" cy="{:.1}" r="3.5"/>"#,
                    line.colour,
                    x_at(x),
                    y_at(y)
                ));
            }
            // Names stand at the ends of the lines, below each other where those meet.
            above = y.max(above + 16.0);
            let Some(&(end, _)) = line.points.last() else { continue };
            if end < x_most {
                out.add(format_args!(
                    r#"<line class="lead" stroke="{}" x1="{:.1}" y1="{y:.1}" x2="{:.1}" y2="{above:.1}"/>"#,
                    line.colour,
                    x_at(end) + 5.0,
                    WIDTH - RIGHT + 6.0
                ));
            }
            out.add(format_args!(
                r#"<text fill="{0}" style="fill:{0}" x="{1:.1}" y="{2:.1}">{3}</text>"#,
                line.colour,
                WIDTH - RIGHT + 10.0,
                above + 4.0,
                line.server
            ));
        }
        out.end()
    }
}

/// CPU-seconds for a million deliveries, as time for one.
fn cost(seconds_per_million: f64) -> String {
    let nanoseconds = seconds_per_million * 1e3;
    if nanoseconds < 999.0 { format!("{nanoseconds:.0} ns") } else { format!("{:.0} µs", nanoseconds / 1e3) }
}

struct Drawing(String);

impl Drawing {
    fn begin(title: &str) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
             <title>{title}</title>\n<style>\n\
             text {{ font: 13px system-ui, sans-serif; fill: #343a40 }}\n\
             .grid {{ stroke: #868e96; stroke-opacity: .35 }}\n\
             .lead {{ stroke-opacity: .5; stroke-dasharray: 2 3 }}\n\
             polyline {{ fill: none; stroke-width: 2 }}\n\
             @media (prefers-color-scheme: dark) {{ text {{ fill: #dee2e6 }} }}\n</style>\n"
        ))
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a text does not fail.
        let _ = writeln!(self.0, "{element}");
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        self.add(format_args!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#));
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}
