//! How mistakes are told: all at once, each with its place and a suggestion.

use super::*;

#[test]
fn every_mistake_is_told_at_once_from_top_to_bottom() {
    let source = r#"listen = ["127.0.0.1", 12000]
opne = true

[limits]
max_mesage = "1MiB"
memory = "plenty"
connections = -1
channels = "many"
sniff = "1s"

[timeouts]
ping = 25
stall = "0s"

[[listener]]
accepts = "raws"

[[channel]]
pattern = "a//b"
lag = "drop"
"#;
    let expected = r#"error: relay.toml:1:11: invalid value `127.0.0.1` in `listen`: the port is missing; did you mean 127.0.0.1:12000?
  1 | listen = ["127.0.0.1", 12000]
    |           ^^^^^^^^^^^
error: relay.toml:1:24: `listen` must be an address like "127.0.0.1:12000", not a number
  1 | listen = ["127.0.0.1", 12000]
    |                        ^^^^^
error: relay.toml:2:1: unknown key `opne`
  2 | opne = true
    | ^^^^ did you mean `open`?
error: relay.toml:5:1: unknown key `max_mesage` in [limits]
  5 | max_mesage = "1MiB"
    | ^^^^^^^^^^ did you mean `max_message`?
error: relay.toml:6:10: invalid value `plenty` for `memory`: not a size; write it like 512, 64KiB, 1MB
  6 | memory = "plenty"
    |          ^^^^^^^^
error: relay.toml:7:15: `connections` must be a number like 64, not -1
  7 | connections = -1
    |               ^^
error: relay.toml:8:12: `channels` must be a number like 64, not a text
  8 | channels = "many"
    |            ^^^^^^
error: relay.toml:9:1: unknown key `sniff` in [limits]
  9 | sniff = "1s"
    | ^^^^^ did you mean `sniff` in [timeouts]?
error: relay.toml:12:8: `ping` needs a unit; write it like "25s" or "25ms"
  12 | ping = 25
     |        ^^
error: relay.toml:13:9: `stall` must be at least 1ms
  13 | stall = "0s"
     |         ^^^^
error: relay.toml:15:1: [[listener]] needs an `address`
  15 | [[listener]]
     | ^^^^^^^^^^^^ add address = "127.0.0.1:5000"
error: relay.toml:16:11: unknown value "raws" for `accepts`
  16 | accepts = "raws"
     |           ^^^^^^ did you mean "raw"?
error: relay.toml:19:11: invalid value `a//b` for `pattern`: the segment at position 3 is empty
  19 | pattern = "a//b"
     |           ^^^^^^
error: relay.toml:20:7: unknown value "drop" for `lag`
  20 | lag = "drop"
     |       ^^^^^^ one of skip, close or block"#;
    similar(&wrong(source), expected);
}

#[test]
fn mistakes_of_syntax_are_told_in_the_same_form_beside_others() {
    let source = "open = yes\nlisten = [\"127.0.0.1:1\"]\nfoo = 1\n[limits]\nturn = 64KiB\nturn = \"1MiB\"\nmemory 1\n";
    let expected = r#"error: relay.toml:1:8: not a value
  1 | open = yes
    |        ^^^ write true
error: relay.toml:3:1: unknown key `foo`
  3 | foo = 1
    | ^^^ `relay config example` shows all that are known
error: relay.toml:5:8: a text needs quotes
  5 | turn = 64KiB
    |        ^^^^^ write "64KiB"
error: relay.toml:6:1: duplicate key
  6 | turn = "1MiB"
    | ^^^^
error: relay.toml:7:8: key with no value, expected `=`
  7 | memory 1
    |        ^"#;
    similar(&wrong(source), expected);
}

#[test]
fn what_is_not_closed_is_told_where_it_shows() {
    let expected = r#"error: relay.toml:2:1: missing comma between array elements, expected `,`
  2 | [limits]
    | ^ or is what came before not closed?"#;
    similar(&wrong("listen = [\"127.0.0.1:1\"\n[limits]\nmax_message = 1\n"), expected);
}

