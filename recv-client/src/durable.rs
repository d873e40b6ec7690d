//! A position that outlives the process: `--durable NAME`. One file per name, replaced as a whole, and a lock
//! beside it, so that one process at a time uses a name.
//!
//! Between two positions more is written to files than the kept one stands for. So their lengths are kept before, and
//! a start after a kill cuts what is beyond them: it comes again, and is written once.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};
use shared::{
    ChannelId, ChannelPattern, Position,
    client::{Exit, RelayAddr},
};

use crate::failure::Failure;

/// Where a position is kept. The name is locked as long as this lives.
#[derive(Debug)]
pub(crate) struct Durable {
    directory: PathBuf,
    path: PathBuf,
    /// Written first, then renamed to `path`.
    draft: PathBuf,
    /// What is kept.
    record: Record,
    _lock: File,
}

/// A file that may hold more than the kept position stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unfinished {
    /// Where it is, from the root.
    pub(crate) path: PathBuf,
    /// It, and no other that came to its place.
    pub(crate) inode: u64,
    /// Its bytes at that position.
    pub(crate) length: u64,
}

/// Channels of a relay, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Subject {
    relay: String,
    channels: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// What the position is one of.
    #[serde(flatten)]
    subject: Subject,
    /// None as long as nothing has come.
    position: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unfinished: Vec<Unfinished>,
}

/// The directory of all durable positions.
///
/// # Errors
/// There is no home directory.
pub(crate) fn directory() -> anyhow::Result<PathBuf> {
    let base = etcetera::base_strategy::Xdg::new().context("cannot tell where to keep a position")?;
    let state = base.state_dir().context("cannot tell where to keep a position")?;
    Ok(state.join("relay").join("durable"))
}

impl Durable {
    /// Locks a name, and reads what is kept under it: nothing the first time. Cuts off what a killed process wrote
    /// behind it.
    ///
    /// # Errors
    /// The name can't be a file's, another process uses it, or it belongs to another relay or other channels.
    pub(crate) fn open(
        directory: &Path,
        name: &str,
        relay: &RelayAddr,
        patterns: &[ChannelPattern],
    ) -> anyhow::Result<(Self, Option<Position>)> {
        check_name(name)?;
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let path = directory.join(name);
        let lock = lock(&directory.join(format!(".{name}.lock")), name)?;
        let draft = directory.join(format!(".{name}.draft"));
        let mut channels: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        channels.sort();
        let subject = Subject { relay: relay.to_string(), channels };
        let record = Record { subject, position: None, unfinished: Vec::new() };
        let mut durable = Self { directory: directory.into(), path, draft, record, _lock: lock };
        let position = durable.read(name)?;
        durable.record.unfinished.iter().try_for_each(Unfinished::cut)?;
        if !durable.record.unfinished.is_empty() {
            durable.record.unfinished.clear();
            durable.write()?;
        }
        Ok((durable, position))
    }

    /// Replaces the position: everything before it is in the files. After an error the old one is still there.
    pub(crate) fn save(&mut self, position: Position) -> anyhow::Result<()> {
        self.record.position = Some(position.to_string());
        self.record.unfinished.clear();
        self.write()
    }

    /// Whether it is kept of a file how long it was.
    pub(crate) fn knows(&self, path: &Path) -> bool {
        self.record.unfinished.iter().any(|known| known.path == path)
    }

