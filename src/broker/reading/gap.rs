//! What a client is told of messages that its stream has no longer.

use std::sync::Arc;

use tidings_protocol::sse::Cursor;

use super::Reading;
use crate::broker::Broker;
use crate::broker::encode::encoded_len;
use crate::broker::feed::Gap;
use crate::broker::message::Message;
use crate::broker::session::Link;
use crate::broker::stats::Drop as Reason;
use tidings_protocol::mqtt::QoS;

/// The User Property with the oldest message that was left, as an id.
const OLDEST: &str = "tidings-gap-oldest";
/// The User Property with the number of messages that are missing, where it is known.
const LOST: &str = "tidings-gap-lost";

impl Reading {
    /// Notes that messages are missing before the next one.
    pub(super) fn missed(&mut self, gap: Gap, broker: &Broker) {
        broker
            .stats
            .dropped(Reason::StreamGap, gap.lost.unwrap_or(1));
        tracing::debug!(
            filter = &*self.written,
            lost = gap.lost,
            "a replay goes on behind a gap"
        );
        self.gap = Some(match self.gap {
            None => gap,
            Some(before) => Gap {
                lost: before.lost.zip(gap.lost).map(|(one, two)| one + two),
                ..gap
            },
        });
    }
}

/// The same message with what there is to be told, if its receiver accepts a packet as long as that.
pub(super) fn tell(
    message: &Message,
    gap: Gap,
    epoch: u64,
    link: Option<&Link>,
) -> Option<Arc<Message>> {
    let mut more = Vec::with_capacity(2);
    if let Some(oldest) = gap.oldest {
        let offset = oldest.0;
        more.push((OLDEST, Cursor { epoch, offset }.to_string()));
    }
    if let Some(lost) = gap.lost {
        more.push((LOST, lost.to_string()));
    }
    let told = message.with_user_properties(&more);
    // MQTT 3 has no words for it.
    if link.is_some_and(|link| !link.version.is_v5()) {
        return None;
    }
    let fits = link.is_none_or(|link| {
        // As long as it can get, its identifiers apart.
        let len = encoded_len(&told, link.version, QoS::ExactlyOnce, None);
        len <= link.packet_size_max
    });
    fits.then(|| Arc::new(told))
}
