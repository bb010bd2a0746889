//! From the entries that the store has of a session's queue to slots: after a restart, and when the
//! turn has come of what was left in the store alone.

use std::collections::HashMap;
use std::sync::Arc;

use tidings_protocol::mqtt::QoS;

use super::journal::{FLAG_RETAIN, SHARED_SHIFT};
use super::outgoing::{Body, GroupRef, PAGE_MESSAGES, Places, Progress, SentBefore, Slot, Through};
use super::session::{Session, State};
use super::shared::Group;
use super::subscribe::parse_held;
use super::{Broker, stats};
use crate::config::QueueFull;
use crate::store::{EntryState, QueueEntry, QueuePage};

/// The entries of a page as slots with their numbers. `groups` are the Shared Subscriptions that the
/// session is in; entries below `sent_to` may have been sent.
pub(super) fn slots_of<'a>(
    page: &'a QueuePage,
    groups: &'a [Arc<Group>],
    sent_to: u64,
) -> impl Iterator<Item = (u64, Slot)> + use<'a> {
    let mut by_tag = HashMap::new();
    for group in groups {
        let known = by_tag.entry(group.tag());
        known.and_modify(|it| *it = None).or_insert(Some(group));
    }
    // Most queues have one kind of entries, so that one of these serves them all.
    let mut last: Option<Arc<Through>> = None;
    page.entries.iter().map(move |entry| {
        let through = through_of(page, entry, &by_tag);
        if through.as_ref() != last.as_deref() {
            last = through.map(Arc::new);
        }
        (entry.seq, slot_of(entry, last.clone(), entry.seq < sent_to))
    })
}

fn through_of(
    page: &QueuePage,
    entry: &QueueEntry,
    groups: &HashMap<u8, Option<&Arc<Group>>>,
) -> Option<Through> {
    let identifiers = page.subscription_ids_of(entry.seq);
    let shared_as = entry.flags >> SHARED_SHIFT;
    (shared_as != 0 || !identifiers.is_empty()).then(|| Through {
        identifiers: (!identifiers.is_empty()).then(|| identifiers.into()),
        group: match groups.get(&shared_as) {
            Some(&Some(group)) => Some(GroupRef(Arc::clone(group))),
            Some(None) | None => None,
        },
        shared_as,
    })
}

fn slot_of(entry: &QueueEntry, through: Option<Arc<Through>>, perhaps_sent: bool) -> Slot {
    let qos = QoS::from_u8(entry.qos).unwrap_or(QoS::ExactlyOnce);
    let released = entry.state == EntryState::Released;
    let body = match released {
        true => Body::None,
        false => Body::Stored {
            offset: entry.offset,
            size: entry.size,
        },
    };
    Slot {
        progress: match released {
            true => Progress::Released(false),
            false => Progress::Queued,
        },
        sent: match perhaps_sent {
            true => SentBefore::Perhaps,
            false => SentBefore::No,
        },
        ..Slot::waiting(body, through, qos, entry.flags & FLAG_RETAIN != 0)
    }
}

impl Broker {
    /// Whether the store alone knows the places of messages for sessions that are away. What is to make
    /// room for others needs its place at hand.
    pub(super) fn leaves_places(&self) -> bool {
        !self.store.is_in_memory() && self.limits.queue_full != QueueFull::DropOldest
    }

    /// The first entries of those that are to get slots. Waits for the store's state, so that a session
    /// that others publish to should not be locked.
    pub(super) fn look_up(&self, session: &Session, places: &Places) -> QueuePage {
        let numbers = places.numbers.clone();
        self.store.queue(session.number(), numbers, PAGE_MESSAGES)
    }

    /// Gives slots to what was looked up.
    pub(super) fn take_places(
        &self,
        session: &Session,
        state: &mut State,
        places: &Places,
        page: &QueuePage,
    ) {
        let is_shared = |entry: &QueueEntry| entry.flags >> SHARED_SHIFT != 0;
        let groups = match page.entries.iter().any(is_shared) {
            true => self.groups_of(state.subscriptions.keys().map(|filter| &**filter)),
            false => Vec::new(),
        };
        let all = page.entries.len() < PAGE_MESSAGES;
        let lost = state.change_queue(&self.stats, |queue| {
            queue.take_places(places, slots_of(page, &groups, 0), all)
        });
        if lost > 0 {
            let client = session.client_id();
            tracing::error!(%client, lost, "queued messages are lost: the store has no entries of them");
            self.stats.dropped(stats::Drop::Damaged, lost as u64);
        }
    }

    /// Gives slots to everything that is left in the store alone.
    pub(super) fn take_all_places(&self, session: &Session, state: &mut State) {
        while let Some(places) = state.outgoing.places() {
            let page = self.look_up(session, &places);
            self.take_places(session, state, &places, &page);
        }
    }

    /// The Shared Subscriptions among these subscriptions.
    pub(super) fn groups_of<'a>(
        &self,
        subscriptions: impl Iterator<Item = &'a str>,
    ) -> Vec<Arc<Group>> {
        subscriptions
            .map(parse_held)
            .filter_map(|parsed| self.table.group(parsed.share?, parsed.filter))
            .collect()
    }
}
