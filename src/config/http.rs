//! `[http]`: the listener for browsers and services.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::access::AccessConfig;
use super::listen::ListenAddress;
use super::problem::Origin;
use super::reader::Reader;
use super::sections::{MEMORY_MAX, may_listen};
use super::units::show_duration;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// The largest body: what it holds has to fit into an MQTT packet, which has 268,435,455 bytes after
/// the fixed header [MQTT-1.5.5-1], along with a topic and properties from the head of the request.
const BODY_MAX: u64 = 255 << 20;

/// `[http]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Empty: there is no HTTP listener.
    pub listen: Vec<ListenAddress>,
    pub connections_max: usize,
    /// `None`: no limit.
    pub connections_per_address_max: Option<NonZeroUsize>,
    pub header_timeout: Duration,
    /// The silence after an answer that ends a connection.
    pub keep_alive: Duration,
    /// How long a client may take nothing of what it is sent.
    pub send_timeout: Duration,
    pub body_max: usize,
    /// Bytes of all bodies together; never less than `body_max`.
    pub bodies_max: usize,
    pub body_timeout: Duration,
    /// Origins of other sites whose pages may use this server, as browsers name them.
    pub cors_origins: Vec<String>,
    /// Host names, besides addresses and `localhost`, under which a server that only this machine can
    /// reach is asked.
    pub hosts: Vec<String>,
    /// How long a browser is logged in; never more than `access.token_expires_max`.
    pub login_expires: Duration,
    pub heartbeat: Duration,
    pub streams_max: usize,
    /// `None`: no limit.
    pub streams_per_address_max: Option<NonZeroUsize>,
    pub resume_window: Duration,
    pub resume_bytes_max: u64,
    pub windows_max: usize,
}

impl HttpConfig {
    pub(super) fn read(r: &mut Reader, access: &AccessConfig) -> Self {
        let expected = "\"host:port\", such as \"127.0.0.1:8080\", or \"\"";
        let mut listen: Vec<ListenAddress> = Vec::new();
        let addresses = r.list("http.listen", expected, |text| match text {
            "" => Some(None),
            _ => text.parse::<ListenAddress>().ok().map(Some),
        });
        for (address, at) in addresses {
            let Some(address) = address else { continue };
            may_listen(r, access, "http.listen", &address, at, &listen);
            listen.push(address);
        }
        let expected = "origins such as \"https://app.example.com\", or \"\"";
        let origins = r.list("http.cors_origins", expected, |text| match text {
            "" => Some(None),
            _ => is_origin(text).then(|| Some(text.to_owned())),
        });
        let expected = "host names such as \"tidings.example.com\", or \"\"";
        let hosts = r.list("http.hosts", expected, |text| match text {
            "" => Some(None),
            _ => is_host(text).then(|| Some(text.to_ascii_lowercase())),
        });
        let mut body_max = r.size("http.body_max", 1..=BODY_MAX);
        let bodies_max = r.size("http.bodies_max", 1..=MEMORY_MAX);
        if body_max > bodies_max {
            match r.origin("http.body_max") {
                // Who lowers the one means the other too.
                Origin::Default => body_max = bodies_max,
                at => {
                    let why = format!(
                        "{body_max} bytes is more than http.bodies_max, which is {bodies_max}"
                    );
                    r.conflict(at, "http.body_max", why);
                }
            }
        }
        let longest = access.token_expires_max;
        let mut login_expires = r.duration("http.login_expires", SECOND..=3650 * 24 * HOUR);
        if login_expires > longest {
            match r.origin("http.login_expires") {
                Origin::Default => login_expires = longest,
                at => {
                    let (login, longest) = (show_duration(login_expires), show_duration(longest));
                    let why = format!(
                        "{login} is more than access.token_expires_max, which is {longest}"
                    );
                    r.conflict(at, "http.login_expires", why);
                }
            }
        }
        HttpConfig {
            hosts: hosts.into_iter().filter_map(|(host, _)| host).collect(),
            listen,
            connections_max: r.integer("http.connections_max", 1..=10_000_000),
            connections_per_address_max: NonZeroUsize::new(
                r.integer("http.connections_per_address_max", 0..=10_000_000),
            ),
            keep_alive: r.duration("http.keep_alive", Duration::from_millis(1)..=HOUR),
            send_timeout: r.duration("http.send_timeout", Duration::from_millis(1)..=HOUR),
            header_timeout: r.duration("http.header_timeout", Duration::from_millis(1)..=HOUR),
            body_max,
            bodies_max,
            body_timeout: r.duration("http.body_timeout", Duration::from_millis(1)..=HOUR),
            cors_origins: origins
                .into_iter()
                .filter_map(|(origin, _)| origin)
                .collect(),
            login_expires,
            heartbeat: r.duration("http.heartbeat", Duration::from_millis(10)..=HOUR),
            streams_max: r.integer("http.streams_max", 1..=10_000_000),
            streams_per_address_max: NonZeroUsize::new(
                r.integer("http.streams_per_address_max", 0..=10_000_000),
            ),
            resume_window: r.duration(
                "http.resume_window",
                Duration::from_secs(1)..=24 * 30 * HOUR,
            ),
            resume_bytes_max: r.size("http.resume_bytes_max", 1024..=1 << 40),
            windows_max: r.integer("http.windows_max", 1..=10_000_000),
        }
    }
}

fn is_host(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

/// `scheme://host` or `scheme://host:port`, as it stands in an Origin header (RFC 6454 §6.1).
fn is_origin(text: &str) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| {
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]".contains(&byte)
        };
        !host.is_empty() && host.bytes().all(allowed)
    })
}
