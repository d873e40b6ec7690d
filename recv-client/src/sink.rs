//! Where messages go: stdout, a file, or a file per channel. Blocking; the writer's thread owns it.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use shared::ChannelId;

use crate::{
    durable::Unfinished,
    failure::{Failure, reason},
};
use shared::client::Exit;

/// Files of a directory that are open at once; beyond, all are closed and opened again when needed.
const MAX_OPEN: usize = 128;

/// What becomes part of the name of a file: [`file_name`].
const EXTENSION: &str = ".log";

/// The destination of all output.
#[derive(Debug)]
pub(crate) enum Sink {
    /// The process's own.
    Stdout,
    /// A file, and its name for errors.
    File(File, PathBuf),
    /// A file per channel.
    Directory(Directory),
}

/// Files named after their channels.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    open: HashMap<ChannelId, File>,
}

/// Successive bytes of one channel.
#[derive(Debug)]
pub(crate) struct Part {
    /// Whose.
    pub(crate) channel: ChannelId,
    /// How many.
    pub(crate) len: usize,
}

impl Sink {
    /// Opens a file, which is replaced.
    pub(crate) fn file(path: PathBuf) -> anyhow::Result<Self> {
        let file = File::create(&path).map_err(|e| cannot("open", &path, &e))?;
        Ok(Self::File(file, path))
    }

    /// Opens a file that is appended to, by this process alone: it may have to be cut.
    pub(crate) fn appended(path: PathBuf) -> anyhow::Result<Self> {
        let open = || -> io::Result<(File, bool)> {
            let file = File::options().create(true).append(true).open(&path)?;
            let free = !file.metadata()?.is_file() || file.try_lock().is_ok();
            Ok((file, free))
        };
        let (file, free) = open().map_err(|e| cannot("open", &path, &e))?;
        if !free {
            let what = format!("another recv-client is writing to {}", path.display());
            return Err(Failure::new(Exit::Failure, what).hint("choose another file").into());
        }
        Ok(Self::File(file, path))
    }

    /// A file per channel below `root`, which is created.
    pub(crate) fn directory(root: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&root).map_err(|e| cannot("create", &root, &e))?;
        Ok(Self::Directory(Directory { root, open: HashMap::new() }))
    }

    /// Writes all of it through to the system. `parts` say whose bytes they are, and cover them.
    pub(crate) fn write(&mut self, bytes: &[u8], parts: &[Part]) -> anyhow::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush()).context("cannot write to stdout")
            }
            Self::File(file, path) => Ok(file.write_all(bytes).map_err(|e| cannot("write to", path, &e))?),
            Self::Directory(directory) => {
                let mut rest = bytes;
                for part in parts {
                    let (bytes, after) = rest.split_at(part.len);
                    directory.append(&part.channel, bytes)?;
                    rest = after;
                }
                Ok(())
            }
        }
    }

    /// The files that these bytes are to be written to and that are not known, as they are before.
    pub(crate) fn unfinished(
        &mut self,
        bytes: &[u8],
        parts: &[Part],
        known: impl Fn(&Path) -> bool,
    ) -> anyhow::Result<Vec<Unfinished>> {
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Self::Stdout => Ok(Vec::new()),
            Self::File(file, path) => {
                let now = Unfinished::new(file, path).map_err(|e| cannot("write to", path, &e))?;
                Ok(now.into_iter().filter(|file| !known(&file.path)).collect())
            }
            Self::Directory(directory) => {
                let mut files: Vec<Unfinished> = Vec::new();
                for part in parts {
                    let path = directory.root.join(file_name(&part.channel));
                    if known(&std::path::absolute(&path).map_err(|e| cannot("write to", &path, &e))?) {
                        continue;
                    }
                    let file = directory.file(&part.channel)?;
                    let now = Unfinished::new(file, &path).map_err(|e| cannot("write to", &path, &e))?;
                    files.extend(now);
                }
                files.sort_by(|a, b| a.path.cmp(&b.path));
                files.dedup();
                Ok(files)
            }
        }
    }

    /// Waits until what was written to files is on disk: a position that is kept must not be ahead of it.
    pub(crate) fn sync(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Stdout => Ok(()),
            // Devices and pipes can't be synced, and need not be.
            Self::File(file, path) => match file.sync_data() {
                Err(error) if error.kind() != io::ErrorKind::InvalidInput => {
                    Err(cannot("write to", path, &error).into())
                }
                _ => Ok(()),
            },
            Self::Directory(directory) => directory.close(),
        }
    }
}

impl Directory {
    fn append(&mut self, channel: &ChannelId, bytes: &[u8]) -> anyhow::Result<()> {
        let written = self.file(channel)?.write_all(bytes);
        Ok(written.map_err(|e| cannot("write to", &self.root.join(file_name(channel)), &e))?)
    }

