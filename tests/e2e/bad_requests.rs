//! Requests over HTTP that are no upgrade, or one that is not let in: each has an answer that helps.

use tests::{http, receiver::Dial, relay::TestRelay, sender::RawSender};

#[tokio::test]
async fn what_is_no_upgrade_gets_a_helpful_answer() {
    let relay = TestRelay::start(&[]).await;
    let address = relay.address();
    for (request, statuses) in [
        (format!("GET /nonsense HTTP/1.1\r\nHost: {address}\r\n\r\n"), 404..=404),
        (format!("GET /c/ HTTP/1.1\r\nHost: {address}\r\n\r\n"), 400..=404),
        (format!("GET /c/a//b HTTP/1.1\r\nHost: {address}\r\n\r\n"), 400..=404),
        (format!("GET /c/my%20channel HTTP/1.1\r\nHost: {address}\r\n\r\n"), 400..=404),
        (format!("DELETE /c/foo HTTP/1.1\r\nHost: {address}\r\n\r\n"), 405..=405),
        (format!("GET {} HTTP/1.1\r\nHost: {address}\r\n\r\n", "/x".repeat(20_000)), 400..=431),
        (format!("GET / HTTP/1.1\r\nHost: {address}\r\nA: {}\r\n\r\n", "x".repeat(40_000)), 431..=431),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400..=421),
        ("GET /c/foo HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(), 400..=421),
        (
            http::upgrade_head(address, "/c/foo", "")
                .replace("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"),
            400..=426,
        ),
        (http::upgrade_head(address, "/c/foo", "").replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400..=400),
        (http::upgrade_head(address, "/nonsense", ""), 404..=404),
        (http::upgrade_head(address, "/c/a//b", ""), 400..=404),
        (http::upgrade_head(address, "/c/foo?since=yesterday", ""), 400..=400),
        (http::upgrade_head(address, "/c/foo?nonsense=1", ""), 400..=400),
        (http::upgrade_head(address, "/c/foo", "Origin: http://evil.example\r\n"), 403..=403),
        (http::upgrade_head(address, "/c/foo", "Origin: null\r\n"), 403..=403),
    ] {
        let line = request.lines().next().unwrap_or_default().chars().take(60).collect::<String>();
        let answer = http::request(address, &request).await;
        assert!(statuses.contains(&answer.status), "{line}: {}", answer.head);
        // hyper answers what it can't read by itself, without a body.
        assert!(
            !answer.body.trim().is_empty() || [400, 414, 431].contains(&answer.status),
            "{line}: no help"
        );
    }
}

#[tokio::test]
async fn a_channel_is_a_page_for_a_browser_and_a_hint_for_others() {
    let relay = TestRelay::start(&[]).await;
    let address = relay.address();
    for path in ["/", "/c/foo", "/c/a/b/c", "/c/a/*"] {
        let accept = "Accept: text/html,application/xhtml+xml,*/*;q=0.8";
        let answer =
            http::request(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{accept}\r\n\r\n"))
                .await;
        assert_eq!(answer.status, 200, "{path}");
        let head = answer.head.to_lowercase();
        assert!(head.contains("content-type: text/html"), "{path}: {head}");
        assert!(head.contains("content-security-policy: default-src 'none'"), "{path}: {head}");
        let answer = http::get(address, path).await;
        assert_eq!(answer.status, 426, "{path}");
        assert!(answer.body.contains("WebSocket"), "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn hosts_and_origins_are_let_in_as_configured() {
    let relay =
        TestRelay::start(&["--host", "relay.example", "--allow-origin", "https://good.example"]).await;
    let address = relay.address();
    let port = address.port();
    let upgrade = async |host: &str, origin: &str| {
        let head = http::upgrade_head(address, "/c/foo", origin)
            .replace(&format!("Host: {address}"), &format!("Host: {host}"));
        // The connection of one that was granted stays open: only the head is of interest.
        let mut sender = RawSender::connect(address).await;
        sender.write(head).await;
        sender.line().await.unwrap_or_default()
    };
    for (host, origin, status) in [
        (format!("relay.example:{port}"), String::new(), "101"),
        (format!("localhost:{port}"), String::new(), "101"),
        (format!("[::1]:{port}"), String::new(), "101"),
        ("RELAY.example".into(), String::new(), "101"),
        ("other.example".into(), String::new(), "4"),
        ("relay.example.evil.example".into(), String::new(), "4"),
        (format!("localhost:{port}"), format!("Origin: http://localhost:{port}\r\n"), "101"),
        (format!("localhost:{port}"), "Origin: https://good.example\r\n".into(), "101"),
        (format!("localhost:{port}"), "Origin: https://good.example.evil.example\r\n".into(), "403"),
        (format!("localhost:{port}"), "Origin: http://localhost:1\r\n".into(), "403"),
    ] {
        let line = upgrade(&host, &origin).await;
        assert!(line.starts_with(&format!("HTTP/1.1 {status}")), "{host} {origin}: {line}");
    }
}

#[tokio::test]
async fn unknown_subprotocols_are_400_and_for_a_browser_4504() {
    let relay = TestRelay::start(&[]).await;
    let refused =
        Dial::new("/c/foo", Some("chat, relay.v9.json")).connect(relay.address()).await.unwrap_err();
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("relay.v1.json"), "it says what is known: {}", refused.body);

    let origin = format!("http://{}", relay.address());
    let mut dial = Dial::new("/c/foo", Some("relay.bearer.secret, chat, relay.v9.json"));
    let headers = [("origin", origin.as_str())];
    dial.headers = &headers;
    let mut accepted = dial.connect(relay.address()).await.unwrap();
    assert_eq!(accepted.subprotocol(), Some("chat"));
    assert_eq!(accepted.close_code().await, 4504);
}
