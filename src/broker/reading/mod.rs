//! Subscriptions that read a stream: `$replay/<since>/<filter>`.
//!
//! Such a subscription is not in the subscription table, and nothing is delivered to it. Its session
//! reads the stream that has all that the filter matches, and takes in a page at a time when its
//! queue has room: first what was before, then what comes, each message once it is durable, in the
//! order of the log. There is no point at which one is handed over to the other, so nothing can be
//! lost or doubled there. While the client is away nothing is read; what the stream has given up by
//! the time it is back is a gap, which it is told of with the next message.
//!
//! The place that a session that is kept has reached is kept in the same append as the queue entries
//! that its reading made, and nothing is sent before the store has that append: after a crash it goes
//! on with the next message, and what was sent before is sent again from the queue, as any message
//! is that its receiver has not acknowledged.
//!
//! This folder owns where such a subscription is, and how it goes on. What a stream has and when a
//! message is visible in it is `feed`'s business, sending what is queued is `deliver`'s.

mod gap;
mod keep;
mod place;
mod pull;
mod subscribe;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(super) use place::Places;

use super::feed::{Gap, Reader, Start};

/// One such subscription.
pub struct Reading {
    /// The Topic Filter as the client wrote it. Made anew for each reading, so that its address
    /// tells one from another.
    written: Arc<str>,
    /// None before it began after a restart, or while a page is read for it.
    reader: Option<Box<Reader>>,
    /// What it goes on with after a restart. Not beyond a gap that the client was not told of.
    place: Start,
    /// The last offset that the store knows to be behind it.
    kept_to: u64,
    /// What the client is to be told with the next message.
    gap: Option<Gap>,
    /// What is next is on the disk, or the disk has to say where it begins.
    wants_page: bool,
    /// No stream has what it reads: the configuration has changed.
    is_stranded: bool,
}

impl Reading {
    fn new(written: &str, place: Start) -> Reading {
        Reading {
            written: written.into(),
            reader: None,
            place,
            kept_to: 0,
            gap: None,
            wants_page: false,
            is_stranded: false,
        }
    }

    /// The Topic Filter as the client wrote it.
    pub(super) fn written(&self) -> &str {
        &self.written
    }

    /// What is next has to be read from the disk.
    pub(super) fn wants_page(&self) -> bool {
        self.wants_page
    }

    /// The client is away.
    pub(super) fn rest(&self) {
        if let Some(reader) = &self.reader {
            reader.forget_waker();
        }
    }
}
