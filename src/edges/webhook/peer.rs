//! Who is spoken with: the URL of an endpoint, ready for use.

use std::net::IpAddr;

use hyper::Uri;
use hyper::header::HeaderValue;

use crate::webhooks::Target;

/// What a request to an endpoint needs of its URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Whether TLS protects the exchange.
    pub https: bool,
    pub host: Host,
    pub port: u16,
    /// The whole URL.
    pub uri: Uri,
    /// Path and query.
    pub origin_form: Uri,
    /// The value of `host`.
    pub authority: HeaderValue,
}

/// The host of a URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    Name(Box<str>),
    Address(IpAddr),
}

impl Peer {
    /// None for a URL that no request can be sent to, of which a [`Target`] has none.
    pub fn new(target: &Target) -> Option<Peer> {
        let uri: Uri = target.as_str().parse().ok()?;
        let path = match target.path_and_query() {
            path if path.starts_with('/') => path.to_owned(),
            query => format!("/{query}"),
        };
        Some(Peer {
            https: target.is_https(),
            host: match target.address() {
                Some(address) => Host::Address(address),
                None => Host::Name(target.host().into()),
            },
            port: target.port(),
            authority: HeaderValue::from_str(uri.authority()?.as_str()).ok()?,
            origin_form: path.parse().ok()?,
            uri,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(url: &str) -> Peer {
        Peer::new(&Target::parse(url).unwrap()).unwrap()
    }

    #[test]
    fn urls_are_ready_for_use() {
        let name = peer("https://example.com/a?b=c");
        assert!(name.https);
        assert_eq!(name.host, Host::Name("example.com".into()));
        assert_eq!(name.port, 443);
        assert_eq!(name.origin_form, "/a?b=c");
        assert_eq!(name.authority, "example.com");
        let address = peer("http://[::1]:8080");
        assert_eq!(address.host, Host::Address("::1".parse().unwrap()));
        assert_eq!((address.https, address.port), (false, 8080));
        assert_eq!(address.origin_form, "/");
        assert_eq!(address.authority, "[::1]:8080");
        assert_eq!(peer("https://example.com?b=c").origin_form, "/?b=c");
    }
}
