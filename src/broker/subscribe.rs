//! Subscribing and unsubscribing.

use std::sync::Arc;

use tidings_protocol::mqtt::{QoS, ReasonCode, RetainHandling, SubscriptionOptions};
use tidings_protocol::sse::SinceError;
use tidings_protocol::topic::{self, Filter, TopicError, TopicLimits};

use super::Broker;
use super::outgoing::{GroupRef, Through};
use super::session::{Held, Session, State};
use super::shared::Group;
use super::topics::{Subscriber, Terms};
use crate::store::{Record, Ticket};

/// One Topic Filter of a SUBSCRIBE.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The filter as the client wrote it, `$share/…` included.
    pub filter: &'a str,
    /// What it asked for.
    pub options: SubscriptionOptions,
    /// The Subscription Identifier; 0 for none.
    pub identifier: u32,
}

/// Why there is no subscription. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    #[error("{0}")]
    InvalidFilter(TopicError),
    #[error("another connection has taken the session over")]
    TakenOver,
    #[error("no right to subscribe to that")]
    NotAuthorized,
    #[error("there are too many subscriptions already: unsubscribe from some")]
    TooMany,
    #[error("a session has at most {0} subscriptions to $replay: unsubscribe from some")]
    TooManyReplays(usize),
    #[error("{since:?} is no place to begin a replay: {error}")]
    Since { since: String, error: SinceError },
    #[error(
        "no stream has all that {filter:?} matches: ask for less, or have a [[stream]] configured"
    )]
    NoStream { filter: String },
}

impl SubscribeError {
    /// What SUBACK says.
    pub fn reason(&self) -> ReasonCode {
        match self {
            SubscribeError::InvalidFilter(_) | SubscribeError::Since { .. } => {
                ReasonCode::TopicFilterInvalid
            }
            SubscribeError::TakenOver => ReasonCode::SessionTakenOver,
            SubscribeError::NotAuthorized => ReasonCode::NotAuthorized,
            SubscribeError::TooMany | SubscribeError::TooManyReplays(_) => {
                ReasonCode::QuotaExceeded
            }
            // "The SUBSCRIBE is valid but the Server does not accept it" (MQTT 5 §3.9.3).
            SubscribeError::NoStream { .. } => ReasonCode::ImplementationSpecificError,
        }
    }

    pub(super) fn since(since: &str, error: SinceError) -> SubscribeError {
        let since = shortened(since);
        SubscribeError::Since { since, error }
    }

    pub(super) fn no_stream(filter: &str) -> SubscribeError {
        let filter = shortened(filter);
        SubscribeError::NoStream { filter }
    }
}

/// The beginning of what a client wrote, for an answer to it.
fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

