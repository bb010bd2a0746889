//! All endpoints: a task for each, as long as it is there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinHandle, JoinSet};

use super::client::Dial;
use super::connector::Connector;
use super::now::Now;
use super::places::Places;
use super::resolve::Resolve;
use super::worker::{Common, drive};
use crate::webhooks::Webhooks;

/// How long an endpoint rests whose task panicked.
const REST: Duration = Duration::from_secs(10);

/// What delivers to all endpoints. Dropping it stops that at once.
pub struct Driver {
    stopping: watch::Sender<Option<Duration>>,
    supervisor: JoinHandle<()>,
}

impl Driver {
    /// Begins to deliver. Needs a tokio runtime.
    pub fn start(webhooks: Arc<Webhooks>, resolver: Arc<dyn Resolve>) -> Driver {
        let connector = Connector::new(resolver, webhooks.config());
        Driver::start_with(webhooks, connector)
    }

    /// The same over other connections.
    pub(super) fn start_with<D: Dial>(webhooks: Arc<Webhooks>, dial: D) -> Driver {
        let broker = Arc::clone(webhooks.broker());
        let common = Arc::new(Common {
            places: Places::new(webhooks.config().concurrency),
            now: Now::at(broker.clock.advance()),
            random: RandomState::default(),
            broker,
            webhooks,
            dial,
        });
        let stopping = watch::Sender::new(None);
        let supervisor = tokio::spawn(supervise(common, stopping.subscribe()));
        Driver {
            stopping,
            supervisor,
        }
    }

    /// Starts no more attempts, and waits for those under way, at most as long as `grace`. What has
    /// no answer by then is attempted again after the next start.
    pub async fn stop(mut self, grace: Duration) {
        self.stopping.send_replace(Some(grace));
        // It was aborted, or panicked and has said so.
        let _ = (&mut self.supervisor).await;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

/// Starts a task for each endpoint that has none.
async fn supervise<D: Dial>(
    common: Arc<Common<D>>,
    mut stopping: watch::Receiver<Option<Duration>>,
) {
    let mut list = common.webhooks.watch();
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut running: HashMap<Box<str>, AbortHandle> = HashMap::new();
    while stopping.borrow().is_none() {
        list.borrow_and_update();
        for endpoint in common.webhooks.list_all() {
            // One that was removed and came back under the same name waits for the end of the old.
            if !running.contains_key(&endpoint.id) {
                let id = endpoint.id.clone();
                let task = drive(Arc::clone(&common), endpoint, stopping.clone());
                running.insert(id, tasks.spawn(task));
            }
        }
        tokio::select! {
            changed = list.changed() => if changed.is_err() { break },
            _ = stopping.changed() => {}
            Some(ended) = tasks.join_next_with_id() => {
                let panicked = count(&common, &ended);
                let task = id_of(&ended);
                let found = running.iter().find(|(_, handle)| handle.id() == task);
                if let Some(id) = found.map(|(id, _)| id.clone()) {
                    running.remove(&id);
                    if panicked {
                        running.insert(id, tasks.spawn(tokio::time::sleep(REST)));
                    }
                }
            }
        }
    }
    while let Some(ended) = tasks.join_next_with_id().await {
        count(&common, &ended);
    }
}

fn id_of(ended: &Result<(Id, ()), JoinError>) -> Id {
    match ended {
        Ok((id, ())) => *id,
        Err(error) => error.id(),
    }
}

/// Counts a task that ended by a panic, and says so.
fn count<D>(common: &Common<D>, ended: &Result<(Id, ()), JoinError>) -> bool {
    let panicked = ended.as_ref().err().filter(|error| error.is_panic());
    if let Some(error) = panicked {
        common.broker.stats.webhooks.panicked.add(1);
        tracing::error!(%error, "a webhook's task panicked: this is a defect, please report it");
    }
    panicked.is_some()
}
