//! Taking over what the store kept over a restart: sessions with their subscriptions, queues and
//! wills, and the Retained Messages.
//!
//! Rights are those of now: what a client may no longer have is taken away here, and recorded.
//! Nothing is delivered and nothing ends but what nobody may have any more; what became due while
//! the broker was down is done by the first [`Broker::tick`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidings_protocol::mqtt::SubscriptionOptions;

use super::Broker;
use super::clock::Millis;
use super::close::leave_behind;
use super::entries::slots_of;
use super::journal::{OPTION_REPLAYS, SessionExtra};
use super::message::Message;
use super::outgoing::{Outgoing, PAGE_MESSAGES};
use super::session::{Held, NEVER, Session};
use super::shared::Group;
use super::stats::QueueWeight;
use super::subscribe::parse_held;
use super::timers::Kind;
use super::will::Will;
use crate::access::{Access, Principal};
use crate::config::{LimitsConfig, MqttConfig};
use crate::store::{Record, Recovered, RecoveredRetained, RecoveredSession, Store};

/// What a broker took over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub sessions: usize,
    pub subscriptions: usize,
    /// Queue entries of all sessions.
    pub queued: usize,
    pub retained: usize,
    /// Sessions of users that are not there any more; they were ended.
    pub sessions_denied: usize,
    /// Retained Messages that could not be read back.
    pub retained_lost: usize,
}

impl Broker {
    /// A broker that goes on with what the store kept.
    pub fn restore(
        mqtt: MqttConfig,
        limits: LimitsConfig,
        store: Arc<dyn Store>,
        recovered: Recovered,
        access: &Access,
    ) -> (Broker, Restored) {
        let mut broker = Broker::at(Millis(recovered.clock_ms), mqtt, limits, store);
        broker.recovery = recovered.report;
        broker.feeds.set_epoch(recovered.epoch);
        broker
            .next_session
            .fetch_max(recovered.next_session, Ordering::Relaxed);
        let mut restored = Restored::default();
        broker.restore_retained(&recovered.retained, &mut restored);
        let mut denied = Vec::new();
        for session in recovered.sessions {
            let Some(session) = broker.endpoints.take(session) else {
                continue;
            };
            let Some(session) = broker.feeds.take(session) else {
                continue;
            };
            let user = session.record.user.as_deref();
            match access.absent(&session.record.client_id, user) {
                Ok(principal) => broker.restore_session(session, &principal, &mut restored),
                Err(_) => denied.push(session),
            }
        }
        // Last: what they leave behind goes to those who are there.
        for session in denied {
            restored.sessions_denied += 1;
            broker.end_denied(&session);
        }
        (broker, restored)
    }

    /// Ends a session whose user is not let in any more. Its will is not published: it has no right
    /// to that either.
    fn end_denied(&self, recovered: &RecoveredSession) {
        let groups = self.groups_of(recovered.subscriptions.iter().map(|it| &*it.filter));
        let mut outgoing = Outgoing::default();
        restore_queue(&mut outgoing, recovered, &groups, false);
        leave_behind(
            outgoing.take_all().collect(),
            &groups,
            true,
            &mut self.batch(),
        );
        let session = recovered.number;
        self.keep(&[Record::SessionRemove { session }]);
    }

    fn restore_retained(&self, retained: &[RecoveredRetained], restored: &mut Restored) {
        for page in retained.chunks(PAGE_MESSAGES) {
            let offsets: Vec<_> = page.iter().map(|it| it.offset).collect();
            for (known, read) in page.iter().zip(self.store.read(&offsets)) {
                match read {
                    Ok(stored) => {
                        // A number that was given to a session that is not kept is known from what
                        // it published alone, and No Local goes by it.
                        self.next_session
                            .fetch_max(stored.publisher.saturating_add(1), Ordering::Relaxed);
                        self.retained.set(Arc::new(Message::from_stored(&stored)));
                        restored.retained += 1;
                    }
                    Err(error) => {
                        restored.retained_lost += 1;
                        tracing::error!(topic = &*known.topic, %error, "a retained message is lost");
                    }
                }
            }
        }
    }

