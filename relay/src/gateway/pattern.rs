//! What rules look for in messages, and what they put in its place. A search takes time in proportion to the message,
//! whatever the expression is, and replacing ends where it takes more than that; text stays text. Pure.

use std::{borrow::Cow, str::FromStr};

use regex::{Regex, bytes};
use shared::Kind;

use super::{message::Message, work::Work};

/// A regular expression.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    /// For text, where it finds nothing that would tear a character; none if it might.
    texts: Option<Regex>,
    bytes: bytes::Regex,
}

/// What takes the place of a match: texts, and groups of the match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

/// What would be too much of replacing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// The message would be longer than one may be.
    Length,
    /// It takes more time than a message of its length may.
    Work,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
}

impl Pattern {
    /// Whether it can be looked for in such messages.
    ///
    /// # Errors
    /// A text that says why not.
    pub fn fits(&self, kind: Option<Kind>) -> Result<(), &'static str> {
        if self.texts.is_none() && kind != Some(Kind::Binary) {
            return Err("it may match a part of a character, which text has not: set kind = \"binary\"");
        }
        Ok(())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is somewhere in a message.
    pub fn is_in(&self, message: &Message<'_>) -> bool {
        match (message, &self.texts) {
            (Message::Text(text), Some(pattern)) => pattern.is_match(text),
            (Message::Text(_), None) => false,
            (Message::Binary(bytes), _) => self.bytes.is_match(bytes),
        }
    }

    /// Replaces wherever it is in a message.
    ///
    /// # Errors
    /// The result has more bytes than `limit`, or it takes too much work.
    pub(super) fn replace<'a>(
        &self,
        message: Message<'a>,
        with: &Template,
        limit: usize,
        work: &mut Work,
    ) -> Result<Message<'a>, Excess> {
        let message = match message {
            Message::Text(text) => {
                let Some(pattern) = &self.texts else { return Ok(Message::Text(text)) };
                let (mut out, mut last) = (String::with_capacity(text.len()), 0);
                for captures in pattern.captures_iter(&text) {
                    let Some(whole) = captures.get(0) else { continue };
                    out.push_str(&text[last..whole.start()]);
                    last = whole.end();
                    for part in &with.parts {
                        out.push_str(match part {
                            Part::Text(text) => text,
                            Part::Group(group) => captures.get(*group).map_or("", |group| group.as_str()),
                        });
                        if out.len() > limit {
                            return Err(Excess::Length);
                        }
                    }
                    if !work.goes_on() {
                        return Err(Excess::Work);
                    }
                }
                out.push_str(&text[last..]);
                Message::Text(out.into())
            }
            Message::Binary(bytes) => {
                let (mut out, mut last) = (Vec::with_capacity(bytes.len()), 0);
                for captures in self.bytes.captures_iter(&bytes) {
                    let Some(whole) = captures.get(0) else { continue };
                    out.extend_from_slice(&bytes[last..whole.start()]);
                    last = whole.end();
                    for part in &with.parts {
                        out.extend_from_slice(match part {
                            Part::Text(text) => text.as_bytes(),
                            Part::Group(group) => captures.get(*group).map_or(&[], |group| group.as_bytes()),
                        });
                        if out.len() > limit {
                            return Err(Excess::Length);
                        }
                    }
                    if !work.goes_on() {
                        return Err(Excess::Work);
                    }
                }
                out.extend_from_slice(&bytes[last..]);
                Message::Binary(Cow::Owned(out))
            }
        };
        if message.bytes().len() > limit { Err(Excess::Length) } else { Ok(message) }
    }

    /// The number of the group of this name or number.
    fn group(&self, name: &str) -> Option<usize> {
        let number = name.parse().ok().filter(|&number| number < self.bytes.captures_len());
        number.or_else(|| self.bytes.capture_names().position(|known| known == Some(name)))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = bytes::Regex::new(text).map_err(|error| reason(&error))?;
        Ok(Self { text: text.into(), texts: Regex::new(text).ok(), bytes })
    }
}

/// What is wrong with an expression, in one line.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it takes too much memory".into(),
        error => {
            let told = error.to_string();
            let last = told.lines().next_back().unwrap_or_default().trim();
            last.strip_prefix("error: ").unwrap_or(last).into()
        }
    }
}

