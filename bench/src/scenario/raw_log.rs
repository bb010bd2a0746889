//! The floor under every durable broker: records appended to a file, an fdatasync per group.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::options::Options;
use crate::report::Report;

/// Written over from the beginning when it is full, as a broker reuses or preallocates segments.
const FILE_BYTES: usize = 64 << 20;

/// What a record needs besides the payload: header, checksum, topic, a target.
const RECORD_OVERHEAD: usize = 56;

pub fn run(options: &Options) -> Result<Report> {
    let path = options
        .directory
        .join(format!("raw-log-{}", std::process::id()));
    let file = OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    let result = measure(options, &file);
    std::fs::remove_file(&path)?;
    result
}

fn measure(options: &Options, file: &File) -> Result<Report> {
    let mut report = Report::new("raw-log");
    report.set("payload", options.payload);
    let zeros = vec![0; 1 << 20];
    for start in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, start as u64)?;
    }
    file.sync_all()?;
    let groups = match options.window {
        Some(group) => vec![group],
        None => vec![1, 16, 100, 256, 1000],
    };
    let record = options.payload + RECORD_OVERHEAD;
    let each = Duration::from_secs_f64(options.duration / groups.len() as f64);
    let mut at = 0;
    for group in groups {
        let bytes = vec![0x5A; record * group];
        let began = Instant::now();
        let mut syncs = 0u64;
        while began.elapsed() < each {
            if at + bytes.len() > FILE_BYTES {
                at = 0;
            }
            file.write_all_at(&bytes, at as u64)?;
            file.sync_data()?;
            at += bytes.len();
            syncs += 1;
        }
        let seconds = began.elapsed().as_secs_f64();
        let messages = syncs as f64 * group as f64;
        report.figure(&format!("records_per_s_group_{group}"), messages / seconds);
        report.figure(
            &format!("sync_us_group_{group}"),
            seconds * 1e6 / syncs as f64,
        );
    }
    Ok(report)
}
