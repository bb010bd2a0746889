//! Wiring: from a configuration to a broker that listens, and back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::access::Access;
use crate::broker::feed::WindowConfig;
use crate::broker::{Broker, Restored};
use crate::config::{Config, ListenAddress, Problems};
use crate::edges::http;
use crate::edges::listen::Listener;
use crate::edges::mqtt::{self, Admission, Edge};
use crate::edges::webhook::{Driver, Resolve, SystemResolver};
use crate::ops::control::{Control, Issue};
use crate::signing_key;
use crate::store::{self, Basis, Recovered, RecoveredDocument, Report, Store, StoreError};
use crate::webhooks::Webhooks;

/// How often deadlines are looked at: what a Keep Alive or a delay may come too late.
const TICK: Duration = Duration::from_millis(100);

/// How often feeds are looked at for what is too old, in milliseconds.
const TRIM_EVERY: u64 = 1000;

/// A running broker. Dropping it stops it at once; [`Server::shutdown`] tells the clients first.
pub struct Server {
    config: Config,
    addresses: Addresses,
    /// Before what holds the store, and with it the lock on the directory that the socket is in.
    control: Option<Control>,
    edge: Arc<Edge>,
    webhooks: Arc<Webhooks>,
    /// There until the server stops.
    driver: Option<Driver>,
    listeners: JoinSet<()>,
    http: Arc<http::Edge>,
    /// They end by themselves when the edge stops, once their connections have.
    http_listeners: JoinSet<()>,
    ticking: JoinHandle<()>,
}

/// The addresses that were really bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// MQTT over TCP, in the order of `mqtt.listen`.
    pub mqtt: Vec<SocketAddr>,
    /// HTTP, in the order of `http.listen`.
    pub http: Vec<SocketAddr>,
}

