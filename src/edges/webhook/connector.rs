//! From a peer to a stream of bytes: resolve, judge the addresses, connect to one of those, TLS.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidings_protocol::net::{Class, allowed, classify};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::peer::{Host, Peer};
use super::proxy;
use super::resolve::Resolve;
use super::tls::{self, Certificates};
use crate::config::{Proxy, WebhooksConfig};

/// How long one address has before the next is tried beside it (RFC 8305 §5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried at most.
const ADDRESSES_MAX: usize = 8;

/// Why there is no connection. What is shown to a person says nothing of addresses that a name has:
/// whoever registers a webhook could learn the names of a network from it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the name cannot be resolved: {0}")]
    Resolve(io::Error),
    #[error("the name has no address")]
    NoAddress,
    #[error("the address is {0}, and in no network of webhooks.allow_networks")]
    Forbidden(Class),
    #[error("the address is one of cloud metadata, which is never allowed")]
    Metadata,
    #[error("no connection: {0}")]
    Tcp(io::Error),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("the URL is http, which is not allowed: webhooks.allow_http")]
    Http,
    #[error("the proxy of webhooks.proxy: {0}")]
    Proxy(String),
}

/// A stream of bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for S {}

/// A connection.
pub struct Connected {
    /// After TLS.
    pub stream: Box<dyn ByteStream>,
    /// Whether the server chose HTTP/2.
    pub http2: bool,
}

/// Makes connections to endpoints, under the settings that are in force.
#[derive(Clone)]
pub struct Connector {
    shared: Arc<Shared>,
    config: Arc<WebhooksConfig>,
}

struct Shared {
    resolver: Arc<dyn Resolve>,
    /// That of endpoints without certificates of their own.
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Connector {
    /// A connector under these settings.
    pub fn new(resolver: Arc<dyn Resolve>, config: Arc<WebhooksConfig>) -> Connector {
        let tls = OnceCell::new();
        Connector {
            shared: Arc::new(Shared { resolver, tls }),
            config,
        }
    }

    /// The same under other settings.
    pub fn under(&self, config: Arc<WebhooksConfig>) -> Connector {
        Connector {
            shared: Arc::clone(&self.shared),
            config,
        }
    }

    /// The settings.
    pub fn config(&self) -> &WebhooksConfig {
        &self.config
    }

    /// The proxy that requests to this peer are sent to, with their whole URL.
    pub fn proxy_for(&self, peer: &Peer) -> Option<&Proxy> {
        self.config.proxy.as_ref().filter(|_| !peer.https)
    }

    /// Connects to a peer. `tls` is how TLS is spoken with it, if not as with all others. It takes as
    /// long as the other side likes: the deadline is the caller's.
    ///
    /// # Errors
    /// When it may not, or cannot.
    pub async fn connect(
        &self,
        peer: &Peer,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Connected, ConnectError> {
        if !peer.https && !self.config.allow_http {
            return Err(ConnectError::Http);
        }
        let stream = match &self.config.proxy {
            // The proxy resolves names, and is the one that decides what they may lead to.
            Some(proxy) => {
                if let Host::Address(address) = peer.host {
                    self.judge(address)?;
                }
                proxy::connect(proxy, peer).await?
            }
            None => {
                let addresses = self.addresses(peer).await?;
                connect_any(addresses, peer.port).await?
            }
        };
        if !peer.https {
            return Ok(Connected {
                stream: Box::new(stream),
                http2: false,
            });
        }
        let config = match tls {
            Some(config) => Arc::clone(config),
            None => self.default_tls().await?,
        };
        let name = match &peer.host {
            Host::Name(name) => ServerName::try_from(name.to_string())
                .map_err(|error| ConnectError::Tls(error.to_string()))?,
            Host::Address(address) => ServerName::from(*address),
        };
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|error| ConnectError::Tls(error.to_string()))?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Connected {
            stream: Box::new(stream),
            http2,
        })
    }

    async fn default_tls(&self) -> Result<Arc<ClientConfig>, ConnectError> {
        let failed = |error: &dyn std::fmt::Display| ConnectError::Tls(error.to_string());
        let config = self.shared.tls.get_or_try_init(|| async {
            spawn_blocking(|| tls::client_config(Certificates::default()))
                .await
                .map_err(|error| failed(&error))?
                .map_err(|error| failed(&error))
        });
        config.await.cloned()
    }

    /// The addresses of a peer that may be reached, as they are at this moment: a name whose
    /// address changed after it was registered (DNS rebinding) is judged again.
    async fn addresses(&self, peer: &Peer) -> Result<Vec<IpAddr>, ConnectError> {
        let name = match &peer.host {
            Host::Address(address) => {
                self.judge(*address)?;
                return Ok(vec![*address]);
            }
            Host::Name(name) => name,
        };
        let found = self.shared.resolver.resolve(name).await;
        let mut addresses = found.map_err(ConnectError::Resolve)?;
        let mut refused = ConnectError::NoAddress;
        addresses.retain(|address| match self.judge(*address) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%name, %address, %error, "a webhook must not connect there");
                refused = error;
                false
            }
        });
        addresses.truncate(ADDRESSES_MAX);
        match addresses.is_empty() {
            true => Err(refused),
            false => Ok(addresses),
        }
    }

    fn judge(&self, address: IpAddr) -> Result<(), ConnectError> {
        if allowed(address, &self.config.allow_networks) {
            return Ok(());
        }
        Err(match classify(address) {
            Class::Metadata => ConnectError::Metadata,
            class => ConnectError::Forbidden(class),
        })
    }
}

