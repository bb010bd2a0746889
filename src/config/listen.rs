//! Addresses to listen on.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// One `host:port` to listen on. Port 0 lets the system choose a free one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An IPv4 or IPv6 address, the latter written in brackets.
    Socket(SocketAddr),
    /// A host name, looked up at start.
    Name { host: String, port: u16 },
}

impl ListenAddress {
    pub fn port(&self) -> u16 {
        match self {
            ListenAddress::Socket(address) => address.port(),
            ListenAddress::Name { port, .. } => *port,
        }
    }

    /// Whether only this machine can reach it. Of the names only `localhost` counts: what
    /// another one stands for is not known before it is looked up, and may change.
    pub fn is_loopback(&self) -> bool {
        match self {
            ListenAddress::Socket(address) => address.ip().to_canonical().is_loopback(),
            ListenAddress::Name { host, .. } => is_localhost(host),
        }
    }

    /// The addresses that it stands for, IPv4 first, never none. The listener takes the first
    /// that can be bound, so that one entry is one socket. Blocks while a name is looked up.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = match self {
            ListenAddress::Socket(address) => return Ok(vec![*address]),
            ListenAddress::Name { host, port } => (host.as_str(), *port),
        };
        let mut addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
        if is_localhost(host) {
            // `localhost` was admitted as loopback; a hosts file must not make it anything else.
            addresses.retain(|address| address.ip().to_canonical().is_loopback());
        }
        addresses.sort_by_key(SocketAddr::is_ipv6);
        addresses.dedup();
        if addresses.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{host} has no address"),
            ));
        }
        Ok(addresses)
    }
}

fn is_localhost(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
}

impl FromStr for ListenAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(address) = text.parse() {
            return Ok(ListenAddress::Socket(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or(())?;
        let label_ok = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        // What consists of digits and dots is a mistyped address, not a name.
        let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let port_ok = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        if numeric || !port_ok || host.len() > 253 || !host.split('.').all(label_ok) {
            return Err(());
        }
        let port = port.parse().map_err(|_| ())?;
        let host = host.to_owned();
        Ok(ListenAddress::Name { host, port })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Socket(address) => address.fmt(f),
            ListenAddress::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_judged() {
        let check = |text: &str, loopback: Option<bool>| {
            let address = text.parse::<ListenAddress>().ok();
            assert_eq!(
                address.as_ref().map(ListenAddress::is_loopback),
                loopback,
                "{text}"
            );
            if let Some(address) = address {
                assert_eq!(address.to_string(), text);
            }
        };
        check("127.0.0.1:1883", Some(true));
        check("127.8.8.8:0", Some(true));
        check("[::1]:1883", Some(true));
        check("[::ffff:127.0.0.1]:1883", Some(true));
        check("localhost:1883", Some(true));
        check("LocalHost:1883", Some(true));
        check("0.0.0.0:1883", Some(false));
        check("[::]:1883", Some(false));
        check("192.168.1.4:1883", Some(false));
        check("broker.example.org:1883", Some(false));
        check("localhost.example.org:1883", Some(false));
        for bad in [
            "",
            "1883",
            ":1883",
            "127.0.0.1",
            "*:1883",
            "::1:1883",
            "[::1]",
            "127.0.0.1:65536",
            "127.0.0:1883",
            "localhost:",
            "localhost:+1",
            "a..b:1",
            "http://localhost:1883",
            "127.0.0.1:1883 ",
            "256.0.0.1:1",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn localhost_resolves_to_loopback_only() {
        let address: ListenAddress = "localhost:7".parse().expect("well formed");
        let resolved = address.resolve().expect("every machine has localhost");
        assert!(
            resolved
                .iter()
                .all(|a| a.ip().is_loopback() && a.port() == 7),
            "{resolved:?}"
        );
    }
}
