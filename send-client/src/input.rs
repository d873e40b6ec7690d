//! Where messages come from when nobody types them: `-m`, files, a pipe. A thread reads them in big blocks into
//! a short channel, so that a full outbox stops the reading.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
};

use bytes::Bytes;
use shared::client::Exit;
use tokio::sync::mpsc;

use crate::failure::{Failure, printable, reason};

/// Bytes that are read at once: what a pipe holds.
const BLOCK: usize = 64 * 1024;

/// Blocks that are read ahead.
const AHEAD: usize = 4;

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A message as it is.
    Message(Vec<u8>),
    /// A file, to be split.
    File(PathBuf),
    /// The standard input, to be split.
    Stdin,
}

/// What the reading thread hands over.
#[derive(Debug, PartialEq, Eq)]
pub enum Block {
    /// A message as it is.
    Message(Bytes),
    /// A file begins; its bytes, if it is a regular one.
    Begin(String, Option<u64>),
    /// The next bytes of an input.
    Data(Bytes),
    /// The end of an input.
    End,
    /// An input, by its name, could not be read on; nothing follows.
    Failed(String, String),
}

impl Source {
    /// A file by its name on the command line, where `-` is the standard input.
    pub fn file(path: &Path) -> Self {
        if path.as_os_str() == "-" { Self::Stdin } else { Self::File(path.into()) }
    }

    /// Looks whether it can be read, before there is any connection.
    pub fn check(&self) -> Result<(), Failure> {
        let Self::File(path) = self else { return Ok(()) };
        let readable = File::open(path).and_then(|file| match file.metadata()?.is_dir() {
            true => Err(io::ErrorKind::IsADirectory.into()),
            false => Ok(()),
        });
        readable.map_err(|error| Failure::unreadable(Exit::Usage, &name(path), &error))
    }
}

/// Begins to read the sources one after the other, all of them so many times.
///
/// # Errors
/// If the system gives no thread.
pub fn read(sources: Vec<Source>, repeat: u64) -> io::Result<mpsc::Receiver<Block>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    // The thread ends with the input, or when nobody wants its blocks any more; while it waits for a silent
    // pipe it ends with the process.
    thread::Builder::new().name("input".into()).spawn(move || {
        let all = (0..repeat).flat_map(|_| &sources);
        let _stopped = all.map(|source| read_one(source, &sender)).find(|read| read.is_none());
    })?;
    Ok(receiver)
}

/// Reads a source to its end; none if it could not, or if nobody wants more.
fn read_one(source: &Source, blocks: &mpsc::Sender<Block>) -> Option<()> {
    let (name, result) = match source {
        Source::Message(message) => return blocks.blocking_send(Block::Message(message.clone().into())).ok(),
        Source::Stdin => ("standard input".into(), read_all(&mut io::stdin().lock(), blocks)),
        Source::File(path) => {
            let result = File::open(path).and_then(|mut file| {
                let length = file.metadata().ok().filter(|data| data.is_file()).map(|data| data.len());
                let begun = blocks.blocking_send(Block::Begin(name(path), length)).ok();
                begun.map_or(Ok(None), |()| read_all(&mut file, blocks))
            });
            (name(path), result)
        }
    };
    match result {
        Ok(done) => done,
        Err(error) => {
            let _unwanted = blocks.blocking_send(Block::Failed(name, reason(&error)));
            None
        }
    }
}

fn read_all(input: &mut impl Read, blocks: &mpsc::Sender<Block>) -> io::Result<Option<()>> {
    let mut buffer = vec![0; BLOCK];
    loop {
        let block = match input.read(&mut buffer) {
            Ok(0) => return Ok(blocks.blocking_send(Block::End).ok()),
            Ok(n) => Bytes::copy_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if blocks.blocking_send(Block::Data(block)).is_err() {
            return Ok(None);
        }
    }
}

/// A path as it may be shown.
fn name(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn blocks(sources: Vec<Source>, repeat: u64) -> Vec<Block> {
        let mut receiver = read(sources, repeat).unwrap();
        std::iter::from_fn(|| receiver.blocking_recv()).collect()
    }

    #[test]
    fn sources_are_read_in_order_and_as_often_as_wanted() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"abc").unwrap();
        let path = file.path().to_path_buf();
        let sources = vec![Source::Message(b"m".to_vec()), Source::File(path.clone())];
        let once = || {
            [
                Block::Message(Bytes::from_static(b"m")),
                Block::Begin(name(&path), Some(3)),
                Block::Data(Bytes::from_static(b"abc")),
                Block::End,
            ]
        };
        assert_eq!(blocks(sources, 2), once().into_iter().chain(once()).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_that_is_none_is_found_before_and_while_reading() {
        let missing = Source::File("no/such/file".into());
        let failure = missing.check().unwrap_err();
        assert_eq!(failure.message, "cannot read no/such/file: no such file or directory");
        assert_eq!(failure.exit, Exit::Usage);
        let expected = Block::Failed("no/such/file".into(), "no such file or directory".into());
        assert_eq!(blocks(vec![missing, Source::Message(b"m".to_vec())], 1), [expected]);
        let directory = Source::File(".".into()).check().unwrap_err();
        assert_eq!(directory.message, "cannot read .: is a directory");
    }
}
