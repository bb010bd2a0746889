//! What the clients know, and what follows from it: the promises, as checks.
//!
//! The clients of a life share one [`World`]. It has a clock of its own that counts events, so that
//! "before" and "after" are exact: a SUBACK that was received at 17 comes before a PUBLISH that was
//! sent at 18, and the message has to arrive. Where the order is not known, because a request was
//! sent and the broker was killed before it answered, both outcomes are right.

mod session;
mod world;

pub use session::{Session, TICK};
pub use world::{Message, Moment, Will, World};

/// The Subscription Identifier with which a filter is subscribed to.
pub fn identifier_of(filter: &str) -> u32 {
    let bytes = filter.bytes();
    1 + bytes.fold(0, |sum, byte| (sum * 31 + u32::from(byte)) % 100_003)
}

/// Whether `filter` matches `topic`. Neither begins with `$`.
pub fn matches(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for part in filter.split('/') {
        match (part, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (part, Some(level)) if part == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}
