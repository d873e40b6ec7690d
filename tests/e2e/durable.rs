//! Messages on disk: what outlives the relay's end, of whatever kind, and what is said of the rest.

mod clients;
mod crash;
mod damage;
mod fsync;
mod full;
mod levels;
mod power;
mod resume;
mod retention;

use std::path::PathBuf;

use serde_json::Value;
use shared::{Envelope, Position, Seq};
use tempfile::TempDir;
use tests::{
    chain::{Chain, Gap},
    receiver::{self, Received, Receiver},
    relay::TestRelay,
    sender::FramedSender,
};

/// A relay with a directory of its own for its messages.
struct Durable {
    relay: TestRelay,
    folder: TempDir,
}

/// What a stream had, from its hello up to `live`.
struct Stream {
    hello: Value,
    messages: Vec<Envelope>,
    gaps: Vec<Gap>,
}

impl Durable {
    /// Starts one that can be started again, with a configuration.
    async fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let relay = TestRelay::restartable_with_config(config, &["--data", &data.to_string_lossy()]).await;
        Self { relay, folder }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Ends it by kill -9, and starts it again.
    async fn crash(&mut self) {
        self.relay.kill().await;
        self.relay.start_again().await;
    }

    /// Ends it politely, and starts it again.
    async fn restart(&mut self) {
        assert_eq!(self.relay.stop().await.code, Some(0));
        self.relay.start_again().await;
    }

    async fn read(&self, channel: &str, query: &str) -> Stream {
        read(&self.relay, channel, query).await
    }
}

/// Reads a channel or pattern up to `live`, and holds it against the law of the chain.
async fn read(relay: &TestRelay, channel: &str, query: &str) -> Stream {
    let mut receiver = Receiver::json(relay.address(), channel, query).await;
    let hello = receiver.hello().await;
    // A stream from the earliest on says nothing about what is older than that.
    let earliest = query.contains("earliest");
    let mut chain = (!earliest).then(|| Chain::new(&hello));
    let mut stream = Stream { hello, messages: Vec::new(), gaps: Vec::new() };
    loop {
        let received = receiver.next().await;
        if let Some(chain) = &mut chain {
            chain.check(&received);
        }
        match received {
            Received::Message(envelope) => stream.messages.push(envelope),
            Received::Control(event) if event["type"] == "gap" => {
                let number = |key: &str| event[key].as_u64();
                let (after, before) = (number("after").unwrap(), number("before").unwrap());
                stream.gaps.push(Gap { after, before, count: number("count") });
            }
            Received::Control(event) if event["type"] == "live" => return stream,
            other => panic!("{other:?}"),
        }
    }
}

impl Stream {
    fn texts(&self) -> Vec<String> {
        let text = |message: &Envelope| String::from_utf8(message.payload.to_vec()).unwrap();
        self.messages.iter().map(text).collect()
    }

    /// What its hello says: whether it recovered, and why not.
    fn recovered(&self) -> (bool, Option<&str>) {
        (self.hello["recovered"].as_bool().unwrap(), self.hello["reason"].as_str())
    }

    /// The position of its last message.
    fn position(&self) -> Position {
        self.position_at(self.messages.len() - 1)
    }

    fn position_at(&self, index: usize) -> Position {
        receiver::position(&self.hello, self.messages[index].seq)
    }

    fn last(&self) -> Seq {
        self.messages.last().unwrap().seq
    }
}

/// Numbers as texts, `message 1` and so on.
fn texts(numbers: std::ops::RangeInclusive<u64>) -> Vec<String> {
    numbers.map(|n| format!("message {n}")).collect()
}

/// A new producer publishes texts to a channel, each in a chunk of its own, and waits until they are settled.
async fn publish(relay: &TestRelay, channel: &str, texts: &[String]) {
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, channel, 1).await;
    for (n, text) in (1..).zip(texts) {
        sender.publish_all(1, n, std::slice::from_ref(text)).await;
    }
}
