//! The page in headless Chromium: the last 100, what comes live, and what came while the relay was away.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tests::{browser::Browser, relay::TestRelay, sender::FramedSender};

/// The rows of the page that show messages, as an expression.
pub(crate) const ROWS: &str = "document.querySelectorAll('[data-seq]')";

/// Opens the page of a channel and waits until it is live.
pub(crate) async fn open(page: &mut Browser, relay: SocketAddr, channel: &str) {
    page.open(&format!("http://{relay}/c/{channel}")).await;
    live(page).await;
}

/// What the rows show of the payloads.
pub(crate) async fn row_texts(page: &mut Browser) -> Value {
    page.js(&format!("[...{ROWS}].map(row => row.querySelector('.payload').textContent)")).await
}

async fn live(page: &mut Browser) {
    page.shows("document.querySelector('[data-state=\"live\"]') !== null").await;
}

fn texts(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|n| format!("reading {n}")).collect()
}

#[tokio::test]
async fn the_page_shows_the_last_100_and_what_comes() {
    let Some(mut page) = Browser::start().await else { return };
    let relay = TestRelay::start(&[]).await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "plant/serial", 1).await;
    sender.publish_all(1, 1, &texts(1..=150)).await;

    open(&mut page, relay.address(), "plant/serial").await;
    page.shows(&format!("{ROWS}.length === 100")).await;
    assert_eq!(row_texts(&mut page).await, json!(texts(51..=150)));

    sender.publish_all(1, 151, &texts(151..=153)).await;
    page.shows(&format!("{ROWS}.length === 103")).await;
    assert_eq!(row_texts(&mut page).await, json!(texts(51..=153)));
}

#[tokio::test]
async fn the_page_shows_payloads_as_text_whatever_they_say() {
    let Some(mut page) = Browser::start().await else { return };
    let relay = TestRelay::start(&[]).await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    open(&mut page, relay.address(), "foo").await;
    let hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";
    sender.publish_all(1, 1, &[hostile, "after"]).await;
    page.shows(&format!("{ROWS}.length === 2")).await;
    assert_eq!(row_texts(&mut page).await, json!([hostile, "after"]));
    assert_ne!(page.js("document.title").await, json!("owned"));
}

#[tokio::test]
async fn the_page_goes_on_after_the_relay_was_away() {
    let Some(mut page) = Browser::start().await else { return };
    let mut relay = TestRelay::restartable(&[]).await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    open(&mut page, relay.address(), "foo").await;
    sender.publish_all(1, 1, &texts(1..=2)).await;
    page.shows(&format!("{ROWS}.length === 2")).await;

    relay.kill().await;
    page.shows("document.querySelector('[data-state=\"live\"]') === null").await;
    relay.start_again().await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    sender.publish_all(1, 1, &texts(3..=4)).await;
    live(&mut page).await;
    page.shows(&format!("{ROWS}.length === 4")).await;
    assert_eq!(row_texts(&mut page).await, json!(texts(1..=4)));
}

#[tokio::test]
async fn a_page_of_another_origin_is_not_let_in() {
    let Some(mut page) = Browser::start().await else { return };
    let relay = TestRelay::start(&[]).await;
    let attempt = format!(
        "new Promise(resolve => {{
             const socket = new WebSocket('ws://{}/c/foo');
             socket.onopen = () => resolve('opened');
             socket.onclose = event => resolve(event.code);
         }})",
        relay.address()
    );
    page.open("data:text/html,<title>elsewhere</title>").await;
    assert_eq!(page.js(&attempt).await, json!(1006));
    page.open(&format!("http://{}/c/foo", relay.address())).await;
    assert_eq!(page.js(&attempt).await, json!("opened"));
}
