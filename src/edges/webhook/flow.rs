//! What may be sent next: pages of a queue, retries that are due, and the order that an endpoint
//! wants. A pure state machine: times are Unix milliseconds that the caller passes in.
//!
//! What is sent in one request is a [`Unit`]: one entry, or several in batch mode. A unit that was
//! taken comes back with [`Flow::release`] once it is delivered or given up, or with [`Flow::retry`].
//!
//! | ordering | a unit may be taken |
//! |---|---|
//! | none | at any time |
//! | key | once nothing else of its key, which is its topic, is taken or waits for a retry |
//! | fifo | once nothing else is taken or waits for a retry |

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::broker::endpoint::Queued;
use crate::store::Seq;
use crate::webhooks::Ordering;

/// Entries that are remembered at a time.
const PAGE: usize = 256;

/// How much there may be at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries of one request.
    pub batch_max: usize,
    /// Bytes of topics, properties and payloads in one request; one entry may have more.
    pub batch_bytes_max: u64,
    /// Entries that wait for a retry; then nothing else is taken. With order by key, entries that
    /// wait behind others count as well.
    pub waiting_max: usize,
}

/// What is sent in one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unit {
    /// In the order of the queue.
    pub entries: Vec<Queued>,
    /// What it must not overtake others of; none until its topic is known, or if it may.
    pub key: Option<u64>,
    /// Attempts so far.
    pub attempts: u32,
    /// When the first was made.
    pub first_ms: u64,
    /// Whether the store knows that it waits for a retry.
    pub is_kept: bool,
}

impl Unit {
    /// The place in the queue of its first entry.
    pub fn first(&self) -> Seq {
        self.entries.first().map_or(0, |entry| entry.seq)
    }

    /// Bytes of topics, properties and payloads.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.size)).sum()
    }
}

/// Whether a unit whose key became known may go on.
#[derive(PartialEq, Eq, Debug)]
pub enum Admitted {
    Yes(Unit),
    /// Others of its key come first: it will be taken again.
    Held,
}

/// See the module.
#[derive(Debug)]
pub struct Flow {
    order: Ordering,
    limits: Limits,
    /// Entries that were not taken yet, in order.
    fresh: VecDeque<Queued>,
    /// The last entry of the queue that was seen.
    seen: Seq,
    /// Whether the queue may have more behind it.
    has_more: bool,
    /// What waits, by when it is due.
    retries: BTreeMap<(u64, Seq), Unit>,
    /// Entries among the retries, which the queue still has.
    retrying: HashSet<Seq>,
    /// Of each key of which something is taken or waits, what comes after it.
    lanes: HashMap<u64, VecDeque<Queued>>,
    /// Entries in all lanes.
    held: usize,
    /// Keys of which nothing is taken, though something is in their lanes.
    free: VecDeque<u64>,
    /// Units that are taken.
    taken: usize,
}

impl Flow {
    /// Goes on with what waits for a retry, each with when it is due.
    pub fn new(order: Ordering, limits: Limits, retries: Vec<(u64, Unit)>) -> Flow {
        let mut flow = Flow {
            order,
            limits,
            fresh: VecDeque::new(),
            seen: 0,
            has_more: true,
            retries: BTreeMap::new(),
            retrying: HashSet::new(),
            lanes: HashMap::new(),
            held: 0,
            free: VecDeque::new(),
            taken: 0,
        };
        for (due, unit) in retries {
            if let (Ordering::Key, Some(key)) = (order, unit.key) {
                flow.lanes.entry(key).or_default();
            }
            flow.wait(due, unit);
        }
        flow
    }

    /// Everything that waits for a retry, with when it is due: what [`Flow::new`] wants.
    pub fn into_retries(self) -> Vec<(u64, Unit)> {
        let retries = self.retries.into_iter();
        retries.map(|((due, _), unit)| (due, unit)).collect()
    }

    /// Other limits from now on.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Units that are taken.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Entries that wait for a retry.
    pub fn waiting(&self) -> usize {
        self.retrying.len()
    }

