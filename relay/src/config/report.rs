//! Mistakes, and how they are told: `FILE:LINE:COLUMN: what`, the line itself, a caret under the part that is meant.

use std::{fmt::Write as _, ops::Range, path::Path};

/// Everything that is wrong with what was said, each mistake with a hint where there is one. Means exit code 2.
///
/// The text has no `error: ` before the first mistake, which whoever prints it adds; the following ones have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\nerror: "))]
pub struct ConfigError(Vec<String>);

impl ConfigError {
    /// One mistake that is in no line of a file.
    pub(super) fn plain(text: String) -> Self {
        Self(vec![text])
    }

    /// The mistakes one by one, without `error: `, in the order of the file; never empty.
    pub fn mistakes(&self) -> &[String] {
        &self.0
    }
}

/// A mistake before it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    by: By,
    message: String,
    label: String,
    hint: String,
}

/// Who said a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum By {
    /// The file, in these bytes.
    File(Range<usize>),
    /// A flag, with its value.
    Flag(String),
    /// Nobody: it is the default.
    Default,
}

/// A value and who said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said<T> {
    pub(super) value: T,
    pub(super) by: By,
}

impl Mistake {
    /// In these bytes of the file.
    pub(super) fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self::by(By::File(span), message)
    }

    /// In what somebody said.
    pub(super) fn by(by: By, message: impl Into<String>) -> Self {
        Self { by, message: message.into(), label: String::new(), hint: String::new() }
    }

    /// With a word beside the caret.
    pub(super) fn label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }

    /// With a hint below.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    /// Where it begins in the file.
    pub(super) fn start(&self) -> Option<usize> {
        match &self.by {
            By::File(span) => Some(span.start),
            By::Flag(_) | By::Default => None,
        }
    }
}

/// Tells the mistakes: those of the file from its top to its end, then the others.
pub(super) fn report(path: &Path, source: &str, mut mistakes: Vec<Mistake>) -> Result<(), ConfigError> {
    if mistakes.is_empty() {
        return Ok(());
    }
    mistakes.sort_by_key(|mistake| mistake.start().unwrap_or(usize::MAX));
    Err(ConfigError(mistakes.iter().map(|mistake| tell(path, source, mistake)).collect()))
}

/// The number of the line in which a byte stands, from 1.
pub(super) fn line_of(source: &str, offset: usize) -> usize {
    1 + source.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

fn tell(path: &Path, source: &str, mistake: &Mistake) -> String {
    let Mistake { by, message, label, hint } = mistake;
    let mut text = match by {
        By::File(span) => point(path, source, span, message, label),
        By::Flag(flag) => format!("{flag}: {message}"),
        By::Default => message.clone(),
    };
    if !hint.is_empty() {
        let _ = write!(text, "\n  hint: {hint}");
    }
    text
}

fn point(path: &Path, source: &str, span: &Range<usize>, message: &str, label: &str) -> String {
    let start = floor(source, span.start);
    let end = floor(source, span.end).max(start);
    let line_start = source[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = source[start..].find('\n').map_or(source.len(), |length| start + length);
    let line = line_of(source, start);
    let before = source[line_start..start].chars().count();
    let carets = source[start..end.min(line_end)].chars().count().max(1);
    // A tab or a control character would put the caret elsewhere, or do worse to a terminal.
    let shown: String = source[line_start..line_end]
        .trim_end()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let gutter = line.to_string().len();
    let mut text = format!(
        "{path}:{line}:{column}: {message}\n  {line} | {shown}\n  {empty:gutter$} | {empty:before$}{empty:^<carets$}",
        path = path.display(),
        column = before + 1,
        empty = "",
    );
    if !label.is_empty() {
        let _ = write!(text, " {label}");
    }
    text
}

fn floor(source: &str, offset: usize) -> usize {
    source.floor_char_boundary(offset.min(source.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(source: &str, mistakes: Vec<Mistake>) -> String {
        report(Path::new("relay.toml"), source, mistakes).unwrap_err().to_string()
    }

    #[test]
    fn a_mistake_shows_its_line_and_points_at_its_part() {
        let source = "[limits]\n\tmax_mesage = \"1MiB\"  \r\n";
        let told =
            told(source, vec![Mistake::at(10..20, "unknown key").label("did you mean it?").hint("look")]);
        assert_eq!(
            told,
            "relay.toml:2:2: unknown key\n  2 |  max_mesage = \"1MiB\"\n    |  ^^^^^^^^^^ did you mean it?\n  hint: look"
        );
    }

    #[test]
    fn mistakes_are_told_from_the_top_of_the_file_and_flags_last() {
        let mistakes =
            vec![Mistake::by(By::Flag("--open".into()), "c"), Mistake::at(2..3, "b"), Mistake::at(0..1, "a")];
        assert_eq!(
            told("x\ny", mistakes),
            "relay.toml:1:1: a\n  1 | x\n    | ^\nerror: relay.toml:2:1: b\n  2 | y\n    | ^\nerror: --open: c"
        );
    }

    #[test]
    fn any_span_of_any_source_can_be_told() {
        for source in ["", "a", "\u{e9}\u{e9}\n", "a\nb\n"] {
            for start in 0..8 {
                for end in 0..8 {
                    let mistake = Mistake::at(Range { start, end }, "m");
                    assert!(told(source, vec![mistake]).contains(": m\n"));
                }
            }
        }
    }

    #[test]
    fn columns_count_characters() {
        assert!(
            told("\u{e9} = 1", vec![Mistake::at(3..4, "m")])
                .starts_with("relay.toml:1:3: m\n  1 | \u{e9} = 1\n    |   ^")
        );
    }
}
