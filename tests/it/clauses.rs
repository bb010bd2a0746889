//! `tests/CLAUSES.md` cannot rot: what it names exists, what scenarios cite is in it, and its sums
//! are right.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

fn table() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/CLAUSES.md"))
        .expect("tests/CLAUSES.md is there")
}

/// The rows of the tables: statement, in short, tested by.
fn rows(text: &str) -> Vec<[&str; 3]> {
    let rows = text.lines().filter(|line| line.starts_with("| [MQTT"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        cells
            .try_into()
            .unwrap_or_else(|_| panic!("three cells: {line}"))
    })
    .collect()
}

/// Everything between `start` and `end` in the text, again and again.
fn between<'a>(text: &'a str, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(start)
        .skip(1)
        .filter_map(move |rest| rest.split_once(end))
        .map(|(found, _)| found)
}

/// Every test that CLAUSES.md names is a test of this binary.
#[test]
fn every_test_in_the_table_exists() {
    let list = Command::new(std::env::current_exe().expect("a test is a file"))
        .args(["--list", "--format", "terse"])
        .output()
        .expect("the test binary lists its tests");
    let list = String::from_utf8(list.stdout).expect("names are text");
    let tests: BTreeSet<&str> = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .collect();
    assert!(
        tests.contains("clauses::every_test_in_the_table_exists"),
        "not a list of tests:\n{list}"
    );
    let text = table();
    let named = rows(&text)
        .into_iter()
        .flat_map(|[_, _, tests]| between(tests, "`", "`").collect::<Vec<_>>());
    let missing: Vec<&str> = named
        .filter(|name| name.contains("::") && !tests.contains(name))
        .collect();
    assert_eq!(missing, [""; 0], "named in tests/CLAUSES.md, and not there");
}

/// Every row names a test or says that there is none, and no statement has two rows.
#[test]
fn every_row_is_complete() {
    let text = table();
    let mut seen = BTreeSet::new();
    for [statement, short, tests] in rows(&text) {
        assert!(seen.insert(statement), "{statement} twice");
        assert!(!short.is_empty(), "{statement}");
        assert!(
            tests.contains("::") || tests.starts_with("no test"),
            "{statement}: {tests}"
        );
    }
}

/// Every statement that a scenario cites has a row.
#[test]
fn every_cited_statement_is_in_the_table() {
    let text = table();
    let known: BTreeSet<&str> = rows(&text)
        .into_iter()
        .map(|[statement, ..]| statement)
        .collect();
    let mut unknown = BTreeMap::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it"))
        .expect("the scenarios")
    {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = std::fs::read_to_string(&path).expect("readable");
        for cited in between(&source, "[MQTT", "]") {
            let statement = format!("[MQTT{cited}]");
            let is_statement = cited
                .chars()
                .all(|c| c.is_ascii_digit() || c == '-' || c == '.');
            if is_statement && !known.contains(statement.as_str()) {
                unknown.insert(statement, path.clone());
            }
        }
    }
    assert!(
        unknown.is_empty(),
        "cited, and not in tests/CLAUSES.md: {unknown:#?}"
    );
}

/// The sums above the tables are right.
#[test]
fn the_sums_are_right() {
    let text = table();
    for section in text.split("\n## ").skip(1) {
        let rows = rows(section);
        let tested = rows
            .iter()
            .filter(|[_, _, tests]| !tests.starts_with("no test"))
            .count();
        let sum = format!("{tested} of {} statements have a test.", rows.len());
        assert!(section.contains(&sum), "{sum}");
    }
}
