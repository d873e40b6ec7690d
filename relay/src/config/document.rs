//! Walks a TOML document with its spans. Knows types, unknown keys and suggestions, not what the keys mean.

use std::{
    fmt::Display,
    ops::{Range, RangeInclusive},
    str::FromStr,
};

use shared::units;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    keys::{self, KEYS, Unit},
    report::{By, Mistake, Said},
    value,
};

/// A value in the document.
type Value<'d> = Spanned<DeValue<'d>>;

/// A table whose keys are taken one by one; what is left at the end is unknown.
pub(super) struct Section<'d, 'm> {
    table: &'d DeTable<'d>,
    title: &'static str,
    span: Range<usize>,
    known: Vec<&'static str>,
    mistakes: &'m mut Vec<Mistake>,
}

impl<'d, 'm> Section<'d, 'm> {
    /// The table of this title: `[limits]`, or nothing for the top level; the span is that of its header.
    pub(super) fn new(
        table: &'d DeTable<'d>,
        title: &'static str,
        span: Range<usize>,
        mistakes: &'m mut Vec<Mistake>,
    ) -> Self {
        Self { table, title, span, known: Vec::new(), mistakes }
    }

    /// Where its header stands.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Adds a mistake.
    pub(super) fn mistake(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    /// Whether this key is there, rightly or wrongly.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Takes the value of a key.
    fn take(&mut self, key: &'static str) -> Option<&'d Value<'d>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// Takes a value that `read` understands; else a mistake: that it must be `expected`, or one of `words`.
    fn typed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        words: &[&str],
        read: impl FnOnce(&'d DeValue<'d>) -> Option<Result<T, String>>,
    ) -> Option<Said<T>> {
        let value = self.take(key)?;
        match read(value.get_ref()) {
            Some(Ok(read)) => Some(Said { value: read, by: By::File(value.span()) }),
            Some(Err(error)) => {
                let text = value.get_ref().as_str();
                let message = match text {
                    Some(text) => format!("invalid value `{}` for `{key}`: {error}", text.escape_debug()),
                    None => format!("`{key}` {error}"),
                };
                let mistake = Mistake::at(value.span(), message);
                self.mistakes.push(match text.and_then(|text| suggest(text, words)) {
                    Some(word) => mistake.label(format!("did you mean \"{word}\"?")),
                    None => mistake,
                });
                None
            }
            None => {
                self.mistakes.push(wrong_type(value, key, expected));
                None
            }
        }
    }

    /// Takes true or false.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<Said<bool>> {
        self.typed(key, "true or false", &[], |value| value.as_bool().map(Ok))
    }

    /// Takes a number, a size or a duration (in microseconds).
    pub(super) fn number(&mut self, key: &'static str, unit: Unit) -> Option<Said<u64>> {
        self.typed(key, unit.expected(), &[], |value| match (unit, value) {
            (Unit::Count | Unit::Size, DeValue::Integer(number)) if number.as_str().starts_with('-') => {
                Some(Err(format!("must be {}, not {number}", unit.expected())))
            }
            // What is too large for 64 bits is too large for every key.
            (Unit::Count | Unit::Size, DeValue::Integer(number)) => {
                Some(Ok(u64::from_str_radix(number.as_str(), number.radix()).unwrap_or(u64::MAX)))
            }
            (Unit::Size, DeValue::String(text)) => {
                Some(units::parse_size(text).map_err(|error| error.to_string()))
            }
            (Unit::Wait, DeValue::String(text)) => Some(value::wait(text).map(keys::micros)),
            (Unit::Wait, DeValue::Integer(number)) if !number.as_str().starts_with('-') => {
                Some(Err(format!("needs a unit; write it like \"{number}s\" or \"{number}ms\"")))
            }
            _ => None,
        })
    }

    /// Takes a text that parses; some of those that do are `words`.
    pub(super) fn parsed<T: FromStr<Err: Display>>(
        &mut self,
        key: &'static str,
        expected: &str,
        words: &[&str],
    ) -> Option<Said<T>> {
        self.typed(key, expected, words, |value| {
            value.as_str().map(|text| text.parse().map_err(|error: T::Err| error.to_string()))
        })
    }

