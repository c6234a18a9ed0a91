//! Tables of two or more ways of doing the same.
//!
//! Owns: how ratios are made and laid out.
//! Reads: the figures of each round.
//! Never: divides medians: a ratio is the median of the ratios of each round, so that a busy moment weighs on all alike.

use std::fmt::Write as _;

use crate::measure::median;

/// One way of doing it, and its figures: one vector a column, one value a round.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) columns: Vec<Vec<f64>>,
}

impl Row {
    pub(crate) fn new(name: &'static str, columns: usize) -> Self {
        Self {
            name,
            columns: vec![Vec::new(); columns],
        }
    }

    /// Adds the figures of a round.
    pub(crate) fn push(&mut self, figures: &[f64]) {
        for (column, figure) in self.columns.iter_mut().zip(figures) {
            column.push(*figure);
        }
    }
}

/// Lays out rows; each figure is a median, and its ratio is to the last row.
pub(crate) fn table(title: &str, headings: &[&str], rows: &[Row]) -> String {
    let rounds = rows
        .last()
        .and_then(|row| row.columns.first())
        .map_or(0, Vec::len);
    let mut text = format!("\n{title}, {rounds} rounds\n  {:<34}", "");
    for heading in headings {
        push(&mut text, format_args!("{heading:>16}   ratio"));
    }
    let against = rows.last();
    for row in rows {
        push(&mut text, format_args!("\n  {:<34}", row.name));
        for (index, figures) in row.columns.iter().enumerate() {
            if figures.is_empty() {
                push(&mut text, format_args!("{:>16} {:>7}", "-", "-"));
                continue;
            }
            let others = against.map_or(figures, |row| &row.columns[index]);
            let figure = median(figures.iter().copied());
            let rounds = figures.iter().zip(others);
            let ratio = median(rounds.map(|(ours, theirs)| ours / theirs));
            // There is none to what costs nothing.
            let ratio = match ratio.is_finite() {
                true => format!("{ratio:.2}x"),
                false => "-".to_owned(),
            };
            push(&mut text, format_args!("{figure:>16.2} {ratio:>7}"));
        }
    }
    text.push('\n');
    text
}

fn push(text: &mut String, part: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _written = text.write_fmt(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_could_not_be_gone_has_no_figures() {
        let mut here = Row::new("cat", 1);
        here.push(&[0.2]);

        let table = table("streams", &["CPU s"], &[Row::new("jq", 1), here]);

        let missing = table.lines().find(|line| line.contains("jq"));
        let words: Vec<&str> = missing.unwrap_or_default().split_whitespace().collect();
        assert_eq!(words, ["jq", "-", "-"]);
        assert!(table.contains("streams, 1 rounds"), "{table}");
    }

    #[test]
    fn ratios_are_medians_of_the_rounds() {
        let row = |name, walls: [f64; 3]| Row {
            name,
            columns: vec![walls.to_vec()],
        };
        let rows = [
            row("ours", [0.2, 0.9, 0.3]),
            row("docker run", [0.4, 0.6, 0.6]),
        ];

        let table = table("launch", &["wall s"], &rows);

        assert!(table.contains("launch, 3 rounds"), "{table}");
        assert!(table.contains("0.30   0.50x"), "{table}");
        assert!(table.contains("0.60   1.00x"), "{table}");
    }
}
