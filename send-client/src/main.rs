//! `send-client`: parse, send, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    send_client::run(std::env::args_os()).into()
}
