//! Rows and columns in Markdown, and figures as people read them.

use crate::results::Spread;

/// A table; its first column says what a row is.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new<S: Into<String>>(head: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![head.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row, unless it has nothing but its name.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().collect();
        if cells.iter().skip(1).any(|cell| !cell.is_empty()) {
            self.rows.push(cells);
        }
    }

    /// The table, with columns of one width; nothing if it has no rows. Columns without a value are left out.
    pub(crate) fn markdown(&self) -> String {
        let [head, rows @ ..] = &self.rows[..] else { return String::new() };
        if rows.is_empty() {
            return String::new();
        }
        let cell = |row: &'_ [String], column: usize| row.get(column).cloned().unwrap_or_default();
        let columns: Vec<usize> = (0..head.len())
            .filter(|&column| column == 0 || rows.iter().any(|row| !cell(row, column).is_empty()))
            .collect();
        let width =
            |column| self.rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0).max(3);
        let line = |row: &[String]| {
            let cells = columns.iter().map(|&column| format!(" {:<1$} ", cell(row, column), width(column)));
            format!("|{}|\n", cells.collect::<Vec<_>>().join("|"))
        };
        let rule = columns.iter().map(|&column| "-".repeat(width(column) + 2)).collect::<Vec<_>>().join("|");
        let body: String = rows.iter().map(|row| line(row)).collect();
        format!("{}|{rule}|\n{body}\n", line(head))
    }
}

/// A median with the least and the most, multiplied by `scale`; all in thousands or millions where the median is.
pub(crate) fn spread(spread: Option<Spread>, scale: f64, unit: &str) -> String {
    let Some(spread) = spread else { return String::new() };
    let [median, least, most] = [spread.median, spread.least, spread.most].map(|value| value * scale);
    let (size, prefix) = size(median);
    let [median, least, most] = [median, least, most].map(|value| three_digits(value / size));
    format!("{median}{prefix}{unit} ({least}–{most})")
}

/// A median alone.
pub(crate) fn median(spread: Option<Spread>, scale: f64, unit: &str) -> String {
    spread.map_or_else(String::new, |spread| format!("{}{unit}", number(spread.median * scale)))
}

/// A number with three digits that count, and G, M or k for milliards, millions and thousands.
pub(crate) fn number(value: f64) -> String {
    let (size, prefix) = size(value);
    format!("{}{prefix}", three_digits(value / size))
}

fn size(value: f64) -> (f64, &'static str) {
    match value.abs() {
        size if size >= 1e9 => (1e9, " G"),
        size if size >= 1e6 => (1e6, " M"),
        size if size >= 1e4 => (1e3, " k"),
        _ => (1.0, ""),
    }
}

fn three_digits(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        for (value, text) in [
            (63_512_345.0, "63.5 M"),
            (172_998.0, "173 k"),
            (4168.8, "4169"),
            (5.256, "5.26"),
            (0.0242, "0.024"),
            (7.9e9, "7.90 G"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_spread_is_in_the_unit_of_its_median() {
        let of = Spread { median: 1.2e6, least: 0.9e6, most: 2e6 };
        assert_eq!(spread(Some(of), 1.0, "/s"), "1.20 M/s (0.900–2.00)");
        assert_eq!(median(Some(of), 1e-6, ""), "1.20");
        assert_eq!(spread(None, 1.0, ""), "");
    }

    #[test]
    fn rows_and_columns_without_a_value_are_left_out() {
        let mut table = Table::new(["work", "relay", "nobody"]);
        table.row(["one".into(), "1".into(), String::new()]);
        table.row(["two".into(), String::new(), String::new()]);
        assert_eq!(table.markdown(), "| work | relay |\n|------|-------|\n| one  | 1     |\n\n");
    }
}
