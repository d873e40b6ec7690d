//! Routes of the gateway: what they inherit, the table in JSON, and how their mistakes are told.

use super::*;
use crate::gateway::{
    rate::Rate,
    rules::Action,
    settings::{HostHeader, OnChange, Origins, RouteSettings},
};

/// The routes that a table in JSON and a file make together; else the mistakes.
fn with_table(table: &str, source: &str) -> Result<Vec<RouteSettings>, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), table).unwrap();
    let path = file.path().to_str().unwrap();
    let config = meant(source, &["--routes", path]).map_err(|error| error.replace(path, "routes.json"));
    config.map(|config| config.gateway.routes)
}

#[test]
fn a_route_is_as_the_gateway_where_it_does_not_say_otherwise() {
    let config = file(
        "[gateway]\nidle_timeout = \"1m\"\nconnections = 7\non_change = \"drain\"\n\
         [[route]]\npath = \"/a/\"\nupstreams = \"ws://a:1\"\nconnections = 9\n\
         [[route]]\npath = \"/b\"\nupstreams = [\"tcp://b:1\"]\norigins = [\"*\"]\n",
    );
    let [a, b] = config.gateway.routes.as_slice() else { panic!("two routes") };
    assert_eq!((a.path.to_string(), a.upstreams[0].to_string()), ("/a".into(), "ws://a:1".into()));
    assert_eq!((a.limits.connections, b.limits.connections), (9, 7));
    assert_eq!((a.limits.idle_timeout, a.limits.on_change), (Duration::from_secs(60), OnChange::Drain));
    assert_eq!((&a.origins, &b.origins), (&Origins::Unsaid, &Origins::Any));
}

#[test]
fn the_table_is_read_as_it_stands_and_comes_besides_the_file() {
    let table =
        r#"{"websocketTestOne": {"host": "127.0.0.1", "port": "3000"}, "two": {"host": "::1", "port": 81}}"#;
    let routes = with_table(table, "[[route]]\npath = \"/three\"\nupstreams = \"ws://c:1\"\n").unwrap();
    let told: Vec<_> = routes.iter().map(|route| format!("{} {}", route.path, route.upstreams[0])).collect();
    assert_eq!(told, ["/three ws://c:1", "/two ws://[::1]:81", "/websocketTestOne ws://127.0.0.1:3000"]);
    assert_eq!((&routes[0].host, &routes[1].host), (&HostHeader::Pass, &HostHeader::Upstream));
    assert_eq!(with_table("{}", ""), Ok(Vec::new()));
}

#[test]
fn mistakes_of_the_table_are_all_told() {
    let table = r#"{"c": {"host": "a", "port": 1}, "x": {"host": "a", "port": 0}, "y": {"hots": "a"}, "z": 1, "a b": {}}"#;
    let told = with_table(table, "").unwrap_err();
    for says in [
        "--routes routes.json: \"c\": this path is the relay's own, for channels",
        "\"x\": its port must be a number from 1 to 65535",
        "\"y\": unknown key `hots`",
        "\"z\": it has to be an object",
        "\"a b\": a path has no ` `",
        "hint: write it as {\"name\": {\"host\": \"127.0.0.1\", \"port\": \"3000\"}}",
    ] {
        assert!(told.contains(says), "{says}\n{told}");
    }
    assert!(with_table("[]", "").unwrap_err().contains("not a table in JSON"));
    let twice = with_table(
        r#"{"a": {"host": "a", "port": 1}}"#,
        "[[route]]\npath = \"/a\"\nupstreams = \"ws://c:1\"\n",
    );
    assert!(twice.unwrap_err().contains("there is a route for `/a` already in line 2"));
}

#[test]
fn mistakes_of_a_route_point_at_their_part() {
    let cases = [
        ("upstreams = \"ws://a\"", "[[route]] needs `path`"),
        ("path = \"/a\"", "[[route]] needs `upstreams`"),
        ("path = \"/\"\nupstreams = \"ws://a\"", "`/` is the relay's own, for the page"),
        ("path = \"/c/x\"\nupstreams = \"ws://a\"", "`/c/x` is the relay's own, for channels"),
        ("path = \"/metrics\"\nupstreams = \"ws://a\"", "for the state of the relay"),
        ("path = \"/a\"\nupstreams = []", "a route needs at least one upstream"),
        ("path = \"/a\"\nupstreams = [\"ws://a\", \"tcp://b:1\"]", "can't share a route"),
        (
            "path = \"/a\"\nupstreams = \"ws://a\"\nframing = \"line\"",
            "`framing` is for upstreams of tcp:// and unix:",
        ),
        ("path = \"/a\"\nupstreams = \"unix:/a\"\nplain = \"pass\"", "`plain` is for upstreams of ws://"),
        ("path = \"/a\"\nupstreams = \"wss://a\"\nca = \"/nowhere/ca.pem\"", "cannot read certificates"),
        ("path = \"/a\"\nupstreams = \"ws://a\"\norigins = [\"*\", \"http://b\"]", "it stands alone"),
        ("path = \"/a\"\nupstreams = \"ws://a\"\nallow = \"10.0.0.0/33\"", "write it as a network"),
        ("path = \"/a\"\nupstreams = \"ws://a\"\ndeny_paths = \"/b\"", "`/b` is not below `path`"),
        ("path = \"/a\"\nupstreams = \"ws://a\"\nremove_headers = \"Upgrade\"", "the connection needs it"),
        ("path = \"/a\"\nupstreams = \"ws://a\"\nset_headers = { Host = \"b\" }", "`host` of the route"),
        ("path = \"/a\"\nupstreams = \"ws://a\"\nconnections = 0", "`connections` must be at least 1"),
        ("path = \"/a\"\nupstreams = \"ws://a\"\nrewrites = \"/\"", "did you mean `rewrite`?"),
        (
            "path = \"/a\"\nupstreams = \"tcp://a:1\"\nframing = \"fixed:9\"\nmax_message = 8",
            "all longer than `max_message`",
        ),
    ];
    for (keys, says) in cases {
        let told = wrong(&format!("[[route]]\n{keys}\n"));
        assert!(told.contains(says) && told.starts_with("error: relay.toml:"), "{keys}\n{told}");
    }
    assert!(wrong("[gatway]\n").contains("did you mean [gateway]?"));
}

