//! The measured values of all rounds, and what a table shows of them.

use std::collections::BTreeMap;

use serde_json::Value;

/// One run of one row with one broker.
pub enum Run {
    /// What the generator reported.
    Done(serde_json::Map<String, Value>),
    /// Why there is nothing to show.
    Failed(String),
}

#[derive(Default)]
pub struct Results {
    /// By row and broker, a run per round.
    runs: BTreeMap<(usize, usize), Vec<Run>>,
}

/// The median of the rounds, with what must be said about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub lost: bool,
    pub errors: bool,
}

impl Results {
    pub fn add(&mut self, row: usize, peer: usize, run: Run) {
        self.runs.entry((row, peer)).or_default().push(run);
    }

    /// `None` when no round has the figure.
    pub fn cell(&self, row: usize, peer: usize, key: &str) -> Option<Cell> {
        let runs: Vec<_> = self
            .runs
            .get(&(row, peer))?
            .iter()
            .filter_map(|run| match run {
                Run::Done(report) => Some(report),
                Run::Failed(_) => None,
            })
            .collect();
        let mut values: Vec<f64> = runs
            .iter()
            .filter_map(|report| report.get(key)?.as_f64())
            .collect();
        values.sort_by(f64::total_cmp);
        let number = |report: &serde_json::Map<String, Value>, key: &str| {
            report.get(key).and_then(Value::as_u64).unwrap_or(0)
        };
        Some(Cell {
            median: median(&values)?,
            least: *values.first()?,
            most: *values.last()?,
            lost: runs
                .iter()
                .any(|report| number(report, "lost") + number(report, "unacknowledged") > 0),
            errors: runs.iter().any(|report| {
                let errors = report.get("errors").and_then(Value::as_array);
                errors.is_some_and(|errors| !errors.is_empty()) || number(report, "failed") > 0
            }),
        })
    }

    /// The first reason for which a run of this row failed with this broker.
    pub fn failure(&self, row: usize, peer: usize) -> Option<&str> {
        self.runs
            .get(&(row, peer))?
            .iter()
            .find_map(|run| match run {
                Run::Failed(why) => Some(why.as_str()),
                Run::Done(_) => None,
            })
    }
}

fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// A figure with at most four digits that mean something.
pub fn short(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    let digits = whole.trim_start_matches('-');
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if whole.starts_with('-') { "−" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{grouped}{point}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(value: f64, lost: u64) -> Run {
        let mut map = serde_json::Map::new();
        map.insert("x".to_owned(), value.into());
        map.insert("lost".to_owned(), lost.into());
        Run::Done(map)
    }

    #[test]
    fn a_cell_is_the_median_of_the_rounds_that_worked() {
        let mut results = Results::default();
        for run in [
            report(3.0, 0),
            report(1.0, 0),
            report(2.0, 1),
            Run::Failed("no".to_owned()),
        ] {
            results.add(0, 0, run);
        }
        let cell = results.cell(0, 0, "x").unwrap();
        assert_eq!((cell.median, cell.least, cell.most), (2.0, 1.0, 3.0));
        assert!(cell.lost && !cell.errors);
        assert_eq!(results.cell(0, 0, "y"), None);
        assert_eq!(results.cell(1, 0, "x"), None);
        assert_eq!(results.failure(0, 0), Some("no"));
    }

    #[test]
    fn figures_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (0.5, "0.50"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1234.0, "1,234"),
            (-1_234_567.0, "−1,234,567"),
        ] {
            assert_eq!(short(value), expected);
        }
    }
}
