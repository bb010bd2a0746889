//! Publishing: from a publisher's run of messages to everybody who is subscribed.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::task::Waker;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tidings_protocol::mqtt::{Properties, QoS};
use tidings_protocol::topic;

use super::Broker;
use super::close::DueWill;
use super::deliver::{Context, deliver_and_keep};
use super::encode::Encodings;
use super::journal::{Journal, Remembered};
use super::message::{Message, Publication, Run};
use super::outgoing::{PAGE_MESSAGES, Slot};
use super::shared::Group;
use super::stats::{Drop as Reason, Tally};
use super::topics::{Matched, Own, Subscriber, Terms};
use crate::access::Principal;
use crate::store::{Retained, Ticket};

/// Permission to publish to a topic, with everybody who is subscribed to it. Only
/// [`Batch::route`] makes one, from a principal whose right it checked.
pub struct Route {
    topic: Box<str>,
    allowed: bool,
    matched: Matched,
}

/// The routes a publisher used last, valid as long as no subscription and no right changed.
#[derive(Default)]
pub struct RouteCache {
    last: Option<Arc<Route>>,
    routes: HashMap<Box<str>, Arc<Route>, RandomState>,
}

/// Endpoints whose memory is fetched together. With a thousand of them each is out of the processor's
/// caches by the next message, and one after the other they would be waited for.
const TOGETHER: usize = 16;

/// Routes kept for one publisher.
const ROUTES_MAX: usize = 64;

/// What became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// How many sessions and groups it matched, and feeds that somebody reads.
    pub matched: usize,
    /// When the store has this ticket, all of it is as safe as the configuration promises.
    pub ticket: Ticket,
}

/// Why a publication was not accepted. Nothing was done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("no right to publish to this topic")]
    NotAuthorized,
    #[error("the limit of retained messages is reached")]
    RetainedFull,
    #[error("the store takes no more messages")]
    StoreFull,
}

impl Refused {
    /// What it is counted as.
    pub fn counted_as(self) -> Reason {
        match self {
            Refused::NotAuthorized => Reason::PublishDenied,
            Refused::RetainedFull => Reason::RetainedFull,
            Refused::StoreFull => Reason::StoreFull,
        }
    }
}

/// Memory for one batch, used again by the next on the same thread.
#[derive(Default)]
struct Scratch {
    encodings: Encodings,
    wakers: Vec<Waker>,
    tally: Tally,
    journal: Journal,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Everything published between two looks at the sockets. When it goes, the sessions that received
/// something are woken, once each.
pub struct Batch<'a> {
    broker: &'a Broker,
    scratch: Box<Scratch>,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.settle();
        SCRATCH.set(Some(std::mem::take(&mut self.scratch)));
    }
}

impl Batch<'_> {
    /// Has this be kept along with the run that is published next.
    pub fn remember(&mut self, what: Remembered) {
        self.scratch.journal.remembered = Some(what);
    }

    fn settle(&mut self) {
        // Of a run that was refused.
        self.scratch.journal.remembered = None;
        self.scratch.tally.settle(&self.broker.stats);
        for waker in self.scratch.wakers.drain(..) {
            waker.wake();
        }
    }
}

impl Broker {
    /// Starts a batch.
    pub fn batch(&self) -> Batch<'_> {
        Batch {
            broker: self,
            scratch: SCRATCH.take().unwrap_or_default(),
        }
    }
}

impl<'a> Batch<'a> {
    /// Where messages to `topic` go when `principal` publishes them.
    ///
    /// # Errors
    /// [`Refused::NotAuthorized`] if it must not publish there. `$`-topics belong to the broker.
    pub fn route(
        &self,
        principal: &Principal,
        topic: &str,
        cache: &mut RouteCache,
    ) -> Result<Arc<Route>, Refused> {
        let generation = self.broker.table.generation();
        let known = match &cache.last {
            Some(last) if *last.topic == *topic => Some(last),
            _ => cache.routes.get(topic),
        };
        let route = match known {
            Some(known) if known.matched.generation == generation => Arc::clone(known),
            _ => {
                if cache.routes.len() >= ROUTES_MAX {
                    cache.routes.clear();
                }
                let route = Arc::new(Route {
                    topic: topic.into(),
                    allowed: !topic.starts_with('$') && principal.may_publish(topic),
                    matched: self.broker.table.matches(topic),
                });
                cache.routes.insert(topic.into(), Arc::clone(&route));
                route
            }
        };
        if !route.allowed {
            return Err(Refused::NotAuthorized);
        }
        if !cache
            .last
            .as_ref()
            .is_some_and(|last| Arc::ptr_eq(last, &route))
        {
            cache.last = Some(Arc::clone(&route));
        }
        Ok(route)
    }

