//! All endpoints' queues: made, found again after a restart, given other filters, taken away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tidings_protocol::mqtt::{Properties, QoS};

use super::{Alarm, EndpointQueue, Fate, Queued, State};
use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::feed::{options, terms};
use crate::broker::session::Session;
use crate::broker::topics::Subscriber;
use crate::store::{
    List, Record, RecoveredSession, Retained, SessionView, StoreError, StoredMessage, Ticket,
    message_size,
};

/// What the record of an endpoint's session begins with. No Client Identifier does [MQTT-1.5.4-2].
pub(super) const MARK: &str = "\0webhook:";

struct Entry {
    /// What the subscription table and the store take it for.
    session: Arc<Session>,
    queue: Arc<EndpointQueue>,
    filters: Vec<Arc<str>>,
}

/// The queues of all endpoints.
#[derive(Default)]
pub struct Endpoints {
    open: Mutex<HashMap<Box<str>, Entry, RandomState>>,
    /// What the store had, until it is opened.
    found: Mutex<HashMap<Box<str>, RecoveredSession, RandomState>>,
}

impl Endpoints {
    /// Keeps the record of an endpoint for later, and gives back any other.
    pub(in crate::broker) fn take(&self, recovered: RecoveredSession) -> Option<RecoveredSession> {
        let Some(id) = recovered.record.client_id.strip_prefix(MARK) else {
            return Some(recovered);
        };
        self.found.lock().insert(id.into(), recovered);
        None
    }
}

impl Broker {
    /// The endpoints that there are queues of, opened or only found in the store.
    pub fn endpoint_ids(&self) -> Vec<String> {
        let open = self.endpoints.open.lock();
        let found = self.endpoints.found.lock();
        open.keys()
            .chain(found.keys())
            .map(|id| id.to_string())
            .collect()
    }

    /// Makes the queue of an endpoint, or goes on with it, with these valid Topic Filters from now
    /// on. Messages are delivered with `qos` at most, those of QoS 0 with QoS 1 unless that is 0, as
    /// far as `principal` may receive them.
    pub fn open_endpoint(
        &self,
        id: &str,
        filters: &[String],
        qos: QoS,
        principal: &Principal,
    ) -> (Arc<EndpointQueue>, Ticket) {
        let mut open = self.endpoints.open.lock();
        let mut ticket = Ticket::default();
        let entry = open.entry(id.into()).or_insert_with(|| {
            let found = self.endpoints.found.lock().remove(id);
            let (entry, made) = match found {
                Some(found) => (self.restore_endpoint(id, &found), Ticket::default()),
                None => self.make_endpoint(id),
            };
            ticket = made;
            entry
        });
        entry.queue.lock().qos = qos;
        entry.session.receive_as(principal);
        let wanted: Vec<Arc<str>> = filters.iter().map(|it| it.as_str().into()).collect();
        let session = entry.session.number();
        for filter in entry.filters.iter().filter(|it| !wanted.contains(it)) {
            self.table.unsubscribe(filter, session);
            ticket = self.keep(&[Record::Unsubscribe { session, filter }]);
        }
        for filter in &wanted {
            if !entry.filters.contains(filter) {
                ticket = self.keep(&[Record::Subscribe {
                    session,
                    filter,
                    options: options(),
                    subscription_id: None,
                }]);
            }
            let subscriber = Subscriber {
                session: Arc::clone(&entry.session),
                terms: terms(),
                no_local: false,
            };
            self.table.subscribe(filter, subscriber, true);
        }
        entry.filters = wanted;
        // What was routed before knows neither its filters nor its rights.
        self.table.invalidate();
        (Arc::clone(&entry.queue), ticket)
    }

    /// Ends an endpoint's queue with all that is in it.
    pub fn remove_endpoint(&self, id: &str) -> Ticket {
        let found = self.endpoints.found.lock().remove(id);
        let entry = self.endpoints.open.lock().remove(id);
        let session = match (&entry, &found) {
            (Some(entry), _) => entry.session.number(),
            (None, Some(found)) => found.number,
            (None, None) => return Ticket::default(),
        };
        if let Some(entry) = &entry {
            for filter in &entry.filters {
                self.table.unsubscribe(filter, session);
            }
            let mut state = entry.queue.lock();
            state.ended = true;
            (state.len, state.bytes) = (0, 0);
        }
        self.keep(&[Record::SessionRemove { session }])
    }

