//! The Markdown page of a comparison.

use std::fmt::Write;

use super::Comparison;
use super::kinds::{Durable, FLOOR, TIDINGS};
use super::machine::Machine;
use super::results::{Cell, short};
use super::rows::{Better, Figure, Row};

pub fn page(comparison: &Comparison, machine: &Machine, title: &str) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_page(&mut out, comparison, machine, title);
    out
}

fn write_page(
    out: &mut String,
    comparison: &Comparison,
    machine: &Machine,
    title: &str,
) -> std::fmt::Result {
    let peers = &comparison.peers;
    writeln!(out, "# {title}\n")?;
    writeln!(
        out,
        "Commit {}, {}. {} × {}, {:.0} GiB, Linux {}, load {} at the start. {} rounds of {} s each, \
         interleaved, a fresh broker for each run, the generator on the same machine; 64-byte \
         payloads. The median of the rounds, with the least and the most below it; the best broker \
         in bold.\n",
        comparison.commit,
        comparison.date,
        machine.cores,
        machine.processor,
        machine.memory_gib,
        machine.kernel,
        machine.load,
        comparison.options.rounds,
        comparison.options.duration,
    )?;
    writeln!(out, "Again: `bench/compare {}`\n", comparison.command)?;
    writeln!(
        out,
        "| | {} |",
        names(peers.iter().map(|peer| peer.name.as_str()))
    )?;
    writeln!(out, "|---|{}", "--:|".repeat(peers.len()))?;
    for (index, row) in comparison.rows.iter().enumerate() {
        for figure in row.figures {
            write_line(out, comparison, index, row, figure)?;
        }
    }
    let floors = peers.iter().any(|peer| peer.kind.name == FLOOR);
    writeln!(out)?;
    if floors {
        writeln!(
            out,
            "The floor is what the sockets cost without a broker (a relay that copies bytes), and \
             what the disk does without one (records appended and flushed in groups as large as \
             what is in flight)."
        )?;
    }
    writeln!(
        out,
        "† messages were lost or not acknowledged; ‡ there were errors; – not supported or failed \
         (see below).\n"
    )?;
    writeln!(out, "![CPU per delivered message](cost.svg)\n")?;
    writeln!(
        out,
        "| broker | version | an acknowledged message is | with persistence at its best | \
         configuration |"
    )?;
    writeln!(out, "|---|---|---|---|---|")?;
    for peer in peers {
        let files: Vec<String> = peer
            .kind
            .all_files()
            .map(|(file, _)| format!("[{file}](peers/{file})"))
            .collect();
        writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            peer.name,
            peer.version.replace('|', "/"),
            peer.kind.keeps,
            match peer.kind.durable {
                Durable::With(_, keeps) => keeps,
                Durable::Already | Durable::No => peer.kind.keeps,
            },
            files.join(", ")
        )?;
    }
    let mut heading = true;
    for (index, row) in comparison.rows.iter().enumerate() {
        for (number, peer) in peers.iter().enumerate() {
            if let Some(why) = comparison.results.failure(index, number) {
                if heading {
                    writeln!(out, "\nWhat failed:\n")?;
                    heading = false;
                }
                writeln!(
                    out,
                    "- {}, {}: {}",
                    row.title,
                    peer.name,
                    why.replace('\n', " ")
                )?;
            }
        }
    }
    Ok(())
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(" | ")
}

fn write_line(
    out: &mut String,
    comparison: &Comparison,
    index: usize,
    row: &Row,
    figure: &Figure,
) -> std::fmt::Result {
    let cells: Vec<Option<Cell>> = (0..comparison.peers.len())
        .map(|peer| comparison.results.cell(index, peer, figure.key))
        .collect();
    let best = best(comparison, &cells, figure.better);
    let texts = cells.iter().enumerate().map(|(peer, cell)| match cell {
        None => "–".to_owned(),
        Some(cell) => {
            let mut text = short(cell.median);
            if best == Some(peer) {
                text = format!("**{text}**");
            }
            if cell.lost {
                text.push('†');
            }
            if cell.errors {
                text.push('‡');
            }
            if cell.least < cell.most {
                let (least, most) = (short(cell.least), short(cell.most));
                let _ = write!(text, "<br><sub>{least}…{most}</sub>");
            }
            text
        }
    });
    let texts: Vec<String> = texts.collect();
    let (title, label, unit) = (row.title, figure.label, figure.unit);
    writeln!(out, "| {title}: {label}, {unit} | {} |", texts.join(" | "))
}

/// The best broker; one that lost messages or is no broker cannot be it.
fn best(comparison: &Comparison, cells: &[Option<Cell>], better: Better) -> Option<usize> {
    let honest = cells.iter().enumerate().filter_map(|(peer, cell)| {
        let cell = cell.as_ref()?;
        let broker = comparison.peers[peer].kind.name != FLOOR;
        (broker && !cell.lost && !cell.errors).then_some((peer, cell.median))
    });
    let order = |a: &(usize, f64), b: &(usize, f64)| a.1.total_cmp(&b.1);
    let best = match better {
        Better::Less => honest.min_by(order),
        Better::More => honest.max_by(order),
    };
    best.map(|(peer, _)| peer)
}

/// Tidings against the best of the others, for the terminal.
pub fn summary(comparison: &Comparison) -> String {
    let mut out = String::new();
    let Some(ours) = comparison
        .peers
        .iter()
        .position(|peer| peer.name == TIDINGS)
    else {
        return out;
    };
    for (index, row) in comparison.rows.iter().enumerate() {
        for figure in row.figures {
            let mut cells: Vec<Option<Cell>> = (0..comparison.peers.len())
                .map(|peer| comparison.results.cell(index, peer, figure.key))
                .collect();
            let Some(mine) = cells[ours].take() else {
                continue;
            };
            let Some(best) = best(comparison, &cells, figure.better) else {
                continue;
            };
            let Some(theirs) = &cells[best] else {
                continue;
            };
            let ratio = match theirs.median {
                0.0 => String::new(),
                median => format!("{:.2} × ", mine.median / median),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "{}: {}: {} {}, {ratio}{} ({})",
                row.title,
                figure.label,
                short(mine.median),
                figure.unit,
                comparison.peers[best].name,
                short(theirs.median),
            );
        }
    }
    out
}
