//! Events out of a feed for a stream of any kind: what is in memory at once, what is on the disk by
//! way of a thread that may wait for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::task::JoinHandle;

use crate::access::{Access, Principal};
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
    /// The right to read this was taken away.
    Unauthorized,
    /// The store has failed: nothing will come any more.
    Failed,
}

/// Which rights a client has been served with; at first that is not known.
#[derive(Default)]
pub(super) struct Rights(Option<u64>);

impl Rights {
    /// Whether they are the latest.
    pub(super) fn are_current(&self, broker: &Broker) -> bool {
        self.0 == Some(broker.rights_generation())
    }

    /// Gives a client and what it reads the latest rights; false if it may not go on.
    pub(super) fn renew<'p>(
        &mut self,
        broker: &Broker,
        access: &Access,
        principal: &mut Principal,
        mut pulls: impl Iterator<Item = &'p mut Pull>,
    ) -> bool {
        let generation = Some(broker.rights_generation());
        if self.0 == generation {
            return true;
        }
        let Ok(renewed) = access.renew(principal) else {
            return false;
        };
        self.0 = generation;
        *principal = renewed;
        pulls.all(|pull| pull.read_as(principal))
    }
}

/// A reader, and the page that is being read for it.
pub(super) struct Pull {
    broker: Arc<Broker>,
    /// None while a page is being read.
    reader: Option<Box<Reader>>,
    loading: Option<JoinHandle<Loaded>>,
    /// Whose rights decide, if they changed while the page is being read.
    changed: Option<Principal>,
}

type Loaded = (Box<Reader>, Vec<Arc<Event>>);

impl Pull {
    /// Pulls for this reader.
    pub(super) fn new(broker: Arc<Broker>, reader: Reader) -> Pull {
        Pull {
            broker,
            reader: Some(Box::new(reader)),
            loading: None,
            changed: None,
        }
    }

    /// The reader, unless a page is being read for it.
    pub(super) fn reader(&mut self) -> Option<&mut Reader> {
        self.reader.as_deref_mut()
    }

    /// Whose rights decide from now on. False if it may not read at all any more; while a page is
    /// being read, that comes out with the page.
    pub(super) fn read_as(&mut self, principal: &Principal) -> bool {
        match &mut self.reader {
            Some(reader) => reader.read_as(principal),
            None => {
                self.changed = Some(principal.clone());
                true
            }
        }
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
                let Ok((mut reader, mut page)) = loaded else {
                    // The thread panicked, and the reader is gone with it.
                    return Poll::Ready(Pulled::Failed);
                };
                if let Some(principal) = self.changed.take() {
                    if !reader.read_as(&principal) {
                        return Poll::Ready(Pulled::Unauthorized);
                    }
                    page.retain(|event| reader.wants(event.message.topic()));
                }
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::broker::feed::{Start, WindowConfig};
    use crate::broker::tests::kit::{principal, publication};
    use crate::config::{Config, Sources, StreamConfig};
    use crate::store::{Recovered, SlowStore, Store};
    use tidings_protocol::mqtt::QoS;

    /// Rights by these rules.
    fn access(rules: &str) -> Access {
        let sources = Sources::new().file("rules", rules.to_owned());
        let config = Config::load(&sources).expect("in order");
        Access::new(&config).expect("in order")
    }

    fn restored(store: Arc<dyn Store>, recovered: Recovered) -> Arc<Broker> {
        let Config { mqtt, limits, .. } = Config::default();
        let (broker, _) = Broker::restore(mqtt, limits, store, recovered, &access(""));
        Arc::new(broker)
    }

    /// A pull of which a page is being read: `a` and `b` as they were before a restart.
    fn loading() -> (Arc<Broker>, Pull) {
        let streams = [StreamConfig {
            name: "all".to_owned(),
            filters: vec!["#".to_owned()],
            qos0: true,
            max_age: Duration::from_secs(3600),
            max_bytes: 1 << 30,
            max_messages: 1000,
        }];
        let windows = || WindowConfig {
            age: Duration::from_secs(300),
            bytes_max: 1 << 20,
            count_max: 3,
        };
        let store = Arc::new(SlowStore::new());
        let broker = restored(store.clone(), Recovered::default());
        broker.start_feeds(&streams, windows());
        for topic in ["a", "b"] {
            let publication = publication(QoS::AtLeastOnce, b"x");
            let published = broker
                .batch()
                .publish_one(&principal("publisher"), topic, publication);
            published.expect("accepted");
        }
        let (store, recovered) = store.crashed(store.appends().0);
        let broker = restored(Arc::new(store), recovered);
        broker.start_feeds(&streams, windows());
        let opened = broker.open_reader(&principal("reader"), &["#"], Start::Earliest);
        let mut pull = Pull::new(Arc::clone(&broker), opened.expect("a reader").reader);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let polled = pull.poll(&mut cx, 1000, &mut Vec::new());
        assert!(polled.is_pending() && pull.is_loading());
        (broker, pull)
    }

    /// Runs a test whose pages are read only once the first of what it is given was dropped.
    fn run<F: Future<Output = ()>>(test: impl FnOnce(Sender<()>, Arc<Broker>, Pull) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let (held, until) = channel::<()>();
            tokio::task::spawn_blocking(move || until.recv());
            let (broker, pull) = loading();
            test(held, broker, pull).await;
        });
    }

    async fn topics(pull: &mut Pull) -> (Pulled, Vec<String>) {
        let mut events = Vec::new();
        let pulled = poll_fn(|cx| pull.poll(cx, 1000, &mut events)).await;
        let topic = |event: &Arc<Event>| event.message.topic().to_owned();
        (pulled, events.iter().map(topic).collect())
    }

    #[test]
    fn a_page_is_given_by_the_rights_of_the_moment() {
        run(async |held, _broker, mut pull| {
            drop(held);
            let both = vec!["a".to_owned(), "b".to_owned()];
            assert_eq!(topics(&mut pull).await, (Pulled::Events, both));
        });
        run(async |held, _broker, mut pull| {
            let rules = "[[access.rule]]\nuser = '*'\nallow = ['subscribe', 'receive']\ntopics = ['#']\n\
                [[access.rule]]\nuser = '*'\ndeny = ['receive']\ntopics = ['a']\n";
            let changed = access(rules).anonymous("reader").expect("let in");
            assert!(pull.read_as(&changed), "it comes out with the page");
            drop(held);
            let one = vec!["b".to_owned()];
            assert_eq!(topics(&mut pull).await, (Pulled::Events, one));
        });
    }

    #[test]
    fn a_page_is_withheld_from_who_may_not_subscribe_any_more() {
        run(async |held, _broker, mut pull| {
            let rules =
                "[[access.rule]]\nuser = '*'\nallow = ['subscribe', 'receive']\ntopics = ['a']\n";
            let changed = access(rules).anonymous("reader").expect("let in");
            assert!(pull.read_as(&changed), "it comes out with the page");
            drop(held);
            assert_eq!(topics(&mut pull).await, (Pulled::Unauthorized, Vec::new()));
        });
    }
}
