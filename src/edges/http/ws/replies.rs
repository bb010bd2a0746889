//! Replies on their way: in the order of the requests, each once what it promises is true.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use super::outlet::write_text_frame;
use super::protocol::{CloseCode, End, end};
use crate::store::{Store, Ticket, Waiting};

/// Replies that may wait for the disk.
const REPLIES_MAX: usize = 10_000;

/// What is to be said to the client's requests.
#[derive(Default)]
pub(super) struct Replies {
    /// Each with what has to be durable first.
    queue: VecDeque<(Ticket, String)>,
    sent: u64,
    /// The store wakes the connection at this one.
    registered: Ticket,
}

impl Replies {
    pub(super) fn push(&mut self, ticket: Ticket, reply: String) {
        self.queue.push_back((ticket, reply));
    }

    /// Whether so many wait that no request is read before some of them are sent.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= REPLIES_MAX
    }

    /// How many were sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// How many there were, those that wait included.
    pub(super) fn count(&self) -> u64 {
        self.sent + self.queue.len() as u64
    }

    /// Adds frames of those that are due to `out`, and has the task woken for the next one.
    ///
    /// # Errors
    /// The store has failed, so that what the next one promises will never be true.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        store: &dyn Store,
        out: &mut Vec<u8>,
    ) -> Poll<Result<(), End>> {
        let mut sent = Poll::Pending;
        while let Some((ticket, reply)) = self.queue.front() {
            if store.durable() < *ticket {
                // Once is enough: whatever else wakes the task comes by here as well.
                if self.registered < *ticket || store.failed() {
                    match store.register(*ticket, cx.waker()) {
                        Waiting::Durable => continue,
                        Waiting::Failed(_) => {
                            return Poll::Ready(Err(end(CloseCode::Failed, "store-failed")));
                        }
                        Waiting::Registered => self.registered = *ticket,
                    }
                }
                break;
            }
            write_text_frame(reply.as_bytes(), out);
            self.sent += 1;
            self.queue.pop_front();
            sent = Poll::Ready(Ok(()));
        }
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
        sent
    }
}