#[test]
fn every_key_is_suggested_for_a_typo_and_refuses_another_type() {
    for key in KEYS {
        let (section, name) = (key.section, key.name);
        let typo = format!("{name}s");
        let told = wrong(&format!("[{section}]\n{typo} = 1\n"));
        let expected = format!("error: relay.toml:2:1: unknown key `{typo}` in [{section}]\n");
        assert!(told.starts_with(&expected) && told.ends_with(&format!("did you mean `{name}`?")), "{told}");
        for value in ["true", "1.5", "[]", "{}", "1979-05-27"] {
            let told = wrong(&format!("[{section}]\n{name} = {value}\n"));
            let expected = format!("`{name}` must be {}, not ", key.unit.expected());
            assert!(told.contains(&expected) && told.matches("error: ").count() == 1, "{told}");
        }
        let told = wrong(&format!("{name} = 1"));
        assert!(told.ends_with(&format!("did you mean `{name}` in [{section}]?")), "{told}");
    }
}

#[test]
fn the_other_keys_refuse_another_type_too() {
    let cases = [
        ("listen = true", "`listen` must be an address like \"127.0.0.1:12000\", not true or false"),
        ("open = \"true\"", "`open` must be true or false, not a text"),
        ("hosts = [1]", "`hosts` must be a name like \"relay.example.org\", not a number"),
        ("origins = [[]]", "`origins` must be an origin like \"https://example.org\", not a list"),
        ("limits = 1", "`limits` must be a section [limits], not a number"),
        ("[[timeouts]]", "`timeouts` must be a section [timeouts], not a list"),
        ("[log]\nfilter = 1", "`filter` must be a text like \"info\", not a number"),
        ("[log]\nformat = 1", "`format` must be \"text\" or \"json\", not a number"),
        ("channel = 1", "`channel` must be a section [[channel]], not a number"),
        ("listener = [1]", "`listener` must be a section [[listener]], not a number"),
        ("[listener]\naddress = \"127.0.0.1:1\"", "there may be several of [listener]"),
        ("[[listener]]\naddress = 1", "`address` must be an address like \"127.0.0.1:12000\", not a number"),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\nfirst_line = 1",
            "`first_line` must be true or false, not a number",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\nframing = 1",
            "`framing` must be a text like \"line\", not a number",
        ),
        ("[[channel]]\npattern = 1", "`pattern` must be a pattern like \"sensors/**\", not a number"),
        ("[[channel]]\npattern = \"a\"\nage = 1", "`age` needs a unit; write it like \"1s\" or \"1ms\""),
        ("[[channel]]\npattern = \"a\"\nmessages = \"1\"", "`messages` must be a number like 64, not a text"),
    ];
    for (source, expected) in cases {
        let told = wrong(source);
        assert!(told.contains(expected) && told.matches("error: ").count() == 1, "{source}: {told}");
    }
}

#[test]
fn unknown_sections_and_misplaced_keys_are_suggested() {
    let ends = |source: &str, expected: &str| {
        let told = wrong(source);
        assert!(told.ends_with(expected), "{told}");
    };
    ends(
        "[limit]\nmemory = 1",
        "unknown section [limit]\n  1 | [limit]\n    |  ^^^^^ did you mean [limits]?",
    );
    ends(
        "[[listeners]]",
        "unknown section [[listeners]]\n  1 | [[listeners]]\n    |   ^^^^^^^^^ did you mean [[listener]]?",
    );
    ends("[limits]\nopen = true", "did you mean `open`, above all sections?");
    ends(
        "[log]\nlevel = \"info\"",
        "unknown key `level` in [log]\n  2 | level = \"info\"\n    | ^^^^^ known are filter and format",
    );
}

