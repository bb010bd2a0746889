//! Opening a session for a connection: new, resumed, or taken over from another connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use tidings_protocol::mqtt::{self, Version};

use super::Broker;
use super::close::DueWill;
use super::deliver::pump;
use super::encode::OutgoingAliases;
use super::outbox::Outbox;
use super::publish::Batch;
use super::session::{Closing, Link, Session, State};
use super::timers::Kind;
use super::will::Will;
use crate::access::Principal;
use crate::store::Ticket;

/// What a connection asks for.
pub struct Open<'a> {
    /// The Client Identifier.
    pub client_id: &'a str,
    /// Who it is.
    pub principal: Principal,
    /// Whether a session that exists is thrown away [MQTT-3.1.2-4].
    pub clean_start: bool,
    /// Session Expiry Interval in seconds, within the server's maximum.
    pub expiry_secs: u32,
    /// The will.
    pub will: Option<&'a mqtt::Will<'a>>,
    /// The protocol it speaks.
    pub version: Version,
    /// Receive Maximum of the client.
    pub receive_maximum: u16,
    /// Maximum Packet Size of the client.
    pub packet_size_max: usize,
    /// Topic aliases to use towards the client; 0 for none.
    pub topic_alias_maximum: u16,
    /// Silence that ends the connection, in milliseconds; 0 for no limit.
    pub silence_max: u64,
}

/// A session, opened.
pub struct Opened {
    /// The session.
    pub session: Arc<Session>,
    /// The number of this connection: see [`State::epoch`].
    pub epoch: u64,
    /// Whether it is resumed [MQTT-3.2.2-3].
    pub present: bool,
    /// What CONNACK has to wait for.
    pub ticket: Ticket,
}