impl Broker {
    /// Subscribes the session of a connection, and answers the QoS that SUBACK grants
    /// [MQTT-3.8.4-6]. SUBACK has to wait for the ticket.
    ///
    /// Whose rights count is whom the session belongs to.
    ///
    /// # Errors
    /// Why not; [`SubscribeError::TakenOver`] for a connection that has lost the session.
    pub fn subscribe(
        &self,
        session: &Arc<Session>,
        epoch: u64,
        request: Request<'_>,
    ) -> Result<(QoS, Ticket), SubscribeError> {
        let parsed = Filter::parse(request.filter, &self.topic_limits())
            .map_err(SubscribeError::InvalidFilter)?;
        if let Some(since) = parsed.since {
            return self.subscribe_reading(session, epoch, request, &parsed, since);
        }
        let mut state = session.lock();
        let replaces = self.may_hold(&state, epoch, request.filter)?;
        let options = self.granted(request.options);
        let held = Held {
            options,
            identifier: request.identifier,
        };
        self.hold(session, &mut state, request.filter, &parsed, held, replaces);
        let wants_retained = match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => !replaces,
            RetainHandling::DoNotSend => false,
        };
        // A Shared Subscription receives no Retained Messages when it is made (MQTT 5 §4.8.2).
        if wants_retained && parsed.share.is_none() {
            self.replay_later(&mut state, parsed.filter, held);
        }
        // Those that an earlier SUBSCRIBE asked for are still to come, whatever this one says.
        let replays = parsed.share.is_none() && state.replays_of(parsed.filter);
        let ticket = match state.kept {
            true => self.keep_subscription(session.number(), request.filter, held, replays),
            false => Ticket::default(),
        };
        Ok((options.qos, ticket))
    }

    /// Whether the session's connection of this epoch may subscribe to this filter; true if that
    /// replaces a subscription that it has.
    pub(super) fn may_hold(
        &self,
        state: &State,
        epoch: u64,
        filter: &str,
    ) -> Result<bool, SubscribeError> {
        if state.epoch != epoch || state.ended {
            return Err(SubscribeError::TakenOver);
        }
        if !state.principal.may_subscribe(filter) {
            return Err(SubscribeError::NotAuthorized);
        }
        let replaces = state.subscriptions.contains_key(filter);
        if !replaces
            && (state.subscriptions.len() >= self.limits.subscriptions_per_session_max
                || self.table.count() >= self.limits.subscriptions_max)
        {
            return Err(SubscribeError::TooMany);
        }
        Ok(replaces)
    }

    /// The options of a subscription, within what this server offers.
    pub(super) fn granted(&self, mut options: SubscriptionOptions) -> SubscriptionOptions {
        let qos_max = QoS::from_u8(self.mqtt.max_qos).unwrap_or(QoS::ExactlyOnce);
        options.qos = options.qos.min(qos_max);
        options
    }

    /// Puts a subscription into the session and the table.
    pub(super) fn hold(
        &self,
        session: &Arc<Session>,
        state: &mut State,
        written: &str,
        parsed: &Filter<'_>,
        held: Held,
        replaces: bool,
    ) {
        let written: Arc<str> = match state.subscriptions.get_key_value(written) {
            Some((known, _)) => Arc::clone(known),
            None => written.into(),
        };
        let subscriber = |group: Option<Arc<Group>>| Subscriber {
            session: Arc::clone(session),
            terms: terms(held, group),
            no_local: held.options.no_local,
        };
        match (parsed.share, parsed.since) {
            // It pulls: see `reading`.
            (_, Some(_)) => {}
            (None, None) => self.table.subscribe(&written, subscriber(None), replaces),
            (Some(share), None) => {
                self.table.join(share, &parsed.filter.into(), |group| {
                    subscriber(Some(group))
                });
            }
        }
        state.subscriptions.insert(written, held);
    }

    /// Has a subscription receive the Retained Messages that match it.
    pub(super) fn replay_later(&self, state: &mut State, filter: &str, held: Held) {
        if !topic::has_wildcard(filter) && self.retained.get(filter).is_none() {
            return;
        }
        // A filter that is subscribed again before its messages are through starts over once.
        state.replays.retain(|replay| **replay.filter() != *filter);
        state.replays.push_back(self.retained.replay(
            filter.into(),
            terms(held, None),
            held.options.no_local,
        ));
    }

    /// Ends a subscription; the answer is what UNSUBACK says [MQTT-3.11.3-2], and the ticket that
    /// it has to wait for.
    pub fn unsubscribe(&self, session: &Session, epoch: u64, filter: &str) -> (ReasonCode, Ticket) {
        let nothing = Ticket::default();
        let Ok(parsed) = Filter::parse(filter, &self.topic_limits()) else {
            return (ReasonCode::TopicFilterInvalid, nothing);
        };
        let mut state = session.lock();
        if state.epoch != epoch || state.ended {
            return (ReasonCode::SessionTakenOver, nothing);
        }
        if state.subscriptions.remove(filter).is_none() {
            return (ReasonCode::NoSubscriptionExisted, nothing);
        }
        if parsed.share.is_none() {
            state.replays.retain(|replay| **replay.filter() != *filter);
        }
        if parsed.since.is_some() {
            state.readings.retain(|reading| reading.written() != filter);
        }
        let number = session.number();
        self.let_go(number, &parsed);
        let ticket = match state.kept {
            true => self.keep(&[Record::Unsubscribe {
                session: number,
                filter,
            }]),
            false => nothing,
        };
        (ReasonCode::Success, ticket)
    }

    /// Takes a subscription out of the table.
    pub(super) fn let_go(&self, session: u64, filter: &Filter<'_>) {
        if filter.since.is_some() {
            return;
        }
        let plain: Arc<str> = filter.filter.into();
        match filter.share {
            None => self.table.unsubscribe(&plain, session),
            Some(share) => self.table.leave(share, &plain, session),
        };
    }
}

/// A Topic Filter that a session has, parsed again: the limits of today were not those of then.
pub(super) fn parse_held(filter: &str) -> Filter<'_> {
    let anything = TopicLimits {
        bytes_max: usize::MAX,
        levels_max: usize::MAX,
    };
    Filter::parse(filter, &anything).unwrap_or(Filter {
        share: None,
        since: None,
        // An older version did not know all that this one refuses.
        filter,
    })
}

/// What matching needs to know of a subscription.
pub(super) fn terms(held: Held, group: Option<Arc<Group>>) -> Terms {
    let identifiers: Option<Arc<[u32]>> = (held.identifier != 0).then(|| [held.identifier].into());
    let through = (identifiers.is_some() || group.is_some()).then(|| {
        Arc::new(Through {
            identifiers,
            shared_as: group.as_ref().map_or(0, |group| group.tag()),
            group: group.map(GroupRef),
        })
    });
    Terms {
        qos: held.options.qos,
        retain_as_published: held.options.retain_as_published,
        through,
    }
}
