//! The set-up that others published, in a real browser: a table in JSON, a server on node's `ws` that greets, a page
//! from another origin.

use std::{io::Write, net::Ipv4Addr};

use serde_json::json;
use tests::{
    browser::Browser,
    node,
    program::Program,
    relay::TestRelay,
    upstream::{Echo, TcpEcho},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use super::route;

/// Greets each message, and prints its port first. With an argument it agrees to compress.
const GREETER: &str = "
const { WebSocketServer } = require('ws')
const perMessageDeflate = process.argv.length > 1 && { threshold: 0 }
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate })
server.on('listening', () => console.log(server.address().port))
server.on('connection', socket => socket.on('message', message => socket.send(`hello:${message}`)))
";

/// A page with a field and a button; what comes is listed.
const PAGE: &str = "<!DOCTYPE html><title>a page of another origin</title>
<input id=field><button onclick='socket.send(field.value)'>send</button><ul id=list></ul>
<script>
const socket = new WebSocket('URL')
const note = text => list.appendChild(document.createElement('li')).textContent = text
socket.onopen = () => note('open')
socket.onmessage = event => note(event.data)
socket.onclose = event => note('closed ' + event.code)
</script>";

/// Serves a page at an origin of its own; gives the origin.
async fn serve_page(page: String) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n",
                page.len()
            );
            let _ = stream.write_all(format!("{head}{page}").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (origin, tasks)
}

/// A greeter, and a relay with a table that leads to it.
async fn relay_to_greeter(args: &[&str]) -> Option<(TestRelay, Program)> {
    let mut greeter = node::run(GREETER, args).await?;
    let port = greeter.line().await;
    let mut table = tempfile::NamedTempFile::new().unwrap();
    write!(
        table,
        "{{\n  \"websocketTestOne\": {{\n    \"host\": \"127.0.0.1\",\n    \"port\": \"{port}\"\n  }}\n}}\n"
    )
    .unwrap();
    let relay = TestRelay::start(&["--routes", table.path().to_str().unwrap()]).await;
    Some((relay, greeter))
}

const LINES: &str = "[...document.querySelectorAll('li')].map(line => line.textContent)";

#[tokio::test]
async fn a_page_of_another_origin_talks_to_a_server_on_node() {
    let Some(mut browser) = Browser::start().await else { return };
    let Some((relay, mut greeter)) = relay_to_greeter(&[]).await else { return };
    let page = PAGE.replace("URL", &format!("ws://{}/websocketTestOne", relay.address()));
    let (origin, _tasks) = serve_page(page).await;
    browser.open(&format!("{origin}/websocketClient.html")).await;
    browser.shows("document.querySelectorAll('li').length === 1").await;
    for (n, text) in ["world", "grüße, 世界 🌍", ""].into_iter().enumerate() {
        browser
            .js(&format!("field.value = {}; void document.querySelector('button').click()", json!(text)))
            .await;
        browser.shows(&format!("document.querySelectorAll('li').length === {}", n + 2)).await;
    }
    let lines = browser.js(LINES).await;
    assert_eq!(lines, json!(["open", "hello:world", "hello:grüße, 世界 🌍", "hello:"]));
    let counted = route(&relay, "/websocketTestOne").await;
    assert_eq!(counted["from_client"]["messages"], 3);
    assert_eq!(counted["from_upstream"]["messages"], 3);
    // Its server dies: the page is told.
    greeter.signal(tests::program::Signal::Kill).await;
    browser.shows("document.querySelector('li:last-child').textContent.startsWith('closed')").await;
}

#[tokio::test]
async fn compression_is_agreed_upon_end_to_end() {
    let Some(mut browser) = Browser::start().await else { return };
    let Some((relay, _greeter)) = relay_to_greeter(&["compress"]).await else { return };
    let page = PAGE.replace("URL", &format!("ws://{}/websocketTestOne", relay.address()));
    let (origin, _tasks) = serve_page(page).await;
    browser.open(&origin).await;
    browser.shows("document.querySelectorAll('li').length === 1").await;
    assert_eq!(browser.js("socket.extensions").await, json!("permessage-deflate"));
    browser.js("void socket.send('ab'.repeat(500000))").await;
    browser.shows("document.querySelectorAll('li').length === 2").await;
    let came =
        browser.js("document.querySelector('li:last-child').textContent === 'hello:' + 'ab'.repeat(500000)");
    assert_eq!(came.await, json!(true));
    let counted = route(&relay, "/websocketTestOne").await;
    for side in ["from_client", "from_upstream"] {
        let bytes = counted[side]["bytes"].as_u64().unwrap();
        assert!(bytes < 100_000, "{side}: {bytes} bytes for a million that repeat");
    }
}

#[tokio::test]
async fn a_page_talks_to_a_server_of_bytes() {
    let Some(mut browser) = Browser::start().await else { return };
    let (bytes, websocket) = (TcpEcho::start().await, Echo::start().await);
    let config = format!(
        "[[route]]\npath = \"/telnet\"\nupstreams = [\"tcp://{}\"]\nsubprotocols = [\"binary\"]\n\
         [[route]]\npath = \"/files\"\nupstreams = [\"ws://{}\"]\nplain = \"pass\"\n",
        bytes.address(),
        websocket.address()
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    let talk = format!(
        "new Promise(resolve => {{
             const socket = new WebSocket('ws://{}/telnet', ['binary', 'base64'])
             const sent = new Uint8Array(100000).map((_, n) => n * 7)
             const came = []
             socket.binaryType = 'arraybuffer'
             socket.onopen = () => socket.send(sent)
             socket.onmessage = event => {{
                 came.push(...new Uint8Array(event.data))
                 if (came.length === sent.length) socket.close(4001, 'all of it')
             }}
             socket.onclose = event =>
                 resolve([socket.protocol, event.code, event.wasClean, came.every((byte, n) => byte === sent[n])])
         }})",
        relay.address()
    );
    // A page of the relay's own origin; one from elsewhere is not let in to bytes.
    browser.open(&format!("http://{}/c/foo", relay.address())).await;
    assert_eq!(browser.js(&talk).await, json!(["binary", 4001, true, true]));
    let fetch = format!("fetch('http://{}/files/x').then(answer => answer.text())", relay.address());
    let fetched = browser.js(&fetch);
    assert_eq!(fetched.await, json!("GET /files/x HTTP/1.1"));
    let (origin, _tasks) = serve_page("<title>elsewhere</title>".into()).await;
    browser.open(&origin).await;
    assert_eq!(browser.js(&talk).await[1], json!(1006));
}
