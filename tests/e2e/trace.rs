//! A sensor's trace by the four ways in, to five receivers each: three `recv-client`s, Python, and the page. They
//! get exactly the readings, byte for byte, in order, once.

use std::net::SocketAddr;

use serde_json::json;
use shared::receiver::Subprotocol;
use tests::{
    browser::Browser,
    program::{Finished, Program},
    python::PythonReceiver,
    receiver::Receiver,
    relay::TestRelay,
    sender::RawSender,
    trace::traces,
};
use tokio::process::Command;

use crate::browser::{ROWS, row_texts};

/// Everybody who listens to one channel.
struct Audience {
    clients: Vec<Program>,
    python: Option<PythonReceiver>,
    page: Option<Browser>,
}

impl Audience {
    /// Connected, all of them, when it returns.
    async fn gather(relay: SocketAddr, channel: &str, count: usize) -> Self {
        let host = relay.to_string();
        let args = ["--verbose", "--channel", channel, "--relay", &host, "--count", &count.to_string()]
            .map(str::to_owned);
        let mut clients: Vec<Program> = (0..3).map(|_| Program::start("recv-client", &args)).collect();
        for client in &mut clients {
            client.notes("connected to").await;
        }
        let python = PythonReceiver::connect(relay, &format!("/c/{channel}"), count).await;
        let mut page = Browser::start().await;
        if let Some(page) = &mut page {
            crate::browser::open(page, relay, channel).await;
        }
        Self { clients, python, page }
    }

    /// Each of them got exactly these.
    async fn got(self, readings: &[String]) {
        let expected = format!("{}\n", readings.join("\n"));
        for mut client in self.clients {
            let Finished { code, stdout, .. } = client.finish().await;
            assert_eq!(code, Some(0));
            assert!(stdout == expected.as_bytes(), "recv-client: {}", first_difference(&expected, &stdout));
        }
        if let Some(python) = self.python {
            assert_eq!(python.texts().await, readings);
        }
        if let Some(mut page) = self.page {
            page.shows(&format!("{ROWS}.length >= {}", readings.len())).await;
            assert_eq!(row_texts(&mut page).await, json!(readings));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_sent_by_send_client_arrives_as_its_readings() {
    for trace in traces() {
        let relay = TestRelay::start(&[]).await;
        let audience = Audience::gather(relay.address(), "plant/serial", trace.readings.len()).await;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &trace.bytes).unwrap();
        let path = file.path().to_string_lossy().into_owned();
        let mut sender =
            Program::start("send-client", ["--channel", "plant/serial", "-r", &relay.host(), &path]);
        assert_eq!(sender.finish().await.code, Some(0), "{}", trace.name);
        audience.got(&trace.readings).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_sent_by_nc_arrives_as_its_readings() {
    for trace in traces() {
        let relay = TestRelay::start(&["--raw", "127.0.0.1:0=plant/serial"]).await;
        let audience = Audience::gather(relay.address(), "plant/serial", trace.readings.len()).await;
        let mut command = Command::new("nc");
        command.args(["-N", "127.0.0.1", &relay.addresses()[1].port().to_string()]);
        let mut nc = Program::spawn("nc", command);
        nc.write(&trace.bytes).await;
        assert_eq!(nc.finish().await.code, Some(0), "{}", trace.name);
        audience.got(&trace.readings).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_without_line_ends_arrive_as_they_were_written() {
    for trace in traces() {
        let readings = &trace.readings[..200];
        let relay = TestRelay::start(&[]).await;
        let audience = Audience::gather(relay.address(), "default", readings.len()).await;
        let mut first = Receiver::connect(relay.address(), "/", Some(Subprotocol::Raw)).await;
        let mut device = RawSender::connect(relay.address()).await;
        for reading in readings {
            device.write(reading).await;
            assert_eq!(&first.text().await, reading);
        }
        audience.got(readings).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_piped_in_small_pieces_arrives_as_its_readings() {
    for trace in traces() {
        let relay = TestRelay::start(&[]).await;
        let audience = Audience::gather(relay.address(), "plant/serial", trace.readings.len()).await;
        let mut sender = Program::start("send-client", ["--channel", "plant/serial", "-r", &relay.host()]);
        for piece in trace.bytes.chunks(7) {
            sender.write(piece).await;
        }
        assert_eq!(sender.finish().await.code, Some(0), "{}", trace.name);
        audience.got(&trace.readings).await;
    }
}

fn first_difference(expected: &str, got: &[u8]) -> String {
    let got = String::from_utf8_lossy(got);
    let (expected, got): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), got.lines().collect());
    let at =
        expected.iter().zip(&got).position(|(a, b)| a != b).unwrap_or_else(|| expected.len().min(got.len()));
    format!(
        "{} lines instead of {}; line {}: {:?} instead of {:?}",
        got.len(),
        expected.len(),
        at + 1,
        got.get(at),
        expected.get(at)
    )
}
