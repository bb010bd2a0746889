//! SIGKILL at random moments.

use crate::life::{Ending, Plan, lives};

fn plan(seed: u64) -> Plan {
    Plan {
        ending: Ending::Kill,
        seed,
        rounds: 40,
        size_max: 40_000,
    }
}

/// The first of three chains that can run side by side.
#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    lives(plan(1_000));
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged_either() {
    lives(plan(2_000));
}

#[test]
fn a_kill_loses_nothing_of_what_is_large() {
    lives(Plan {
        size_max: 200_000,
        ..plan(3_000)
    });
}

/// The clients lose their connections and the broker goes on: whatever the checks say now would be
/// wrong.
#[test]
fn the_checks_are_right_about_a_broker_that_forgets_nothing() {
    lives(Plan {
        ending: Ending::Cut,
        rounds: 25,
        ..plan(4_000)
    });
}

/// A broker that forgets everything must not get away with it.
#[test]
fn the_checks_notice_a_broker_that_forgets() {
    let plan = Plan {
        ending: Ending::Empty,
        rounds: 5,
        ..plan(5_000)
    };
    let (found, _) = crate::life::live(plan).expect_err("everything is lost");
    assert!(
        found.contains("session present") || found.contains("retained on"),
        "{found}"
    );
}
