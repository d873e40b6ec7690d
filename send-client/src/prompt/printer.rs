//! Texts above a half-typed line. They go through a thread of their own: the line editor may take its time to
//! show them, and the sender must not wait for it.

use std::{
    io::{self, IsTerminal},
    sync::mpsc::{self, SyncSender},
    thread,
    time::Duration,
};

use rustyline::ExternalPrinter;

use crate::console::write_stderr;

/// Texts that may wait to be shown. There is one per change of state; beyond it they are left out.
const WAITING: usize = 64;

/// How long the end waits for the last texts to be shown.
const FINISH: Duration = Duration::from_millis(200);

/// Shows texts above the prompt.
#[derive(Debug)]
pub struct Printer {
    texts: SyncSender<String>,
    done: mpsc::Receiver<()>,
}

impl Printer {
    /// A printer for a line editor.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(mut editor: impl ExternalPrinter + Send + 'static) -> io::Result<Self> {
        let (texts, waiting) = mpsc::sync_channel::<String>(WAITING);
        let (finished, done) = mpsc::channel();
        // Ends when the printer is dropped.
        thread::Builder::new().name("printer".into()).spawn(move || {
            let stderr = io::stderr();
            let plain = anstream::AutoStream::choice(&stderr) == anstream::ColorChoice::Never;
            for text in waiting {
                let shown = match stderr.is_terminal() {
                    true if plain => editor.print(anstream::adapter::strip_str(&text).to_string()).is_ok(),
                    true => editor.print(text.clone()).is_ok(),
                    false => false,
                };
                if !shown {
                    write_stderr(&text);
                }
            }
            finished.send(())
        })?;
        Ok(Self { texts, done })
    }

    /// Shows a text, which ends with a newline.
    pub fn print(&self, text: &str) {
        let _full = self.texts.try_send(text.into());
    }

    /// Shows what waits, and ends.
    pub fn finish(self) {
        drop(self.texts);
        let _late = self.done.recv_timeout(FINISH);
    }
}
