//! What is made of results: lines while it runs, tables, plots, and the document with both.
//!
//! - [`table`]: rows and columns in Markdown. [`sections`]: which tables there are. [`goals`]: what the relay is to
//!   reach. [`svg`]: plots.

mod goals;
mod sections;
mod svg;
pub(crate) mod table;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{
    results::Results,
    work::{Figures, figure},
};

/// What stands around the part of the document that is made.
const MARKS: Marks = Marks {
    begin: "<!-- RESULTS: made by `tests/bench`; changes here are lost. -->",
    end: "<!-- RESULTS: end -->",
};

/// What stands around a part of docs/performance.md.
#[derive(Debug)]
pub(crate) struct Marks {
    pub(crate) begin: &'static str,
    pub(crate) end: &'static str,
}

/// What one run has shown, in a line.
pub(crate) fn line(figures: &Figures) -> String {
    let shown = [
        (figure::DELIVERIES, "/s"),
        (figure::CPU_PER_MILLION, " CPU s per million"),
        (figure::PER_CPU_SECOND, "/CPU s"),
        (figure::P99, " ms p99"),
        (figure::CORES, " cores"),
        (figure::RESIDENT, " KiB resident each"),
        (figure::CONNECTIONS, " connections/s"),
    ];
    let shown = shown.into_iter().filter_map(|(name, unit)| Some((*figures.get(name)?, unit)));
    shown.map(|(value, unit)| format!("{}{unit}", table::number(value))).collect::<Vec<_>>().join(", ")
}

/// All tables, as text.
pub(crate) fn text(results: &Results) -> String {
    sections::all(results, |_| String::new())
}

/// Puts tables and plots into docs/performance.md.
pub(crate) fn write(results: &Results) -> Result<()> {
    let plots = svg::all(results);
    fs::create_dir_all(docs().join("performance"))?;
    for plot in &plots {
        fs::write(docs().join("performance").join(plot.file), plot.draw())?;
    }
    let made = sections::all(results, |file| {
        let plot = plots.iter().find(|plot| plot.file == file);
        plot.map(|plot| format!("![{}](performance/{file})\n\n", plot.title)).unwrap_or_default()
    });
    put(&MARKS, &made)
}

/// Puts what was made between its marks in docs/performance.md.
pub(crate) fn put(marks: &Marks, made: &str) -> Result<()> {
    let Marks { begin, end } = marks;
    let page = docs().join("performance.md");
    let old = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
    let (before, rest) =
        old.split_once(begin).with_context(|| format!("docs/performance.md has no {begin}"))?;
    let (_, after) = rest.split_once(end).with_context(|| format!("docs/performance.md has no {end}"))?;
    fs::write(&page, format!("{before}{begin}\n\n{made}{end}{after}"))?;
    Ok(())
}

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs")
}
