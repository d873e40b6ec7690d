//! Routes of the gateway: what they inherit, the table in JSON, and how their mistakes are told.

use super::*;
use crate::gateway::{
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
         [[route]]\npath = \"/b\"\nupstreams = [\"tcp://b:1\"]\norigins = [\"*\"]\n\
         upstream_connections = 3\n",
    );
    let [a, b] = config.gateway.routes.as_slice() else { panic!("two routes") };
    assert_eq!((a.path.to_string(), a.upstreams[0].to_string()), ("/a".into(), "ws://a:1".into()));
    assert_eq!((a.limits.connections, b.limits.connections), (9, 7));
    assert_eq!((a.seats(), b.seats()), (9, 3));
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

#[test]
fn a_rule_and_a_tap_are_as_they_are_said_or_as_is_usual() {
    let config = file(
        "[limits]\nmax_message = \"2MiB\"\n[[route]]\npath = \"/a/b\"\nupstreams = \"ws://a:1\"\n\
         [[route.rule]]\naction = \"close\"\nlonger_than = \"1KiB\"\n\
         [[route.rule]]\nname = \"calm\"\nbytes_per_second = \"1KiB\"\naction = \"close\"\n\
         [[route.rule]]\nmatches = \"x\"\naction = \"close\"\ncode = 3000\nreason = \"why\"\n\
         [route.tap]\n",
    );
    let route = &config.gateway.routes[0];
    let closing = |index: usize| match &route.rules[index].action {
        Action::Close(closing) => (closing.code, closing.reason.as_str()),
        other => panic!("{other:?}"),
    };
    let names: Vec<_> = route.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["1", "calm", "3"]);
    assert_eq!(closing(0), (1009, "a message is too long"));
    assert_eq!(closing(1), (4006, "too much at once"));
    assert_eq!(closing(2), (3000, "why"));
    let rate = route.rules[1].over.bytes.unwrap();
    assert_eq!((rate.per_second, rate.burst), (1024, 1024));
    let tap = route.tap.as_ref().unwrap();
    assert_eq!((tap.channel.as_str(), tap.every, tap.max_message), ("tap/a/b", 1, 2 << 20));
    assert_eq!((tap.from, tap.kind, route.max_message), (None, None, 2 << 20));
}

#[test]
fn mistakes_of_rules_and_taps_are_all_told_and_point_at_their_part() {
    let cases = [
        ("[[route.rule]]\n", "[[route.rule]] needs an `action`"),
        ("[[route.rule]]\naction = \"dorp\"", "did you mean \"drop\"?"),
        ("[[route.rule]]\naction = \"drop\"\nmatch = \"a\"", "did you mean `matches`?"),
        (
            "[[route.rule]]\naction = \"drop\"\nmatches = \"(\"",
            "invalid value `(` for `matches`: unclosed group",
        ),
        (
            "[[route.rule]]\naction = \"drop\"\nmatches = '(?-u)\\xff'",
            "`matches`: it may match a part of a character",
        ),
        ("[[route.rule]]\naction = \"replace\"\nmatches = \"a\"", "action = \"replace\" needs `with`"),
        ("[[route.rule]]\naction = \"replace\"\nwith = \"a\"", "action = \"replace\" needs `matches`"),
        (
            "[[route.rule]]\naction = \"replace\"\nmatches = \"a\"\nwith = \"$1\"",
            "`with`: `matches` has no group `1`",
        ),
        (
            "[[route.rule]]\naction = \"drop\"\nwith = \"a\"",
            "`with` is for action = \"replace\", which this [[route.rule]] has not",
        ),
        ("[[route.rule]]\naction = \"drop\"\ncode = 4000", "`code` is for action = \"close\""),
        ("[[route.rule]]\naction = \"close\"\ncode = 1005", "`code` must be one that may be sent"),
        ("[[route.rule]]\naction = \"drop\"\nburst_bytes = 5", "`burst_bytes` is for `bytes_per_second`"),
        ("[[route.rule]]\naction = \"drop\"\nmessages_per_second = 0", "must be at least 1"),
        ("[[route.rule]]\naction = \"drop\"\nfrom = \"both\"", "unknown value \"both\" for `from`"),
        (
            "[[route.rule]]\nname = \"2\"\naction = \"drop\"\n[[route.rule]]\naction = \"drop\"",
            "another rule of this route is called `2`",
        ),
        (
            "[[route.rule]]\nname = \"a\"\naction = \"drop\"\n[[route.rule]]\nname = \"a\"\naction = \"drop\"",
            "there is a rule `a` of this route already",
        ),
        ("[route.rule]\naction = \"drop\"", "write [[route.rule]]"),
        ("[route.tap]\nchannel = \"a b\"", "invalid value `a b` for `channel`"),
        ("[route.tap]\nevery = 0", "`every` must be at least 1"),
        ("[route.tap]\nsample = 3", "unknown key `sample` in [route.tap]"),
        ("max_message = 5", "`max_message` is for routes with a rule or a tap"),
    ];
    for (keys, says) in cases {
        let told = wrong(&format!("[[route]]\npath = \"/a\"\nupstreams = \"ws://a\"\n{keys}\n"));
        assert!(told.contains(says) && told.starts_with("error: relay.toml:"), "{keys}\n{told}");
        assert_eq!(told.matches("error: ").count(), 1, "{told}");
    }
    let two =
        "[[route]]\npath = \"/a\"\nupstreams = \"ws://a\"\n[[route.rule]]\naction = \"x\"\nmatches = \"(\"\n";
    assert_eq!(wrong(two).matches("error: ").count(), 2);
    let strange = wrong("[[route]]\npath = \"/a,b\"\nupstreams = \"ws://a\"\n[route.tap]\n");
    assert!(strange.contains("`tap/a,b` is no name of a channel"), "{strange}");
}