    /// Takes a text that `read` understands.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Said<T>> {
        self.typed(key, expected, &[], |value| value.as_str().map(read))
    }

    /// Takes one of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<Said<T>> {
        let value = self.take(key)?;
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let Some(text) = value.get_ref().as_str() else {
            self.mistakes.push(wrong_type(value, key, &listed(&words, "or", |word| format!("\"{word}\""))));
            return None;
        };
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(Said { value: *choice, by: By::File(value.span()) });
        }
        let label = match suggest(text, &words) {
            Some(word) => format!("did you mean \"{word}\"?"),
            None => format!("one of {}", listed(&words, "or", str::to_string)),
        };
        let message = format!("unknown value \"{}\" for `{key}`", text.escape_debug());
        self.mistakes.push(Mistake::at(value.span(), message).label(label));
        None
    }

    /// Takes a list of texts that `read` understands; one text alone is a list of one. A list of which nothing is
    /// understood is none.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<Said<T>>> {
        let value = self.take(key)?;
        let items: Vec<&Value<'d>> = match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![value],
        };
        let mut all = Vec::with_capacity(items.len());
        for item in &items {
            match item.get_ref().as_str().map(|text| (text, read(text))) {
                Some((_, Ok(read))) => all.push(Said { value: read, by: By::File(item.span()) }),
                Some((text, Err(error))) => {
                    let message = format!("invalid value `{}` in `{key}`: {error}", text.escape_debug());
                    self.mistakes.push(Mistake::at(item.span(), message));
                }
                None => self.mistakes.push(wrong_type(item, key, expected)),
            }
        }
        (items.is_empty() || !all.is_empty()).then_some(all)
    }

    /// Takes a number that is within bounds.
    pub(super) fn bounded(
        &mut self,
        key: &'static str,
        unit: Unit,
        bounds: &RangeInclusive<u64>,
    ) -> Option<Said<u64>> {
        let said = self.number(key, unit)?;
        match keys::within(said.value, unit, bounds) {
            Ok(()) => Some(said),
            Err(error) => {
                self.mistakes.push(Mistake::by(said.by, format!("`{key}` {error}")));
                None
            }
        }
    }

    /// Takes a table of texts that `read` understands together with their keys; those it does not are mistakes.
    pub(super) fn pairs<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&str, &str) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.mistakes.push(wrong_type(value, key, &format!("a table like {expected}")));
            return Vec::new();
        };
        let mut all = Vec::with_capacity(table.len());
        for (name, item) in table.iter() {
            let name: &str = name.get_ref();
            match item.get_ref().as_str().map(|text| read(name, text)) {
                Some(Ok(read)) => all.push(read),
                Some(Err(error)) => {
                    let message = format!("invalid `{}` in `{key}`: {error}", name.escape_debug());
                    self.mistakes.push(Mistake::at(item.span(), message));
                }
                None => self.mistakes.push(wrong_type(item, name, "a text")),
            }
        }
        all
    }

    /// Where the value of a key stands, if it is there.
    pub(super) fn place(&self, key: &str) -> Option<Range<usize>> {
        self.table.get(key).map(Spanned::span)
    }

    /// Takes a section below this one.
    pub(super) fn section(&mut self, key: &'static str, title: &'static str) -> Option<Section<'d, '_>> {
        let value = self.take(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Section::new(table, title, value.span(), self.mistakes)),
            _ => {
                self.mistakes.push(wrong_type(value, key, &format!("a section {title}")));
                None
            }
        }
    }

    /// Takes a section that there may be several of, and reads each.
    pub(super) fn sections(
        &mut self,
        key: &'static str,
        title: &'static str,
        mut read: impl FnMut(Section<'d, '_>),
    ) {
        let Some(value) = self.take(key) else { return };
        match value.get_ref() {
            DeValue::Array(items) => {
                for item in items.iter() {
                    match item.get_ref() {
                        DeValue::Table(table) => read(Section::new(table, title, item.span(), self.mistakes)),
                        _ => self.mistakes.push(wrong_type(item, key, &format!("a section {title}"))),
                    }
                }
            }
            DeValue::Table(_) => {
                let mistake = Mistake::at(value.span(), format!("there may be several of [{key}]"));
                self.mistakes.push(mistake.label(format!("write {title}")));
            }
            _ => self.mistakes.push(wrong_type(value, key, &format!("a section {title}"))),
        }
    }

    /// Tells the keys that nobody took.
    pub(super) fn end(self) {
        for (key, value) in self.table.iter() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let shown = name.escape_debug();
            let (unknown, sections) = match (self.title, value.get_ref()) {
                ("", DeValue::Table(_)) => (format!("unknown section [{shown}]"), true),
                ("", DeValue::Array(items)) if items.iter().any(|item| item.get_ref().is_table()) => {
                    (format!("unknown section [[{shown}]]"), true)
                }
                ("", _) => (format!("unknown key `{shown}`"), false),
                (title, _) => (format!("unknown key `{shown}` in {title}"), false),
            };
            let advice = if sections { self.section_advice(name) } else { self.advice(name) };
            self.mistakes.push(Mistake::at(key.span(), unknown).label(advice));
        }
    }

    fn section_advice(&self, name: &str) -> String {
        match suggest(name, &SECTIONS.map(|(name, _)| name)) {
            Some(known) => {
                let title = SECTIONS.iter().find(|(name, _)| *name == known).map_or("", |(_, title)| title);
                format!("did you mean {title}?")
            }
            None => format!("known are {}", listed(&SECTIONS.map(|(_, title)| title), "and", str::to_string)),
        }
    }

    fn advice(&self, name: &str) -> String {
        let near = suggest(name, &self.known);
        let elsewhere: Vec<&str> = KEYS.iter().map(|key| key.name).chain(TOP_LEVEL.iter().copied()).collect();
        let far = suggest(name, &elsewhere);
        if let Some(near) = near.filter(|_| far != Some(name)) {
            return format!("did you mean `{near}`?");
        }
        match far {
            Some(known) => match keys::Key::named(known) {
                Some(key) => format!("did you mean `{known}` in [{}]?", key.section),
                None => format!("did you mean `{known}`, above all sections?"),
            },
            None if self.known.len() <= 8 => {
                format!("known are {}", listed(&self.known, "and", str::to_string))
            }
            None => "`relay config example` shows all that are known".to_string(),
        }
    }
}

