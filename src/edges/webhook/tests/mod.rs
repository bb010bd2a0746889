//! The driver over endpoints without sockets: schedules, order, isolation, crashes. Time is stopped,
//! and moves on only when everybody waits for it.

mod crashes;
mod isolation;
mod kit;
mod order;
mod schedule;

use kit::{Call, Reply, World, endpoint};

fn texts(calls: &[Call]) -> Vec<String> {
    calls.iter().flat_map(Call::data).collect()
}
