//! Answers for a person: tables of what is listed, lines of what is shown alone.

use std::io::{self, Write};

use serde_json::{Map, Value};

/// Writes an answer.
pub fn answer(answer: &Value, out: &mut impl Write) -> io::Result<()> {
    let Some(object) = answer.as_object() else {
        return Ok(());
    };
    const WEBHOOKS: &[&str] = &[
        "id",
        "state",
        "queued",
        "retrying",
        "dead_letters",
        "url",
        "topics",
    ];
    const ATTEMPTS: &[&str] = &[
        "time",
        "message_id",
        "attempt",
        "status",
        "duration_ms",
        "error",
    ];
    const DEAD_LETTERS: &[&str] = &[
        "seq",
        "last_attempt",
        "topic",
        "attempts",
        "status",
        "error",
    ];
    for (list, columns) in [
        ("webhooks", WEBHOOKS),
        ("attempts", ATTEMPTS),
        ("dead_letters", DEAD_LETTERS),
    ] {
        if let Some(rows) = object.get(list).and_then(Value::as_array) {
            return table(columns, rows, out);
        }
    }
    lines(object, 0, out)
}

/// Control characters of somebody else's text are not for a terminal.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => clean(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(cell).collect();
            items.join(", ")
        }
        other => other.to_string(),
    }
}

fn table(columns: &[&str], rows: &[Value], out: &mut impl Write) -> io::Result<()> {
    let head = columns.iter().map(|it| it.replace('_', " ").to_uppercase());
    let mut cells: Vec<Vec<String>> = vec![head.collect()];
    cells.extend(rows.iter().map(|row| {
        let cells = columns.iter();
        cells.map(|column| cell(&row[*column])).collect()
    }));
    let width = |column: usize| {
        let widths = cells.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    for row in &cells {
        let padded = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line: Vec<String> = padded.collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}

fn lines(object: &Map<String, Value>, depth: usize, out: &mut impl Write) -> io::Result<()> {
    for (name, value) in object {
        let name = clean(name);
        let indent = "  ".repeat(depth);
        match value {
            Value::Object(object) if object.is_empty() => writeln!(out, "{indent}{name}: -")?,
            Value::Object(object) => {
                writeln!(out, "{indent}{name}:")?;
                lines(object, depth + 1, out)?;
            }
            value => writeln!(out, "{indent}{name}: {}", cell(value))?,
        }
    }
    Ok(())
}
