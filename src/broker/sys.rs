//! `$SYS/broker/…`: what the broker tells about itself, under the names that monitoring tools know
//! from other brokers.
//!
//! They are Retained Messages that are published anew at intervals, seen only by those who
//! subscribe to `$SYS` by name: `#` does not match them [MQTT-4.7.2-1].

use super::Broker;
use super::stats::DROPS;
use crate::store::Health;

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
        tell("store/messages/memory", &stats.held_bytes.get());
        self.tell_of_store(&mut tell);
    }

    /// How the store is, and what its last opening found.
    fn tell_of_store(&self, tell: &mut impl FnMut(&str, &dyn std::fmt::Display)) {
        match self.store.health() {
            Health::Well => tell("store/health", &"well"),
            Health::DiskLow { free_bytes } => {
                let health = format_args!("disk low: {free_bytes} bytes are free");
                tell("store/health", &health);
            }
            Health::Failed(failure) => tell("store/health", &failure),
        }
        let store = self.store.stats();
        tell("store/messages/count", &store.needs);
        tell("store/waiting/bytes", &store.waiting_bytes);
        tell("store/commits", &store.commits);
        tell("store/log/bytes", &store.log_bytes);
        tell("store/log/segments", &store.segments);
        tell("store/log/written", &store.log_bytes_written);
        tell("store/checkpoints", &store.checkpoints);
        tell("store/checkpoints/written", &store.checkpoint_bytes_written);
        let found = &self.recovery;
        tell("store/recovery/records", &found.replayed_records);
        tell("store/recovery/torn/bytes", &found.torn_bytes);
        tell("store/recovery/damaged/records", &found.damaged_records);
        tell("store/recovery/damaged/bytes", &found.damaged_bytes);
        tell("store/recovery/missing segments", &found.missing_segments);
        tell("store/recovery/lost/queued", &found.lost_entries);
        tell("store/recovery/lost/retained", &found.lost_retained);
    }
}
