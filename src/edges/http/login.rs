//! `/v1/login`: a token in a cookie, which a browser shows by itself where a page can give no header,
//! as for an EventSource or a WebSocket.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue, SET_COOKIE};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::Edge;
use super::auth::{self, authenticate, bearer_token};
use super::bodies::{self, Limit};
use super::envelope::json_problem;
use super::problem::Problem;
use super::query::Query;
use super::respond::{self, Body};
use crate::access::{Authenticated, clear_cookie, set_cookie};

/// Nobody is known yet, so that there is not much to be taken.
const LIMIT: Limit = Limit {
    bytes: 64 * 1024,
    name: "a login is no larger",
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    user: String,
    password: String,
}

/// `POST /v1/login`: who shows a password or a token gets a cookie.
pub(super) async fn enter(
    edge: &Edge,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let (parts, body) = request.into_parts();
    Query::parse(parts.uri.query(), &[])?;
    let secure = is_secure(&parts).ok_or_else(|| {
        Problem::bad_request(
            "needs-tls",
            "The cookie would not be kept",
            "a browser keeps it for a server of another machine only if that is reached by https: \
             put a TLS proxy in front, or use Authorization and tickets",
        )
    })?;
    let body = bodies::read_at_most(edge, body, LIMIT).await?;
    let text = body.text()?;
    let has_header = parts.headers.contains_key(AUTHORIZATION);
    let who = match (text.is_empty(), has_header) {
        (true, true) => authenticate(edge, &parts, "", None).await?,
        (false, false) => {
            let given: Credentials =
                serde_json::from_str(text).map_err(|it| json_problem(&it, text, text))?;
            auth::by_password(edge, "", &given.user, given.password.as_bytes()).await?
        }
        // A cookie does not count: nobody is logged in for ever by being so.
        (true, false) => {
            return Err(Problem::unauthorized(
                "log in with {\"user\":\"…\",\"password\":\"…\"}, or with Authorization and no body",
            ));
        }
        (false, true) => {
            return Err(Problem::bad_request(
                "two-logins",
                "There are two ways to say who you are",
                "send Authorization or a body, not both",
            ));
        }
    };
    let (token, max_age) = token_for(edge, &parts, &who)?;
    let mut response = respond::json(&json!({
        "user": who.principal.user(),
        "expires_in": max_age.as_secs(),
    }));
    add_cookie(&set_cookie(&token, max_age, secure), &mut response);
    Ok(response)
}

/// The token that the cookie is to be, and for how long it is good: the one that was shown, or a new
/// one.
fn token_for(
    edge: &Edge,
    parts: &Parts,
    who: &Authenticated,
) -> Result<(String, Duration), Problem> {
    let now = edge.broker.clock.now().0;
    if let (Some(at), Some(token)) = (who.expires_at_ms, bearer_token(parts)) {
        let left = Duration::from_millis(at.saturating_sub(now));
        return Ok((token.to_owned(), left));
    }
    let Some(user) = who.principal.user() else {
        return Err(Problem::bad_request(
            "no-users",
            "Nobody can log in here",
            "there are no users, and nobody needs to log in: access.password_file names them",
        ));
    };
    let lifetime = edge.config.login_expires;
    let lifetime = lifetime.min(edge.access.token_expires_max());
    match edge.access.issue(user, lifetime, now) {
        Ok(token) => Ok((token, lifetime)),
        Err(error) => Err(Problem::unauthorized(error.to_string())),
    }
}

/// `GET /v1/login`: who is asking, and for how long that is so.
pub(super) fn show(edge: &Edge, who: &Authenticated) -> Response<Body> {
    let now = edge.broker.clock.now().0;
    let left = who.expires_at_ms.map(|at| at.saturating_sub(now) / 1000);
    respond::json(&json!({"user": who.principal.user(), "expires_in": left}))
}

/// `DELETE /v1/login`: the browser forgets the token, whatever it is.
pub(super) fn leave(parts: &Parts) -> Result<Response<Body>, Problem> {
    Query::parse(parts.uri.query(), &[])?;
    let mut response = respond::empty(StatusCode::NO_CONTENT);
    add_cookie(
        &clear_cookie(is_secure(parts).unwrap_or(true)),
        &mut response,
    );
    Ok(response)
}

fn add_cookie(cookie: &str, response: &mut Response<Body>) {
    // A token consists of characters that a header may have.
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
}

/// Whether a cookie is for TLS alone: wherever it leaves this machine. None where a browser says that
/// it leaves it without, and would not keep it (RFC 6265bis §5.7).
fn is_secure(parts: &Parts) -> Option<bool> {
    match auth::own_scheme(parts) {
        Some("https") => Some(true),
        _ if auth::is_for_this_machine(parts) => Some(false),
        Some(_) => None,
        None => Some(true),
    }
}