    /// Publishes a run along its route. A publication with RETAIN set must be a run of its own.
    ///
    /// # Errors
    /// [`Refused::RetainedFull`] if the message cannot be retained, [`Refused::StoreFull`] if it
    /// cannot be kept; nothing was delivered then.
    pub fn publish(&mut self, route: &Route, run: &Run<'_>) -> Result<Published, Refused> {
        debug_assert_eq!(*route.topic, *run.topic);
        self.deliver(&route.matched, run)
    }

    /// Publishes one message of somebody who sends few and has no session: its route is looked for
    /// anew.
    ///
    /// # Errors
    /// As [`Batch::route`] and [`Batch::publish`].
    pub fn publish_one(
        &mut self,
        principal: &Principal,
        topic: &str,
        publication: Publication<'_>,
    ) -> Result<Published, Refused> {
        let route = self.route(principal, topic, &mut RouteCache::default())?;
        self.publish(
            &route,
            &Run {
                topic,
                publications: &[publication],
                publisher: 0,
                publisher_is_kept: false,
                bell: None,
            },
        )
    }

    fn deliver(&mut self, matched: &Matched, run: &Run<'_>) -> Result<Published, Refused> {
        let broker = self.broker;
        broker.admit(run)?;
        self.scratch.encodings.reset(run);
        self.scratch.journal.clear();
        let retain = run.publications[0].retain;
        let _together = retain.then(|| broker.stripe(&broker.topics, run.topic));
        let mut retained = Retained::Unchanged;
        if retain {
            debug_assert_eq!(run.publications.len(), 1);
            retained = self.retain(run)?;
        }
        let mut cx = self.context();
        let all = 0..run.publications.len();
        let mut listeners = matched.targets.len() + matched.endpoints.len();
        for target in &matched.targets {
            let mut terms = &target.terms;
            if target.session.number() == run.publisher {
                match &target.own {
                    Own::Delivered => {}
                    Own::Withheld => continue,
                    Own::As(local) => terms = local,
                }
            }
            if target.session.feed().is_some_and(|feed| !feed.is_read()) {
                listeners -= 1;
            }
            target.session.deliver(run, all.clone(), terms, &mut cx);
        }
        for some in matched.endpoints.chunks(TOGETHER) {
            black_box(some.iter().fold(0, |all, it| all ^ it.touch()));
            for endpoint in some {
                endpoint.deliver(run, all.clone(), &mut cx);
            }
        }
        for group in &matched.groups {
            for index in all.clone() {
                let chosen = group.choose(
                    run.publications[index].qos,
                    broker.limits.queue_qos0,
                    |member| member.session.may_receive(run.topic),
                );
                match chosen {
                    Some(member) => {
                        member
                            .session
                            .deliver(run, index..index + 1, &member.terms, &mut cx);
                    }
                    None => cx.tally.dropped(Reason::Absent, 1),
                }
            }
        }
        let Scratch {
            encodings,
            journal,
            wakers,
            ..
        } = &mut *self.scratch;
        let kept = encodings.messages.all();
        let matched_count = listeners + matched.groups.len();
        let ticket = match broker.keep_run(run, journal, kept, retained, matched_count) {
            Ok(ticket) => ticket,
            Err(error) => {
                tracing::error!(%error, topic = run.topic, "a message could not be kept");
                journal.abandoned(wakers);
                return Err(Refused::StoreFull);
            }
        };
        journal.appended(ticket, wakers);
        Ok(Published {
            matched: matched_count,
            ticket,
        })
    }

    /// Sets or clears the Retained Message of the run's topic; what it did has to be kept, unless
    /// it is one of the broker's own.
    fn retain(&mut self, run: &Run<'_>) -> Result<Retained, Refused> {
        let Batch { broker, scratch } = self;
        if run.publications[0].payload.is_empty() {
            // A Retained Message with an empty payload removes the one that is there
            // [MQTT-3.3.1-6] [MQTT-3.3.1-7].
            let cleared = broker.retained.clear(run.topic);
            return Ok(if cleared {
                Retained::Cleared
            } else {
                Retained::Unchanged
            });
        }
        let message = scratch.encodings.messages.get(run, 0, broker.clock.now());
        let limits = &broker.limits;
        let internal = run.topic.starts_with('$');
        if !internal
            && !broker.retained.has_room(
                run.topic,
                message.size(),
                limits.retained_messages_max,
                limits.retained_bytes_max,
            )
        {
            return Err(Refused::RetainedFull);
        }
        broker.retained.set(message);
        Ok(if internal {
            Retained::Unchanged
        } else {
            Retained::Set
        })
    }