impl Template {
    /// Reads a text in which `$1` and `${name}` stand for groups of the pattern, and `$$` for a `$`.
    ///
    /// # Errors
    /// A text that says which group there is not.
    pub fn new(text: &str, pattern: &Pattern) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix('$') {
                plain.push('$');
                rest = behind;
                continue;
            }
            let (name, behind) = match rest.strip_prefix('{') {
                Some(braced) => braced.split_once('}').ok_or("`${` needs a `}`")?,
                None => {
                    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()))
                }
            };
            let group = pattern.group(name).ok_or_else(|| match name {
                "" => "for a `$` write `$$`".to_owned(),
                name => format!("`matches` has no group `{}`; for a `$` write `$$`", name.escape_debug()),
            })?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Group(group));
            rest = behind;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { text: text.into(), parts })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{super::work::thread_time, *};

    fn work() -> Work {
        Work::begin(|| Duration::ZERO, 0)
    }

    fn replaced(pattern: &str, with: &str, message: Message<'_>, limit: usize) -> Option<Vec<u8>> {
        let pattern: Pattern = pattern.parse().unwrap();
        let with = Template::new(with, &pattern).unwrap();
        pattern.replace(message, &with, limit, &mut work()).ok().map(|message| message.bytes().to_vec())
    }

    #[test]
    fn groups_stand_where_their_names_do() {
        let text = Message::Text("a=1, b=2".into());
        let swapped = replaced(r"(?<key>\w)=(\d)", "$2=${key}$$$0", text, 100).unwrap();
        assert_eq!(swapped, b"1=a$a=1, 2=b$b=2");
        let pattern: Pattern = r"(?<key>\w)=(\d)".parse().unwrap();
        for (with, says) in
            [("$3", "no group `3`"), ("$2x", "no group `2x`"), ("$", "write `$$`"), ("${key", "needs a `}`")]
        {
            assert!(Template::new(with, &pattern).unwrap_err().contains(says), "{with}");
        }
    }

    #[test]
    fn what_would_grow_beyond_the_limit_is_none() {
        let text = || Message::Text("aaaa".into());
        assert_eq!(replaced("a", "12", text(), 8), Some(b"12121212".to_vec()));
        assert_eq!(replaced("a", "12", text(), 7), None);
        assert_eq!(replaced("a", "12", Message::Binary((&b"aaaa"[..]).into()), 7), None);
        assert_eq!(replaced("b", "", text(), 3), None, "what is too long as it is");
    }

    #[test]
    fn replacing_that_would_take_the_square_of_a_messages_length_ends_early() {
        let pattern: Pattern = ".*x|y".parse().unwrap();
        let with = Template::new("z", &pattern).unwrap();
        let long = "y".repeat(400_000);
        for message in [Message::Text(long.as_str().into()), Message::Binary(long.as_bytes().into())] {
            let mut work = Work::begin(thread_time, long.len());
            assert_eq!(pattern.replace(message, &with, usize::MAX, &mut work), Err(Excess::Work));
        }
        let plain: Pattern = "y+|x".parse().unwrap();
        let mut work = Work::begin(thread_time, long.len());
        let replaced = plain.replace(Message::Text(long.into()), &with, usize::MAX, &mut work);
        assert_eq!(replaced, Ok(Message::Text("z".into())));
    }

    #[test]
    fn an_expression_that_is_none_says_why_in_a_line() {
        for (text, says) in
            [("(", "unclosed group"), ("a{2", "repetition"), ("\\p{Nonsense}", "Unicode property")]
        {
            let error = text.parse::<Pattern>().unwrap_err();
            assert!(error.contains(says) && !error.contains('\n'), "{text}: {error}");
        }
        let huge = "(a{1000}){1000}".parse::<Pattern>();
        assert_eq!(huge.unwrap_err(), "it takes too much memory");
    }

    #[test]
    fn what_may_tear_a_character_is_for_bytes_alone() {
        let pattern: Pattern = r"(?-u)\xff".parse().unwrap();
        assert!(pattern.fits(None).is_err() && pattern.fits(Some(Kind::Text)).is_err());
        assert!(pattern.fits(Some(Kind::Binary)).is_ok());
        assert_eq!(replaced(r"(?-u)\xff", "!", Message::Binary((&b"a\xffb"[..]).into()), 9).unwrap(), b"a!b");
    }

    proptest! {
        #[test]
        fn text_stays_text(text in "\\PC{0,40}", pattern in "[a-zé.*?|]{0,6}", with in "[a-z$0{}é]{0,6}") {
            let Ok(pattern) = pattern.parse::<Pattern>() else { return Ok(()) };
            let Ok(with) = Template::new(&with, &pattern) else { return Ok(()) };
            let (text, plain) = (Message::Text(text.as_str().into()), Regex::new(pattern.as_str()).unwrap());
            let expected = plain.replace_all(std::str::from_utf8(text.bytes()).unwrap(), with.as_str()).into_owned();
            let replaced = pattern.replace(text, &with, usize::MAX, &mut work());
            prop_assert_eq!(replaced, Ok(Message::Text(expected.into())));
        }
    }
}
