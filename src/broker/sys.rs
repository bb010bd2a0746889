//! `$SYS/broker/…`: what the broker tells about itself, under the names that monitoring tools know
//! from other brokers.
//!
//! They are Retained Messages that are published anew at intervals, seen only by those who
//! subscribe to `$SYS` by name: `#` does not match them [MQTT-4.7.2-1].

use super::Broker;
use super::stats::DROPS;

impl Broker {
    /// Publishes all of `$SYS/broker` with the present values.
    pub fn publish_sys(&self) {
        let uptime = self.clock.now().since(self.clock.started_at()) / 1000;
        let stats = &self.stats;
        let sessions = self.session_count() as u64;
        let connected = stats.clients_connected.get();
        let mut batch = self.batch();
        let mut tell = |name: &str, value: &dyn std::fmt::Display| {
            batch.publish_internal(&format!("$SYS/broker/{name}"), value.to_string().as_bytes());
        };
        tell("version", &concat!("tidings ", env!("CARGO_PKG_VERSION")));
        tell("uptime", &format_args!("{uptime} seconds"));
        tell("clients/connected", &connected);
        tell("clients/disconnected", &sessions.saturating_sub(connected));
        tell("clients/total", &sessions);
        tell("clients/maximum", &stats.clients_maximum.get());
        tell("connections/total", &stats.connections_total.get());
        tell("connections/refused", &stats.connections_refused.get());
        tell("connections/panicked", &stats.connections_panicked.get());
        tell("messages/received", &stats.packets_received.get());
        let sent = stats.packets_sent.get() + stats.publish_sent.get();
        tell("messages/sent", &sent);
        tell("publish/messages/received", &stats.publish_received.get());
        tell("publish/messages/sent", &stats.publish_sent.get());
        tell("publish/messages/dropped", &stats.dropped_total());
        for (reason, name) in DROPS {
            tell(
                &format!("publish/messages/dropped/{name}"),
                &stats.dropped_for(reason),
            );
        }
        tell("bytes/received", &stats.bytes_received.get());
        tell("bytes/sent", &stats.bytes_sent.get());
        tell("subscriptions/count", &self.table.count());
        tell("retained messages/count", &self.retained.count());
        tell("retained messages/bytes", &self.retained.bytes());
        tell("store/messages/bytes", &stats.queued_bytes.get());
    }
}
