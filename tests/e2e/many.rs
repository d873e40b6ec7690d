//! Many senders, many receivers, many channels: one total order, nothing lost, nothing twice, bounded memory.

use std::{collections::HashMap, ops::Range, sync::OnceLock};

use shared::{Kind, Seq, receiver::Subprotocol, sender::Alias};
use tests::{
    chain::Chain,
    receiver::{Dial, Received, Receiver, position},
    relay::TestRelay,
    sender::FramedSender,
    within,
};
use tokio::{sync::watch, task::JoinSet};

const SENDERS: u16 = 8;
const EACH: u64 = 50_000;
const ALL: usize = SENDERS as usize * EACH as usize;
const RECEIVERS: usize = 20;
const MIB: u64 = 1 << 20;

/// How far ahead of the receivers that read a sender goes where the store keeps little: with eight senders about
/// a third of 4 MiB.
const AHEAD: u64 = 400;

/// The message of a sender with a number: 16 to 2 000 bytes, most of them short, two kinds, all different.
fn write_message(sender: u16, number: u64, out: &mut Vec<u8>) -> Kind {
    static FILLER: OnceLock<Vec<u8>> = OnceLock::new();
    let filler = FILLER
        .get_or_init(|| (0..4096u32).map(|n| b'a' + (n.wrapping_mul(2_654_435_761) >> 28) as u8).collect());
    let mixed = (number * 8 + u64::from(sender)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let short = 16 << (mixed >> 61);
    let length = (short + (mixed >> 32) as usize % short).min(2000);
    out.extend_from_slice(&[b'A' + sender as u8, b' ']);
    out.extend_from_slice(format!("{number:08} ").as_bytes());
    let from = (mixed >> 8) as usize % 2048;
    out.extend_from_slice(&filler[from..from + length.saturating_sub(out.len())]);
    if number.is_multiple_of(4) { Kind::Binary } else { Kind::Text }
}

/// Which message this is, after a comparison of every byte.
fn identify(kind: Kind, payload: &[u8], scratch: &mut Vec<u8>) -> (u16, u64) {
    let sender = u16::from(payload[0] - b'A');
    let number = std::str::from_utf8(&payload[2..10]).unwrap().parse().unwrap();
    scratch.clear();
    let expected = write_message(sender, number, scratch);
    assert!(
        expected == kind && scratch == payload,
        "message {number} of sender {sender} is not what was published"
    );
    (sender, number)
}

/// Publishes all messages of a sender, never more than [`AHEAD`] of what `reached` tells, where there are any.
async fn send(relay: std::net::SocketAddr, sender: u16, mut reached: Vec<watch::Receiver<Vec<u64>>>) {
    let mut connection = FramedSender::connect(relay).await;
    connection.open(1, "many", 1).await;
    let step = if reached.is_empty() { EACH } else { AHEAD / 2 };
    let mut next = 1;
    while next <= EACH {
        for receiver in &mut reached {
            let near = receiver.wait_for(|counts| counts[usize::from(sender)] + AHEAD >= next + step);
            within("receivers to come near", near).await.expect("receivers read on");
        }
        let end = (next + step).min(EACH + 1);
        connection.publish_each(1, next..end, |n, out| write_message(sender, n, out)).await;
        next = end;
    }
}

/// What one receiver saw: the messages in their order.
type Order = Vec<(u16, u64)>;

/// Receives everything, each sender's messages in their order; tells how far it is.
async fn receive(mut receiver: Receiver, reached: watch::Sender<Vec<u64>>) -> Order {
    let mut order = Order::with_capacity(ALL);
    let mut next = vec![1; usize::from(SENDERS)];
    let mut scratch = Vec::new();
    let mut chain = None;
    while order.len() < ALL {
        let received = receiver.next().await;
        let (kind, payload) = match &received {
            Received::Raw(kind, payload) => (*kind, payload),
            Received::Message(envelope) => (envelope.kind, &envelope.payload),
            Received::Control(event) => {
                assert_ne!(event["type"], "gap", "{event}");
                chain.get_or_insert_with(|| Chain::new(event));
                continue;
            }
            end => panic!("{end:?} after {} messages", order.len()),
        };
        if let Some(chain) = &mut chain {
            chain.check(&received);
        }
        let (sender, number) = identify(kind, payload, &mut scratch);
        assert_eq!(number, next[usize::from(sender)], "of sender {sender}");
        next[usize::from(sender)] += 1;
        if number.is_multiple_of(AHEAD / 8) {
            reached.send_modify(|counts| counts[usize::from(sender)] = number);
        }
        order.push((sender, number));
    }
    // Senders at their end wait for nobody.
    reached.send_modify(|counts| counts.fill(EACH));
    order
}

/// Starts the receivers, in all forms, each already subscribed.
async fn audience(relay: &TestRelay, tasks: &mut JoinSet<Order>) -> Vec<watch::Receiver<Vec<u64>>> {
    let forms = [None, Some(Subprotocol::Json), Some(Subprotocol::Binary), Some(Subprotocol::Raw)];
    let mut reached = Vec::new();
    for n in 0..RECEIVERS {
        let receiver = Receiver::connect(relay.address(), "/c/many", forms[n % forms.len()]).await;
        let (sender, receiver_counts) = watch::channel(vec![0; usize::from(SENDERS)]);
        tasks.spawn(receive(receiver, sender));
        reached.push(receiver_counts);
    }
    reached
}

async fn same_order(mut tasks: JoinSet<Order>) -> Order {
    let mut first: Option<Order> = None;
    while let Some(order) = tasks.join_next().await {
        let order = order.expect("a receiver got everything");
        let first = first.get_or_insert_with(|| order.clone());
        assert!(*first == order, "receivers saw different orders");
    }
    first.expect("there are receivers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_room_everybody_gets_everything_in_one_order() {
    let relay = TestRelay::start(&["--history", "512MiB"]).await;
    let mut receivers = JoinSet::new();
    audience(&relay, &mut receivers).await;
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        senders.spawn(send(relay.address(), sender, Vec::new()));
    }
    while let Some(sent) = senders.join_next().await {
        sent.expect("a sender sent everything");
    }
    same_order(receivers).await;
    let peak = relay.peak_rss();
    assert!(peak <= (512 + 64) * MIB, "{} MiB", peak / MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_little_room_one_that_stops_reading_is_told_what_it_missed_and_costs_the_others_nothing() {
    let relay =
        TestRelay::with_config("[timeouts]\nstall = \"1h\"\nping = \"1h\"\n", &["--history", "4MiB"]).await;
    let mut dial = Dial::new("/c/many", Some(Subprotocol::Json.name()));
    dial.receive_buffer = Some(64 * 1024);
    let mut stopped = dial.connect(relay.address()).await.unwrap();
    let hello = stopped.hello().await;

    let mut receivers = JoinSet::new();
    let reached = audience(&relay, &mut receivers).await;
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        senders.spawn(send(relay.address(), sender, reached.clone()));
    }
    while let Some(sent) = senders.join_next().await {
        sent.expect("a sender sent everything");
    }
    let order = same_order(receivers).await;

    // Only now it reads on: whatever was in its sockets, then a gap, then what is kept.
    let mut chain = Chain::new(&hello);
    let mut scratch = Vec::new();
    let mut got: HashMap<u16, u64> = HashMap::new();
    let mut missing = Some(0);
    let (mut total, mut newest) = (0, None);
    // The newest of all is kept, whatever was missed.
    while newest.as_ref() != order.last() {
        let received = stopped.next().await;
        if let Some(gap) = chain.check(&received) {
            missing = missing.zip(gap.count).map(|(sum, count)| sum + count);
        }
        match &received {
            Received::Message(envelope) => {
                let (sender, number) = identify(envelope.kind, &envelope.payload, &mut scratch);
                let before = got.insert(sender, number);
                assert!(before.is_none_or(|before| before < number));
                newest = Some((sender, number));
                total += 1;
            }
            Received::Control(_) => {}
            end => panic!("{end:?}"),
        }
    }
    assert!(total < ALL, "it was far behind, and missed nothing");
    if let Some(missing) = missing {
        assert_eq!(missing as usize + total, ALL, "the gaps count exactly what is missing");
    }
    let peak = relay.peak_rss();
    assert!(peak <= (4 + 64) * MIB, "{} MiB", peak / MIB);
}

#[tokio::test]
async fn a_receiver_of_all_channels_gets_all_in_order_and_resumes_by_one_position() {
    const CHANNELS: u16 = 100;
    const EACH: u64 = 50;
    let relay = TestRelay::start(&[]).await;
    let publish = async |pseqs: Range<u64>| {
        let mut sender = FramedSender::connect(relay.address()).await;
        for alias in 0..CHANNELS {
            sender.open(alias, &format!("many/{}/{alias}", alias % 7), pseqs.start).await;
        }
        for pseq in pseqs.clone() {
            for alias in 0..CHANNELS {
                sender.put_message(alias, pseq, Kind::Text, format!("{alias}:{pseq}").as_bytes());
            }
            sender.flush().await;
            // Settled in every channel before the next round.
            let mut left = usize::from(CHANNELS);
            while left > 0 {
                match sender.heard().await {
                    tests::sender::Heard::Ack(ack) if ack.pseq == pseq && ack.alias < Alias(CHANNELS) => {
                        left -= 1
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    };
    let mut receiver = Receiver::connect(relay.address(), "/c/**", Some(Subprotocol::Binary)).await;
    let hello = receiver.hello().await;
    publish(1..EACH + 1).await;
    let total = usize::from(CHANNELS) * EACH as usize;
    let mut next = HashMap::new();
    let mut count = 0;
    let mut last = Seq::ZERO;
    let mut chain = Chain::new(&hello);
    let mut away = false;
    while count < total {
        if count == total / 2 && !away {
            // It goes, and goes on where it was.
            away = true;
            let since = format!("/c/**?since={}", position(&hello, last));
            receiver = Receiver::connect(relay.address(), &since, Some(Subprotocol::Binary)).await;
            let hello = receiver.hello().await;
            assert_eq!(hello["recovered"], true, "{hello}");
            chain = Chain::new(&hello);
        }
        let received = receiver.next().await;
        chain.check(&received);
        let Received::Message(envelope) = received else { continue };
        let number = next.entry(envelope.channel.clone()).or_insert(1);
        let alias = envelope.channel.as_str().rsplit('/').next().unwrap();
        assert_eq!(envelope.payload, format!("{alias}:{number}"));
        (*number, count, last) = (*number + 1, count + 1, envelope.seq);
    }
    assert_eq!(next.len(), usize::from(CHANNELS));
}
