//! The URL of an endpoint.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use tidings_protocol::net::{self, Class, HostLiteral, Network};

/// Bytes in a URL.
const URL_BYTES_MAX: usize = 2048;

/// Where an endpoint is: an absolute `http` or `https` URL without credentials and fragment.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    text: Box<str>,
    is_https: bool,
    /// Where the host ends in `text`.
    host_end: usize,
    port: u16,
    /// Where path and query begin in `text`; at its end if there are none.
    path: usize,
}

/// Why a text is no such URL, or one that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("the URL has {0} bytes, and may have {URL_BYTES_MAX}")]
    TooLong(usize),
    #[error("it should be an absolute URL, such as https://example.com/hook")]
    Scheme,
    #[error("http is not allowed: use https, or set webhooks.allow_http = true")]
    Http,
    #[error("a URL must not hold user name or password: use the field headers for credentials")]
    Credentials,
    #[error("a URL of an endpoint has no #fragment: no server ever sees it")]
    Fragment,
    #[error("the port should be a number from 1 to 65535")]
    Port,
    #[error("{0:?} does not belong into a URL: encode it, as % and two hexadecimal digits")]
    Character(char),
    #[error(
        "the host is neither a name nor an address; write an international name in its xn-- form"
    )]
    Host,
    #[error("a host name has at most 253 bytes, and at most 63 between two dots")]
    Long,
    #[error("write the address as {0}")]
    Disguised(Ipv4Addr),
    #[error("{ip} is {}", refused(*class))]
    Forbidden { ip: IpAddr, class: Class },
}

fn refused(class: Class) -> String {
    match class {
        Class::Metadata => "where a cloud hands out credentials: never allowed".to_owned(),
        class => {
            format!("a {class} address: not allowed, unless webhooks.allow_networks has it")
        }
    }
}

/// Whether a name is short enough for the DNS (RFC 1035 §2.3.4).
fn can_be_resolved(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(|label| label.len() <= 63)
}

impl Target {
    /// Reads a URL. Where it leads is not judged.
    ///
    /// # Errors
    /// When it is not a URL of an endpoint.
    pub fn parse(text: &str) -> Result<Target, TargetError> {
        if text.len() > URL_BYTES_MAX {
            return Err(TargetError::TooLong(text.len()));
        }
        let allowed = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
        if let Some(bad) = text.chars().find(|&c| !allowed(c)) {
            return Err(TargetError::Character(bad));
        }
        let (is_https, start) = match text.split_once("://") {
            Some(("https", _)) => (true, "https://".len()),
            Some(("http", _)) => (false, "http://".len()),
            _ => return Err(TargetError::Scheme),
        };
        if text.contains('#') {
            return Err(TargetError::Fragment);
        }
        let rest = &text[start..];
        let path = start + rest.find(['/', '?']).unwrap_or(rest.len());
        let authority = &text[start..path];
        if authority.contains('@') {
            return Err(TargetError::Credentials);
        }
        // The colons of an IPv6 address are within its brackets.
        let host_end = match authority.rfind(':') {
            Some(colon) if !authority[colon..].contains(']') => start + colon,
            _ => path,
        };
        let port = match text[host_end..path].strip_prefix(':') {
            None if is_https => 443,
            None => 80,
            Some(digits) if digits.bytes().all(|it| it.is_ascii_digit()) => {
                let port = digits.parse().ok().filter(|&port: &u16| port > 0);
                port.ok_or(TargetError::Port)?
            }
            Some(_) => return Err(TargetError::Port),
        };
        // What the HTTP library could not send must not get as far as that.
        if text.parse::<http::Uri>().is_err() {
            return Err(TargetError::Host);
        }
        let target = Target {
            text: text.into(),
            is_https,
            host_end,
            port,
            path,
        };
        match HostLiteral::new(target.host()) {
            HostLiteral::Name if !can_be_resolved(target.host()) => Err(TargetError::Long),
            HostLiteral::Address(_) | HostLiteral::Name => Ok(target),
            HostLiteral::Disguised(meant) => Err(TargetError::Disguised(meant)),
            _ => Err(TargetError::Host),
        }
    }

    /// Judges scheme and, where the host is an address, the address.
    ///
    /// # Errors
    /// When either is not allowed.
    pub fn check(&self, allow_http: bool, networks: &[Network]) -> Result<(), TargetError> {
        if !self.is_https && !allow_http {
            return Err(TargetError::Http);
        }
        match self.address() {
            Some(ip) => check_address(ip, networks),
            None => Ok(()),
        }
    }

    /// The URL, as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is reached by TLS.
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// The host: a name, an IPv4 address, or an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        let start = if self.is_https { 8 } else { 7 };
        &self.text[start..self.host_end]
    }

    /// The address, if the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        match HostLiteral::new(self.host()) {
            HostLiteral::Address(ip) => Some(ip),
            _ => None,
        }
    }

    /// The port, that of the scheme if none was written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What stands after host and port; empty, or it begins with `/` or `?`.
    pub fn path_and_query(&self) -> &str {
        &self.text[self.path..]
    }
}

/// Judges an address that a host name was resolved to.
///
/// # Errors
/// When nothing may connect to it.
pub(crate) fn check_address(ip: IpAddr, networks: &[Network]) -> Result<(), TargetError> {
    match net::allowed(ip, networks) {
        true => Ok(()),
        false => Err(TargetError::Forbidden {
            ip,
            class: net::classify(ip),
        }),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}
