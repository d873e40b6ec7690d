//! What holds for the configuration as a whole. Here: that it is a function of what was said, and prints back.
//!
//! - [`together`]: files, flags and defaults. [`mistakes`]: how they are told. [`routes`]: of the gateway.

mod mistakes;
mod routes;
mod together;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{keys::KEYS, *};

/// What the file and the flags mean; else all of their mistakes, as they are told.
fn meant(source: &str, flags: &[&str]) -> Result<Config, String> {
    let line = ["relay", "serve"].iter().chain(flags);
    let cli = <cli::Cli as clap::Parser>::try_parse_from(line).unwrap();
    let cli::Command::Serve(mut serve) = cli.command else { panic!("not serve") };
    // Not what the environment of the tests says.
    serve.log = serve.log.filter(|_| flags.contains(&"--log"));
    understand(Path::new("relay.toml"), source, &serve).map_err(|error| format!("error: {error}"))
}

fn file(source: &str) -> Config {
    meant(source, &[]).unwrap()
}

fn wrong(source: &str) -> String {
    meant(source, &[]).unwrap_err()
}

fn addresses(config: &Config) -> Vec<String> {
    config.listeners.iter().map(|listener| listener.address.to_string()).collect()
}
/// Shows both texts as they are, not escaped, where they differ.
#[track_caller]
fn similar(told: &str, expected: &str) {
    assert!(told == expected, "told:\n{told}\n\nexpected:\n{expected}");
}

#[test]
fn nothing_said_is_the_default() {
    assert_eq!(meant("", &[]), Ok(Config::default()));
}

#[test]
fn the_example_is_the_default_and_names_every_key() {
    assert_eq!(file(example()), Config::default());
    for key in KEYS {
        assert!(
            example().contains(&format!("\n{} = {}\n", key.name, key.print(&Config::default()))),
            "{}",
            key.name
        );
    }
}

