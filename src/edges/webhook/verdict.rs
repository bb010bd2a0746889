//! What an answer means for its message and for its endpoint.

use std::time::Duration;

use tidings_protocol::webhook::parse_retry_after;

use super::breaker::Health;
use super::client::{Answer, SendError};

/// How long an endpoint may ask to be left alone at most: a day. It stops its own queue alone, but
/// whoever mends it should not have to find out why.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// What an answer means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// 2xx.
    Delivered,
    /// To be tried again.
    Failed(Health),
    /// Too much for it, or not now: to be tried again after this long at the earliest, like
    /// everything else for this endpoint.
    SlowDown(Duration),
    /// 410: there is nobody any more.
    Gone,
}

impl Verdict {
    /// What it says of the endpoint.
    pub fn health(self) -> Health {
        match self {
            Verdict::Delivered => Health::Well,
            Verdict::Failed(health) => health,
            Verdict::SlowDown(_) => Health::Ill,
            Verdict::Gone => Health::Refusing,
        }
    }
}

/// Judges an attempt that ended now.
pub fn judge(result: &Result<Answer, SendError>, now_secs: u64) -> Verdict {
    let Ok(answer) = result else {
        return Verdict::Failed(Health::Ill);
    };
    match answer.status.as_u16() {
        200..=299 => Verdict::Delivered,
        410 => Verdict::Gone,
        429 | 502 | 503 | 504 => {
            let asked = answer.retry_after.as_ref();
            let after = asked.and_then(|value| {
                parse_retry_after(value.as_bytes(), now_secs, RETRY_AFTER_MAX).ok()
            });
            Verdict::SlowDown(after.unwrap_or_default())
        }
        500..=599 => Verdict::Failed(Health::Ill),
        // Redirects too: whoever follows one can be sent anywhere.
        _ => Verdict::Failed(Health::Refusing),
    }
}

/// Says why an attempt failed; none if it did not.
pub fn reason(result: &Result<Answer, SendError>) -> Option<String> {
    let answer = match result {
        Err(error) => return Some(error.to_string()),
        Ok(answer) => answer,
    };
    let status = answer.status;
    match status.as_u16() {
        200..=299 => None,
        300..=399 => Some(format!("it answered {status}; redirects are not followed")),
        _ => Some(format!("it answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::StatusCode;
    use hyper::header::HeaderValue;

    use super::*;

    fn answer(status: u16, retry_after: Option<&'static str>) -> Result<Answer, SendError> {
        Ok(Answer {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: retry_after.map(HeaderValue::from_static),
            content_type: None,
            body: Bytes::new(),
            is_cut: false,
        })
    }

    #[test]
    fn statuses_mean_what_they_should() {
        use Verdict::*;
        let cases = [
            (200, Delivered),
            (204, Delivered),
            (299, Delivered),
            (301, Failed(Health::Refusing)),
            (308, Failed(Health::Refusing)),
            (400, Failed(Health::Refusing)),
            (404, Failed(Health::Refusing)),
            (410, Gone),
            (429, SlowDown(Duration::ZERO)),
            (500, Failed(Health::Ill)),
            (501, Failed(Health::Ill)),
            (502, SlowDown(Duration::ZERO)),
            (503, SlowDown(Duration::ZERO)),
            (504, SlowDown(Duration::ZERO)),
            (599, Failed(Health::Ill)),
            (999, Failed(Health::Refusing)),
        ];
        for (status, verdict) in cases {
            let result = answer(status, None);
            assert_eq!(judge(&result, 0), verdict, "{status}");
            assert_eq!(reason(&result).is_none(), verdict == Delivered, "{status}");
        }
        let failed = judge(&Err(SendError::Timeout), 0);
        assert_eq!(failed, Failed(Health::Ill));
    }

    #[test]
    fn retry_after_is_honoured_within_bounds() {
        let after = |value| match judge(&answer(503, Some(value)), 1_764_072_000) {
            Verdict::SlowDown(after) => after.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(after("120"), 120);
        assert_eq!(after("Tue, 25 Nov 2025 12:01:00 GMT"), 60);
        assert_eq!(after("Tue, 25 Nov 2025 11:00:00 GMT"), 0);
        assert_eq!(after("99999999999999999999999"), 86_400);
        assert_eq!(after("soon"), 0);
        // Where it means nothing it is not looked at.
        let teapot = judge(&answer(418, Some("120")), 0);
        assert_eq!(teapot, Verdict::Failed(Health::Refusing));
    }
}
