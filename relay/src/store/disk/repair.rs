//! `relay log check` and `relay log repair`: what is wrong with a log, and the way back.

use std::{collections::HashMap, fmt::Write as _, io, path::Path, sync::Arc};

use shared::{Epoch, Seq};

use super::{
    checkpoint::{self, At},
    examination::{Examination, Examined, Finding},
    identity::{Identity, VERSION},
    index,
    open::OpenError,
    record::{self, Context, HEADER, Sort},
    replay::Rebuilt,
    segment::{self, START},
    volume::{self, DRAFT, Directory, Volume},
};

/// What a file is called that was damaged.
const SET_ASIDE: &str = ".damaged";

/// What was found, and done, in text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// A line for each thing, and one that sums up.
    pub text: String,
    /// Nothing has to be done, or it was.
    pub sound: bool,
}

/// Says all that is wrong with a log. Changes nothing.
///
/// # Errors
/// If it can't be looked at.
pub fn check(path: &Path) -> Result<Report, OpenError> {
    let directory = Directory::existing(path)?;
    let _lock = directory.lock()?.ok_or(OpenError::Locked)?;
    let found = examine(&directory)?;
    let mut text = lines(&found.findings);
    let harm = found.findings.iter().filter(|finding| !matches!(finding, Finding::Torn { .. })).count();
    let _ = write!(text, "{}", summary(&found));
    let _ = match harm {
        0 => write!(text, ": sound"),
        _ if found.has_losses() => {
            write!(text, ": damaged\n  hint: `relay log repair {}` goes on with the rest", path.display())
        }
        _ => write!(text, ": nothing is lost; the next start mends it"),
    };
    Ok(Report { text, sound: !found.has_losses() })
}

/// Brings a log to where a relay can go on with it, and says what that cost. What was damaged is set aside. If anything
/// that was stored may be gone, the store has a new epoch.
///
/// # Errors
/// If it can't be looked at or written.
pub fn repair(path: &Path) -> Result<Report, OpenError> {
    let directory = Directory::existing(path)?;
    let _lock = directory.lock()?.ok_or(OpenError::Locked)?;
    repair_volume(&directory)
}

pub(super) fn repair_volume(volume: &dyn Volume) -> Result<Report, OpenError> {
    let found = examine(volume)?;
    let mut text = lines(&found.findings);
    if !found.has_losses() {
        for finding in &found.findings {
            if let Finding::Derived { file } = finding {
                volume::remove_if_there(volume, file)?;
            }
        }
        let _ = write!(text, "{}: nothing that was stored is lost; the epoch stays", summary(&found));
        return Ok(Report { text, sound: true });
    }
    // First of all: whatever becomes of the rest, nobody takes what is left for everything.
    let identity = Identity::new();
    identity.write(volume)?;
    let aside = rewrite(volume, &found)?;
    for file in aside {
        let _ = writeln!(text, "{file}: is now {file}{SET_ASIDE}; what was whole of it is in a new {file}");
    }
    let _ = write!(
        text,
        "{}: repaired; the new epoch is {}, and receivers of the old one are told",
        summary(&found),
        identity.epoch
    );
    Ok(Report { text, sound: true })
}

fn examine(volume: &dyn Volume) -> Result<Examination, OpenError> {
    let found = Examination::of(volume)?;
    match found.identity {
        Some(Identity { version, .. }) if version > VERSION => Err(OpenError::Newer(version)),
        None if found.segments.is_empty() => {
            Err(io::Error::new(io::ErrorKind::NotFound, "it is no store of a relay").into())
        }
        _ => Ok(found),
    }
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().fold(String::new(), |text, finding| text + &finding.to_string() + "\n")
}

fn summary(found: &Examination) -> String {
    let epoch = found.epoch().as_ref().map_or_else(|| "unknown".to_owned(), Epoch::to_string);
    let (segments, messages, channels) = (found.segments.len(), found.messages, found.channels.len());
    format!("{segments} segments, {messages} messages of {channels} channels, epoch {epoch}")
}

/// Writes every segment anew from its whole records, with each channel linked to what there is of it, and a checkpoint
/// behind them; which were set aside.
fn rewrite(volume: &dyn Volume, found: &Examination) -> Result<Vec<String>, OpenError> {
    for name in volume.list()?.iter().filter(|name| name.ends_with(DRAFT)) {
        volume.remove(name)?;
    }
    let blob = match found.segments.first() {
        Some(segment) => Arc::clone(&segment.blob),
        None => segment::create(volume, &segment::file_name(1), 1, 1)?,
    };
    blob.sync()?;
    let (mut links, mut aside) = (Links::default(), Vec::new());
    let mut rebuilt = Rebuilt::begin(found, blob);
    let mut end = At { segment: 1, offset: START, tip: 0, clean: true };
    for segment in &found.segments {
        let name = segment::file_name(segment.number);
        let draft = format!("{name}{DRAFT}");
        let blob = segment::create(volume, &draft, segment.number, segment.through)?;
        let mut writing = Writing { end: START, ..Writing::default() };
        for (from, to) in &segment.runs {
            copy(segment, *from, *to, &mut links, &mut writing, &mut rebuilt)?;
            blob.write_at(&writing.buffer, u64::from(writing.end) - writing.buffer.len() as u64)?;
            writing.buffer.clear();
        }
        blob.sync()?;
        if segment.damaged {
            // Its own name is not without a file at any moment.
            let set_aside = format!("{name}{SET_ASIDE}");
            volume::remove_if_there(volume, &set_aside)?;
            volume.link(&name, &set_aside)?;
            aside.push(name.clone());
        }
        volume::remove_if_there(volume, &index::file_name(segment.number))?;
        volume.rename(&draft, &name)?;
        volume.sync_names()?;
        end = At { segment: segment.number, offset: writing.end, tip: writing.tip, clean: true };
    }
    volume::replace(volume, checkpoint::NAME, &rebuilt.checkpoint(end, found))?;
    Ok(aside)
}

/// The last message that there is of each channel.
#[derive(Debug, Default)]
struct Links(HashMap<u32, Seq>);

/// A segment that is written.
#[derive(Debug, Default)]
struct Writing {
    buffer: Vec<u8>,
    end: u32,
    tip: u32,
}

fn copy(
    segment: &Examined,
    from: u32,
    to: u32,
    links: &mut Links,
    writing: &mut Writing,
    rebuilt: &mut Rebuilt,
) -> io::Result<()> {
    let tip = if from == START { 0 } else { segment::before(&*segment.blob, from)? };
    segment::scan(&*segment.blob, from, tip, |found, offset, bytes| {
        if offset >= to {
            return;
        }
        rebuilt.record(segment.number, offset, found, &bytes[HEADER..]);
        // What it says of seqs holds for an epoch that is over.
        if matches!(found.header.sort, Sort::Reserve | Sort::Crash | Sort::Synced) {
            return;
        }
        let mut header = found.header;
        if header.sort == Sort::Chunk {
            let last = links.0.insert(header.channel, header.last());
            header.prev = last.unwrap_or(header.prev);
        }
        let before = writing.buffer.len();
        let context = Context { before: writing.tip, synced: writing.end };
        writing.tip = record::put(&mut writing.buffer, context, &header, &[&bytes[HEADER..]]);
        writing.end += segment::offset((writing.buffer.len() - before) as u64);
    })?;
    Ok(())
}