#[test]
fn what_raw_senders_are_is_not_said_where_there_are_none() {
    let told = wrong("[[listener]]\naddress = \"127.0.0.1:1\"\naccepts = \"http\"\nframing = \"line\"\n");
    let expected = r#"error: relay.toml:4:11: `framing` is for raw senders, which this [[listener]] does not accept
  4 | framing = "line"
    |           ^^^^^^ remove it, or set accepts = "everything""#;
    similar(&told, expected);
}

#[test]
fn how_receivers_wait_is_not_said_where_there_are_none_and_is_no_long_delay() {
    let told = wrong("[[listener]]\naddress = \"127.0.0.1:1\"\naccepts = \"raw\"\nbatch_delay = \"4ms\"\n");
    let expected = r#"error: relay.toml:4:15: `batch_delay` is for receivers, which this [[listener]] does not accept
  4 | batch_delay = "4ms"
    |               ^^^^^ remove it, or set accepts = "everything""#;
    similar(&told, expected);
    let told = wrong("[[listener]]\naddress = \"127.0.0.1:1\"\nbatch_delay = \"2s\"\n");
    assert!(told.contains("`batch_delay`") && told.contains("must be at most 1s"), "{told}");
}

#[test]
fn a_framing_is_suggested_and_fits_the_limit() {
    let told = wrong("[[listener]]\naddress = \"127.0.0.1:1\"\nframing = \"lines\"\n");
    assert!(told.starts_with("error: relay.toml:3:11: invalid value `lines` for `framing`: "), "{told}");
    assert!(told.ends_with("^^^^^^^ did you mean \"line\"?"), "{told}");
    assert_eq!(
        meant("", &["--raw", "127.0.0.1:1=a,fixed:200", "--max-message", "100"]).unwrap_err(),
        "error: --raw 127.0.0.1:1=a: messages of 200 bytes are all longer than `max_message` = \"100\""
    );
}

#[test]
fn others_reach_the_relay_only_when_that_is_said() {
    let source = "listen = [\"127.0.0.1:1\", \"0.0.0.0:12000\"]\n";
    let expected = r#"error: relay.toml:1:26: relay would be open to everyone who can reach 0.0.0.0:12000
  1 | listen = ["127.0.0.1:1", "0.0.0.0:12000"]
    |                          ^^^^^^^^^^^^^^^
  hint: if that is meant, set `open = true` or pass --open; else listen on 127.0.0.1:12000"#;
    similar(&wrong(source), expected);
    assert!(meant(source, &["--open"]).is_ok_and(|config| config.open));
    assert!(file(&format!("open = true\n{source}")).open);
    assert!(meant(source, &["--listen", "[::1]:0"]).is_ok());
    assert_eq!(
        meant("", &["--listen", "0.0.0.0:1"]).unwrap_err(),
        "error: relay would be open to everyone who can reach 0.0.0.0:1\n  \
         hint: if that is meant, pass --open; else listen on 127.0.0.1:1"
    );
    assert!(meant("", &["--raw", "192.0.2.1:5000=a"]).is_err());
    assert!(meant("", &["--listen", "[::ffff:127.0.0.1]:0"]).is_ok());
}