/// Why a broker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something that the configuration names is not in order.
    #[error("{0}")]
    Config(Problems),
    /// The store could not be opened.
    #[error("{0}")]
    Store(StoreError),
    /// An address could not be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// As it was written.
        address: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl Server {
    /// Starts a broker; it serves clients once this returns. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the configuration names something unusable, or an address cannot be bound. Nothing is
    /// left running then.
    pub async fn start(config: Config) -> Result<Server, StartError> {
        Server::start_with(config, Arc::new(SystemResolver::default())).await
    }

    /// The same, with another resolver for the names in the URLs of webhooks.
    ///
    /// # Errors
    /// As for [`Server::start`].
    pub async fn start_with(
        config: Config,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Server, StartError> {
        let access = Access::new(&config).map_err(StartError::Config)?;
        let (store, mut recovered) = open_store(&config).await?;
        access.sign_with(signing_key::kept_or_new(&*store, &recovered).await);
        let documents: Arc<[RecoveredDocument]> = std::mem::take(&mut recovered.documents).into();
        let (broker, webhooks) =
            restore(&config, &access, Arc::clone(&store), recovered, &documents).await;
        let control = Control::start(&config.store, &store, issue(&access, &broker));
        let bound = bind(&config.mqtt.listen)?;
        let bound_http = bind(&config.http.listen)?;
        let addresses = Addresses {
            mqtt: bound.iter().map(Listener::address).collect(),
            http: bound_http.iter().map(Listener::address).collect(),
        };
        let edge = Arc::new(Edge {
            broker: Arc::clone(&broker),
            access,
            admission: Admission::default(),
        });
        if config.sys.interval.is_some() {
            broker.publish_sys();
        }
        let mut listeners = JoinSet::new();
        for listener in bound {
            listeners.spawn(mqtt::run(listener, Arc::clone(&edge)));
        }
        let http_edge = http_edge(&config, &edge, &webhooks, &addresses, &documents);
        let mut http_listeners = JoinSet::new();
        for listener in bound_http {
            http_listeners.spawn(http::run(listener, Arc::clone(&http_edge)));
        }
        let driver = Driver::start(Arc::clone(&webhooks), resolver);
        let ticking = tokio::spawn(tick(broker, Arc::clone(&webhooks), config.sys.interval));
        Ok(Server {
            config,
            addresses,
            control,
            edge,
            webhooks,
            driver: Some(driver),
            listeners,
            http: http_edge,
            http_listeners,
            ticking,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Takes over changed users and rules, and changed webhooks. Other settings take effect at the
    /// next start.
    ///
    /// # Errors
    /// When the password file or a rule is not in order; everything stays as it was then.
    pub fn reload(&mut self, config: Config) -> Result<(), Problems> {
        self.edge.access.reload(&config)?;
        self.edge.broker.renew_rights(&self.edge.access);
        self.webhooks.reload(&config);
        self.config = config;
        Ok(())
    }

    /// Stops: no new connections, no new deliveries, every client is told [MQTT-4.13.1-1], and whoever
    /// is not gone by `mqtt.shutdown_deadline` is cut off.
    pub async fn shutdown(mut self) {
        self.control = None;
        let broker = &self.edge.broker;
        broker.stop();
        self.http.stop();
        let gone = async {
            while self.edge.broker.stats.clients_connected.get() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            while self.http_listeners.join_next().await.is_some() {}
        };
        let deadline = self.config.mqtt.shutdown_deadline;
        let driver = self.driver.take();
        let delivered = async {
            if let Some(driver) = driver {
                driver.stop(deadline).await;
            }
        };
        let (gone, ()) = tokio::join!(tokio::time::timeout(deadline, gone), delivered);
        if gone.is_err() {
            let left = self.edge.broker.stats.clients_connected.get();
            tracing::warn!(
                left,
                "clients were cut off: mqtt.shutdown_deadline has passed"
            );
        }
        self.listeners.shutdown().await;
        self.http_listeners.shutdown().await;
        self.ticking.abort();
        self.webhooks.tick();
        let broker = Arc::clone(&self.edge.broker);
        let closed = tokio::task::spawn_blocking(move || broker.store().close()).await;
        match closed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the store was not closed in order"),
            Err(error) => tracing::error!(%error, "closing the store panicked"),
        }
    }
}

/// Issues tokens to those who may have one for anybody. By the broker's clock, which will judge
/// them; it does not keep the broker alive.
fn issue(access: &Access, broker: &Arc<Broker>) -> Issue {
    let (access, broker) = (access.clone(), Arc::downgrade(broker));
    Box::new(move |user, lifetime| match broker.upgrade() {
        Some(broker) => access
            .issue(user, lifetime, broker.clock.now().0)
            .map_err(|error| error.to_string()),
        None => Err("the broker is stopping".to_owned()),
    })
}

/// Binds all of these addresses, or says which of them cannot be bound.
fn bind(wanted: &[ListenAddress]) -> Result<Vec<Listener>, StartError> {
    let bind = |address: &ListenAddress| {
        Listener::bind(address).map_err(|source| StartError::Listen {
            address: address.to_string(),
            source,
        })
    };
    wanted.iter().map(bind).collect()
}

/// The HTTP edge, which hands the streams of its WebSockets to the MQTT edge.
fn http_edge(
    config: &Config,
    mqtt: &Arc<Edge>,
    webhooks: &Arc<Webhooks>,
    addresses: &Addresses,
    documents: &[RecoveredDocument],
) -> Arc<http::Edge> {
    let edge = Arc::clone(mqtt);
    let serve_mqtt: http::ServeMqtt = Box::new(move |stream, peer| {
        let edge = Arc::clone(&edge);
        Box::pin(async move {
            mqtt::serve_stream(edge, stream, peer).await;
        })
    });
    Arc::new(http::Edge::new(
        Arc::clone(&mqtt.broker),
        mqtt.access.clone(),
        Arc::clone(webhooks),
        config.access.tickets_max,
        config.http.clone(),
        addresses.mqtt.first().map(SocketAddr::port),
        documents,
        serve_mqtt,
    ))
}

/// Makes a broker that goes on with what the store kept, and has everything done that became due
/// while it was down. Subscriptions, feeds and webhook endpoints are in place before the first
/// message is published, be it a will that has become due.
async fn restore(
    config: &Config,
    access: &Access,
    store: Arc<dyn Store>,
    recovered: Recovered,
    documents: &Arc<[RecoveredDocument]>,
) -> (Arc<Broker>, Arc<Webhooks>) {
    let (mqtt, limits) = (config.mqtt.clone(), config.limits.clone());
    let (access, config) = (access.clone(), config.clone());
    let documents = Arc::clone(documents);
    let windows = WindowConfig {
        age: config.http.resume_window,
        bytes_max: config.http.resume_bytes_max,
        count_max: config.http.windows_max,
    };
    let restoring = tokio::task::spawn_blocking(move || {
        log_report(&recovered.report);
        let (broker, restored) = Broker::restore(mqtt, limits, store, recovered, &access);
        log_restored(&restored);
        broker.start_feeds(&config.streams, windows);
        let broker = Arc::new(broker);
        let webhooks = Webhooks::start(Arc::clone(&broker), access, &config, &documents);
        broker.tick();
        (broker, webhooks)
    });
    match restoring.await {
        Ok(restored) => restored,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn log_restored(restored: &Restored) {
    if restored.sessions + restored.retained > 0 {
        tracing::info!(
            sessions = restored.sessions,
            subscriptions = restored.subscriptions,
            queued = restored.queued,
            retained = restored.retained,
            "taken over from the store"
        );
    }
    if restored.sessions_denied > 0 {
        let sessions = restored.sessions_denied;
        tracing::warn!(
            sessions,
            "sessions were ended: their users are not let in any more"
        );
    }
}

/// Says how the opening of the store went; damage loudly.
fn log_report(report: &Report) {
    if let Some(error) = &report.checkpoint_error {
        let moved_to = report.checkpoint_moved_to.as_ref();
        tracing::error!(
            error,
            moved_to = moved_to.map(|path| path.display().to_string()),
            rebuilt_from = ?report.basis,
            "the checkpoint of the store is damaged and was moved aside"
        );
    }
    if report.has_loss() {
        tracing::error!(
            damaged_records = report.damaged_records,
            damaged_bytes = report.damaged_bytes,
            missing_segments = report.missing_segments,
            lost_queue_entries = report.lost_entries,
            lost_retained = report.lost_retained,
            "the store is damaged: what could be read is served, the rest is lost; \
             restore a backup if it matters"
        );
    }
    if report.basis != Basis::New {
        tracing::info!(
            records = report.replayed_records,
            torn_bytes = report.torn_bytes,
            millis = report.micros / 1000,
            "the store was opened"
        );
    }
}

/// Opens the store on a thread that may wait for the disk.
async fn open_store(config: &Config) -> Result<(Arc<dyn Store>, Recovered), StartError> {
    let config = config.store.clone();
    let opened = tokio::task::spawn_blocking(move || store::open(&config)).await;
    match opened {
        Ok(opened) => opened.map_err(StartError::Store),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ticking.abort();
    }
}

/// What happens by itself: deadlines, and `$SYS` at intervals.
async fn tick(broker: Arc<Broker>, webhooks: Arc<Webhooks>, sys_interval: Option<Duration>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let sys_interval = sys_interval.map(|interval| interval.as_millis() as u64);
    let mut sys_told = broker.clock.now();
    let mut trimmed_at = broker.clock.now();
    let mut trimming: Option<JoinHandle<()>> = None;
    loop {
        ticks.tick().await;
        broker.tick();
        let now = broker.clock.now();
        let done = trimming.as_ref().is_none_or(JoinHandle::is_finished);
        if done && now.since(trimmed_at) >= TRIM_EVERY {
            trimmed_at = now;
            let broker = Arc::clone(&broker);
            trimming = Some(tokio::task::spawn_blocking(move || broker.trim_feeds()));
            webhooks.tick();
        }
        if let Some(interval) = sys_interval
            && now.since(sys_told) >= interval
        {
            sys_told = now;
            broker.publish_sys();
        }
    }
}
