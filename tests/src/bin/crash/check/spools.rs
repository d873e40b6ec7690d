//! What `send-client --spool` took arrives, once and in order: of a run that was killed a beginning, of others all.

use super::{Index, Law, Violations};
use crate::{
    cast,
    history::{History, Spool},
};

/// Holds what arrived against what was given.
pub(super) fn check(history: &History, index: &Index, found: &mut Violations) {
    for spool in &history.spools {
        let mut cursor = Cursor { spool, run: 1, line: 0 };
        let mut last = 0;
        for (seq, seen) in index.of(spool.channel, ..) {
            let Some(ident) = seen.content.ident().filter(|ident| ident.producer == spool.producer) else {
                continue;
            };
            let (run, line) = ident.run_and_line();
            // What nobody saw, or is no longer kept, can't be judged.
            if seen.prev == last
                && let Err(what) = cursor.go(run, line)
            {
                found.add(
                    Law::Spool,
                    Some((spool.channel, seq)),
                    format!("{}: {what}", cast::name(spool.channel)),
                );
            }
            (cursor.run, cursor.line) = (run, line);
            last = seq;
        }
        if let Err(what) = cursor.end() {
            found.add(
                Law::Spool,
                Some((spool.channel, last)),
                format!("{}: {what}", cast::name(spool.channel)),
            );
        }
    }
}

/// The line that arrived last.
#[derive(Debug)]
struct Cursor<'a> {
    spool: &'a Spool,
    run: u64,
    line: u64,
}

impl Cursor<'_> {
    /// Whether a line may come next.
    fn go(&self, run: u64, line: u64) -> Result<(), String> {
        let at = (self.run, self.line);
        if (run, line) == at {
            return Err(format!("line {line} of run {run} came twice"));
        }
        if (run, line) < at {
            return Err(format!("line {line} of run {run} came behind line {} of run {}", at.1, at.0));
        }
        if run == self.run && line == self.line + 1 {
            return Ok(());
        }
        if run == self.run || line != 1 {
            return Err(format!("line {line} of run {run} came after line {} of run {}", at.1, at.0));
        }
        self.leave(run)
    }

    /// Whether the runs before this one may end where they have.
    fn leave(&self, next: u64) -> Result<(), String> {
        for run in self.run..next {
            let came = if run == self.run { self.line } else { 0 };
            let given = self.spool.run(run);
            if let Some(given) = given.filter(|given| given.took_all && came < given.lines) {
                return Err(format!("of run {run} {came} lines came, and it took {}", given.lines));
            }
        }
        Ok(())
    }

    fn end(&self) -> Result<(), String> {
        self.leave(self.spool.runs.len() as u64 + 1)
    }
}
