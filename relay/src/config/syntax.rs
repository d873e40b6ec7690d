//! Whether a file is TOML at all, and how the mistakes of its syntax are told.

use std::ops::Range;

use toml::de::DeTable;

use super::report::{Mistake, line_of};

/// Reads the document as far as it can be read, with the mistakes of its syntax.
pub(super) fn parse(source: &str) -> Syntax<'_> {
    let (document, errors) = DeTable::parse_recoverable(source);
    let mut errors: Vec<_> =
        errors.iter().map(|error| (error.span().unwrap_or_default(), error.message().to_string())).collect();
    errors.sort_by_key(|(span, _)| span.start);
    // Inside of what is not closed all that follows is misread: only the first error is the author's.
    let lost = errors.iter().any(|(_, message)| {
        message.starts_with("unclosed")
            || message.starts_with("invalid multi-line")
            || message.contains("recursion")
    });
    if lost {
        errors.truncate(1);
    }
    let lines: Vec<usize> = errors.iter().map(|(span, _)| line_of(source, span.start)).collect();
    let mut mistakes = Vec::new();
    for (index, (span, message)) in errors.into_iter().enumerate() {
        if index == 0 || lines[index - 1] != lines[index] {
            mistakes.push(syntax_mistake(source, span, &message));
        }
    }
    Syntax { document: (!lost).then(|| document.into_inner()), mistakes, lines }
}

/// What [`parse`] gives.
pub(super) struct Syntax<'d> {
    /// The document, unless too much of it is misread.
    pub(super) document: Option<DeTable<'d>>,
    /// The mistakes of its syntax, at most one of a line.
    pub(super) mistakes: Vec<Mistake>,
    /// The lines that have them: nothing else can be said of these.
    pub(super) lines: Vec<usize>,
}

fn syntax_mistake(source: &str, span: Range<usize>, message: &str) -> Mistake {
    if message.starts_with("string values must be quoted") {
        let text = source.get(span.clone()).unwrap_or_default();
        return match text.to_lowercase().as_str() {
            "" => Mistake::at(span, "the value is missing"),
            "true" | "yes" | "on" => Mistake::at(span, "not a value").label("write true"),
            "false" | "no" | "off" => Mistake::at(span, "not a value").label("write false"),
            _ => Mistake::at(span, "a text needs quotes").label(format!("write \"{}\"", text.escape_debug())),
        };
    }
    let mistake = Mistake::at(span, message);
    if message.starts_with("missing comma") {
        mistake.label("or is what came before not closed?")
    } else {
        mistake
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_at_most_one_mistake_of_syntax() {
        let syntax = parse("a = 10s\nb 1 = 2 3\nc = 1\n");
        assert_eq!(syntax.lines.first(), Some(&1));
        assert_eq!(syntax.mistakes.len(), 2);
        assert!(syntax.document.is_some());
    }

    #[test]
    fn what_is_not_closed_is_one_mistake() {
        for source in
            ["a = [1, 2\nb = 3\nc = 4\n", "[limits\nx = 1\n", "a = \"\"\"x\ny = 1\n", "a = { b = 1\nc = 2"]
        {
            let syntax = parse(source);
            assert_eq!(syntax.mistakes.len(), 1, "{source}");
            assert!(syntax.document.is_none(), "{source}");
        }
    }
}