    /// Which page of the queue is wanted, if as many more units as `room` may be taken: behind which
    /// entry, and how long it may be.
    pub fn wants_page(&self, room: usize) -> Option<(Seq, usize)> {
        let missing = PAGE - self.fresh.len();
        let has_enough = self.fresh.len() >= room.saturating_mul(self.limits.batch_max);
        let wants = self.has_more && missing >= PAGE / 2 && !has_enough && self.may_take_fresh();
        wants.then_some((self.seen, missing))
    }

    /// Whether there may be something to take.
    pub fn has_some(&self, now: u64) -> bool {
        !self.free.is_empty()
            || !self.fresh.is_empty() && self.may_take_fresh()
            || self.first_retry().is_some_and(|(due, _)| due <= now)
    }

    fn may_take_fresh(&self) -> bool {
        let is_held_up = match self.order {
            Ordering::Fifo => self.taken > 0 || !self.retries.is_empty(),
            Ordering::None | Ordering::Key => false,
        };
        !is_held_up && self.retrying.len() + self.held < self.limits.waiting_max
    }

    /// The queue has more behind the last page.
    pub fn more(&mut self) {
        self.has_more = true;
    }

    /// Takes in a page of at most `max`, without the entries that `skip` is true of.
    pub fn page(&mut self, page: &[Queued], max: usize, skip: impl Fn(Seq) -> bool) {
        self.has_more = page.len() >= max;
        if let Some(last) = page.last() {
            self.seen = last.seq;
        }
        let entries = page.iter().copied();
        let wanted = entries.filter(|it| !self.retrying.contains(&it.seq) && !skip(it.seq));
        self.fresh.extend(wanted);
    }

    /// When the first retry that may be taken then is due.
    pub fn next_due(&self) -> Option<u64> {
        match self.order {
            Ordering::Fifo if self.taken > 0 => None,
            Ordering::Fifo => self.first_retry().map(|(due, _)| due),
            _ => self.retries.keys().next().map(|(due, _)| *due),
        }
    }

    /// Takes what is to be sent next.
    pub fn take(&mut self, now: u64) -> Option<Unit> {
        if self.order == Ordering::Fifo && self.taken > 0 {
            return None;
        }
        let unit = self
            .take_retry(now)
            .or_else(|| self.take_held())
            .or_else(|| self.take_fresh())?;
        self.taken += 1;
        Some(unit)
    }

    fn first_retry(&self) -> Option<(u64, Seq)> {
        match self.order {
            Ordering::Fifo => self.retries.keys().min_by_key(|(_, seq)| *seq).copied(),
            _ => self.retries.keys().next().copied(),
        }
    }

    fn take_retry(&mut self, now: u64) -> Option<Unit> {
        let key = self.first_retry().filter(|(due, _)| *due <= now)?;
        let unit = self.retries.remove(&key)?;
        for entry in &unit.entries {
            self.retrying.remove(&entry.seq);
        }
        Some(unit)
    }

    fn take_held(&mut self) -> Option<Unit> {
        let key = self.free.pop_front()?;
        let lane = self.lanes.get_mut(&key)?;
        let entries = batch(lane, &self.limits, self.limits.batch_max);
        self.held -= entries.len();
        Some(fresh_unit(entries, Some(key)))
    }

    fn take_fresh(&mut self) -> Option<Unit> {
        if !self.may_take_fresh() {
            return None;
        }
        let max = match self.order {
            // Two entries may have different keys.
            Ordering::Key => 1,
            _ => self.limits.batch_max,
        };
        let entries = batch(&mut self.fresh, &self.limits, max);
        (!entries.is_empty()).then(|| fresh_unit(entries, None))
    }

    /// The key of a unit became known: its messages were read. Units have to be admitted in the
    /// order in which they were taken.
    pub fn admit(&mut self, mut unit: Unit, key: u64) -> Admitted {
        // One with a key has its lane. A retry without was put back, and comes late anyway.
        if self.order != Ordering::Key || unit.key.is_some() || unit.is_kept {
            return Admitted::Yes(unit);
        }
        match self.lanes.get_mut(&key) {
            Some(lane) => {
                self.held += unit.entries.len();
                lane.extend(unit.entries);
                self.taken -= 1;
                Admitted::Held
            }
            None => {
                self.lanes.insert(key, VecDeque::new());
                unit.key = Some(key);
                Admitted::Yes(unit)
            }
        }
    }