    fn file(&mut self, channel: &ChannelId) -> anyhow::Result<&mut File> {
        if !self.open.contains_key(channel) {
            if self.open.len() >= MAX_OPEN {
                self.close()?;
            }
            let path = self.root.join(file_name(channel));
            let open = || {
                fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
                File::options().create(true).append(true).open(&path)
            };
            let file = open().map_err(|e| cannot("open", &path, &e))?;
            self.open.insert(channel.clone(), file);
        }
        self.open.get_mut(channel).context("the file was opened just now")
    }

    fn close(&mut self) -> anyhow::Result<()> {
        for (channel, file) in self.open.drain() {
            file.sync_data().map_err(|e| cannot("write to", &self.root.join(file_name(&channel)), &e))?;
        }
        Ok(())
    }
}

/// The file of a channel below the directory: `sensors/kitchen` is `sensors/kitchen.log`. No two channels share
/// one, and none is where another needs a directory: a directory that would look like a file gets a `+`, which
/// no channel has.
fn file_name(channel: &ChannelId) -> PathBuf {
    let mut segments: Vec<&str> = channel.as_str().split('/').collect();
    let file = segments.pop().unwrap_or_default();
    let mut path: PathBuf =
        segments.iter().map(|s| if s.ends_with(EXTENSION) { format!("{s}+") } else { (*s).into() }).collect();
    path.push(format!("{file}{EXTENSION}"));
    path
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failure, format!("cannot {what} {}: {}", path.display(), reason(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(name: &str) -> ChannelId {
        name.parse().unwrap()
    }

    #[test]
    fn a_channel_has_a_file_of_its_own_whatever_the_others_are_called() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = Sink::directory(dir.path().join("new")).unwrap();
        for name in ["a", "a/b", "a.log", "a.log/b", "a/b.log/c"] {
            sink.write(name.as_bytes(), &[Part { channel: id(name), len: name.len() }]).unwrap();
        }
        sink.sync().unwrap();
        sink.write(b"!?", &[Part { channel: id("a"), len: 1 }, Part { channel: id("a/b"), len: 1 }]).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join("new").join(name)).unwrap();
        assert_eq!(read("a.log"), "a!");
        assert_eq!(read("a/b.log"), "a/b?");
        assert_eq!(read("a.log.log"), "a.log");
        assert_eq!(read("a.log+/b.log"), "a.log/b");
        assert_eq!(read("a/b.log+/c.log"), "a/b.log/c");
    }

    #[test]
    fn more_channels_than_files_may_be_open_are_written_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = Sink::directory(dir.path().into()).unwrap();
        for _ in 0..2 {
            for n in 0..MAX_OPEN + 2 {
                sink.write(b"x", &[Part { channel: id(&format!("c{n}")), len: 1 }]).unwrap();
            }
        }
        for n in 0..MAX_OPEN + 2 {
            assert_eq!(fs::read(dir.path().join(format!("c{n}.log"))).unwrap(), b"xx");
        }
    }

    #[test]
    fn a_file_is_replaced_unless_it_is_to_be_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        for (append, expected) in [(false, "x"), (true, "xx"), (false, "x")] {
            let sink = if append { Sink::appended(path.clone()) } else { Sink::file(path.clone()) };
            sink.unwrap().write(b"x", &[]).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        }
        let error = Sink::file(dir.path().join("no/such")).unwrap_err().to_string();
        assert!(error.ends_with("no such file or directory"), "{error}");
    }

    #[test]
    fn a_file_that_is_appended_to_is_used_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let first = Sink::appended(path.clone()).unwrap();
        let error = Sink::appended(path.clone()).unwrap_err().to_string();
        assert!(error.starts_with("another recv-client is writing to "), "{error}");
        drop(first);
        Sink::appended(path).unwrap();
    }

    #[test]
    fn the_files_that_will_be_written_to_are_told_once_with_their_lengths() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = Sink::directory(dir.path().into()).unwrap();
        let part = |name, len| Part { channel: id(name), len };
        sink.write(b"abc", &[part("a", 1), part("b", 2)]).unwrap();
        let parts = [part("b", 1), part("a", 1), part("b", 1), part("c", 1)];
        let told = sink.unfinished(b"xxxx", &parts, |path| path.ends_with("a.log")).unwrap();
        let told: Vec<_> =
            told.into_iter().map(|f| (f.path.file_name().unwrap().to_owned(), f.length)).collect();
        assert_eq!(told, [("b.log".into(), 2), ("c.log".into(), 0)]);
    }

    proptest! {
        #[test]
        fn a_file_is_never_outside_of_the_directory(name in "[a-z.:~+/]{1,30}") {
            if let Ok(channel) = name.parse::<ChannelId>() {
                let path = file_name(&channel);
                prop_assert!(path.components().all(|c| matches!(c, std::path::Component::Normal(_))));
            }
        }
    }
}
