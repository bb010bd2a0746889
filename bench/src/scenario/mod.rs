//! What can be measured. Each scenario sets up its clients, measures, cleans up and reports.

pub mod connects;
pub mod idle;
pub mod offline;
pub mod raw_log;
pub mod retained;
pub mod traffic;

use anyhow::Result;

use crate::client::{Client, Target};
use crate::options::FilterKind;

/// Filters in one SUBSCRIBE packet.
const FILTERS_TOGETHER: usize = 100;

/// The `index`th filter that nobody publishes to. Some hundred devices with some hundred readings
/// each, so that the levels branch as they do in real topic trees.
pub fn unrelated_filter(run: &str, kind: FilterKind, index: usize) -> String {
    let (device, reading) = (index / 256, index % 256);
    match kind {
        FilterKind::Exact => format!("unrelated-{run}/device{device:05}/reading{reading:03}"),
        FilterKind::Plus => format!("unrelated-{run}/device{device:05}/+/reading{reading:03}"),
        FilterKind::Hash => format!("unrelated-{run}/device{device:05}/reading{reading:03}/#"),
    }
}

/// Subscribes to the unrelated filters of this range, a hundred at a time.
pub fn subscribe_unrelated(
    client: &mut Client,
    run: &str,
    kind: FilterKind,
    range: std::ops::Range<usize>,
    qos: u8,
) -> Result<()> {
    let indexes: Vec<usize> = range.collect();
    for indexes in indexes.chunks(FILTERS_TOGETHER) {
        let filters: Vec<String> = indexes
            .iter()
            .map(|index| unrelated_filter(run, kind, *index))
            .collect();
        client.begin_subscribe(filters.iter().map(String::as_str), qos)?;
        client.finish_subscribe()?;
    }
    Ok(())
}

/// Connections that hold `count` unrelated subscriptions.
pub fn hold_unrelated(
    target: &Target,
    run: &str,
    kind: FilterKind,
    count: usize,
    holders: usize,
) -> Result<Vec<Client>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let holders = holders.clamp(1, count);
    let ids: Vec<String> = (0..holders).map(|index| format!("{run}u{index}")).collect();
    let mut clients = Client::open_many(target, &ids, false)?;
    for (index, client) in clients.iter_mut().enumerate() {
        let range = count * index / holders..count * (index + 1) / holders;
        subscribe_unrelated(client, run, kind, range, 0)?;
    }
    Ok(clients)
}

/// Connections that do nothing.
pub fn hold_idle(target: &Target, run: &str, count: usize) -> Result<Vec<Client>> {
    let ids: Vec<String> = (0..count).map(|index| format!("{run}i{index}")).collect();
    Client::open_many(target, &ids, false)
}
