//! The proxy of the configuration: a tunnel for https, whole URLs for http.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connector::ConnectError;
use super::peer::{Host, Peer};
use crate::config::Proxy;

/// Bytes of an answer to CONNECT.
const ANSWER_MAX: usize = 8 * 1024;

/// The value of `proxy-authorization` (RFC 7617), if the proxy wants one.
pub(super) fn authorization(proxy: &Proxy) -> Option<HeaderValue> {
    let credentials = proxy.credentials.as_ref()?;
    let decoded = percent_decode_str(credentials.reveal()).collect::<Vec<u8>>();
    let mut value = HeaderValue::from_str(&format!("Basic {}", BASE64.encode(decoded))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A stream on which to speak with a peer: with itself for https, with the proxy for http.
///
/// # Errors
/// When the proxy cannot be reached, or refuses.
pub(super) async fn connect(proxy: &Proxy, peer: &Peer) -> Result<TcpStream, ConnectError> {
    let failed = |error: std::io::Error| ConnectError::Proxy(error.to_string());
    // The configuration chose it: it may be anywhere.
    let host = proxy.host.trim_matches(['[', ']']);
    let mut stream = TcpStream::connect((host, proxy.port))
        .await
        .map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    if peer.https {
        let head = connect_head(proxy, peer);
        stream.write_all(head.as_bytes()).await.map_err(failed)?;
        read_answer(&mut stream).await?;
    }
    Ok(stream)
}

fn connect_head(proxy: &Proxy, peer: &Peer) -> String {
    let port = peer.port;
    let to = match &peer.host {
        Host::Name(name) => format!("{name}:{port}"),
        Host::Address(address) => std::net::SocketAddr::new(*address, port).to_string(),
    };
    let authorization = authorization(proxy);
    let authorization = authorization.as_ref().and_then(|it| it.to_str().ok());
    let authorization = authorization
        .map(|value| format!("proxy-authorization: {value}\r\n"))
        .unwrap_or_default();
    format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n{authorization}\r\n")
}

/// Reads the answer to CONNECT, and nothing of what follows it.
async fn read_answer(stream: &mut TcpStream) -> Result<(), ConnectError> {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == ANSWER_MAX {
            let said = "its answer to CONNECT has no end";
            return Err(ConnectError::Proxy(said.to_owned()));
        }
        let byte = stream.read_u8().await;
        answer.push(byte.map_err(|error| ConnectError::Proxy(error.to_string()))?);
    }
    let status_line = answer.split(|byte| *byte == b'\r').next();
    let status_line = String::from_utf8_lossy(status_line.unwrap_or_default());
    let status = status_line.split(' ').nth(1).unwrap_or_default();
    match status.starts_with('2') && status_line.starts_with("HTTP/1.") {
        true => Ok(()),
        false => Err(ConnectError::Proxy(format!(
            "it answered CONNECT with {status_line:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhooks::{Hidden, Target};

    #[test]
    fn a_tunnel_is_asked_for() {
        let mut proxy = Proxy {
            host: "proxy.example".to_owned(),
            port: 3128,
            credentials: Some(Hidden::new("me:p%40ss")),
        };
        let target = Target::parse("https://[2001:db8::1]/x").unwrap();
        let peer = Peer::new(&target).unwrap();
        assert_eq!(
            connect_head(&proxy, &peer),
            "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nhost: [2001:db8::1]:443\r\n\
             proxy-authorization: Basic bWU6cEBzcw==\r\n\r\n"
        );
        proxy.credentials = None;
        let target = Target::parse("https://example.com:8443/x").unwrap();
        let peer = Peer::new(&target).unwrap();
        assert_eq!(
            connect_head(&proxy, &peer),
            "CONNECT example.com:8443 HTTP/1.1\r\nhost: example.com:8443\r\n\r\n"
        );
    }
}