    /// Keeps how long these files are, before more is written to them.
    pub(crate) fn begin(&mut self, files: Vec<Unfinished>) -> anyhow::Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        self.record.unfinished.extend(files);
        self.write()?;
        // The name must be on disk too: the record before, found after a power cut, would leave there what is written
        // from now on, and it would come again. Otherwise that one does no harm: it cuts off more than it had to.
        let synced = File::open(&self.directory).and_then(|names| names.sync_all());
        synced.with_context(|| self.cannot_keep())
    }

    /// Replaces what is kept. After a power cut it may still be the old one, but nothing between them.
    fn write(&self) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(&self.record)?;
        text.push(b'\n');
        let write = || -> io::Result<()> {
            let mut draft = File::create(&self.draft)?;
            draft.write_all(&text)?;
            draft.sync_data()?;
            fs::rename(&self.draft, &self.path)
        };
        write().with_context(|| self.cannot_keep())
    }

    fn cannot_keep(&self) -> String {
        format!("cannot keep the position in {}", self.path.display())
    }

    fn read(&mut self, name: &str) -> anyhow::Result<Option<Position>> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        };
        let path = self.path.display();
        let unreadable = || {
            Failure::new(Exit::Failure, format!("{path} holds no position"))
                .hint(format_args!("remove it to begin anew: rm '{path}'"))
        };
        let record: Record = serde_json::from_slice(&text).map_err(|_| unreadable())?;
        if record.subject != self.record.subject {
            let what = format!(
                "the durable position `{name}` is one of {}, not of {}",
                record.subject, self.record.subject
            );
            let hint = format!("choose another name, or remove it to begin anew: rm '{path}'");
            return Err(Failure::new(Exit::Usage, what).hint(hint).into());
        }
        let position = record.position.as_deref().map(str::parse).transpose().map_err(|_| unreadable())?;
        self.record = record;
        Ok(position)
    }
}

impl Unfinished {
    /// How long a file is; none if it is no regular file, which can't be cut.
    pub(crate) fn new(file: &File, path: &Path) -> io::Result<Option<Self>> {
        let data = file.metadata()?;
        // A path that is not UTF-8 can't be kept in JSON.
        if !data.is_file() || path.to_str().is_none() {
            return Ok(None);
        }
        let path = std::path::absolute(path)?;
        Ok(Some(Self { path, inode: data.ino(), length: data.len() }))
    }

    /// Takes off what was written since. A file that was moved away or emptied meanwhile is left as it is.
    fn cut(&self) -> anyhow::Result<()> {
        let cut = || -> io::Result<()> {
            let file = match File::options().write(true).open(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                opened => opened?,
            };
            let data = file.metadata()?;
            if data.ino() == self.inode && data.len() > self.length {
                file.set_len(self.length)?;
                file.sync_data()?;
            }
            Ok(())
        };
        cut().with_context(|| format!("cannot cut what was not finished off {}", self.path.display()))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.channels.join(", "), self.relay)
    }
}

/// The rules of channel names make a safe file name, if it is one segment and not hidden.
fn check_name(name: &str) -> Result<(), Failure> {
    let why = match name.parse::<ChannelId>() {
        Err(error) => error.to_string(),
        Ok(_) if name.contains('/') => "a `/` is not allowed".into(),
        Ok(_) if name.starts_with('.') => "it may not begin with a dot".into(),
        // The lock and the draft add up to seven bytes.
        Ok(_) if name.len() > 240 => "it is longer than 240 bytes".into(),
        Ok(_) => return Ok(()),
    };
    Err(Failure::new(Exit::Usage, format!("invalid value '{name}' for '--durable': {why}")))
}

