//! Who is asking: a password, a token, a cookie, a one-time ticket, or nobody.
//!
//! What is shown must be right: wrong credentials never turn into an anonymous client.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use hyper::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::http::request::Parts;

use super::Edge;
use super::problem::Problem;
use crate::access::{Authenticated, cookie_allowed, read_cookie};

const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The host that the request is for, HTTP/2's `:authority` included.
fn host<'r>(headers: &'r HeaderMap, uri: &'r Uri) -> Option<&'r str> {
    text(headers, &HOST).or_else(|| uri.authority().map(|it| it.as_str()))
}

/// Whether a request may be for the host that it names. A page of another site can have its own name
/// point at this machine (DNS rebinding); where only this machine is let in, and without a password,
/// that would let the page in.
pub(super) fn host_allowed(edge: &Edge, headers: &HeaderMap, uri: &Uri) -> bool {
    let exposed =
        edge.access.anonymous_allowed() && edge.config.listen.iter().all(|it| it.is_loopback());
    let Some(host) = host(headers, uri).filter(|_| exposed) else {
        return true;
    };
    let name = without_port(host);
    address(name).is_some()
        || name.eq_ignore_ascii_case("localhost")
        || edge
            .config
            .hosts
            .iter()
            .any(|it| it.eq_ignore_ascii_case(name))
}

fn without_port(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|it| it.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_end_matches('.')
}

fn address(name: &str) -> Option<IpAddr> {
    let address = name.trim_start_matches('[').trim_end_matches(']');
    address.parse().ok()
}

/// Whether the request is for a name that means the machine it came from.
pub(super) fn is_for_this_machine(parts: &Parts) -> bool {
    host(&parts.headers, &parts.uri).is_some_and(|host| {
        let name = without_port(host);
        name.eq_ignore_ascii_case("localhost") || address(name).is_some_and(|it| it.is_loopback())
    })
}

/// The scheme by which a page of our own reached us, where a browser tells it: a proxy in front may
/// speak TLS.
pub(super) fn own_scheme(parts: &Parts) -> Option<&str> {
    let (scheme, authority) = text(&parts.headers, &ORIGIN)?.split_once("://")?;
    let host = host(&parts.headers, &parts.uri)?;
    authority.eq_ignore_ascii_case(host).then_some(scheme)
}

/// The token in `Authorization`, if that is a bearer's.
pub(super) fn bearer_token(parts: &Parts) -> Option<&str> {
    let (scheme, token) = text(&parts.headers, &AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether a 401 may ask for a password in a window of the browser. Not if a page asks, which a
/// browser tells of a secure origin, and a page itself may tell: it asks in its own way.
pub(super) fn browser_may_ask(headers: &HeaderMap) -> bool {
    text(headers, &SEC_FETCH_DEST) != Some("empty") && !headers.contains_key(X_REQUESTED_WITH)
}

/// Whether a page of this origin may open a WebSocket: its own server's, and those configured.
/// Who sends no Origin is no browser, to which alone it means something.
pub(super) fn origin_allowed(edge: &Edge, headers: &HeaderMap, uri: &Uri) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    let own = |host: &str| {
        let rest = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        rest.is_some_and(|rest| rest.eq_ignore_ascii_case(host))
    };
    host(headers, uri).is_some_and(own) || edge.config.cors_origins.iter().any(|it| it == origin)
}

/// Lets the sender of a request in. `client_id` is the name of the session that it wants, if any,
/// and `ticket` what stood in the query.
pub(super) async fn authenticate(
    edge: &Edge,
    parts: &Parts,
    client_id: &str,
    ticket: Option<&str>,
) -> Result<Authenticated, Problem> {
    let now = edge.broker.clock.now().0;
    if let Some(ticket) = ticket {
        let redeemed = edge.tickets.redeem(client_id, ticket, now);
        return redeemed.ok_or_else(|| {
            Problem::unauthorized(
                "the ticket is unknown, expired or used: get another by POST /v1/tickets",
            )
        });
    }
    let mut given = parts.headers.get_all(AUTHORIZATION).iter();
    if let Some(authorization) = given.next() {
        if given.next().is_some() {
            return Err(Problem::unauthorized("there are two Authorization headers"));
        }
        let authorization = authorization.to_str().unwrap_or_default();
        return by_header(edge, authorization, client_id, now).await;
    }
    let cookies = parts.headers.get_all(COOKIE).iter().map(|it| it.as_bytes());
    if let Some(token) = read_cookie(cookies) {
        let allowed = cookie_allowed(
            parts.method.as_str(),
            text(&parts.headers, &ORIGIN),
            host(&parts.headers, &parts.uri),
            text(&parts.headers, &SEC_FETCH_SITE),
            &edge.config.cors_origins,
        );
        if !allowed {
            return Err(Problem::forbidden(
                "a page of another site may not do this with your cookie: send Authorization instead",
            ));
        }
        return Ok(edge.access.bearer(client_id, token, now)?);
    }
    match edge.access.anonymous(client_id) {
        Ok(principal) => Ok(Authenticated {
            principal,
            expires_at_ms: None,
        }),
        Err(_) => Err(Problem::unauthorized(
            "this server wants to know who is asking: send Authorization, Basic with user and password or Bearer with a token",
        )),
    }
}

async fn by_header(
    edge: &Edge,
    authorization: &str,
    client_id: &str,
    now: u64,
) -> Result<Authenticated, Problem> {
    let (scheme, rest) = authorization.split_once(' ').unwrap_or((authorization, ""));
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(edge.access.bearer(client_id, rest, now)?);
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Problem::unauthorized("the schemes are Basic and Bearer"));
    }
    let malformed = || Problem::unauthorized("Basic wants user:password in base64 (RFC 7617)");
    let decoded = STANDARD.decode(rest).map_err(|_| malformed())?;
    let at = decoded
        .iter()
        .position(|&byte| byte == b':')
        .ok_or_else(malformed)?;
    let user = std::str::from_utf8(&decoded[..at]).map_err(|_| malformed())?;
    by_password(edge, client_id, user, &decoded[at + 1..]).await
}

/// Lets in who knows a password.
pub(super) async fn by_password(
    edge: &Edge,
    client_id: &str,
    user: &str,
    password: &[u8],
) -> Result<Authenticated, Problem> {
    let principal = edge.access.password(client_id, user, password).await?;
    Ok(Authenticated {
        principal,
        expires_at_ms: None,
    })
}
