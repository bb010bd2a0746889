//! Messages that are taken back before they were written: they leave no trace, and what stands
//! around them stays what it was.

use super::{message, open_sim, session_put, small, target};
use crate::store::files::sim::{Rng, SimFiles};
use crate::store::open::Parts;
use crate::store::{Offset, Record};

fn put(parts: &Parts, seq: u64, payload: &[u8]) -> Offset {
    let targets = [target(1, seq)];
    let record = Record::Message(message(payload, &targets));
    parts.append(&[record]).expect("it takes it").first_offset
}

/// The seqs and offsets in the queue, as a restart finds them.
fn queue(parts: &Parts) -> Vec<(u64, Offset)> {
    let kept = parts.kept.lock();
    let recovered = kept.state.recovered(0, Default::default());
    let queue = &recovered.sessions[0].queue.entries;
    queue.iter().map(|it| (it.seq, it.offset)).collect()
}

#[test]
fn what_is_taken_back_before_it_is_written_was_never_there() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let disk = SimFiles::new();
        let options = small("/store");
        let mut parts = open_sim(&disk, &options).expect("it opens");
        parts.append(&[session_put(1)]).expect("it takes it");
        let mut expected = Vec::new();
        let mut seq = 0;
        for _ in 0..10 {
            let mut group = Vec::new();
            for _ in 0..1 + rng.below(8) {
                seq += 1;
                let payload = vec![seq as u8; 1 + rng.below(5_000) as usize];
                group.push((seq, put(&parts, seq, &payload), payload));
                if rng.below(3) == 0 {
                    let clock = Record::Clock { now_ms: seq };
                    parts.append(&[clock]).expect("it takes it");
                }
            }
            let back: Vec<Offset> = group
                .iter()
                .filter(|_| rng.below(2) == 0)
                .map(|&(_, offset, _)| offset)
                .collect();
            assert_eq!(parts.log.pending.withdraw(&back), vec![true; back.len()]);
            assert_eq!(parts.log.pending.withdraw(&back), vec![false; back.len()]);
            parts.commit().expect("nothing fails");
            // Too late for the others.
            let late: Vec<Offset> = group.iter().map(|&(_, offset, _)| offset).collect();
            assert_eq!(parts.log.pending.withdraw(&late), vec![false; late.len()]);
            expected.extend(group.into_iter().filter(|(_, it, _)| !back.contains(it)));
        }
        let places: Vec<_> = expected.iter().map(|&(seq, it, _)| (seq, it)).collect();
        assert_eq!(queue(&parts), places, "seed {seed}");
        drop(parts);
        let parts = open_sim(&disk, &options).expect("it opens again");
        assert!(!parts.recovered.report.has_loss(), "seed {seed}");
        assert_eq!(queue(&parts), places, "seed {seed}");
        let offsets: Vec<Offset> = places.iter().map(|&(_, it)| it).collect();
        for ((_, _, payload), read) in expected.iter().zip(parts.log.read(&offsets)) {
            assert_eq!(read.expect("it is there").payload, *payload, "seed {seed}");
        }
    }
}

#[test]
fn a_group_that_is_taken_back_as_a_whole_is_done_without_the_disk() {
    let disk = SimFiles::new();
    let mut parts = open_sim(&disk, &small("/store")).expect("it opens");
    parts.append(&[session_put(1)]).expect("it takes it");
    parts.commit().expect("nothing fails");
    let syncs = disk.syncs();
    let targets = [target(1, 1)];
    let appended = parts
        .append(&[Record::Message(message(b"x", &targets))])
        .expect("it takes it");
    assert_eq!(parts.log.pending.withdraw(&[appended.first_offset]), [true]);
    parts.commit().expect("nothing fails");
    assert_eq!(parts.log.progress.durable(), appended.ticket);
    assert_eq!(disk.syncs(), syncs);
    assert_eq!(queue(&parts), []);
    // The next message has the next offset all the same.
    assert_eq!(put(&parts, 2, b"y"), appended.first_offset.plus(1));
    parts.commit().expect("nothing fails");
    assert_eq!(queue(&parts), [(2, appended.first_offset.plus(1))]);
}
