//! Events out of a feed for a stream of any kind: what is in memory at once, what is on the disk by
//! way of a thread that may wait for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::broker::feed::{Event, Gap, Next, Reader};

/// Steps before the task lets others have a turn.
const STEPS_MAX: usize = 8;

/// What a stream gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulled {
    /// Events, or only a cursor that moved on.
    Events,
    /// It was too slow; the events that are left follow.
    Gap(Gap),
    /// The store has failed: nothing will come any more.
    Failed,
}

/// A reader, and the page that is being read for it.
pub(super) struct Pull {
    broker: Arc<Broker>,
    /// None while a page is being read.
    reader: Option<Box<Reader>>,
    loading: Option<JoinHandle<Loaded>>,
}

type Loaded = (Box<Reader>, Vec<Arc<Event>>);

impl Pull {
    /// Pulls for this reader.
    pub(super) fn new(broker: Arc<Broker>, reader: Reader) -> Pull {
        Pull {
            broker,
            reader: Some(Box::new(reader)),
            loading: None,
        }
    }

    /// The reader, unless a page is being read for it.
    pub(super) fn reader(&mut self) -> Option<&mut Reader> {
        self.reader.as_deref_mut()
    }

    /// Whether a page is being read.
    pub(super) fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    /// Adds events to `events`, about this many bytes of them at most; pending while there are none.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        bytes_max: usize,
        events: &mut Vec<Arc<Event>>,
    ) -> Poll<Pulled> {
        for _ in 0..STEPS_MAX {
            if let Some(loading) = &mut self.loading {
                let loaded = ready!(Pin::new(loading).poll(cx));
                self.loading = None;
                let Ok((reader, mut page)) = loaded else {
                    // The thread panicked, and the reader is gone with it.
                    return Poll::Ready(Pulled::Failed);
                };
                self.reader = Some(reader);
                events.append(&mut page);
                return Poll::Ready(Pulled::Events);
            }
            let Some(reader) = &mut self.reader else {
                return Poll::Ready(Pulled::Failed);
            };
            match self
                .broker
                .read_events(reader, cx.waker(), bytes_max, events)
            {
                // What was left out moved the cursor all the same.
                Next::Events => return Poll::Ready(Pulled::Events),
                Next::Gap(gap) => return Poll::Ready(Pulled::Gap(gap)),
                Next::Failed => return Poll::Ready(Pulled::Failed),
                Next::Waiting => return Poll::Pending,
                Next::Page => {
                    let broker = Arc::clone(&self.broker);
                    let reader = self.reader.take();
                    self.loading = reader.map(|mut reader| {
                        tokio::task::spawn_blocking(move || {
                            let mut page = Vec::new();
                            broker.load_events(&mut reader, &mut page);
                            (reader, page)
                        })
                    });
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
