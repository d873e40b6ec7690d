//! A receiver that is not of this house: Python's `websockets`.

use std::{net::SocketAddr, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use tokio::process::Command;

use crate::{
    missing,
    program::{self, Program},
};

/// Receives `count` messages and prints each: its kind (`text` or `binary`) and its payload in base64.
const SCRIPT: &str = r#"
import asyncio, base64, sys, websockets

async def receive(url, count):
    async with websockets.connect(url, max_size=None) as socket:
        print("connected", flush=True)
        for _ in range(count):
            message = await socket.recv()
            text = isinstance(message, str)
            data = message.encode() if text else message
            print("text" if text else "binary", base64.b64encode(data).decode(), flush=True)

asyncio.run(receive(sys.argv[1], int(sys.argv[2])))
"#;

/// A receiver in Python.
#[derive(Debug)]
pub struct PythonReceiver(Program);

impl PythonReceiver {
    /// Connects to a path for so many messages; none, said aloud, where there is no Python with `websockets`.
    pub async fn connect(address: SocketAddr, path: &str, count: usize) -> Option<Self> {
        let Some(python) = find().await else {
            missing::not_run(
                "a receiver in Python",
                "there is no python3 with websockets (tests/run sets one up)",
            );
            return None;
        };
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT, &format!("ws://{address}{path}"), &count.to_string()]);
        let mut program = Program::spawn("python", command);
        assert_eq!(program.line().await, "connected");
        Some(Self(program))
    }

    /// Waits for all of its messages.
    pub async fn texts(mut self) -> Vec<String> {
        let finished = self.0.finish().await;
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        let decode = |line: &str| {
            let payload = line.strip_prefix("text ").unwrap_or_else(|| panic!("not a text message: {line}"));
            String::from_utf8(BASE64.decode(payload).expect("base64")).expect("text is UTF-8")
        };
        finished.lines().iter().skip(1).map(|line| decode(line)).collect()
    }
}

/// The virtual environment that `tests/run` makes, or the system's own Python.
async fn find() -> Option<PathBuf> {
    let made = program::target_folder().join("python/bin/python3");
    let system = missing::find_program(&["python3"]);
    for python in [Some(made), system].into_iter().flatten() {
        let works = Command::new(&python).args(["-c", "import websockets"]).output().await;
        if works.is_ok_and(|output| output.status.success()) {
            return Some(python);
        }
    }
    None
}
