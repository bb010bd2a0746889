//! Power cuts: of what was not flushed, nobody knows what is left.

use crate::life::{Ending, Plan, lives};

fn plan(seed: u64) -> Plan {
    Plan {
        ending: Ending::PowerCut,
        seed,
        rounds: 25,
        size_max: 40_000,
    }
}

#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    lives(plan(11_000));
}

#[test]
fn a_power_cut_loses_nothing_of_what_is_large() {
    lives(Plan {
        size_max: 200_000,
        ..plan(12_000)
    });
}

/// On a disk that says that it has flushed and has not, everything is lost sooner or later.
#[test]
fn the_checks_notice_a_disk_that_lies() {
    let found = crate::life::live(Plan {
        ending: Ending::PowerCutAndLies,
        ..plan(13_000)
    });
    let (found, _) = found.expect_err("something is lost");
    assert!(found.starts_with("round "), "{found}");
}
