//! What can be measured. Each scenario sets up its clients, measures, cleans up and reports.

pub mod connects;
mod fill;
pub mod idle;
pub mod offline;
pub mod raw_log;
pub mod resume;
pub mod retained;
pub mod streams;
pub mod traffic;
pub mod webhooks;

use anyhow::Result;

use crate::client::{Client, Target};
use crate::options::{FilterKind, Options};
use crate::web::{PublishOver, SubscribeOver, requests, streams as web_streams};
use crate::wire::{self, Template};

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

/// Subscribers, however they are connected; the `index`th subscribes to `filters(index)`.
pub fn open_subscribers(
    options: &Options,
    ids: &[String],
    filters: impl Fn(usize) -> Vec<String>,
) -> Result<Vec<Client>> {
    match options.web.subscribe_over {
        SubscribeOver::Sse | SubscribeOver::Ws => {
            return web_streams::open_many(&options.web, ids.len(), filters);
        }
        SubscribeOver::Mqtt | SubscribeOver::MqttWs => {}
    }
    let mut clients = Client::open_many(&options.subscriber_target(), ids, options.durable)?;
    for (index, client) in clients.iter_mut().enumerate() {
        client.begin_subscribe(filters(index).iter().map(String::as_str), options.qos)?;
    }
    for client in &mut clients {
        client.finish_subscribe()?;
    }
    Ok(clients)
}

/// Publishers, however they are connected.
pub fn open_publishers(options: &Options, ids: &[String]) -> Result<Vec<Client>> {
    match options.web.publish_over {
        PublishOver::Http => ids.iter().map(|_| Client::dial(options.web.http)).collect(),
        PublishOver::Mqtt | PublishOver::MqttWs => {
            Client::open_many(&options.publisher_target(), ids, options.durable)
        }
    }
}

/// What a publisher sends to a topic.
pub fn template(options: &Options, topic: &str, text: bool) -> Template {
    let payload = vec![b'x'; options.payload];
    let template = match options.web.publish_over {
        PublishOver::Http => requests::publish(&options.web, options.qos, topic, &payload),
        PublishOver::Mqtt | PublishOver::MqttWs => {
            wire::publish(options.version, options.qos, false, topic, &payload)
        }
    };
    Template { text, ..template }
}
