//! Power cuts and kills at any moment of random histories: what is recovered is a state that was,
//! at or after the last one that was declared durable, and every message in it can be read.

use super::history::History;
use super::model::Model;
use super::{open_sim, small};
use crate::store::files::sim::{Rng, SimFiles};
use crate::store::open::Parts;
use crate::store::recovered::Basis;

/// How many rounds; a longer run is asked for by the environment.
fn rounds(usual: u64) -> u64 {
    std::env::var("TIDINGS_CRASH_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(usual)
}

struct Run {
    history: History,
    /// Records appended, and how many of them were said to be durable.
    appended: usize,
    /// Number of records by ticket.
    tickets: Vec<(u64, usize)>,
    durable: usize,
    /// How many are flushed; the same unless flushes come at intervals.
    flushed: usize,
    /// The log epoch, which nothing here may change.
    epoch: Option<u64>,
}

impl Run {
    fn new(seed: u64, large: usize) -> Run {
        Run {
            history: History::new(seed, large),
            appended: 0,
            tickets: Vec::new(),
            durable: 0,
            flushed: 0,
            epoch: None,
        }
    }

    /// Some steps of a broker's life.
    fn live(&mut self, parts: &mut Parts, rng: &mut Rng, steps: u64) {
        for _ in 0..steps {
            let what = rng.below(100);
            if what <= 5 {
                // Upkeep waits for the log's flush, which no thread makes here.
                parts.commit().expect("nothing fails");
                parts.commit().expect("nothing fails");
            }
            match what {
                0..=1 => parts.upkeep.checkpoint().expect("nothing fails"),
                2 => parts.upkeep.write_snapshot().expect("nothing fails"),
                3..=5 => parts.upkeep.give_space_back(true).expect("nothing fails"),
                6..=40 => {
                    parts.commit().expect("nothing fails");
                }
                _ => {
                    let batch = 1 + rng.below(6) as usize;
                    let start = self.history.records.len();
                    (0..batch).for_each(|_| self.history.advance());
                    let records: Vec<_> = self.history.records[start..]
                        .iter()
                        .map(|it| it.get())
                        .collect();
                    let appended = parts.append(&records).expect("nothing fails");
                    self.appended = self.history.records.len();
                    self.tickets.push((appended.ticket.0, self.appended));
                }
            }
            self.see_durable(parts);
        }
    }

    fn see_durable(&mut self, parts: &Parts) {
        let durable = parts.log.progress.durable();
        let flushed = parts.log.progress.flushed();
        assert!(flushed <= durable);
        for &(ticket, count) in &self.tickets {
            if ticket <= durable.0 {
                self.durable = self.durable.max(count);
            }
            if ticket <= flushed.0 {
                self.flushed = self.flushed.max(count);
            }
        }
    }

    /// Checks what was recovered, and goes on from there.
    fn check(&mut self, parts: &Parts, what: &str) {
        let recovered = Model::of(&parts.recovered);
        let mut model = self.history.model_after(self.durable);
        let mut at = self.durable;
        while model.reopened() != recovered {
            assert!(
                at < self.appended,
                "{what}: no state between {} and {} records\nreport {:?}\nrecovered \
                 {recovered:#?}\nappended {model:#?}",
                self.durable,
                self.appended,
                parts.recovered.report
            );
            model.apply(&self.history.records[at].get());
            at += 1;
        }
        let report = &parts.recovered.report;
        assert!(!report.has_loss(), "{what}: {report:?}");
        let epoch = parts.recovered.epoch;
        assert_eq!(*self.epoch.get_or_insert(epoch), epoch, "{what}");
        let needed = recovered.needed();
        for (offset, answer) in needed.iter().zip(parts.log.read(&needed)) {
            let stored = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
            let (len, fill) = self.history.payloads[offset.0 as usize - 1];
            assert_eq!(stored.payload.len(), len, "{what}: message {offset}");
            assert!(stored.payload.iter().all(|&byte| byte == fill), "{what}");
        }
        self.history.records.truncate(at);
        self.history.model = recovered;
        self.history
            .payloads
            .truncate(self.history.model.messages as usize);
        self.appended = at;
        self.durable = at;
        self.flushed = at;
        self.tickets.clear();
    }
}

fn crash_rounds(seeds: std::ops::Range<u64>, large: usize, interval: bool) {
    for seed in seeds {
        let mut rng = Rng::new(seed + 1_000_000);
        let mut disk = SimFiles::new();
        let mut options = small("/store");
        if interval {
            options.durability =
                crate::store::Durability::Interval(std::time::Duration::from_millis(3));
        }
        let mut run = Run::new(seed, large);
        for life in 0..4 {
            let what = format!("seed {seed}, life {life}");
            let mut parts = open_sim(&disk, &options).expect("it opens");
            run.check(&parts, &what);
            let steps = 20 + rng.below(400);
            run.live(&mut parts, &mut rng, steps);
            // In the middle of whatever the next step would have been, too: it is at work while
            // the disk is copied, in its unflushed writes.
            if rng.chance(30) {
                disk = disk.kill();
            } else {
                disk = disk.cut_power(&mut rng);
                // What was written and not flushed may be lost: that is what an interval risks.
                run.durable = run.flushed;
                if interval {
                    run.epoch = None;
                }
            }
        }
        let parts = open_sim(&disk, &options).expect("it opens");
        run.check(&parts, &format!("seed {seed}, the end"));
    }
}

#[test]
fn a_crash_at_any_point_keeps_what_was_durable() {
    crash_rounds(0..rounds(30), 3_000, false);
}

#[test]
fn large_payloads_survive_a_power_cut() {
    crash_rounds(5_000..5_000 + rounds(8), 250_000, false);
}

#[test]
fn an_interval_loses_nothing_to_a_kill_and_its_last_part_to_a_power_cut() {
    crash_rounds(9_000..9_000 + rounds(12), 3_000, true);
}

/// A power cut in the middle of opening, of a checkpoint, of a roll: the disk is cut at each of
/// its flushes, and what lies between two flushes is torn at random.
#[test]
fn power_may_fail_in_the_middle_of_any_operation() {
    for seed in 20_000..20_000 + rounds(25) {
        let mut rng = Rng::new(seed);
        let mut disk = SimFiles::new();
        let options = small("/store");
        let mut run = Run::new(seed, 3_000);
        for life in 0..6 {
            let what = format!("seed {seed}, life {life}");
            // The operation that this flush belongs to ends with an error, where it stood.
            let mut parts = match open_sim(&disk, &options) {
                Ok(parts) => parts,
                Err(error) => panic!("{what}: {error}"),
            };
            run.check(&parts, &what);
            run.live(&mut parts, &mut rng, 100);
            let operation = [
                crate::store::files::sim::Operation::Sync,
                crate::store::files::sim::Operation::SyncDir,
                crate::store::files::sim::Operation::Write,
                crate::store::files::sim::Operation::Create,
            ][rng.below(4) as usize];
            disk.fail(operation, rng.below(3), 5);
            let _ = match rng.below(4) {
                0 => parts.upkeep.checkpoint().map_err(drop),
                1 => parts.upkeep.write_snapshot().map_err(drop),
                2 => parts.upkeep.give_space_back(true).map_err(drop),
                _ => Ok(()),
            };
            let _ = parts.commit();
            run.see_durable(&parts);
            disk = disk.cut_power(&mut rng);
            if rng.chance(30) {
                // Fails while it is being opened, and power goes again.
                disk.fail(operation, rng.below(3), 5);
                drop(open_sim(&disk, &options));
                disk = disk.cut_power(&mut rng);
            }
        }
    }
}

#[test]
fn the_snapshot_and_the_log_stand_in_for_a_lost_checkpoint() {
    for seed in 30_000..30_000 + rounds(10) {
        let mut rng = Rng::new(seed);
        let disk = SimFiles::new();
        let options = small("/store");
        let mut run = Run::new(seed, 3_000);
        let mut parts = open_sim(&disk, &options).expect("it opens");
        run.live(&mut parts, &mut rng, 300);
        parts.upkeep.checkpoint().expect("nothing fails");
        parts.upkeep.write_snapshot().expect("nothing fails");
        run.live(&mut parts, &mut rng, 300);
        parts.upkeep.checkpoint().expect("nothing fails");
        parts.upkeep.give_space_back(true).expect("nothing fails");
        let disk = disk.cut_power(&mut rng);
        if rng.chance(50) {
            disk.drop_table();
        } else {
            disk.edit_table(|table| {
                let key = table.keys().next().expect("there is one").clone();
                table.insert(key, vec![99]);
            });
        }
        let parts = open_sim(&disk, &options).expect("it opens");
        assert_eq!(parts.recovered.report.basis, Basis::Snapshot, "seed {seed}");
        run.check(&parts, &format!("seed {seed}"));
    }
}