/// The sections, and how their headers are written.
const SECTIONS: [(&str, &str); 7] = [
    ("limits", "[limits]"),
    ("timeouts", "[timeouts]"),
    ("log", "[log]"),
    ("listener", "[[listener]]"),
    ("channel", "[[channel]]"),
    ("gateway", "[gateway]"),
    ("route", "[[route]]"),
];

/// Keys that stand above all sections, for who writes them below one.
const TOP_LEVEL: [&str; 4] = ["listen", "open", "hosts", "origins"];

fn wrong_type(value: &Value<'_>, key: &str, expected: &str) -> Mistake {
    let found = match value.get_ref() {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    };
    Mistake::at(value.span(), format!("`{key}` must be {expected}, not {found}"))
}

/// The known word that was most likely meant: close in spelling, or the same but for case and `-`.
fn suggest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    let word = word.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn listed(words: &[&str], and: &str, show: impl Fn(&str) -> String) -> String {
    match words {
        [] => String::new(),
        [word] => show(word),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|word| show(word)).collect();
            format!("{} {and} {}", first.join(", "), show(last))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggestion_is_close_or_there_is_none() {
        let known = ["max_message", "memory", "turn"];
        assert_eq!(suggest("max_mesage", &known), Some("max_message"));
        assert_eq!(suggest("MAX-MESSAGE", &known), Some("max_message"));
        assert_eq!(suggest("trun", &known), Some("turn"));
        assert_eq!(suggest("burn-in", &known), None);
        assert_eq!(suggest("x", &known), None);
    }
}
