//! What a line typed at the prompt means. Pure.

use std::path::PathBuf;

use shared::ChannelId;

/// The commands: word, argument, what it does.
pub const COMMANDS: &[(&str, &str, &str)] = &[
    ("/help", "", "this"),
    ("/channel", "NAME", "send to another channel"),
    ("/channels", "", "those used here"),
    ("/file", "PATH", "send the lines of a file"),
    ("/paste", "", "one message of several lines, up to a line with only a dot"),
    ("/hex", "00 ff 10", "send these bytes"),
    ("/stats", "", "what was sent so far"),
    ("/clear", "", "clear the screen"),
    ("/quit", "", "wait for confirmations and leave, like Ctrl-D"),
];

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// An empty line, which at a prompt is no message.
    Nothing,
    /// A message.
    Message(String),
    /// Several lines at once, which can only be pasted.
    Pasted(Vec<String>),
    /// `/help`
    Help,
    /// `/channel NAME`
    Channel(ChannelId),
    /// `/channels`
    Channels,
    /// `/file PATH`
    File(PathBuf),
    /// `/paste`
    Paste,
    /// `/hex BYTES`
    Hex(Vec<u8>),
    /// `/stats`
    Stats,
    /// `/clear`
    Clear,
    /// `/quit`
    Quit,
    /// A command that can't be obeyed, and why.
    Wrong(String),
}

/// Reads what was typed.
pub fn parse(line: &str) -> Typed {
    let line = line.strip_suffix('\n').unwrap_or(line);
    if line.contains('\n') {
        return Typed::Pasted(line.split('\n').map(Into::into).collect());
    }
    match line.strip_prefix('/') {
        None if line.is_empty() => Typed::Nothing,
        None => Typed::Message(line.into()),
        Some(rest) if rest.starts_with('/') => Typed::Message(rest.into()),
        Some(_) => command(line),
    }
}

fn command(line: &str) -> Typed {
    let (word, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = argument.trim();
    let Some((_, wanted, _)) = COMMANDS.iter().find(|(known, ..)| *known == word) else {
        return Typed::Wrong(format!(
            "not sent: {word} is no command; /help lists them, /{line} sends this as a message"
        ));
    };
    match (wanted.is_empty(), argument.is_empty()) {
        (true, false) => return Typed::Wrong(format!("{word} takes no argument")),
        (false, true) => return Typed::Wrong(format!("write it as {word} {wanted}")),
        _ => {}
    }
    match word {
        "/channel" => match argument.parse() {
            Ok(channel) => Typed::Channel(channel),
            Err(error) => Typed::Wrong(format!("no such channel name: {error}")),
        },
        "/channels" => Typed::Channels,
        "/file" => Typed::File(argument.into()),
        "/paste" => Typed::Paste,
        "/hex" => match hex(argument) {
            Some(bytes) => Typed::Hex(bytes),
            None => Typed::Wrong("not sent: write bytes as pairs of hex digits, like /hex 00 ff 10".into()),
        },
        "/stats" => Typed::Stats,
        "/clear" => Typed::Clear,
        "/quit" => Typed::Quit,
        _ => Typed::Help,
    }
}

/// The text of `/help`.
pub fn help() -> String {
    let mut text = String::from("a line is a message, without its end; //x sends /x\n");
    for (word, argument, what) in COMMANDS {
        text.push_str(&format!("  {:<18} {what}\n", format!("{word} {argument}")));
    }
    text.push_str("Ctrl-C clears the line, twice on an empty one leaves at once; Ctrl-D waits for confirmations and leaves");
    text
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> =
        text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let pairs = digits.chunks(2).map(|pair| match *pair {
        [high, low] => u8::try_from(high << 4 | low).ok(),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_is_a_message_and_a_doubled_slash_a_slash() {
        assert_eq!(parse("hello"), Typed::Message("hello".into()));
        assert_eq!(parse(" /x "), Typed::Message(" /x ".into()));
        assert_eq!(parse("//x"), Typed::Message("/x".into()));
        assert_eq!(parse("///"), Typed::Message("//".into()));
        assert_eq!(parse(""), Typed::Nothing);
    }

    #[test]
    fn an_unknown_word_is_not_sent_and_told_how_it_would_be() {
        let expected =
            "not sent: /etc/passwd is no command; /help lists them, //etc/passwd x sends this as a message";
        assert_eq!(parse("/etc/passwd x"), Typed::Wrong(expected.into()));
        assert!(matches!(parse("/"), Typed::Wrong(_)));
    }

    #[test]
    fn commands_are_understood_with_their_arguments() {
        assert_eq!(parse("/hex 00 ff10"), Typed::Hex(vec![0, 255, 16]));
        assert_eq!(parse("/channel a/b"), Typed::Channel("a/b".parse().unwrap()));
        assert_eq!(parse("/file my file.txt "), Typed::File("my file.txt".into()));
        assert_eq!(parse("/quit"), Typed::Quit);
        for (line, hint) in [
            ("/hex 0", "pairs"),
            ("/hex zz", "pairs"),
            ("/channel", "/channel NAME"),
            ("/channel a b", "a space"),
            ("/quit now", "no argument"),
        ] {
            let Typed::Wrong(text) = parse(line) else { panic!("{line} is wrong") };
            assert!(text.contains(hint), "{text}");
        }
    }

    #[test]
    fn several_lines_are_pasted_and_their_last_end_is_not_a_line() {
        assert_eq!(parse("a\n/b\n"), Typed::Pasted(vec!["a".into(), "/b".into()]));
        assert_eq!(parse("a\n"), Typed::Message("a".into()));
    }

    #[test]
    fn help_names_every_command() {
        let help = help();
        assert!(COMMANDS.iter().all(|(word, ..)| help.contains(word)));
    }

    proptest! {
        #[test]
        fn what_does_not_begin_with_a_slash_is_sent_as_it_is(line in "[^/\n][^\n]{0,40}") {
            prop_assert_eq!(parse(&line), Typed::Message(line));
        }

        #[test]
        fn parsing_never_panics(line: String) {
            let _ = parse(&line);
        }
    }
}
