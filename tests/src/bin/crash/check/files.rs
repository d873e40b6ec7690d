//! What `recv-client --durable -o FILE` wrote is whole, however often it was killed: each message once, in order,
//! nothing torn, and what is missing was told.

use super::{Index, Law, Violations, streams::Stream};
use crate::{
    cast,
    history::{History, OutputFile},
};

/// Holds files against the laws of streams.
pub(super) fn check(history: &History, index: &Index, found: &mut Violations) {
    for file in &history.files {
        let mut broken = Violations::default();
        stream(file, index, &mut broken);
        for violation in broken.0 {
            found.add(Law::Output, violation.near, format!("the file of {}: {}", file.name, violation.what));
        }
        for line in &file.broken {
            found.add(Law::Output, None, format!("the file of {} has a line {line:?}", file.name));
        }
    }
}

fn stream(file: &OutputFile, index: &Index, found: &mut Violations) {
    let mut stream = Stream::over_crashes(file.name);
    let mut gaps = file.gaps.clone();
    gaps.sort_by_key(|gap| gap.before);
    // What was told again after a kill is the same gap.
    gaps.dedup();
    let mut gaps = gaps.into_iter().peekable();
    for message in &file.messages {
        while let Some(gap) = gaps.next_if(|gap| gap.before <= message.seq) {
            stream.gap(gap, found);
        }
        stream.message(message, index, found);
    }
    // It ran with all eras; what was in memory alone it need not have.
    stream.check_coverage(index, |channel| cast::wanted(&[file.wants], channel), u32::MAX, found);
}
