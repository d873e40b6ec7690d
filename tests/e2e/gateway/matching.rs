//! Which route a path belongs to, and what the upstream is asked for.

use std::io::Write;

use tests::{
    frames::FrameClient,
    http,
    program::Program,
    receiver::Receiver,
    relay::{TestRelay, config_file},
    upstream::Echo,
};

use super::{refused, relay_to, route, say};

#[tokio::test]
async fn the_longest_prefix_of_whole_segments_wins() {
    let (short, long) = (Echo::named("short:").await, Echo::named("long:").await);
    let config = format!(
        "[[route]]\npath = \"/a\"\nupstreams = [\"ws://{}\"]\n[[route]]\npath = \"/a/b\"\nupstreams = [\"ws://{}\"]\n",
        short.address(),
        long.address()
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    for (path, back) in [
        ("/a", "short:x"),
        ("/a/", "short:x"),
        ("/a/bc", "short:x"),
        ("/a/c/b", "short:x"),
        ("/a/b", "long:x"),
        ("/a/b/c", "long:x"),
        ("/a/b?q", "long:x"),
    ] {
        say(&mut FrameClient::connect(relay.address(), path).await, "x", back).await;
    }
    for path in ["/ab", "/b", "/A"] {
        let answer = refused(&relay, path, "").await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn the_path_goes_on_as_it_came() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), "").await;
    for path in ["/app", "/app/", "/app/x%20y/z?a=1&b=%2F", "/app//x", "/app/%C3%A9?"] {
        FrameClient::connect(relay.address(), path).await;
        assert_eq!(echo.last_head().line(), format!("GET {path} HTTP/1.1"));
    }
}

#[tokio::test]
async fn a_route_replaces_its_prefix_and_an_upstream_has_a_base() {
    let echo = Echo::start().await;
    let upstream = echo.address();
    let config = format!(
        "[[route]]\npath = \"/strip\"\nupstreams = [\"ws://{upstream}\"]\nrewrite = \"/\"\n\
         [[route]]\npath = \"/old/name\"\nupstreams = [\"ws://{upstream}\"]\nrewrite = \"/new\"\n\
         [[route]]\npath = \"/based\"\nupstreams = [\"ws://{upstream}/base/path\"]\n\
         [[route]]\npath = \"/both\"\nupstreams = [\"ws://{upstream}/base\"]\nrewrite = \"/in\"\n"
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    for (path, asked) in [
        ("/strip", "/"),
        ("/strip/x?q=1", "/x?q=1"),
        ("/old/name", "/new"),
        ("/old/name/x", "/new/x"),
        ("/based/x", "/base/path/based/x"),
        ("/both/x", "/base/in/x"),
    ] {
        FrameClient::connect(relay.address(), path).await;
        assert_eq!(echo.last_head().line(), format!("GET {asked} HTTP/1.1"), "{path}");
    }
}

#[tokio::test]
async fn a_path_that_is_too_long_behind_the_base_of_an_upstream_is_no_other_one() {
    let echo = Echo::start().await;
    let config = format!(
        "[limits]\nheader_bytes = \"128KiB\"\n\
         [[route]]\npath = \"/app\"\nupstreams = [\"ws://{}/{}\"]\nplain = \"pass\"\n",
        echo.address(),
        "b".repeat(100)
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    let path = format!("/app/{}", "p".repeat(65_500));
    assert_eq!(http::get(relay.address(), &path).await.status, 414);
    assert_eq!(refused(&relay, &path, "").await.status, 414);
    assert!(echo.heads().is_empty(), "it would have been asked for what is not below its base");
    let counted = &route(&relay, "/app").await;
    assert_eq!(counted["connections"]["refused"]["wrong"], 2);
    assert_eq!(counted["upstreams"][0]["failures"], 0, "it is not to blame");
}

#[tokio::test]
async fn a_path_that_may_be_taken_for_another_one_is_refused() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), "deny_paths = [\"/app/admin\"]").await;
    for path in ["/app/../c/x", "/app/./x", "/app/%2e%2e/c", "/app/x\\..\\y", "/app/%ff"] {
        let answer = refused(&relay, path, "").await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
    }
    for path in ["/app/admin", "/app/admin/x", "/app/%61dmin", "/app//admin", "//app/admin"] {
        let answer = refused(&relay, path, "").await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.body);
    }
    FrameClient::connect(relay.address(), "/app/administrator").await;
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_to_one_that_is_denied() {
    let echo = Echo::start().await;
    let config = format!(
        "[[route]]\npath = \"/a/b\"\nupstreams = [\"ws://{}\"]\nrewrite = \"/\"\ndeny_paths = [\"/a/b/admin\"]\n",
        echo.address()
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    for path in ["/a%2Fb/x/admin", "/a%2fb/x/admin", "/a/b%2Fx/admin"] {
        let answer = refused(&relay, path, "").await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        assert!(answer.body.contains("escaped"), "{path}: {}", answer.body);
    }
    for path in ["/a/b/x\\..\\admin", "/a/b/admin\\x", "/a/b/..;/admin", "/a/b/x/.;/admin"] {
        let answer = refused(&relay, path, "").await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
    }
    assert!(echo.heads().is_empty(), "nothing of it reached the upstream");
    // Node takes what stands behind `//` for a host.
    for (path, asked) in [("/a/b//x/admin", "/x/admin"), ("//a//b///x", "/x"), ("/a/b//", "/")] {
        FrameClient::connect(relay.address(), path).await;
        assert_eq!(echo.last_head().line(), format!("GET {asked} HTTP/1.1"), "{path}");
    }
}

#[tokio::test]
async fn channels_are_as_they_were_beside_routes() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), "").await;
    let mut receiver = Receiver::connect(relay.address(), "/c/app?publish", None).await;
    receiver.send("a message").await;
    assert_eq!(receiver.text().await, "a message");
    assert_eq!(http::get(relay.address(), "/page.js").await.status, 200);
    assert_eq!(http::get(relay.address(), "/nothing").await.status, 404);
    assert!(echo.heads().is_empty(), "nothing of it reached the upstream");
}