#[test]
fn the_examples_in_the_example_are_right_too() {
    let is_example = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
    let source: Vec<&str> =
        example().lines().map(|line| if is_example(&line) { &line[1..] } else { line }).collect();
    let config = file(&source.join("\n"));
    assert_eq!(addresses(&config), ["127.0.0.1:12000", "127.0.0.1:5000"]);
    assert_eq!(config.lag[0].1, LagPolicy::Block(DEFAULT_BLOCK));
    assert_eq!(config.gateway.routes.len(), 2);
}
/// A file of random keys with random values, most of which are right.
fn any_file() -> impl Strategy<Value = String> {
    let number = (0..KEYS.len()).prop_flat_map(|index| (Just(index), KEYS[index].bounds.clone()));
    let numbers = proptest::collection::vec(number, 0..6).prop_map(|numbers| {
        let numbers: BTreeMap<usize, u64> = numbers.into_iter().collect();
        let line = |(index, value): (usize, u64)| {
            let key = &KEYS[index];
            (key.section, format!("{} = {}\n", key.name, key.unit.print(value)))
        };
        numbers.into_iter().map(line).collect::<Vec<_>>()
    });
    let top = prop_oneof![
        Just("listen = [\"127.0.0.1:1\", \"[::1]:0\"]\n"),
        Just("listen = \"localhost:0\"\n"),
        Just("open = true\nhosts = [\"A.example\"]\norigins = [\"https://b.example:443\"]\n"),
        Just("")
    ];
    let listener = prop_oneof![
        Just("accepts = \"raw\"\nchannel = \"a/b\"\nframing = \"null\"\n"),
        Just("accepts = \"http\"\n"),
        Just("accepts = \"framed\"\n"),
        Just("first_line = false\nmax_message = 77\n"),
        Just("")
    ];
    let rule = prop_oneof![
        Just("lag = \"block\"\nblock_for = \"1500us\"\n"),
        Just("history = 1_000_001\nmessages = 5\n"),
        Just("age = \"1h\"\nlag = \"close\"\n"),
        Just("messages = 0\n"),
    ];
    let route = prop_oneof![
        Just(
            "upstreams = [\"ws://a:1\", \"wss://b/base\"]\nrewrite = \"/\"\nforwarded = true\nplain = \"pass\"\n"
        ),
        Just(
            "upstreams = \"ws+unix:/run/a:/b\"\nhost = \"a.b:1\"\nset_headers = { a = \"\\\"b\" }\norigins = \"*\"\n"
        ),
        Just(
            "upstreams = \"ws://a\"\nallow = [\"10.1.2.3/8\"]\ndeny = \"::1\"\nremove_headers = [\"Cookie\"]\n"
        ),
        Just("upstreams = \"tcp://a:1\"\nframing = \"line\"\nframes = \"text\"\nidle_timeout = \"1h\"\n"),
        Just("upstreams = \"unix:/a\"\nsubprotocols = []\nconnections = 3\nupstream_connections = 2\n"),
        Just(
            "upstreams = \"ws://a\"\nmax_message = 5\n[[route.rule]]\nname = \"a \\\"b\"\nfrom = \"client\"\n\
             matches = '\\w+\"(x)'\nwith = \"$1$$\"\naction = \"replace\"\n[route.tap]\nchannel = \"a\"\nevery = 3\n"
        ),
        Just(
            "upstreams = \"tcp://a:1\"\n[[route.rule]]\nkind = \"text\"\nmessages_per_second = 3\n\
             bytes_per_second = \"1KiB\"\nburst_bytes = 5\nlonger_than = 0\naction = \"close\"\n\
             [[route.rule]]\naction = \"pass\"\n[route.tap]\nfrom = \"upstream\"\n"
        ),
    ];
    let some = |size| proptest::collection::vec(rule.clone(), 0..size);
    let routes = proptest::collection::vec(route, 0..3);
    (top, numbers, proptest::collection::vec(listener, 0..3), some(4), some(2), routes).prop_map(
        |(top, numbers, listeners, rules, last, routes)| {
            let mut text = top.to_string();
            for (index, listener) in listeners.iter().enumerate() {
                text += &format!("[[listener]]\naddress = \"127.0.0.1:{}\"\n{listener}", index + 2);
            }
            for section in ["limits", "timeouts"] {
                text += &format!("[{section}]\n");
                text.extend(numbers.iter().filter(|(of, _)| *of == section).map(|(_, line)| line.as_str()));
            }
            for (index, rule) in rules.iter().enumerate() {
                text += &format!("[[channel]]\npattern = \"c{index}/**\"\n{rule}");
            }
            for rule in last {
                text += &format!("[[channel]]\npattern = \"**\"\n{rule}");
            }
            for (index, route) in routes.iter().enumerate() {
                text += &format!("[[route]]\npath = \"/r{index}\"\ndeny_paths = \"/r{index}/x\"\n{route}");
            }
            text
        },
    )
}

proptest! {
    #[test]
    fn a_printed_configuration_reads_back_as_the_same(source in any_file()) {
        let config = meant(&source, &[]);
        prop_assume!(config.is_ok());
        let printed = config.as_ref().map(Config::to_toml).unwrap_or_default();
        prop_assert_eq!(meant(&printed, &[]), config, "{}", printed);
    }

    #[test]
    fn any_text_is_understood_or_its_mistakes_are_told(source in "([a-z_]{1,8}( = |\\.)?|[\\[\\]\"'{}=,\n#]|[0-9]{1,3}|\\PC){0,40}") {
        let _ = meant(&source, &[]);
    }

    #[test]
    fn the_example_without_any_piece_is_understood_or_its_mistakes_are_told(from in 0usize..9000, length in 0usize..200) {
        let source = example();
        let (from, to) = (source.floor_char_boundary(from), source.floor_char_boundary(from + length));
        let _ = meant(&format!("{}{}", &source[..from], &source[to..]), &[]);
    }
}

#[test]
fn the_default_and_what_flags_say_print_and_read_back() {
    let flags =
        ["--open", "--listen", "0.0.0.0:0", "--raw", "127.0.0.1:5=a/b,line", "--history", "1MiB,5,1500us"];
    for config in [Config::default(), meant("", &flags).unwrap()] {
        assert_eq!(file(&config.to_toml()), config);
    }
}
