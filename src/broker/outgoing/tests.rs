//! The queue by itself, and against a plain list.

use proptest::prelude::*;

use super::*;

fn slot(qos: QoS) -> Slot {
    Slot::waiting(Body::None, None, qos, false)
}

fn send(queue: &mut Outgoing, window: u16) -> Vec<(u16, bool, Progress)> {
    let mut sent = Vec::new();
    while let Next::Send(slot, id) = queue.next(window, Ticket(0), |_, _| false) {
        let (dup, progress, qos) = (slot.dup, slot.progress, slot.qos);
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
    Push(u8),
    Send(u16),
    Finish(usize),
    Receive(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..3).prop_map(Step::Push),
        3 => (1u16..20).prop_map(Step::Send),
        3 => any::<usize>().prop_map(Step::Finish),
        2 => any::<usize>().prop_map(Step::Receive),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Against a model that keeps what is unacknowledged in a plain list: identifiers in
    /// flight are unique, order is kept, nothing is lost, the window holds.
    #[test]
    fn agrees_with_a_plain_list(steps in proptest::collection::vec(step(), 1..400), start in 0u64..200_000) {
        let mut queue = Outgoing { base: start, ..Outgoing::default() };
        // (sequence number, qos, released) of what was sent and is not complete.
        let mut flight: Vec<(u64, QoS, bool)> = Vec::new();
        let mut waiting: VecDeque<(u64, QoS, bool, bool)> = VecDeque::new();
        let mut sequence = start;
        for step in steps {
            match step {
                Step::Push(qos) => {
                    let qos = QoS::from_u8(qos).expect("0 to 2");
                    queue.push(slot(qos));
                    waiting.push_back((sequence, qos, false, false));
                    sequence += 1;
                }
                Step::Send(window) => {
                    for (id, dup, progress) in send(&mut queue, window) {
                        let (number, qos, sent_before, released) =
                            waiting.pop_front().expect("only what waits is sent");
                        prop_assert_eq!(u64::from(id), number % 65_535 + 1);
                        // PUBREL, which is all that is sent of a released one, has no DUP.
                        prop_assert!(released || dup == sent_before);
                        prop_assert_eq!(progress == Progress::Released(true), released);
                        if qos != QoS::AtMostOnce {
                            flight.push((number, qos, released));
                            prop_assert!(flight.len() <= usize::from(window));
                        }
                    }
                    prop_assert_eq!(queue.inflight(), flight.len());
                    prop_assert_eq!(queue.len(), flight.len() + waiting.len());
                }
                Step::Finish(which) if !flight.is_empty() => {
                    let (number, qos, released) = flight.remove(which % flight.len());
                    let id = packet_id(number);
                    if qos == QoS::AtLeastOnce {
                        prop_assert_eq!(queue.acknowledge(Acknowledgement::Ack, id), Ok(()));
                    } else {
                        if !released {
                            prop_assert_eq!(queue.acknowledge(Acknowledgement::Received, id), Ok(()));
                        }
                        prop_assert_eq!(queue.acknowledge(Acknowledgement::Complete, id), Ok(()));
                    }
                    prop_assert_eq!(queue.acknowledge(Acknowledgement::Ack, id), Err(NotInFlight));
                }
                Step::Receive(which) if !flight.is_empty() => {
                    let at = which % flight.len();
                    let (number, qos, released) = &mut flight[at];
                    let expected = if *qos == QoS::ExactlyOnce { Ok(()) } else { Err(NotInFlight) };
                    prop_assert_eq!(queue.acknowledge(Acknowledgement::Received, packet_id(*number)), expected);
                    *released |= *qos == QoS::ExactlyOnce;
                }
                Step::Restart => {
                    queue.restart();
                    let mut again: Vec<_> = flight.drain(..).map(|(n, q, r)| (n, q, true, r)).collect();
                    again.extend(waiting.drain(..));
                    again.sort_by_key(|entry| entry.0);
                    waiting = again.into();
                }
                Step::Finish(_) | Step::Receive(_) => {}
            }
        }
        prop_assert_eq!(queue.take_all().count(), flight.len() + waiting.len());
    }
}