#[tokio::test]
async fn paths_of_the_relay_itself_are_no_routes() {
    for path in ["/", "/c", "/c/x", "/api", "/api/x", "/health", "/ready", "/metrics", "/page.js"] {
        let config = format!("[[route]]\npath = \"{path}\"\nupstreams = [\"ws://127.0.0.1:1\"]\n");
        let file = config_file(&config);
        let finished = Program::start("relay", ["check".as_ref(), file.path().as_os_str()]).finish().await;
        assert_eq!(finished.code, Some(2), "{path}");
        assert!(finished.stderr.contains(path), "{path}: {}", finished.stderr);
    }
}

#[tokio::test]
async fn every_mistake_of_a_route_is_told_at_once() {
    let config = "[gateway]\nconnect_timeout = \"soon\"\n[[route]]\npath = \"app\"\nupstreams = []\n\
                  balance = \"fair\"\nallow = [\"10.0.0.0/40\"]\norigins = [\"example.com\"]\nhosts = \"x\"\n";
    let file = config_file(config);
    let finished = Program::start("relay", ["check".as_ref(), file.path().as_os_str()]).finish().await;
    assert_eq!(finished.code, Some(2));
    for mistake in ["connect_timeout", "path", "upstreams", "balance", "allow", "origins", "hosts"] {
        assert!(finished.stderr.contains(mistake), "no word of {mistake}: {}", finished.stderr);
    }
}

/// The table of a demonstration that others published, as it stands: a name, a host, a port in quotes.
#[tokio::test]
async fn a_table_in_json_is_read_as_it_stands() {
    let (one, other) = (Echo::named("one:").await, Echo::named("other:").await);
    let mut table = tempfile::NamedTempFile::new().unwrap();
    write!(
        table,
        "{{\n  \"websocketTestOne\": {{\n    \"host\": \"127.0.0.1\",\n    \"port\": \"{}\"\n  }},\n  \
         \"two\": {{ \"host\": \"127.0.0.1\", \"port\": {} }}\n}}\n",
        one.address().port(),
        other.address().port()
    )
    .unwrap();
    let file = table.path().to_str().unwrap();
    let relay = TestRelay::start(&["--routes", file]).await;
    say(&mut FrameClient::connect(relay.address(), "/websocketTestOne").await, "x", "one:x").await;
    say(&mut FrameClient::connect(relay.address(), "/two/deeper?q").await, "x", "other:x").await;
    assert_eq!(other.last_head().line(), "GET /two/deeper?q HTTP/1.1");
    assert_eq!(other.last_head().values("host"), [other.address().to_string()]);
}

#[tokio::test]
async fn a_table_with_mistakes_does_not_start_and_says_them_all() {
    let mut table = tempfile::NamedTempFile::new().unwrap();
    write!(
        table,
        "{{\"c\": {{\"host\": \"h\", \"port\": 1}}, \"x\": {{\"host\": \"h\", \"port\": \"many\"}}}}"
    )
    .unwrap();
    let args = ["serve", "--listen", "127.0.0.1:0", "--routes", table.path().to_str().unwrap()];
    let finished = Program::start("relay", args).finish().await;
    assert_eq!(finished.code, Some(2));
    for mistake in ["\"c\": this path is the relay's own", "\"x\": `port` must be a number"] {
        assert!(finished.stderr.contains(mistake), "no word of {mistake}: {}", finished.stderr);
    }
}
