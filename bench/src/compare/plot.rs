//! A plot of the CPU time per delivered message, as SVG: a group of bars per row, logarithmic.

use std::fmt::Write;

use super::Comparison;
use super::kinds::{FLOOR, TIDINGS};
use super::results::{Cell, short};

const KEY: &str = "broker_cpu_ns_per_message";

/// In other rows this figure is of something else than a message.
const LABEL: &str = "CPU per";

const LEFT: f64 = 380.0;
const WIDTH: f64 = 620.0;
const RIGHT: f64 = 90.0;
const BAR: f64 = 13.0;
const GAP: f64 = 14.0;
const TOP: f64 = 64.0;

/// Distinct for the common kinds of colour blindness (after Okabe and Ito).
const COLOURS: [&str; 8] = [
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D31", "#F0E442",
];
const FLOOR_COLOUR: &str = "#999999";

pub fn svg(comparison: &Comparison, title: &str) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_svg(&mut out, comparison, title);
    out
}

struct Group<'a> {
    title: &'a str,
    bars: Vec<(usize, Cell)>,
}

fn write_svg(out: &mut String, comparison: &Comparison, title: &str) -> std::fmt::Result {
    let groups: Vec<Group> = comparison
        .rows
        .iter()
        .enumerate()
        .filter(|(_, row)| {
            row.figures
                .iter()
                .any(|figure| figure.key == KEY && figure.label.starts_with(LABEL))
        })
        .map(|(index, row)| Group {
            title: row.title,
            bars: (0..comparison.peers.len())
                .filter_map(|peer| Some((peer, comparison.results.cell(index, peer, KEY)?)))
                .filter(|(_, cell)| cell.least > 0.0)
                .collect(),
        })
        .filter(|group| !group.bars.is_empty())
        .collect();
    let cells = || {
        groups
            .iter()
            .flat_map(|group| group.bars.iter().map(|(_, cell)| cell))
    };
    let least = cells()
        .map(|cell| cell.least)
        .fold(f64::INFINITY, f64::min)
        .min(1e6);
    let most = cells()
        .map(|cell| cell.most)
        .fold(0.0, f64::max)
        .max(least * 10.0);
    let (from, to) = (least.log10().floor(), most.log10().ceil());
    let x = |value: f64| LEFT + (value.log10() - from) / (to - from) * WIDTH;
    let bars: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = TOP + bars as f64 * BAR + groups.len() as f64 * GAP + 30.0;
    let width = LEFT + WIDTH + RIGHT;

    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">"
    )?;
    writeln!(
        out,
        "<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>"
    )?;
    writeln!(
        out,
        "<text x=\"10\" y=\"20\" font-size=\"14\">{}</text>",
        escape(title)
    )?;
    let mut legend = 10.0;
    for (index, peer) in comparison.peers.iter().enumerate() {
        let colour = colour(comparison, index);
        writeln!(
            out,
            "<rect x=\"{legend}\" y=\"32\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"41\">{}</text>",
            legend + 14.0,
            escape(&peer.name)
        )?;
        legend += 30.0 + peer.name.len() as f64 * 6.5;
    }
    let bottom = height - 26.0;
    for power in from as i32..=to as i32 {
        let value = 10f64.powi(power);
        let at = x(value);
        writeln!(
            out,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{bottom}\" stroke=\"#dddddd\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{} ns</text>",
            TOP - 6.0,
            bottom + 14.0,
            short(value)
        )?;
    }
    let mut y = TOP;
    for group in &groups {
        let middle = y + group.bars.len() as f64 * BAR / 2.0 + 4.0;
        writeln!(
            out,
            "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            escape(group.title)
        )?;
        for (peer, cell) in &group.bars {
            let end = x(cell.median);
            let lost = if cell.lost { "†" } else { "" };
            let whisker = y + BAR / 2.0 - 1.0;
            writeln!(
                out,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\"/>\
                 <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{whisker:.1}\" y2=\"{whisker:.1}\" \
                 stroke=\"#000000\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\">{}{lost}</text>",
                end - LEFT,
                BAR - 2.0,
                colour(comparison, *peer),
                x(cell.least),
                x(cell.most),
                x(cell.most) + 4.0,
                y + BAR - 3.5,
                short(cell.median)
            )?;
            y += BAR;
        }
        y += GAP;
    }
    writeln!(out, "</svg>")
}

/// Ours is always the first colour, the floor always grey.
fn colour(comparison: &Comparison, peer: usize) -> &'static str {
    match comparison.peers[peer].kind.name {
        FLOOR => FLOOR_COLOUR,
        TIDINGS => COLOURS[0],
        _ => COLOURS[1 + peer % (COLOURS.len() - 1)],
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('`', "")
}
