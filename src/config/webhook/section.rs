//! `[webhooks]`.

use std::time::Duration;

use tidings_protocol::net::Network;

use super::hidden::Hidden;
use super::target::Target;
use crate::config::reader::Reader;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// `[webhooks]`: what all endpoints have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhooksConfig {
    /// Networks beside the public Internet that endpoints may be in.
    pub allow_networks: Vec<Network>,
    /// Whether an endpoint may be reached without TLS.
    pub allow_http: bool,
    pub max_endpoints: usize,
    /// Requests at a time over all endpoints.
    pub concurrency: usize,
    /// Bytes of a response that are read.
    pub response_bytes_max: usize,
    /// Messages of one endpoint that wait for a retry.
    pub retrying_max: usize,
    pub dead_letters_max: usize,
    pub attempts_kept: usize,
    pub attempts_max_age: Duration,
    /// How long an endpoint may fail without a single success; none: for ever.
    pub disable_after: Option<Duration>,
    /// The HTTP proxy through which endpoints are reached.
    pub proxy: Option<Proxy>,
    /// How long a secret that was replaced still signs.
    pub rotation_grace: Duration,
}

/// An HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// A host name, an IPv4 address, or an IPv6 address in brackets.
    pub host: String,
    pub port: u16,
    /// `user:password`, as in the URL.
    pub credentials: Option<Hidden>,
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port]`.
    fn parse(text: &str) -> Option<Proxy> {
        let rest = text.strip_prefix("http://")?;
        let (credentials, host) = match rest.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, rest),
        };
        if credentials.is_some_and(|it| !it.contains(':')) {
            return None;
        }
        let target = Target::parse(&format!("http://{host}")).ok()?;
        matches!(target.path_and_query(), "" | "/").then(|| Proxy {
            host: target.host().to_owned(),
            port: target.port(),
            credentials: credentials.map(Hidden::new),
        })
    }
}

impl WebhooksConfig {
    pub(in crate::config) fn read(r: &mut Reader) -> WebhooksConfig {
        let expected = "networks such as \"10.0.0.0/8\" or \"fd00::/8\", or \"\"";
        let networks = r.list("webhooks.allow_networks", expected, |text| match text {
            "" => Some(None),
            _ => text.parse().ok().map(Some),
        });
        let expected = "a URL such as \"http://proxy.example.com:3128\", or \"\"";
        WebhooksConfig {
            allow_networks: networks.into_iter().filter_map(|(it, _)| it).collect(),
            allow_http: r.flag("webhooks.allow_http"),
            max_endpoints: r.integer("webhooks.max_endpoints", 0..=1_000_000),
            concurrency: r.integer("webhooks.concurrency", 1..=1_000_000),
            response_bytes_max: r.size("webhooks.response_bytes_max", 0..=1 << 20),
            retrying_max: r.integer("webhooks.retrying_max", 1..=1_000_000),
            dead_letters_max: r.integer("webhooks.dead_letters_max", 1..=1_000_000),
            attempts_kept: r.integer("webhooks.attempts_kept", 0..=100_000),
            attempts_max_age: r.duration("webhooks.attempts_max_age", HOUR / 60..=365 * DAY),
            disable_after: r.duration_or_off("webhooks.disable_after", HOUR / 60..=365 * DAY),
            proxy: r.string("webhooks.proxy", expected, |text| match text {
                "" => Some(None),
                _ => Proxy::parse(text).map(Some),
            }),
            rotation_grace: r.duration("webhooks.rotation_grace", Duration::ZERO..=30 * DAY),
        }
    }
}
