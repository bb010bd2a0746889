//! What went wrong, for programs and people (RFC 9457), and the table from the core's errors.

use hyper::header::{ALLOW, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::respond::{self, Body};
use crate::access::AuthError;
use crate::broker::feed::ReaderError;
use crate::broker::{OpenError, Refused};
use crate::store::StoreError;

/// What a 401 asks of who must not be asked for a password by the browser.
pub(super) const BEARER_CHALLENGE: &str = "Bearer realm=\"tidings\"";

/// A problem.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub status: StatusCode,
    /// The last part of the type.
    pub kind: &'static str,
    pub title: &'static str,
    /// What to do about it.
    pub detail: String,
    more: Option<Box<Value>>,
    header: Option<Box<(HeaderName, String)>>,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Problem {
        Problem {
            status,
            kind,
            title,
            detail: detail.into(),
            more: None,
            header: None,
        }
    }

    pub(super) fn bad_request(
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, kind, title, detail)
    }

    /// Adds members.
    pub(super) fn with(mut self, more: Value) -> Problem {
        self.more = Some(Box::new(more));
        self
    }

    fn header(mut self, name: HeaderName, value: impl Into<String>) -> Problem {
        self.header = Some(Box::new((name, value.into())));
        self
    }

    pub(super) fn not_found(path: &str) -> Problem {
        Problem::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "There is nothing here",
            format!("{path} is not a path of this server; /openapi.json names all of them"),
        )
    }

    pub(super) fn method_not_allowed(allowed: &str) -> Problem {
        Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "This method is not allowed here",
            format!("use one of {allowed}"),
        )
        .header(ALLOW, allowed)
    }

    pub(super) fn unauthorized(detail: impl Into<String>) -> Problem {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "Who is asking?",
            detail,
        )
        .header(
            WWW_AUTHENTICATE,
            format!("Basic realm=\"tidings\", charset=\"UTF-8\", {BEARER_CHALLENGE}"),
        )
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail)
    }

    pub(super) fn unavailable(detail: impl Into<String>) -> Problem {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "Not now",
            detail,
        )
        .header(RETRY_AFTER, "5")
    }

    pub(super) fn too_many(detail: impl Into<String>) -> Problem {
        Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many",
            "Too many at a time",
            detail,
        )
        .header(RETRY_AFTER, "5")
    }

    /// A body that is larger than it may be, by what `name` says.
    pub(super) fn too_large(bytes_max: usize, name: &str) -> Problem {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "The body is too large",
            format!("at most {bytes_max} bytes are accepted: {name}"),
        )
    }

    /// The problem as JSON.
    pub(super) fn json(&self) -> Value {
        let mut value = json!({
            "type": format!("urn:tidings:problem:{}", self.kind),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let (Some(value), Some(Value::Object(more))) =
            (value.as_object_mut(), self.more.as_deref())
        {
            value.extend(more.clone());
        }
        value
    }

    pub(super) fn response(&self) -> Response<Body> {
        let body = self.json().to_string();
        let mut response = respond::with(self.status, "application/problem+json", body);
        if let Some((name, value)) = self.header.as_deref()
            && let Ok(value) = value.parse()
        {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Problem {
        match error {
            AuthError::Busy => {
                Problem::unavailable("too many passwords are being verified: try again")
            }
            other => Problem::unauthorized(other.to_string()),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        match refused {
            Refused::NotAuthorized => Problem::forbidden(
                "no right to publish to this topic; topics under $ are the server's own",
            ),
            Refused::RetainedFull => Problem::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "retained-full",
                "The limit of retained messages is reached",
                "nothing was published: clear some, or raise limits.retained_messages_max or limits.retained_bytes_max",
            ),
            Refused::StoreFull => Problem::unavailable(
                "nothing was published: the store takes no messages now, see /readyz",
            ),
        }
    }
}

impl From<ReaderError> for Problem {
    fn from(error: ReaderError) -> Problem {
        let detail = error.to_string();
        match error {
            ReaderError::NoFilter => Problem::bad_request(
                "no-topic",
                "No Topic Filter",
                "name what to listen to: ?topic=sensors/%2B/temperature, several times if you like",
            ),
            ReaderError::InvalidFilter { .. }
            | ReaderError::SharedFilter { .. }
            | ReaderError::ReplayFilter { .. } => {
                Problem::bad_request("invalid-filter", "Not a Topic Filter", detail)
            }
            ReaderError::NotAuthorized { .. } => Problem::forbidden(detail),
            ReaderError::TooMany | ReaderError::ShuttingDown => Problem::unavailable(detail),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        Problem::unavailable(format!("it is not certain that it was kept: {error}"))
    }
}

impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Problem {
        match error {
            OpenError::ForeignSession => Problem::forbidden(error.to_string()),
            OpenError::TooManySessions | OpenError::ShuttingDown => {
                Problem::unavailable(error.to_string())
            }
        }
    }
}
