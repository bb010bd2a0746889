//! The promise of the broker is that what it has acknowledged, it keeps. Here the real binary is
//! held to it: it is killed at random moments, loses what it had not flushed, and meets disks that
//! fail; then it is started again on what is left, and the clients know what must be there.
//!
//! - `kills`: SIGKILL in the middle of anything, the start included.
//! - `power`: the same, and whatever was written but not flushed is lost in part or in whole.
//! - `faults`: nothing is acknowledged before it is flushed, nor ever after a flush has failed.
//!
//! Start reading at `life.rs`, which plays the rounds, and `model`, which knows the promises.
//!
//! A failure names its seed. `TIDINGS_CRASH_SEED=N` lives the life with that seed instead of the
//! usual ones, `TIDINGS_CRASH_ROUNDS=N` makes each test go on for N rounds:
//!
//! ```sh
//! TIDINGS_CRASH_SEED=17 cargo test --test crash kills
//! TIDINGS_CRASH_ROUNDS=5000 cargo test --test crash
//! ```
//!
//! A seed repeats who does what, how large messages are and how long a round takes; threads and
//! sockets add luck of their own, so a failure may need a few attempts. The directory that the
//! failing broker left is kept, and named in the failure.

// Shared with `tests/it`, which uses more of it.
#[allow(dead_code, unused_imports, unused_macros)]
#[path = "../it/harness/mod.rs"]
mod harness;

mod broker;
mod clients;
mod disk;
mod faults;
mod kills;
mod life;
mod link;
mod model;
mod power;

use harness::random;