/// Connects to the first of the addresses that answers. Each next one is tried when the one before
/// it failed, or has not answered for a while.
async fn connect_any(addresses: Vec<IpAddr>, port: u16) -> Result<TcpStream, ConnectError> {
    first_of(addresses, |address| {
        TcpStream::connect(SocketAddr::new(address, port))
    })
    .await
    .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
    .map_err(ConnectError::Tcp)
}

async fn first_of<T, F>(addresses: Vec<IpAddr>, connect: impl Fn(IpAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut trying = FuturesUnordered::new();
    for address in addresses {
        trying.push(connect(address));
        match tokio::time::timeout(NEXT_ADDRESS_AFTER, trying.next()).await {
            Ok(Some(Ok(connected))) => return Ok(connected),
            Ok(Some(Err(error))) => last = error,
            Ok(None) | Err(_) => {}
        }
    }
    while let Some(tried) = trying.next().await {
        match tried {
            Ok(connected) => return Ok(connected),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::net::TcpListener;

    use super::super::resolve::Resolving;
    use super::*;
    use crate::config::Config;
    use crate::webhooks::Target;

    /// Answers one thing after the other, the last for ever.
    struct Scripted(Mutex<Vec<Vec<IpAddr>>>);

    impl Scripted {
        fn new(answers: &[&[&str]]) -> Arc<Scripted> {
            let answers = answers.iter().rev();
            let parsed = answers.map(|them| them.iter().map(|it| it.parse().unwrap()).collect());
            Arc::new(Scripted(Mutex::new(parsed.collect())))
        }
    }

    impl Resolve for Scripted {
        fn resolve<'a>(&'a self, _name: &'a str) -> Resolving<'a> {
            let mut answers = self.0.lock();
            let answer = match answers.len() {
                1 => answers[0].clone(),
                _ => answers.pop().unwrap(),
            };
            Box::pin(async move { Ok(answer) })
        }
    }

    fn connector(answers: &[&[&str]], networks: &[&str]) -> Connector {
        let config = WebhooksConfig {
            allow_networks: networks.iter().map(|it| it.parse().unwrap()).collect(),
            allow_http: true,
            ..Config::default().webhooks
        };
        Connector::new(Scripted::new(answers), Arc::new(config))
    }

    fn peer(url: &str) -> Peer {
        Peer::new(&Target::parse(url).unwrap()).unwrap()
    }

    async fn refusal(connector: &Connector, url: &str) -> String {
        match connector.connect(&peer(url), None).await {
            Ok(_) => panic!("{url} was connected to"),
            Err(error) => error.to_string(),
        }
    }

    /// Addresses that must not be reached, however they are written.
    #[tokio::test]
    async fn literal_addresses_are_judged() {
        let connector = connector(&[&[]], &["169.254.0.0/16"]);
        for (url, says) in [
            ("http://127.0.0.1:1/", "loopback"),
            ("http://[::1]:1/", "loopback"),
            ("http://[::ffff:127.0.0.1]:1/", "loopback"),
            ("http://[::ffff:7f00:1]:1/", "loopback"),
            ("http://10.0.0.1:1/", "private"),
            ("http://[64:ff9b::7f00:1]:1/", "NAT64"),
            ("http://169.254.169.254/", "never allowed"),
            ("http://[::ffff:169.254.169.254]/", "never allowed"),
        ] {
            let said = refusal(&connector, url).await;
            assert!(said.contains(says), "{url}: {said}");
        }
    }

    /// A name that is public when it is registered and private when it is used leads nowhere.
    #[tokio::test]
    async fn a_name_is_judged_at_each_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("http://rebound.example:{port}/");
        let connector = connector(&[&["127.0.0.1"], &["127.0.0.2"], &[]], &["127.0.0.1/32"]);
        assert!(connector.connect(&peer(&url), None).await.is_ok());
        let said = refusal(&connector, &url).await;
        assert!(said.contains("loopback"), "{said}");
        assert!(!said.contains("127"), "{said}");
        assert_eq!(refusal(&connector, &url).await, "the name has no address");
    }

    /// The settings may have changed since it was registered.
    #[tokio::test]
    async fn http_needs_to_be_allowed() {
        let connector = connector(&[&[]], &["127.0.0.0/8"]);
        let connector = connector.under(Arc::new(Config::default().webhooks));
        let said = refusal(&connector, "http://127.0.0.1:1/").await;
        assert!(said.contains("allow_http"), "{said}");
    }

    /// Only those addresses of a name are tried that are allowed.
    #[tokio::test]
    async fn forbidden_addresses_are_left_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connector = connector(
            &[&["10.1.2.3", "169.254.169.254", "127.0.0.1"]],
            &["127.0.0.1"],
        );
        let url = format!("http://mixed.example:{port}/");
        assert!(connector.connect(&peer(&url), None).await.is_ok());
    }

    /// An address that does not answer delays the next, and does not keep it away.
    #[tokio::test(start_paused = true)]
    async fn addresses_are_tried_side_by_side() {
        let addresses: Vec<IpAddr> = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
            .map(|it| it.parse().unwrap())
            .to_vec();
        let last = addresses[2];
        let refused = addresses[1];
        let connected = first_of(addresses, |address| async move {
            if address == last {
                return Ok(address);
            }
            if address == refused {
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
            }
            std::future::pending().await
        });
        assert_eq!(connected.await.unwrap(), last);
    }
}
