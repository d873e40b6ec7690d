//! A page in a real browser: headless Chromium, driven over its DevTools protocol.

use std::{os::unix::fs::MetadataExt, path::PathBuf, process::Stdio};

use futures_util::{SinkExt, StreamExt};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use crate::{missing, within};

/// What a Chromium may be called; `CHROMIUM` may name another.
const NAMES: [&str; 8] = [
    "chromium-headless-shell",
    "chrome-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
    "chrome",
    "microsoft-edge",
];

const FLAGS: [&str; 13] = [
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
    "--hide-scrollbars",
    "--window-size=1280,800",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
];

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    socket: WebSocketStream<TcpStream>,
    session: Option<String>,
    calls: u64,
    // Dropped in this order: the processes before the folder that they write to.
    _group: Group,
    _child: Child,
    _drain: JoinSet<()>,
    _folder: TempDir,
}

/// A process with all that it starts: where a script starts Chromium, killing the script leaves Chromium.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Browser {
    /// Starts one; none, said aloud, where there is no Chromium.
    pub async fn start() -> Option<Self> {
        let chosen = std::env::var_os("CHROMIUM").map(PathBuf::from);
        let Some(binary) = chosen.or_else(|| missing::find_program(&NAMES)) else {
            missing::not_run("a page in a browser", "there is no Chromium in PATH (CHROMIUM may name one)");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(binary);
        command.args(FLAGS).arg(format!("--user-data-dir={}", folder.path().display())).arg("about:blank");
        command.env("HOME", folder.path()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        // Chromium refuses to sandbox for root.
        if std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0) {
            command.arg("--no-sandbox");
        }
        let mut child = command.spawn().expect("Chromium starts");
        let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is a pipe")).lines();
        let url = within("Chromium to be ready", async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(url) = line.strip_prefix("DevTools listening on ") {
                    return url.to_owned();
                }
            }
            panic!("Chromium ended early");
        })
        .await;
        let mut drain = JoinSet::new();
        // Chromium would stand still at a full pipe.
        drain.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });

        let host = url.trim_start_matches("ws://").split('/').next().unwrap_or_default();
        let stream = TcpStream::connect(host).await.expect("Chromium listens");
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, _) =
            client_async_with_config(&url, stream, Some(config)).await.expect("Chromium upgrades");
        let mut browser = Self {
            socket,
            session: None,
            calls: 0,
            _group: group,
            _child: child,
            _drain: drain,
            _folder: folder,
        };
        let target =
            browser.call("Target.createTarget", json!({ "url": "about:blank" })).await["targetId"].clone();
        let session =
            browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true })).await;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        browser.call("Page.enable", json!({})).await;
        Some(browser)
    }

    /// Goes to a URL and waits until it is loaded.
    pub async fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", json!({ "url": url })).await;
        assert!(answer["errorText"].is_null(), "{url}: {}", answer["errorText"]);
        let loaded = self.js(
            "document.readyState === 'complete' || new Promise(r => addEventListener('load', () => r(true)))",
        );
        assert_eq!(loaded.await, json!(true));
    }

    /// The value of an expression; of a promise, what it resolves to.
    ///
    /// # Panics
    /// If it throws.
    pub async fn js(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", params).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until an expression about the document is true: it is looked at after each change of the document.
    pub async fn shows(&mut self, expression: &str) {
        let watch = format!(
            "new Promise(resolve => {{
                 const look = () => {{ if ({expression}) {{ observer.disconnect(); resolve(true) }} }};
                 const observer = new MutationObserver(look);
                 observer.observe(document, {{ subtree: true, childList: true, characterData: true, attributes: true }});
                 look();
             }})"
        );
        assert_eq!(within(format_args!("the page to show {expression}"), self.js(&watch)).await, json!(true));
    }

    /// One call of the DevTools protocol; its result.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut call = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(session) = &self.session {
            call["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(call.to_string())).await.expect("Chromium listens");
        loop {
            let message = within(format_args!("the answer to {method}"), self.socket.next()).await;
            let message = message.expect("Chromium runs").expect("Chromium answers");
            let mut answer: Value = serde_json::from_slice(&message.into_data()).expect("an answer is JSON");
            if answer["id"] == self.calls {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].take();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_of_the_document_is_seen() {
        let Some(mut page) = Browser::start().await else { return };
        page.open("data:text/html,<p>before</p>").await;
        assert_eq!(page.js("document.querySelector('p').textContent").await, json!("before"));
        page.js("void setTimeout(() => document.querySelector('p').textContent = 'after', 50)").await;
        page.shows("document.querySelector('p').textContent === 'after'").await;
    }
}