/// Why no session could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("the limit of sessions is reached")]
    TooManySessions,
    #[error("a session with this Client Identifier belongs to another user")]
    ForeignSession,
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl Broker {
    /// Ready when no connection has the session with this Client Identifier. One that has it is
    /// told to end, and does so once it has handled what its client sent before: a DISCONNECT that
    /// discards the will, for instance, when a client comes back at once. Whoever waits for this
    /// should do so for a limited time, and then [`Broker::open`] it all the same.
    pub fn poll_vacant(&self, client_id: &str, principal: &Principal, waker: &Waker) -> Poll<()> {
        let session = self.sessions.get(client_id).map(|known| Arc::clone(&known));
        let Some(session) = session else {
            return Poll::Ready(());
        };
        let mut state = session.lock();
        if !state.may_be_opened_by(principal) {
            return Poll::Ready(());
        }
        let Some(link) = &mut state.link else {
            return Poll::Ready(());
        };
        link.successors.push(waker.clone());
        if let Some(waker) = link.close(Closing::TakenOver) {
            waker.wake();
        }
        Poll::Pending
    }

    /// Opens the session with this Client Identifier. A connection that has it already loses it
    /// in the same step [MQTT-3.1.4-3].
    ///
    /// # Errors
    /// When there may be no more sessions, when the session is another user's, or when the broker
    /// is stopping.
    pub fn open(&self, open: &Open<'_>) -> Result<Opened, OpenError> {
        let mut batch = self.batch();
        let _alone = self.stripe(&self.connecting, open.client_id);
        // Looked at under the stripe's lock: a shutdown that begins now finds this session.
        if self.is_stopping() {
            return Err(OpenError::ShuttingDown);
        }
        let existing = self
            .sessions
            .get(open.client_id)
            .map(|session| Arc::clone(&session));
        if let Some(existing) = existing {
            let mut state = existing.lock();
            if !state.may_be_opened_by(&open.principal) {
                return Err(OpenError::ForeignSession);
            }
            let resumed = !open.clean_start && !state.ended && state.is_persistent();
            let will = self.unlink(&existing, &mut state, resumed, &mut batch);
            if resumed {
                let epoch = self.link(&existing, &mut state, open, &mut batch);
                if will.is_some() {
                    // Before the store forgets it. Nobody else can end the new connection
                    // meanwhile: its Client Identifier is ours.
                    drop(state);
                    batch.publish_will(will);
                    state = existing.lock();
                }
                let ticket = self.keep_opened(&existing, &mut state);
                drop(state);
                return Ok(Opened {
                    session: existing,
                    epoch,
                    present: true,
                    ticket,
                });
            }
            self.end(&existing, state, will, &mut batch);
        }
        if self.sessions.len() >= self.limits.sessions_max {
            return Err(OpenError::TooManySessions);
        }
        let session = Arc::new(Session::new(
            self.next_session.fetch_add(1, Ordering::Relaxed),
            open.client_id.into(),
            open.principal.clone(),
            open.expiry_secs,
        ));
        let mut state = session.lock();
        let epoch = self.link(&session, &mut state, open, &mut batch);
        // CONNACK says that there was no session: the one before must be gone for certain.
        let ended = &self.ended[self.stripe_of(open.client_id)];
        let gone = Ticket(ended.load(Ordering::Relaxed));
        let ticket = gone.max(self.keep_opened(&session, &mut state));
        drop(state);
        self.sessions
            .insert(Arc::clone(session.client_id()), Arc::clone(&session));
        Ok(Opened {
            session,
            epoch,
            present: false,
            ticket,
        })
    }

    /// Connects a session: from here on what it is sent goes into the new link's outbox.
    fn link(
        &self,
        session: &Arc<Session>,
        state: &mut State,
        open: &Open<'_>,
        batch: &mut Batch<'_>,
    ) -> u64 {
        let now = self.clock.now();
        state.epoch += 1;
        state.principal = open.principal.clone();
        state.expiry_secs = open.expiry_secs;
        state.connected_at = now;
        state.disconnected_at = None;
        state.will = open
            .will
            .map(|will| Box::new(Will::new(will, session.number(), now)));
        state.link = Some(Box::new(Link {
            version: open.version,
            outbox: Outbox::default(),
            outbox_messages: 0,
            waker: None,
            blocked: false,
            stalled: false,
            receive_maximum: open.receive_maximum,
            packet_size_max: open.packet_size_max,
            aliases: (open.topic_alias_maximum > 0)
                .then(|| Box::new(OutgoingAliases::new(open.topic_alias_maximum))),
            silence_max: open.silence_max,
            closing: None,
            successors: Vec::new(),
        }));
        if session.receive_as(&open.principal) && !state.subscriptions.is_empty() {
            self.table.invalidate();
        }
        session.heard(now);
        if open.silence_max > 0 {
            let due = now.plus_millis(open.silence_max);
            self.arm(due, session, state.epoch, Kind::Silence);
        }
        pump(state, &mut batch.context());
        session.refresh_readiness(state);
        self.stats.connections_total.add(1);
        self.stats.clients_connected.add(1);
        self.stats
            .clients_maximum
            .raise_to(self.stats.clients_connected.get());
        state.epoch
    }

    /// Keeps a session with its new connection, and answers what CONNACK has to wait for.
    fn keep_opened(&self, session: &Session, state: &mut State) -> Ticket {
        let ticket = self.keep_session(session, state);
        // A session that ends with its connection was promised to nobody.
        match state.kept {
            true => ticket,
            false => Ticket::default(),
        }
    }

    /// Takes a session's connection away for another one, and answers the will that is now to be
    /// published. The task of that connection finds a later epoch and ends by itself.
    ///
    /// A session that goes on has its will published only if it asked for no delay: the new
    /// connection came before any other delay could pass. One that ends here has it published in
    /// any case [MQTT-3.1.2-8].
    fn unlink(
        &self,
        session: &Arc<Session>,
        state: &mut State,
        goes_on: bool,
        batch: &mut Batch<'_>,
    ) -> Option<DueWill> {
        if self.disconnect(session, state) {
            batch.wake_later(
                state
                    .link
                    .as_mut()
                    .and_then(|link| link.close(Closing::TakenOver)),
            );
            state.link = None;
        }
        if state.will_due.take().is_some() {
            self.delayed_wills.fetch_sub(1, Ordering::Relaxed);
            return state.take_will().filter(|_| !goes_on);
        }
        state
            .take_will()
            .filter(|due| !goes_on || due.will.delay_secs == 0)
    }
}

impl State {
    /// Whether the session is this principal's. What an anonymous client began, anybody with the
    /// same Client Identifier may go on with.
    pub(super) fn may_be_opened_by(&self, principal: &Principal) -> bool {
        let owner = self.principal.user();
        self.ended || owner.is_none() || owner == principal.user()
    }
}