fn lock(path: &Path, name: &str) -> anyhow::Result<File> {
    let unusable = || format!("cannot lock {}", path.display());
    let file = File::options().create(true).append(true).open(path).with_context(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let what = format!("another recv-client is using the durable position `{name}`");
            Err(Failure::new(Exit::Failure, what).hint("choose another name, or stop the other one").into())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(unusable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::{Epoch, Seq};

    fn patterns(names: &[&str]) -> Vec<ChannelPattern> {
        names.iter().map(|n| n.parse().unwrap()).collect()
    }

    fn open(directory: &Path, name: &str, channels: &[&str]) -> anyhow::Result<(Durable, Option<Position>)> {
        Durable::open(directory, name, &RelayAddr::default(), &patterns(channels))
    }

    fn exit(error: &anyhow::Error) -> Exit {
        error.downcast_ref::<Failure>().unwrap().exit()
    }

    fn at(seq: u64) -> Position {
        Position { epoch: Epoch(7), seq: Seq(seq) }
    }

    #[test]
    fn what_was_saved_is_there_at_the_next_start_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let (mut durable, position) = open(dir.path(), "backup", &["foo", "bar/*"]).unwrap();
        assert_eq!(position, None);
        for seq in [1, 42] {
            durable.save(at(seq)).unwrap();
        }
        drop(durable);
        // The order of channels on the command line does not matter.
        let (_durable, position) = open(dir.path(), "backup", &["bar/*", "foo"]).unwrap();
        assert_eq!(position, Some(at(42)));
        let mut files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, [".backup.lock", "backup"]);
    }

    #[test]
    fn what_was_written_behind_the_position_is_cut_off_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let begin = |durable: &mut Durable, file: &File| {
            assert!(!durable.knows(&path));
            durable.begin(Vec::from_iter(Unfinished::new(file, &path).unwrap())).unwrap();
            assert!(durable.knows(&path));
        };
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        let (mut durable, _) = open(dir.path(), "backup", &["foo"]).unwrap();
        file.write_all(b"not ours|").unwrap();
        // Killed before there was any position.
        begin(&mut durable, &file);
        file.write_all(b"one|").unwrap();
        drop(durable);
        let (mut durable, position) = open(dir.path(), "backup", &["foo"]).unwrap();
        assert_eq!((position, fs::read_to_string(&path).unwrap().as_str()), (None, "not ours|"));
        // Killed behind one.
        begin(&mut durable, &file);
        file.write_all(b"one|").unwrap();
        durable.save(at(1)).unwrap();
        begin(&mut durable, &file);
        file.write_all(b"two|thr").unwrap();
        drop(durable);
        let (durable, position) = open(dir.path(), "backup", &["foo"]).unwrap();
        assert_eq!((position, fs::read_to_string(&path).unwrap().as_str()), (Some(at(1)), "not ours|one|"));
        // Not killed: what others append stays.
        drop(durable);
        file.write_all(b"theirs|").unwrap();
        open(dir.path(), "backup", &["foo"]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "not ours|one|theirs|");
    }

    #[test]
    fn a_file_that_came_to_the_place_of_the_unfinished_one_is_not_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let file = File::create(&path).unwrap();
        let (mut durable, _) = open(dir.path(), "backup", &["foo"]).unwrap();
        durable.begin(Vec::from_iter(Unfinished::new(&file, &path).unwrap())).unwrap();
        fs::rename(&path, dir.path().join("out.1")).unwrap();
        fs::write(&path, "another").unwrap();
        drop(durable);
        open(dir.path(), "backup", &["foo"]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "another");
    }

    #[test]
    fn a_name_is_used_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), "backup", &["foo"]).unwrap();
        let error = open(dir.path(), "backup", &["foo"]).unwrap_err();
        assert!(error.to_string().starts_with("another recv-client is using the durable position `backup`"));
        open(dir.path(), "other", &["foo"]).unwrap();
        drop(first);
        open(dir.path(), "backup", &["foo"]).unwrap();
    }

    #[test]
    fn a_position_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (mut durable, _) = open(dir.path(), "backup", &["foo"]).unwrap();
        durable.save(at(1)).unwrap();
        drop(durable);
        let error = open(dir.path(), "backup", &["bar"]).unwrap_err();
        assert_eq!(exit(&error), Exit::Usage);
        assert!(error.to_string().starts_with(
            "the durable position `backup` is one of foo at 127.0.0.1:12000, not of bar at 127.0.0.1:12000\n  hint: "
        ));
        fs::write(dir.path().join("backup"), "{").unwrap();
        assert!(open(dir.path(), "backup", &["foo"]).unwrap_err().to_string().contains("holds no position"));
    }

    #[test]
    fn a_name_is_one_segment_and_not_hidden() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", "..", "a/b", "/etc/passwd", ".hidden", "a b", &"x".repeat(241)] {
            assert_eq!(exit(&open(dir.path(), name, &["foo"]).unwrap_err()), Exit::Usage, "{name}");
        }
    }
}