    /// Has other rights decide what an endpoint receives from now on.
    pub fn endpoint_receives_as(&self, id: &str, principal: &Principal) {
        let open = self.endpoints.open.lock();
        if let Some(entry) = open.get(id)
            && entry.session.receive_as(principal)
        {
            self.table.invalidate();
        }
    }

    /// Reads messages back; none for one that is lost. Waits for the disk.
    pub fn read_queued(&self, entries: &[Queued]) -> Vec<Option<StoredMessage>> {
        let offsets: Vec<_> = entries.iter().map(|it| it.offset).collect();
        let read = self.store.read(&offsets).into_iter();
        read.map(|it| {
            it.inspect_err(|error| tracing::error!(%error, "a queued message cannot be read"))
                .ok()
        })
        .collect()
    }

    /// Queues a message for one endpoint alone, whatever its filters.
    ///
    /// # Errors
    /// When the store takes no more.
    pub fn publish_to(
        &self,
        queue: &EndpointQueue,
        topic: &str,
        properties: Properties<'_>,
        payload: &[u8],
    ) -> Result<Ticket, StoreError> {
        self.store.admit()?;
        let size = message_size(topic, properties.as_bytes(), payload);
        let fate = Arc::new(Fate::default());
        let (seq, qos) = {
            let mut state = queue.lock();
            let seq = state.take_seq(size);
            queue.expect(&mut state, seq, size.into(), &fate, Vec::new());
            (seq, state.qos_of(QoS::AtLeastOnce))
        };
        let targets = [queue.target(seq, qos, false)];
        let appended = self.store.append(&[Record::Message(crate::store::Message {
            topic,
            properties: properties.as_bytes(),
            payload,
            qos: QoS::AtLeastOnce.as_u8(),
            retain: false,
            published_ms: self.clock.now().0,
            expires_ms: None,
            publisher: 0,
            retained: Retained::Unchanged,
            inbound: None,
            targets: List::from(&targets[..]),
        })]);
        let told = match &appended {
            Ok(appended) => fate.appended(appended.ticket),
            Err(_) => fate.abandoned(),
        };
        told.into_iter().for_each(Waker::wake);
        appended.map(|it| it.ticket)
    }

    fn make_endpoint(&self, id: &str) -> (Entry, Ticket) {
        let number = self.next_session.fetch_add(1, Ordering::Relaxed);
        let ticket = self.keep(&[Record::SessionPut {
            session: number,
            record: SessionView {
                client_id: &format!("{MARK}{id}"),
                expiry_interval_secs: u32::MAX,
                ..SessionView::default()
            },
        }]);
        let state = State::new(1);
        (self.endpoint(id, number, state, Vec::new()), ticket)
    }

    fn restore_endpoint(&self, id: &str, found: &RecoveredSession) -> Entry {
        let mut state = State::new(found.next_seq);
        state.len = found.queue.entries.len() as u64;
        state.bytes = found
            .queue
            .entries
            .iter()
            .map(|it| u64::from(it.size))
            .sum();
        let filters = found.subscriptions.iter();
        let filters = filters.map(|it| (&*it.filter).into()).collect();
        self.endpoint(id, found.number, state, filters)
    }

    fn endpoint(&self, id: &str, number: u64, state: State, filters: Vec<Arc<str>>) -> Entry {
        let queue = Arc::new_cyclic(|me| EndpointQueue {
            id: id.into(),
            session: number,
            store: Arc::clone(&self.store),
            alarm: Waker::from(Arc::new(Alarm(me.clone()))),
            state: Mutex::new(state),
        });
        Entry {
            session: Arc::new(Session::of_endpoint(number, Arc::clone(&queue))),
            queue,
            filters,
        }
    }
}