    /// Publishes a message that is kept already, a will for instance, if `principal` may.
    pub(super) fn publish_kept(
        &mut self,
        principal: &Principal,
        message: &Message,
        properties: Properties<'_>,
    ) {
        let topic = message.topic();
        if topic.starts_with('$') || !principal.may_publish(topic) {
            self.scratch.tally.dropped(Reason::PublishDenied, 1);
            return;
        }
        let publication = Publication {
            qos: message.qos,
            retain: message.retain,
            properties,
            payload: message.payload(),
            packet_id: None,
            shared_payload: message.shared_payload(),
        };
        if let Err(refused) = self.deliver_anew(topic, publication, message.publisher) {
            self.refused(refused.counted_as(), 1);
        }
    }

    /// Publishes a message of the broker itself, which needs nobody's permission.
    pub(crate) fn publish_internal(&mut self, topic: &str, payload: &[u8]) {
        let publication = Publication {
            qos: QoS::AtMostOnce,
            retain: true,
            properties: Properties::EMPTY,
            payload,
            packet_id: None,
            shared_payload: None,
        };
        if let Err(error) = self.deliver_anew(topic, publication, 0) {
            tracing::debug!(%error, topic, "not published");
        }
    }

    fn deliver_anew(
        &mut self,
        topic: &str,
        publication: Publication<'_>,
        publisher: u64,
    ) -> Result<Published, Refused> {
        let matched = self.broker.table.matches(topic);
        self.deliver(
            &matched,
            &Run {
                topic,
                publications: &[publication],
                publisher,
                publisher_is_kept: false,
                bell: None,
            },
        )
    }

    /// Gives messages that a session had from Shared Subscriptions, and did not acknowledge before
    /// it ended, to other members of their groups (MQTT 5 §4.8.2). `groups` are those that the
    /// session was in, for messages from before a restart; `kept` says whether the store has its
    /// queue still.
    pub(super) fn pass_on(&mut self, orphans: Vec<Slot>, groups: &[Arc<Group>], kept: bool) {
        let broker = self.broker;
        let mut cx = self.context();
        let mut orphans = orphans.into_iter().peekable();
        while orphans.peek().is_some() {
            let page: Vec<Slot> = orphans.by_ref().take(PAGE_MESSAGES).collect();
            for (message, through) in broker.read_back(page, kept, cx.stats) {
                let known = through.as_ref().and_then(|it| it.group.as_ref());
                let mut candidates = known.map(|known| &known.0).into_iter().chain(groups);
                let group =
                    candidates.find(|group| topic::matches(group.filter(), message.topic()));
                let next = group.and_then(|group| {
                    group.choose(message.qos, broker.limits.queue_qos0, |member| {
                        member.session.may_receive(message.topic())
                    })
                });
                match next {
                    Some(member) => pass_on_to(&member, message, &mut cx),
                    None => cx.tally.dropped(Reason::SessionEnded, 1),
                }
            }
        }
    }

    /// Publishes a will that is due. No session may be locked.
    pub(super) fn publish_will(&mut self, due: Option<DueWill>) {
        if let Some(DueWill { principal, will }) = due {
            self.publish_kept(&principal, &will.message, will.properties());
        }
    }

    /// Wakes a task at the end of the batch.
    pub(super) fn wake_later(&mut self, waker: Option<Waker>) {
        self.scratch.wakers.extend(waker);
    }

    /// Lends what delivering outside of a run needs.
    pub(super) fn context(&mut self) -> Context<'_> {
        let Scratch {
            encodings,
            wakers,
            tally,
            journal,
        } = &mut *self.scratch;
        let store = &self.broker.store;
        Context {
            broker: self.broker,
            durable: match store.is_in_memory() {
                true => Ticket(u64::MAX),
                false => store.durable(),
            },
            limits: &self.broker.limits,
            stats: &self.broker.stats,
            now: self.broker.clock.now(),
            encodings,
            wakers,
            tally,
            journal,
        }
    }

    /// The message of a publication of the run that was published last, if anybody keeps it.
    pub fn message(&self, index: usize) -> Option<&Arc<Message>> {
        self.scratch.encodings.messages.all().get(index)?.as_ref()
    }

    /// Counts publications that were not accepted.
    pub fn refused(&mut self, reason: Reason, count: u64) {
        self.scratch.tally.dropped(reason, count);
    }
}

/// Gives a message that another member did not acknowledge to this one.
fn pass_on_to(member: &Subscriber, message: Arc<Message>, cx: &mut Context<'_>) {
    let Terms {
        qos,
        retain_as_published,
        through,
    } = &member.terms;
    let retain = message.retain && *retain_as_published;
    let qos = message.qos.min(*qos);
    let mut state = member.session.lock();
    let through = through.clone();
    deliver_and_keep(
        &member.session,
        &mut state,
        message,
        qos,
        retain,
        through,
        cx,
    );
    member.session.after_delivery(&mut state, cx);
}
