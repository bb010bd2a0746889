//! The queue by itself, and against a plain list.

use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;
use tidings_protocol::mqtt::Properties;

use super::*;
use crate::broker::clock::Millis;
use crate::broker::message::MessageParts;
use crate::store::Offset;

fn slot(qos: QoS) -> Slot {
    Slot::waiting(Body::None, None, qos, false)
}

fn send(queue: &mut Outgoing, window: u16) -> Vec<(u16, bool, Progress)> {
    let mut sent = Vec::new();
    while let Next::Send(slot, id) = queue.next(window, Ticket(0), |_, _| false) {
        let (dup, progress, qos) = (slot.dup(), slot.progress, slot.qos);
        if qos == QoS::AtMostOnce {
            queue.complete_qos0(id);
        }
        sent.push((id.get(), dup, progress));
    }
    sent
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("not 0")
}

#[test]
fn the_window_bounds_what_is_in_flight() {
    let mut queue = Outgoing::default();
    for _ in 0..5 {
        queue.push(slot(QoS::AtLeastOnce));
    }
    assert_eq!(send(&mut queue, 2).len(), 2);
    assert_eq!(send(&mut queue, 2).len(), 0);
    queue
        .acknowledge(Acknowledgement::Ack, id(2))
        .expect("in flight");
    assert_eq!(send(&mut queue, 2), [(3, false, Progress::Sent)]);
}

#[test]
fn a_restart_sends_again_in_order_with_the_same_identifiers() {
    let mut queue = Outgoing::default();
    for qos in [
        QoS::AtLeastOnce,
        QoS::ExactlyOnce,
        QoS::ExactlyOnce,
        QoS::AtLeastOnce,
    ] {
        queue.push(slot(qos));
    }
    send(&mut queue, 3);
    queue
        .acknowledge(Acknowledgement::Received, id(2))
        .expect("in flight");
    queue.restart();
    assert_eq!(
        send(&mut queue, 10),
        [
            (1, true, Progress::Sent),
            (2, false, Progress::Released(true)),
            (3, true, Progress::Sent),
            (4, false, Progress::Sent),
        ]
    );
}

#[test]
fn an_identifier_in_flight_is_passed_over() {
    let mut queue = Outgoing::default();
    queue.push(slot(QoS::AtLeastOnce));
    assert_eq!(send(&mut queue, 10), [(1, false, Progress::Sent)]);
    for number in 1..200_000_u64 {
        queue.push(slot(QoS::AtLeastOnce));
        let sent = send(&mut queue, 10);
        assert_eq!(sent.len(), 1, "after {number}");
        assert_ne!(sent[0].0, 1);
        queue
            .acknowledge(Acknowledgement::Ack, id(sent[0].0))
            .expect("in flight");
    }
    queue
        .acknowledge(Acknowledgement::Ack, id(1))
        .expect("in flight");
    assert!(queue.is_empty());
}

#[test]
fn an_acknowledgement_must_fit_the_state() {
    let mut queue = Outgoing::default();
    queue.push(slot(QoS::AtLeastOnce));
    queue.push(slot(QoS::ExactlyOnce));
    assert_eq!(
        queue.acknowledge(Acknowledgement::Ack, id(1)),
        Err(NotInFlight)
    );
    send(&mut queue, 10);
    assert_eq!(
        queue.acknowledge(Acknowledgement::Received, id(1)),
        Err(NotInFlight)
    );
    assert_eq!(
        queue.acknowledge(Acknowledgement::Complete, id(2)),
        Err(NotInFlight)
    );
    assert_eq!(
        queue.acknowledge(Acknowledgement::Ack, id(3)),
        Err(NotInFlight)
    );
    assert_eq!(queue.acknowledge(Acknowledgement::Received, id(2)), Ok(()));
    assert_eq!(queue.acknowledge(Acknowledgement::Received, id(2)), Ok(()));
    assert_eq!(queue.acknowledge(Acknowledgement::Complete, id(2)), Ok(()));
    assert_eq!(
        queue.acknowledge(Acknowledgement::Complete, id(2)),
        Err(NotInFlight)
    );
    assert_eq!(queue.acknowledge(Acknowledgement::Ack, id(1)), Ok(()));
    assert!(queue.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    /// A message with this QoS, and whether it is to leave the memory.
    Push(u8, bool),
    /// So many for a receiver that is away.
    PushAway(u8, usize),
    Send(u16),
    Finish(usize),
    Receive(usize),
    /// The connection is gone.
    Restart,
    /// The broker is gone, and another one takes over what the store has.
    Restore,
    /// Everything is appended to the log.
    Append,
    /// And everything that is appended is safe.
    Commit,
    Spill,
    /// A page is read back; of these, one in so many is lost.
    Page(usize),
    /// Everything gets a slot.
    TakePlaces,
    DropOldest,
    DropWaiting(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..3, any::<bool>()).prop_map(|(qos, spills)| Step::Push(qos, spills)),
        3 => (0u8..3, 1_usize..70).prop_map(|(qos, count)| Step::PushAway(qos, count)),
        6 => (1u16..20).prop_map(Step::Send),
        6 => any::<usize>().prop_map(Step::Finish),
        4 => any::<usize>().prop_map(Step::Receive),
        2 => Just(Step::Restart),
        1 => Just(Step::Restore),
        3 => Just(Step::Append),
        3 => Just(Step::Commit),
        3 => Just(Step::Spill),
        4 => (1usize..6).prop_map(Step::Page),
        1 => Just(Step::TakePlaces),
        1 => Just(Step::DropOldest),
        1 => (2u64..5).prop_map(Step::DropWaiting),
    ]
}