    fn restore_session(
        &self,
        recovered: RecoveredSession,
        principal: &Principal,
        restored: &mut Restored,
    ) {
        let now = self.clock.now();
        let record = &recovered.record;
        let session = Arc::new(Session::new(
            recovered.number,
            (&*record.client_id).into(),
            principal.clone(),
            record.expiry_interval_secs,
        ));
        let mut state = session.lock();
        state.epoch = record.epoch + 1;
        state.connected_at = Millis(record.connected_ms);
        state.recorded = true;
        let was_connected = record.disconnected_ms.is_none();
        let disconnected_at = record.disconnected_ms.map_or(now, Millis);
        state.disconnected_at = Some(disconnected_at);

        let extra = SessionExtra::decode(&record.extra).unwrap_or_default();
        let mut groups = Vec::new();
        for subscription in &recovered.subscriptions {
            restored.subscriptions += 1;
            let held = SubscriptionOptions::from_stored(subscription.options & !OPTION_REPLAYS)
                .map(|options| Held {
                    options,
                    identifier: subscription.subscription_id.unwrap_or(0),
                });
            let filter = &*subscription.filter;
            let Some(held) = held.filter(|_| principal.may_subscribe(filter)) else {
                let session = session.number();
                self.keep(&[Record::Unsubscribe { session, filter }]);
                continue;
            };
            let parsed = parse_held(filter);
            self.hold(&session, &mut state, filter, &parsed, held, false);
            if let Some(share) = parsed.share {
                groups.extend(self.table.group(share, parsed.filter));
            }
            if parsed.since.is_some() {
                self.restore_reading(&mut state, filter, &extra.places);
            }
            if subscription.options & OPTION_REPLAYS != 0 {
                self.replay_later(&mut state, parsed.filter, held);
            }
        }

        restored.queued += recovered.queue.entries.len();
        let away = self.leaves_places();
        restore_queue(&mut state.outgoing, &recovered, &groups, away);
        self.stats
            .queue_changed(QueueWeight::default(), state.outgoing.weight());
        state.received.extend(&recovered.inbound);

        if let Some(will) = &recovered.will {
            state.will = Some(Box::new(Will::from_stored(will, session.number())));
            let due = will
                .due_ms
                .map_or_else(|| now.plus_secs(u64::from(will.delay_secs)), Millis);
            state.will_due = Some(due);
            self.delayed_wills.fetch_add(1, Ordering::Relaxed);
            self.arm(due, &session, state.epoch, Kind::Will);
        }
        if state.expiry_secs != NEVER {
            let due = disconnected_at.plus_secs(u64::from(state.expiry_secs));
            self.arm(due, &session, state.epoch, Kind::Expiry);
        }
        if was_connected {
            // Another restart must not begin to count anew.
            self.keep_session(&session, &mut state);
        }
        session.refresh_readiness(&state);
        drop(state);
        restored.sessions += 1;
        self.sessions
            .insert(Arc::clone(session.client_id()), session);
    }
}

/// Fills the queue of a session. Of a connection that ended with the broker nobody knows what was
/// sent: all that is left may have been, also what was acknowledged just before.
/// With `away`, what was never sent may be left to the store.
fn restore_queue(
    outgoing: &mut Outgoing,
    recovered: &RecoveredSession,
    groups: &[Arc<Group>],
    away: bool,
) {
    let record = &recovered.record;
    let extra = SessionExtra::decode(&record.extra).unwrap_or_default();
    // Numbers of messages that were done before they were written are known from the session alone.
    let next = recovered.next_seq.max(extra.sent_to);
    let sent_to = match record.disconnected_ms {
        None => next,
        Some(_) => extra.sent_to,
    };
    outgoing.restore(
        next,
        sent_to,
        slots_of(&recovered.queue, groups, sent_to),
        away,
    );
}
