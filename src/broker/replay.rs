//! Delivering Retained Messages to new subscriptions, as far as the receiver has room.

use std::sync::Arc;

use tidings_protocol::mqtt::QoS;

use super::Broker;
use super::deliver::deliver_and_keep;
use super::encode::encoded_len;
use super::retained::{Replay, effective_qos};
use super::session::{Session, State};

/// Topics looked up at a time.
const STEP: usize = 256;

/// Bytes in the outbox at which a replay waits for them to be written.
const AHEAD_MAX: usize = 256 * 1024;

impl Broker {
    /// Goes on with the Retained Messages that the session's subscriptions are to receive. Called
    /// when its connection has written what there was; false if it cannot go on now.
    pub fn replay(&self, session: &Arc<Session>, epoch: u64) -> bool {
        let Some(mut replay) = self.begin_replay(session, epoch) else {
            return false;
        };
        let mut topics = Vec::with_capacity(STEP);
        let more = self.retained.next(&mut replay, STEP, &mut topics);
        let mut batch = self.batch();
        for (index, topic) in topics.iter().enumerate() {
            if !session.may_receive(topic) {
                continue;
            }
            // The topic's lock makes reading the message and delivering it one step.
            let _together = self.stripe(&self.topics, topic);
            let Some(message) = self.retained.get(topic) else {
                continue;
            };
            if message.is_expired(self.clock.now()) || !replay.wants(&message, session.number()) {
                continue;
            }
            let mut state = session.lock();
            if state.epoch != epoch {
                hand_back(&mut state, replay, &topics[..index]);
                return false;
            }
            let qos = effective_qos(&message, &replay.terms);
            let identifiers = replay.terms.identifiers().map(|ids| &**ids);
            if !self.has_room(&state, &message, qos, identifiers) {
                hand_back(&mut state, replay, &topics[..index]);
                return index > 0;
            }
            let mut cx = batch.context();
            let through = replay.terms.through.clone();
            deliver_and_keep(session, &mut state, message, qos, true, through, &mut cx);
            session.refresh_readiness(&state);
        }
        let mut state = session.lock();
        if state.ended {
            return false;
        }
        if more {
            state.replays.push_front(replay);
        } else if state.kept
            && !state.replays_of(replay.filter())
            && let Some(&held) = state.subscriptions.get(&**replay.filter())
        {
            // From here on a restart need not begin it again.
            self.keep_subscription(session.number(), replay.filter(), held, false);
        }
        state.epoch == epoch
    }

    fn begin_replay(&self, session: &Session, epoch: u64) -> Option<Replay> {
        let mut state = session.lock();
        if state.epoch != epoch {
            return None;
        }
        let receive_maximum = state.link.as_ref()?.receive_maximum;
        let has_room = !state.outgoing.has_waiting() || state.outgoing.takes_more(receive_maximum);
        has_room.then(|| state.replays.pop_front())?
    }

    fn has_room(
        &self,
        state: &State,
        message: &super::message::Message,
        qos: QoS,
        identifiers: Option<&[u32]>,
    ) -> bool {
        let Some(link) = &state.link else {
            return false;
        };
        let len = encoded_len(message, link.version, qos, identifiers);
        link.has_room(len, 1, &self.limits)
            && (link.outbox.is_empty() || link.outbox.len() + len <= AHEAD_MAX)
            && (qos == QoS::AtMostOnce || state.outgoing.takes_more(link.receive_maximum))
    }
}

/// Has a replay go on another time, after the topics that are done: when the receiver has room
/// again, or on the session's next connection.
fn hand_back(state: &mut State, mut replay: Replay, done: &[Arc<str>]) {
    if !state.ended {
        replay.go_back(done.last().map(Arc::clone));
        state.replays.push_front(replay);
    }
}