/// An entry as the receiver and the store know it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    number: u64,
    qos: QoS,
    /// Whether it was sent before.
    sent: SentBefore,
    /// PUBREC came.
    released: bool,
}

impl Entry {
    /// Whether its delivery has to be completed.
    fn is_begun(&self) -> bool {
        let exactly_once = self.qos == QoS::ExactlyOnce;
        self.released
            || self.sent == SentBefore::Yes
            || (self.sent == SentBefore::Perhaps && exactly_once)
    }
}

/// A queue with everything around it.
struct World {
    queue: Outgoing,
    /// What was sent and is not complete, and what waits, each in order.
    flight: Vec<Entry>,
    waiting: VecDeque<Entry>,
    next: u64,
    messages: BTreeMap<u64, Arc<Message>>,
    /// Numbers below this one are in the log, in order, and those below the other are safe there.
    appended: u64,
    durable: Ticket,
    /// What the queue says of entries that need their message no more.
    finished: Vec<(u64, bool)>,
    /// Dropped since the store was told last.
    dropped: Vec<u64>,
}

fn message(number: u64, qos: QoS) -> Arc<Message> {
    let size = match number % 8 {
        0 => PAGE_BYTES * 2 / 3,
        1 => PAGE_BYTES + 1,
        few => few as usize,
    };
    let payload = [&number.to_be_bytes()[..], &vec![0; size]].concat();
    let parts = MessageParts {
        topic: "t",
        properties: Properties::EMPTY,
        payload: &payload,
        shared_payload: None,
        qos,
        retain: false,
        publisher: 1,
        held_from_all: false,
        bell: None,
    };
    Arc::new(Message::new(&parts, Millis(0)))
}

fn number_of(message: &Message) -> u64 {
    u64::from_be_bytes(*message.payload().first_chunk().expect("a number"))
}

