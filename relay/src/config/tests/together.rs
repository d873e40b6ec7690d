//! Files, flags and defaults together: which of them counts.

use super::*;

#[test]
fn flags_come_before_the_file_and_the_file_before_defaults() {
    let source = "listen = [\"127.0.0.1:1\"]\nhosts = [\"a\"]\norigins = [\"https://a\"]\n\
                  [limits]\nmax_message = \"2MiB\"\nturn = \"64KiB\"\n[log]\nfilter = \"warn\"\nformat = \"json\"\n\
                  [[channel]]\npattern = \"**\"\nhistory = \"2MiB\"\nmessages = 7\nlag = \"close\"\n";
    let config = file(source);
    assert_eq!(addresses(&config), ["127.0.0.1:1"]);
    assert_eq!((config.receivers.turn, config.receivers.fragments), (64 << 10, 256));
    assert_eq!(config.listeners[0].raw.max_message, 2 << 20);
    let flags = [
        "--listen",
        "127.0.0.1:2",
        "--host",
        "b",
        "--allow-origin",
        "https://b",
        "--max-message",
        "3MiB",
        "--log",
        "debug",
        "--log-format",
        "text",
        "--history",
        "3MiB",
    ];
    let config = meant(source, &flags).unwrap();
    assert_eq!(addresses(&config), ["127.0.0.1:2"]);
    assert_eq!((config.http.hosts, config.http.origins), (vec!["b".into()], vec!["https://b".into()]));
    assert_eq!((config.senders.max_message, config.receivers.max_message), (3 << 20, 3 << 20));
    assert_eq!(config.listeners[0].raw.max_message, 3 << 20);
    assert_eq!(config.log, LogSettings { filter: "debug".into(), format: LogFormat::Text });
    assert_eq!(config.store.retention[0].1, Retention { bytes: 3 << 20, messages: None, age: None });
    assert_eq!(config.lag[0].1, LagPolicy::Close);
}

#[test]
fn receivers_have_a_door_unless_the_file_takes_it_away() {
    assert_eq!(
        addresses(&meant("", &["--raw", "127.0.0.1:1=a"]).unwrap()),
        ["127.0.0.1:12000", "127.0.0.1:1"]
    );
    assert_eq!(addresses(&file("[[listener]]\naddress = \"127.0.0.1:1\"")), ["127.0.0.1:1"]);
    let raw = "[[listener]]\naddress = \"127.0.0.1:1\"\naccepts = \"raw\"";
    assert_eq!(addresses(&file(raw)), ["127.0.0.1:12000", "127.0.0.1:1"]);
    assert_eq!(addresses(&file(&format!("listen = []\n{raw}"))), ["127.0.0.1:1"]);
    assert_eq!(
        wrong("listen = []"),
        "error: there is nothing to listen on\n  hint: set listen = [\"127.0.0.1:12000\"], or pass --listen 127.0.0.1:12000"
    );
}

#[test]
fn only_listeners_for_everything_let_a_first_line_say_otherwise() {
    let config = meant("[[listener]]\naddress = \"127.0.0.1:1\"", &["--raw", "127.0.0.1:2=a,line"]).unwrap();
    let first_lines: Vec<bool> = config.listeners.iter().map(|listener| listener.raw.first_line).collect();
    assert_eq!(first_lines, [true, false]);
    assert_eq!(config.listeners[1].accepts, Accepts::Raw);
    assert_eq!(config.listeners[1].raw.channel.to_string(), "a");
    assert_eq!(config.listeners[1].raw.framing.to_string(), "line");
}

#[test]
fn what_a_rule_does_not_say_is_as_in_the_last() {
    let source = "[[channel]]\npattern = \"a/*\"\nmessages = 5\n[[channel]]\npattern = \"b\"\nhistory = \"1MiB\"\n\
                  messages = 0\nage = \"0s\"\nlag = \"block\"\n[[channel]]\npattern = \"c\"\nlag = \"block\"\nblock_for = \"9s\"\n\
                  [[channel]]\npattern = \"**\"\nhistory = \"2MiB\"\nmessages = 7\nage = \"1h\"\nlag = \"close\"\n";
    let config = file(source);
    let hour = Some(Duration::from_secs(3600));
    let kept: Vec<Retention> = config.store.retention.iter().map(|(_, kept)| *kept).collect();
    assert_eq!(
        kept,
        [
            Retention { bytes: 2 << 20, messages: Some(5), age: hour },
            Retention { bytes: 1 << 20, messages: None, age: None },
            Retention { bytes: 2 << 20, messages: Some(7), age: hour },
            Retention { bytes: 2 << 20, messages: Some(7), age: hour },
        ]
    );
    let lag: Vec<(&str, LagPolicy)> =
        config.lag.iter().map(|(pattern, lag)| (pattern.as_str(), *lag)).collect();
    let nine = Duration::from_secs(9);
    assert_eq!(
        lag,
        [
            ("a/*", LagPolicy::Close),
            ("b", LagPolicy::Block(DEFAULT_BLOCK)),
            ("c", LagPolicy::Block(nine)),
            ("**", LagPolicy::Close)
        ]
    );
    let history = meant(source, &["--history", "4MiB"]).unwrap().store.retention;
    assert_eq!(history[0].1, Retention { bytes: 4 << 20, messages: Some(5), age: None });
    assert_eq!(history[3].1, Retention { bytes: 4 << 20, messages: None, age: None });
}

#[test]
fn who_sets_one_limit_need_not_set_those_that_depend_on_it() {
    assert_eq!(meant("", &["--max-message", "32MiB"]).unwrap().senders.window_bytes, 32 << 20);
    let small =
        file("[limits]\nmemory = \"1MiB\"\nwindow_bytes = \"64KiB\"\n[timeouts]\nundecided = \"5ms\"\n");
    assert_eq!((small.store.encodings, small.store.retention[0].1.bytes), (256 << 10, 1 << 20));
    assert_eq!((small.senders.max_message, small.receivers.max_message), (64 << 10, 64 << 10));
    assert_eq!(small.senders.silence, Duration::from_millis(5));
}