/// What the rules and the tap of a route at `/a` are, or what is wrong with them.
fn governed(keys: &str) -> Result<RouteSettings, String> {
    let config = meant(&format!("[[route]]\npath = \"/a\"\nupstreams = \"ws://a\"\n{keys}"), &[]);
    config.map(|mut config| config.gateway.routes.remove(0))
}

#[test]
fn what_is_not_said_of_rules_and_taps_is_the_most_of_it() {
    let route = governed(
        "[[route.rule]]\naction = \"drop\"\nmessages_per_second = 5\n\
         [[route.rule]]\nname = \"x\"\naction = \"close\"\n\
         [route.tap]\n",
    )
    .unwrap();
    let [first, second] = route.rules.as_slice() else { panic!("two rules") };
    assert_eq!((first.name.as_str(), second.name.as_str()), ("1", "x"));
    assert_eq!((first.from, first.kind, first.longer_than), (None, None, None));
    assert_eq!(first.over.messages, Some(Rate { per_second: 5, burst: 5 }));
    assert!(matches!(&second.action, Action::Close(closing) if closing.code == 1008));
    let tap = route.tap.unwrap();
    assert_eq!((tap.channel.as_str(), tap.every, tap.from, tap.kind), ("tap/a", 1, None, None));
}

#[test]
fn mistakes_of_rules_and_taps_point_at_their_part() {
    let cases = [
        ("[[route.rule]]\nfrom = \"client\"", "[[route.rule]] needs `action`"),
        ("[[route.rule]]\naction = \"dorp\"", "did you mean \"drop\"?"),
        (
            "[[route.rule]]\naction = \"drop\"\nmatches = \"(\"",
            "invalid value `(` for `matches`: unclosed group",
        ),
        ("[[route.rule]]\naction = \"drop\"\nmatches = \"(?-u)\\\\xff\"", "set kind = \"binary\""),
        ("[[route.rule]]\naction = \"drop\"\nfrom = \"clinet\"", "did you mean \"client\"?"),
        ("[[route.rule]]\naction = \"drop\"\nlonger_than = \"2GiB\"", "`longer_than` must be at most 1GiB"),
        ("[[route.rule]]\naction = \"drop\"\nmessages_burst = 2", "`messages_per_second`, which is not said"),
        ("[[route.rule]]\naction = \"drop\"\nbytes_per_second = 0", "`bytes_per_second` must be at least 1"),
        ("[[route.rule]]\naction = \"drop\"\nwith = \"x\"", "`with` is for action = \"replace\""),
        ("[[route.rule]]\naction = \"drop\"\ncode = 1008", "`code` is for action = \"close\""),
        ("[[route.rule]]\naction = \"close\"\ncode = 1005", "a close code that may be sent"),
        ("[[route.rule]]\naction = \"replace\"\nwith = \"x\"", "action = \"replace\" needs `matches`"),
        ("[[route.rule]]\naction = \"replace\"\nmatches = \"x\"", "action = \"replace\" needs `with`"),
        (
            "[[route.rule]]\naction = \"replace\"\nmatches = \"x\"\nwith = \"$1\"",
            "`matches` has no group `1`",
        ),
        (
            "[[route.rule]]\nname = \"a\"\naction = \"drop\"\n[[route.rule]]\nname = \"a\"\naction = \"drop\"",
            "there is a rule `a` of this route already",
        ),
        ("[[route.rule]]\naction = \"drop\"\nmatch = \"a\"", "did you mean `matches`?"),
        ("[[route.rules]]\naction = \"drop\"", "did you mean `rule`?"),
        ("[route.rule]\naction = \"drop\"", "write [[route.rule]]"),
        ("[[rule]]\naction = \"drop\"", "did you mean [[route.rule]]?"),
        ("[route.tap]\nchannel = \"a b\"", "invalid value `a b` for `channel`"),
        ("[route.tap]\nevery = 0", "`every` must be at least 1"),
        ("max_message = 9", "`max_message` is for messages that are understood here"),
    ];
    for (keys, says) in cases {
        let told = governed(&format!("{keys}\n")).unwrap_err();
        assert!(told.contains(says) && told.starts_with("error: relay.toml:"), "{keys}\n{told}");
    }
    let both = governed("[[route.rule]]\naction = \"drop\"\ncode = 1\nfrom = 1\n[route.tap]\nkind = 2\n")
        .unwrap_err();
    assert_eq!(both.matches("error: relay.toml:").count(), 3, "all of them at once: {both}");
}