impl World {
    fn new(start: u64) -> World {
        let mut queue = Outgoing {
            base: start,
            ..Outgoing::default()
        };
        queue.keep_record();
        World {
            queue,
            flight: Vec::new(),
            waiting: VecDeque::new(),
            next: start,
            messages: BTreeMap::new(),
            appended: start,
            durable: Ticket(start),
            finished: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// A message's ticket is its number plus one, and its offset is its number.
    fn append(&mut self) {
        for number in self.appended..self.next {
            self.messages[&number].set_kept(Offset(number), Ticket(number + 1));
        }
        self.appended = self.next;
    }

    fn commit(&mut self) {
        self.append();
        self.durable = Ticket(self.appended);
    }

    fn send(&mut self, window: u16) -> Result<(), TestCaseError> {
        loop {
            let (slot, id) = match self.queue.next(window, self.durable, |_, _| false) {
                Next::Send(slot, id) => (slot, id),
                Next::Nothing => {
                    prop_assert!(self.waiting.is_empty());
                    return Ok(());
                }
                Next::Window => {
                    prop_assert!(self.flight.len() >= usize::from(window));
                    return Ok(());
                }
                Next::Hold(ticket) => {
                    let entry = self.waiting.front().expect("it waits");
                    prop_assert_eq!(entry.qos, QoS::ExactlyOnce);
                    prop_assert!(ticket == Message::NOT_KEPT || ticket.0 == entry.number + 1);
                    prop_assert!(entry.number >= self.durable.0);
                    return Ok(());
                }
                Next::Page => {
                    prop_assert!(self.queue.wants_page());
                    self.look_up(PAGE_MESSAGES)?;
                    let first = self.queue.page()[0];
                    let entry = self.waiting.front().expect("it waits");
                    prop_assert_eq!(first, (entry.number, Offset(entry.number)));
                    return Ok(());
                }
            };
            let mut entry = self.waiting.pop_front().expect("only what waits is sent");
            prop_assert_eq!(id, packet_id(entry.number));
            prop_assert_eq!(slot.progress == Progress::Released(true), entry.released);
            match &slot.body {
                // PUBREL, which is all that is sent of a released one, has no DUP.
                Body::None => prop_assert!(entry.released),
                Body::Held(message) => {
                    prop_assert_eq!(number_of(message), entry.number);
                    prop_assert_eq!(
                        slot.dup(),
                        entry.sent != SentBefore::No && entry.qos != QoS::AtMostOnce
                    );
                }
                Body::Stored { .. } => prop_assert!(false, "sent without its message"),
            }
            if entry.qos == QoS::AtMostOnce {
                self.queue.complete_qos0(id);
            } else {
                entry.sent = SentBefore::Yes;
                self.flight.push(entry);
                prop_assert!(self.flight.len() <= usize::from(window));
            }
        }
    }

    /// What was sent is to be sent again.
    fn lose_connection(&mut self) {
        let mut again: Vec<Entry> = self.flight.drain(..).collect();
        again.extend(self.waiting.drain(..));
        again.sort_by_key(|entry| entry.number);
        self.waiting = again.into();
    }

    fn restore(&mut self) {
        self.commit();
        self.take_finished();
        self.lose_connection();
        self.dropped.clear();
        // Of what the last connection sent, a store that was read again knows nothing.
        for entry in &mut self.waiting {
            if entry.sent == SentBefore::Yes {
                entry.sent = SentBefore::Perhaps;
            }
        }
        let entries = self.entries(0..u64::MAX);
        let sent_to = self.queue.sent_to();
        self.queue = Outgoing::default();
        self.queue.keep_record();
        let away = sent_to.is_multiple_of(2);
        self.queue
            .restore(self.next, sent_to, entries.into_iter(), away);
        // The messages of this broker are other ones.
        for (&number, message) in &mut self.messages {
            *message = read_back(number, message);
        }
    }

    /// What the store has of the queue.
    fn entries(&self, numbers: Range<u64>) -> Vec<(u64, Slot)> {
        let there = self
            .waiting
            .iter()
            .filter(|entry| numbers.contains(&entry.number) && entry.number < self.durable.0);
        let mut entries: Vec<(u64, Slot)> = there
            .map(|entry| {
                let size = self.messages[&entry.number].content_len() as u32;
                let mut slot = stored(entry.number, size, entry.qos);
                if entry.released {
                    slot.body = Body::None;
                    slot.progress = Progress::Released(false);
                }
                slot.sent = entry.sent;
                (entry.number, slot)
            })
            .collect();
        // And what was dropped, until it is told.
        let dropped = self.dropped.iter().filter(|&it| numbers.contains(it));
        entries.extend(dropped.map(|&number| (number, stored(number, 1, QoS::AtLeastOnce))));
        entries.sort_by_key(|it| it.0);
        entries
    }

    fn look_up(&mut self, max: usize) -> Result<(), TestCaseError> {
        if let Some(places) = self.queue.places_for_page() {
            self.take_some(&places, max)?;
            // Whoever asked at the same time comes too late.
            let again = self.queue.take_places(&places, std::iter::empty(), true);
            prop_assert_eq!(again, 0);
        }
        Ok(())
    }

    fn take_places(&mut self) -> Result<(), TestCaseError> {
        while let Some(places) = self.queue.places() {
            self.take_some(&places, PAGE_MESSAGES)?;
        }
        Ok(())
    }

    fn take_some(&mut self, places: &Places, max: usize) -> Result<(), TestCaseError> {
        let found = self.entries(places.numbers.clone());
        let all = found.len() < max;
        let found = found.into_iter().take(max);
        prop_assert_eq!(self.queue.take_places(places, found, all), 0);
        Ok(())
    }

    fn page(&mut self, lost: usize) -> Result<(), TestCaseError> {
        self.look_up(100)?;
        let page = self.queue.page();
        prop_assert!(page.len() <= PAGE_MESSAGES);
        let sizes = page.iter().map(|it| self.messages[&it.0].content_len());
        let bytes: usize = sizes.sum();
        prop_assert!(page.len() == 1 || bytes <= PAGE_BYTES);
        for (place, &(number, offset)) in page.iter().enumerate() {
            prop_assert_eq!(offset, Offset(number));
            if place % lost == lost - 1 && lost > 1 {
                prop_assert!(self.queue.give_up(number));
                prop_assert!(!self.queue.give_up(number));
                self.waiting.retain(|entry| entry.number != number);
            } else {
                let again = read_back(number, &self.messages[&number]);
                self.queue.loaded(number, again.clone());
                self.messages.insert(number, again);
            }
        }
        Ok(())
    }

    fn take_finished(&mut self) {
        if let Some(finished) = self.queue.finished() {
            for entry in finished.drain(..) {
                self.finished.push((entry.sequence, entry.released));
            }
        }
    }

    fn push(
        &mut self,
        qos: u8,
        push: fn(&mut Outgoing, Slot) -> u64,
    ) -> Result<u64, TestCaseError> {
        let qos = QoS::from_u8(qos).expect("0 to 2");
        let number = self.next;
        let message = message(number, qos);
        self.messages.insert(number, Arc::clone(&message));
        let slot = Slot::waiting(Body::Held(message), None, qos, false);
        prop_assert_eq!(push(&mut self.queue, slot), number);
        let (sent, released) = (SentBefore::No, false);
        self.waiting.push_back(Entry {
            number,
            qos,
            sent,
            released,
        });
        self.next += 1;
        Ok(number)
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Push(qos, spills) => {
                let number = self.push(qos, Outgoing::push)?;
                if spills {
                    self.queue.spill_later(number);
                }
            }
            Step::PushAway(qos, count) => {
                for _ in 0..count {
                    self.push(qos, Outgoing::push_away)?;
                }
            }
            Step::TakePlaces => self.take_places()?,
            Step::Send(window) => {
                self.send(window)?;
                prop_assert_eq!(self.queue.inflight(), self.flight.len());
                self.asks_for_pages()?;
            }
            Step::Finish(which) if !self.flight.is_empty() => {
                let entry = self.flight.remove(which % self.flight.len());
                let id = packet_id(entry.number);
                if entry.qos == QoS::AtLeastOnce {
                    prop_assert_eq!(self.queue.acknowledge(Acknowledgement::Ack, id), Ok(()));
                } else {
                    if !entry.released {
                        let received = self.queue.acknowledge(Acknowledgement::Received, id);
                        prop_assert_eq!(received, Ok(()));
                    }
                    prop_assert_eq!(
                        self.queue.acknowledge(Acknowledgement::Complete, id),
                        Ok(())
                    );
                }
                let again = self.queue.acknowledge(Acknowledgement::Ack, id);
                prop_assert_eq!(again, Err(NotInFlight));
            }
            Step::Receive(which) if !self.flight.is_empty() => {
                let at = which % self.flight.len();
                let entry = &mut self.flight[at];
                let expected = match entry.qos {
                    QoS::ExactlyOnce => Ok(()),
                    _ => Err(NotInFlight),
                };
                let id = packet_id(entry.number);
                prop_assert_eq!(
                    self.queue.acknowledge(Acknowledgement::Received, id),
                    expected
                );
                entry.released |= entry.qos == QoS::ExactlyOnce;
            }
            Step::Finish(_) | Step::Receive(_) => {}
            Step::Restart => {
                self.queue.restart();
                self.lose_connection();
            }
            Step::Restore => self.restore(),
            Step::Append => self.append(),
            Step::Commit => self.commit(),
            Step::Spill => self.queue.spill(self.durable),
            Step::Page(lost) => self.page(lost)?,
            Step::DropOldest => {
                self.take_places()?;
                self.queue.bring_in();
                let oldest = self.waiting.iter().position(|it| !it.is_begun());
                prop_assert_eq!(self.queue.drop_oldest_waiting(), oldest.is_some());
                if let Some(at) = oldest {
                    self.waiting.remove(at);
                }
            }
            Step::DropWaiting(divisor) => {
                let slots = self.queue.slots.iter().chain(&self.queue.tail.coming);
                let held: Vec<u64> = slots
                    .filter_map(|slot| slot.body.message().map(|it| number_of(it)))
                    .collect();
                let before = self.waiting.len();
                let unwanted = |number: u64| number.is_multiple_of(divisor);
                let dropped = &mut self.dropped;
                self.waiting.retain(|it| {
                    let stays = it.is_begun() || !unwanted(it.number) || !held.contains(&it.number);
                    if !stays {
                        dropped.push(it.number);
                    }
                    stays
                });
                let dropped = self
                    .queue
                    .drop_waiting(|message| unwanted(number_of(message)));
                prop_assert_eq!(dropped, (before - self.waiting.len()) as u64);
            }
        }
        self.take_finished();
        self.adds_up()
    }

    /// A page is wanted where the next message is not here, and never if all are.
    fn asks_for_pages(&mut self) -> Result<(), TestCaseError> {
        let first = {
            let end = self.queue.slots.len();
            let mut ahead = self.queue.slots.range(self.queue.next..end);
            ahead.position(|slot| matches!(slot.body, Body::Stored { .. }))
        };
        let wants = self.queue.wants_page();
        match first {
            None if self.queue.tail.stored > 0 => {
                prop_assert!(wants || self.queue.next < self.queue.slots.len());
            }
            None => prop_assert!(!wants),
            Some(0) => prop_assert!(wants),
            Some(_) => {}
        }
        Ok(())
    }

    /// The figures are what the slots add up to, and these what is not complete.
    fn adds_up(&self) -> Result<(), TestCaseError> {
        let queue = &self.queue;
        prop_assert_eq!(queue.len(), self.flight.len() + self.waiting.len());
        let with_body = self
            .flight
            .iter()
            .chain(&self.waiting)
            .filter(|it| !it.released);
        let lens = with_body.map(|entry| self.messages[&entry.number].content_len());
        prop_assert_eq!(queue.bytes(), lens.sum::<usize>());
        let slots = queue.slots.iter().chain(&queue.tail.coming);
        let held = slots.filter_map(|slot| slot.body.message());
        prop_assert_eq!(
            queue.held(),
            held.map(|message| message.size()).sum::<usize>()
        );
        let stored = |slot: &&Slot| matches!(slot.body, Body::Stored { .. });
        prop_assert_eq!(queue.stored, queue.slots.iter().filter(stored).count());
        for (at, slot) in queue.slots.iter().enumerate() {
            let number = queue.base + at as u64;
            let known = at < queue.next || number < queue.loaded_to;
            let to_be_sent = at >= queue.next;
            prop_assert!(
                !(stored(&slot) && known && to_be_sent),
                "{} is not loaded",
                number
            );
        }
        Ok(())
    }

    /// Everything is sent and completed; nothing is left anywhere.
    fn drain(mut self) -> Result<(), TestCaseError> {
        self.commit();
        while !self.queue.is_empty() {
            let stored = |queue: &Outgoing| (queue.stored, queue.tail.stored);
            let before = (stored(&self.queue), self.waiting.len());
            self.send(7)?;
            if self.flight.is_empty() {
                self.page(1)?;
                prop_assert!(before != (stored(&self.queue), self.waiting.len()), "stuck");
            }
            while !self.flight.is_empty() {
                self.step(Step::Finish(0))?;
            }
            self.adds_up()?;
        }
        let queue = &self.queue;
        prop_assert_eq!((queue.bytes, queue.held, queue.stored), (0, 0, 0));
        prop_assert_eq!((queue.done, queue.inflight), (0, 0));
        self.take_finished();
        let mut done: Vec<u64> = self
            .finished
            .iter()
            .filter(|it| !it.1)
            .map(|it| it.0)
            .collect();
        done.sort_unstable();
        let all: Vec<u64> = self.messages.into_keys().collect();
        prop_assert_eq!(done, all, "each is done once");
        Ok(())
    }
}

/// A slot whose message is in the store alone.
fn stored(number: u64, size: u32, qos: QoS) -> Slot {
    let offset = Offset(number);
    Slot::waiting(Body::Stored { offset, size }, None, qos, false)
}

/// A message as it comes back from the store.
fn read_back(number: u64, message: &Message) -> Arc<Message> {
    let again = self::message(number, message.qos);
    again.set_kept(Offset(number), Ticket(number + 1));
    again
}

proptest! {
    /// Against a model that keeps what is unacknowledged in a plain list: identifiers in
    /// flight are unique, order is kept, nothing is lost, the window holds; and wherever messages
    /// are, each is there when it is sent, and the figures are true.
    #[test]
    fn agrees_with_a_plain_list(
        steps in proptest::collection::vec(step(), 1..400),
        start in 0u64..200_000,
        take_all in any::<bool>(),
    ) {
        let mut world = World::new(start);
        for step in steps {
            world.step(step)?;
        }
        if take_all {
            world.take_places()?;
            let left = world.flight.len() + world.waiting.len();
            prop_assert_eq!(world.queue.take_all().count(), left);
            let Outgoing { bytes, held, stored, .. } = world.queue;
            prop_assert_eq!((bytes, held, stored), (0, 0, 0));
        } else {
            world.drain()?;
        }
    }
}

/// A page of nothing but entries of messages that were dropped is passed over, and not asked for again.
#[test]
fn dropped_entries_are_passed_over_page_by_page() {
    let mut queue = Outgoing::default();
    queue.keep_record();
    for number in 0..20 {
        let message = message(number, QoS::AtLeastOnce);
        message.set_kept(Offset(number), Ticket(1));
        let body = Body::Held(message);
        queue.push_away(Slot::waiting(body, None, QoS::AtLeastOnce, false));
    }
    queue.drop_waiting(|message| number_of(message) < 19);
    queue.spill(Ticket(1));
    let mut pages = 0;
    while let Some(places) = queue.places() {
        let numbers = places.numbers.clone();
        let all = numbers.clone().count() < 5;
        let page = numbers.take(5);
        let page = page.map(|number| (number, stored(number, 1, QoS::AtLeastOnce)));
        assert_eq!(queue.take_places(&places, page, all), 0);
        pages += 1;
        assert!(pages < 20, "the same page again and again");
    }
    assert_eq!(queue.len(), 1);
    assert_eq!(queue.page()[0].0, 19);
}

/// What a receiver says to have is complete, whatever it was: sent on this connection or before, QoS 1
/// or 2, released or not, with holes. What was never sent stays, whatever is said.
#[test]
fn all_up_to_a_place_are_acknowledged_and_nothing_else() {
    let mut queue = Outgoing::default();
    let mut sequences = Vec::new();
    for index in 0..8 {
        let qos = match index % 2 {
            0 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        sequences.push(queue.push(slot(qos)));
    }
    let mut ids = Vec::new();
    for _ in 0..6 {
        match queue.next(6, Ticket(u64::MAX), |_, _| false) {
            Next::Send(_, id) => ids.push(id),
            other => panic!("{other:?}"),
        }
    }
    queue
        .acknowledge(Acknowledgement::Received, ids[1])
        .expect("in flight");
    queue
        .acknowledge(Acknowledgement::Ack, ids[2])
        .expect("in flight");
    assert_eq!(queue.sequence_of(ids[3]), Some(sequences[3]));
    assert_eq!(queue.sequence_of(ids[2]), None, "complete");
    assert!(!queue.is_held_up(6) && queue.is_held_up(5));
    assert_eq!(queue.acknowledge_to(sequences[3]), 3);
    assert_eq!((queue.len(), queue.inflight()), (4, 2));
    assert_eq!(queue.acknowledge_to(sequences[3]), 0);
    queue.restart();
    assert_eq!(queue.inflight(), 0);
    // Sent on the connection before.
    assert_eq!(queue.acknowledge_to(sequences[4]), 1);
    // The last two were never sent.
    assert_eq!(queue.acknowledge_to(u64::MAX), 1);
    assert_eq!((queue.len(), queue.inflight()), (2, 0));
    match queue.next(6, Ticket(u64::MAX), |_, _| false) {
        Next::Send(slot, _) => assert!(!slot.dup()),
        other => panic!("{other:?}"),
    }
}
