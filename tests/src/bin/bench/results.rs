//! What was measured, in one file, from which tables and plots are made.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::work::Figures;

/// All runs of one call of the bench.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    /// Length of each run.
    pub(crate) seconds: f64,
    pub(crate) rounds: u32,
    /// Of each server the version.
    pub(crate) versions: BTreeMap<String, String>,
    /// Servers that could not take part, and why.
    pub(crate) missing: BTreeMap<String, String>,
    pub(crate) runs: Vec<Run>,
    /// Runs that ended with an error, and which.
    pub(crate) failures: Vec<String>,
}

/// Where it was measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
}

/// One server at one work.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) work: String,
    pub(crate) server: String,
    pub(crate) round: u32,
    pub(crate) figures: Figures,
}

/// A figure over the rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Machine {
    /// This one.
    fn this() -> Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let models = || cpus.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Ok(Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpu: models().next().map_or("of an unknown model", |(_, model)| model.trim()).to_owned(),
            cores: models().count(),
        })
    }
}

impl Results {
    /// Nothing yet, on this machine.
    ///
    /// # Errors
    /// It has too few cores.
    pub(crate) fn begin(rounds: u32, seconds: f64) -> Result<Self> {
        let machine = Machine::this()?;
        ensure!(machine.cores >= 2, "what is measured needs a core of its own and the load another one");
        Ok(Self {
            machine,
            seconds,
            rounds,
            versions: BTreeMap::new(),
            missing: BTreeMap::new(),
            runs: Vec::new(),
            failures: Vec::new(),
        })
    }

    /// Ends with an error if a run did.
    pub(crate) fn nothing_failed(&self) -> Result<()> {
        let failures = &self.failures;
        ensure!(failures.is_empty(), "{} runs failed: {}", failures.len(), failures.join("; "));
        Ok(())
    }

    /// Reads a file that [`save`](Self::save) wrote.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path);
        let text = text.with_context(|| format!("{}: nothing was measured yet", path.display()))?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Writes all of it.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_vec_pretty(self)?).with_context(|| path.display().to_string())
    }

    /// A figure over the rounds, if there is any.
    pub(crate) fn spread(&self, work: &str, server: &str, figure: &str) -> Option<Spread> {
        Spread::of(self.rounds_of(work, server, figure).into_values().collect())
    }

    /// A figure of one server, divided by another one's in the same round.
    pub(crate) fn ratio(
        &self,
        [work, server]: [&str; 2],
        [other_work, other]: [&str; 2],
        figure: &str,
    ) -> Option<Spread> {
        let others = self.rounds_of(other_work, other, figure);
        let own = self.rounds_of(work, server, figure);
        Spread::of(own.into_iter().filter_map(|(round, own)| Some(own / others.get(&round)?)).collect())
    }

    fn rounds_of(&self, work: &str, server: &str, figure: &str) -> BTreeMap<u32, f64> {
        let runs = self.runs.iter().filter(|run| run.work == work && run.server == server);
        runs.filter_map(|run| Some((run.round, *run.figures.get(figure)?))).collect()
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            count if count % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self { median, least: values[0], most: *values.last()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_the_median_and_of_two_the_mean() {
        let of = |values: &[f64]| Spread::of(values.to_vec());
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(of(&[4.0, 2.0]), Some(Spread { median: 3.0, least: 2.0, most: 4.0 }));
        assert_eq!(of(&[f64::NAN]), None);
    }
}