    /// A unit that was taken is delivered or given up.
    pub fn release(&mut self, key: Option<u64>) {
        self.taken -= 1;
        if let Some(key) = key
            && let Some(lane) = self.lanes.get(&key)
        {
            match lane.is_empty() {
                true => drop(self.lanes.remove(&key)),
                false => self.free.push_back(key),
            }
        }
    }

    /// A unit that was taken is due again then.
    pub fn retry(&mut self, due: u64, unit: Unit) {
        self.taken -= 1;
        self.wait(due, unit);
    }

    /// Something that waits for a retry, and was not known of.
    pub fn wait(&mut self, due: u64, unit: Unit) {
        self.retrying
            .extend(unit.entries.iter().map(|entry| entry.seq));
        self.retries.insert((due, unit.first()), unit);
    }
}

fn fresh_unit(entries: Vec<Queued>, key: Option<u64>) -> Unit {
    Unit {
        entries,
        key,
        attempts: 0,
        first_ms: 0,
        is_kept: false,
    }
}

/// Takes as much as fits into one request. An entry of QoS 0, which is attempted once, shares it
/// with no other.
fn batch(from: &mut VecDeque<Queued>, limits: &Limits, max: usize) -> Vec<Queued> {
    use tidings_protocol::mqtt::QoS;
    let mut bytes = 0;
    let mut count = 0;
    for entry in from.iter().take(max.max(1)) {
        bytes += u64::from(entry.size);
        let fits = bytes <= limits.batch_bytes_max && entry.qos != QoS::AtMostOnce;
        if count > 0 && !fits {
            break;
        }
        count += 1;
        if entry.qos == QoS::AtMostOnce {
            break;
        }
    }
    from.drain(..count).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tidings_protocol::mqtt::QoS;

    use super::*;
    use crate::store::Offset;

    const LIMITS: Limits = Limits {
        batch_max: 1,
        batch_bytes_max: 1_000,
        waiting_max: 1_000,
    };

    fn entry(seq: Seq) -> Queued {
        Queued {
            seq,
            offset: Offset(seq * 10),
            size: 100,
            qos: QoS::AtLeastOnce,
            retain: false,
        }
    }

    fn flow(order: Ordering, limits: Limits, entries: u64) -> Flow {
        let mut flow = Flow::new(order, limits, Vec::new());
        let page: Vec<Queued> = (1..=entries).map(entry).collect();
        flow.page(&page, PAGE, |_| false);
        flow
    }

    fn seqs(unit: &Unit) -> Vec<Seq> {
        unit.entries.iter().map(|entry| entry.seq).collect()
    }

    #[test]
    fn pages_follow_each_other() {
        let mut flow = Flow::new(Ordering::None, LIMITS, Vec::new());
        assert_eq!(flow.wants_page(1), Some((0, PAGE)));
        assert_eq!(flow.wants_page(0), None, "nothing could be taken");
        let page: Vec<Queued> = (1..=PAGE as u64).map(entry).collect();
        flow.page(&page, PAGE, |seq| seq == 3);
        assert_eq!(flow.wants_page(PAGE), None);
        for seq in [1, 2, 4] {
            assert_eq!(seqs(&flow.take(0).unwrap()), [seq]);
        }
        while flow.wants_page(PAGE).is_none() {
            flow.take(0).unwrap();
        }
        assert_eq!(flow.wants_page(PAGE), Some((PAGE as u64, PAGE / 2)));
        assert_eq!(flow.wants_page(PAGE / 2), None, "so many are there");
        flow.page(&[], PAGE / 2, |_| false);
        assert_eq!(
            flow.wants_page(PAGE),
            None,
            "until it is told that there is more"
        );
        flow.more();
        assert!(flow.wants_page(PAGE).is_some());
    }

    /// Nobody asks for what could not be taken anyway.
    #[test]
    fn what_is_held_up_wants_no_page() {
        let mut flow = flow(Ordering::Fifo, LIMITS, 1);
        assert!(flow.has_some(0));
        let unit = flow.take(0).unwrap();
        flow.more();
        assert_eq!(flow.wants_page(1), None, "its first is under way");
        flow.retry(10, unit);
        assert_eq!(flow.wants_page(1), None, "its first waits");
        assert!(!flow.has_some(9) && flow.has_some(10));
        let unit = flow.take(10).unwrap();
        flow.release(unit.key);
        assert!(flow.wants_page(1).is_some() && !flow.has_some(10));
        let limits = Limits {
            waiting_max: 1,
            ..LIMITS
        };
        let mut flow = self::flow(Ordering::None, limits, 1);
        let unit = flow.take(0).unwrap();
        flow.retry(10, unit);
        flow.more();
        assert_eq!(flow.wants_page(1), None, "as many wait as may");
    }

    #[test]
    fn a_batch_has_its_limits_and_stays_together() {
        let limits = Limits {
            batch_max: 4,
            batch_bytes_max: 350,
            ..LIMITS
        };
        let mut flow = flow(Ordering::None, limits, 5);
        flow.fresh[4].qos = QoS::AtMostOnce;
        let first = flow.take(0).unwrap();
        assert_eq!(seqs(&first), [1, 2, 3]);
        assert_eq!(seqs(&flow.take(0).unwrap()), [4]);
        assert_eq!(seqs(&flow.take(0).unwrap()), [5]);
        flow.retry(10, first.clone());
        assert_eq!(flow.take(9), None);
        assert_eq!(flow.next_due(), Some(10));
        assert_eq!(flow.take(10), Some(first));
    }

    #[test]
    fn fifo_waits_for_its_first() {
        let mut flow = flow(Ordering::Fifo, LIMITS, 3);
        let first = flow.take(0).unwrap();
        assert_eq!(flow.take(0), None);
        flow.retry(50, first.clone());
        assert_eq!((flow.take(49), flow.next_due()), (None, Some(50)));
        assert_eq!(flow.take(50), Some(first));
        flow.release(None);
        assert_eq!(seqs(&flow.take(50).unwrap()), [2]);
    }

    #[test]
    fn too_many_that_wait_keep_others_away() {
        let limits = Limits {
            waiting_max: 2,
            ..LIMITS
        };
        let mut flow = flow(Ordering::None, limits, 9);
        for _ in 0..2 {
            let unit = flow.take(0).unwrap();
            flow.retry(100, unit);
        }
        assert_eq!(flow.take(99), None);
        let unit = flow.take(100).unwrap();
        assert_eq!(unit.entries[0].seq, 1);
        assert_eq!(seqs(&flow.take(100).unwrap()), [2]);
        assert_eq!(seqs(&flow.take(100).unwrap()), [3]);
    }

    #[test]
    fn after_a_restart_what_waits_is_not_fresh() {
        let mut waiting = fresh_unit(vec![entry(2)], Some(7));
        (waiting.attempts, waiting.is_kept) = (3, true);
        let mut flow = Flow::new(Ordering::Key, LIMITS, vec![(100, waiting.clone())]);
        let page: Vec<Queued> = (1..=3).map(entry).collect();
        flow.page(&page, PAGE, |_| false);
        let first = flow.take(0).unwrap();
        assert_eq!(seqs(&first), [1]);
        let third = flow.take(0).unwrap();
        assert_eq!(seqs(&third), [3]);
        assert!(matches!(flow.admit(first, 8), Admitted::Yes(_)));
        assert_eq!(flow.admit(third, 7), Admitted::Held, "of the same key");
        assert_eq!(flow.take(99), None);
        assert_eq!(flow.take(100), Some(waiting));
        flow.release(Some(7));
        assert_eq!(seqs(&flow.take(100).unwrap()), [3]);
    }

    /// What becomes of the unit that is sent next, or returns next.
    #[derive(Clone, Debug)]
    enum Step {
        Take,
        Admit,
        Deliver(usize),
        Fail(usize, u64),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Take),
            3 => Just(Step::Admit),
            3 => any::<usize>().prop_map(Step::Deliver),
            2 => (any::<usize>(), 0..50_u64).prop_map(|(which, delay)| Step::Fail(which, delay)),
            1 => (1..30_u64).prop_map(Step::Pass),
        ];
        vec(step, 0..400)
    }

    /// Whatever happens, everything is delivered exactly once, retries not before they are due, and
    /// in the order that was asked for.
    fn check(order: Ordering, batch_max: usize, entries: u64, keys: u64, steps: Vec<Step>) {
        let limits = Limits {
            batch_max,
            waiting_max: 8,
            ..LIMITS
        };
        let mut flow = flow(order, limits, entries);
        let key_of = |seq: Seq| match order {
            Ordering::None => seq,
            Ordering::Key => seq % keys,
            Ordering::Fifo => 0,
        };
        let (mut reading, mut flying): (VecDeque<Unit>, Vec<Unit>) = Default::default();
        let mut due: HashMap<Seq, u64> = HashMap::new();
        let mut delivered: Vec<Seq> = Vec::new();
        let mut now = 0;
        // In the end, everything succeeds.
        let tail = (0..entries * 40).map(|index| match index % 4 {
            0 => Step::Take,
            1 => Step::Admit,
            2 => Step::Deliver(0),
            _ => Step::Pass(10),
        });
        for step in steps.into_iter().chain(tail) {
            match step {
                Step::Pass(millis) => now += millis,
                Step::Take => {
                    let Some(unit) = flow.take(now) else { continue };
                    assert!(!unit.entries.is_empty() && unit.entries.len() <= batch_max.max(1));
                    for seq in seqs(&unit) {
                        assert!(due.get(&seq).is_none_or(|due| *due <= now), "not due");
                    }
                    reading.push_back(unit);
                }
                Step::Admit => {
                    let Some(unit) = reading.pop_front() else {
                        continue;
                    };
                    let key = key_of(unit.entries[0].seq);
                    if let Admitted::Yes(unit) = flow.admit(unit, key) {
                        if order != Ordering::None {
                            let others = flying.iter().flat_map(|unit| &unit.entries);
                            for other in others {
                                assert_ne!(key_of(other.seq), key, "two of a key in flight");
                            }
                        }
                        flying.push(unit);
                    }
                }
                Step::Deliver(which) if !flying.is_empty() => {
                    let unit = flying.swap_remove(which % flying.len());
                    delivered.extend(seqs(&unit));
                    flow.release(unit.key);
                }
                Step::Fail(which, delay) if !flying.is_empty() => {
                    let mut unit = flying.swap_remove(which % flying.len());
                    (unit.attempts, unit.is_kept) = (unit.attempts + 1, true);
                    due.extend(seqs(&unit).into_iter().map(|seq| (seq, now + delay)));
                    flow.retry(now + delay, unit);
                }
                Step::Deliver(_) | Step::Fail(..) => {}
            }
            assert_eq!(flow.taken(), reading.len() + flying.len());
        }
        let mut all = delivered.clone();
        all.sort_unstable();
        assert_eq!(all, (1..=entries).collect::<Vec<_>>(), "each exactly once");
        let mut last: HashMap<u64, Seq> = HashMap::new();
        for seq in delivered {
            let last = last.entry(key_of(seq)).or_default();
            assert!(*last < seq, "{seq} came after {last}");
            *last = seq;
        }
        assert!(flow.lanes.is_empty() && flow.held == 0 && flow.waiting() == 0);
    }

    proptest! {
        #[test]
        fn any_history_keeps_the_promises(
            order in prop_oneof![Just(Ordering::None), Just(Ordering::Key), Just(Ordering::Fifo)],
            batch_max in 1..4_usize,
            entries in 1..60_u64,
            keys in 1..6_u64,
            steps in steps(),
        ) {
            check(order, batch_max, entries, keys, steps);
        }
    }
}
