//! Who is subscribed to what: the table from Topic Filters to subscribers, and the lookup of all
//! subscribers of a Topic Name.
//!
//! Filters without wildcards, by far the most, are found with one hash of the whole topic; the
//! others are in a trie of levels. Both sit behind one read-write lock together with a generation
//! number that changes with every change, so that a publisher may keep what it looked up for as
//! long as the number stands. The table knows sessions only as something to hand out; delivery,
//! access and queues are not its business.

mod matched;
mod set;
mod table;
#[cfg(test)]
mod tests;
mod trie;

pub use matched::{Matched, Own};
pub use set::{Subscriber, Terms};
pub use table::{Subscribed, SubscriptionTable};