#[test]
fn an_address_is_listened_on_once() {
    let told = wrong("listen = [\"127.0.0.1:1\"]\n[[listener]]\naddress = \"127.0.0.1:1\"\n");
    let expected = r#"error: relay.toml:3:11: 127.0.0.1:1 is listened on already in line 1
  3 | address = "127.0.0.1:1"
    |           ^^^^^^^^^^^^^"#;
    similar(&told, expected);
    assert_eq!(
        meant("", &["--open", "--raw", "0.0.0.0:12000=a"]).unwrap_err(),
        "error: --raw 0.0.0.0:12000=a: 0.0.0.0:12000 overlaps with 127.0.0.1:12000, which is listened on already by \
         default\n  hint: choose where everything else connects with `listen` or --listen"
    );
    assert!(meant("", &["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]).is_ok());
}

#[test]
fn a_rule_that_is_never_reached_is_a_mistake() {
    let told = wrong("[[channel]]\npattern = \"a/**\"\n[[channel]]\npattern = \"a/*\"\n");
    let expected = r#"error: relay.toml:4:11: this rule is never reached: the one for `a/**` in line 2 comes before it
  4 | pattern = "a/*"
    |           ^^^^^ move it up, or remove it"#;
    similar(&told, expected);
}

#[test]
fn a_rule_that_does_not_block_has_no_wait() {
    let told = wrong("[[channel]]\npattern = \"a\"\nblock_for = \"1s\"\n");
    assert!(told.starts_with("error: relay.toml:3:13: `block_for` is for lag = \"block\", which"), "{told}");
    assert_eq!(told.matches("error: ").count(), 1);
}

#[test]
fn limits_fit_each_other() {
    let cases = [
        (
            "max_message = \"32MiB\"\nwindow_bytes = \"16MiB\"",
            "`max_message` = \"32MiB\" is more than `window_bytes` = \"16MiB\"",
        ),
        (
            "memory = \"8MiB\"\nmax_message = \"9MiB\"",
            "`max_message` = \"9MiB\" is more than `memory` = \"8MiB\"",
        ),
        ("encodings = \"2GiB\"", "`encodings` = \"2GiB\" is more than half of `memory` = \"1GiB\""),
        (
            "memory = \"16MiB\"\nencodings = \"9MiB\"",
            "`encodings` = \"9MiB\" is more than half of `memory` = \"16MiB\"",
        ),
        ("window_bytes = \"4GiB\"", "`window_bytes` must be at most 2GiB"),
        ("window_messages = 5000000000", "`window_messages` must be at most 16777216"),
        ("aliases = 100000000000000000000", "`aliases` must be at most 65536"),
    ];
    for (limits, expected) in cases {
        let told = wrong(&format!("[limits]\n{limits}\n"));
        assert!(told.contains(expected) && told.matches("error: ").count() == 1, "{told}");
    }
    assert!(
        wrong("[timeouts]\nsilence = \"2s\"\nundecided = \"1s\"").contains("`silence` = \"2s\" is more than")
    );
    assert!(
        wrong("[[channel]]\npattern = \"a\"\nhistory = \"2GiB\"")
            .contains("`history` = \"2GiB\" is more than")
    );
    assert_eq!(
        meant("", &["--history", "2GiB"]).unwrap_err(),
        "error: --history: `history` = \"2GiB\" is more than `memory` = \"1GiB\", which is for all channels\n  \
         hint: raise `memory` in [limits] of the configuration file"
    );
}

#[test]
fn a_file_that_is_none_is_told_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.toml");
    let told = |path: &Path| check(path).unwrap_err().to_string();
    assert_eq!(told(&path), format!("cannot read {}: there is no such file", path.display()));
    assert_eq!(told(folder.path()), format!("cannot read {}: it is a directory", folder.path().display()));
    std::fs::write(&path, b"# a\n# \xff\n").unwrap();
    assert_eq!(told(&path), format!("cannot read {}: line 2 is not UTF-8 text", path.display()));
    std::fs::write(&path, "#".repeat(MAX_FILE as usize + 1)).unwrap();
    assert_eq!(told(&path), format!("cannot read {}: it is larger than 1MiB", path.display()));
    std::fs::write(&path, example()).unwrap();
    assert_eq!(check(&path), Ok(()));
    let flags = cli::Serve { config: Some(path), max_message: Some(7), ..cli::Serve::default() };
    assert_eq!(load(&flags).unwrap().senders.max_message, 7);
    assert_eq!(load(&cli::Serve { config: Some("".into()), ..cli::Serve::default() }), Ok(Config::default()));
}
