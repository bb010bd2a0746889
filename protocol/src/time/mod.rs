//! Points in time and durations as text: RFC 3339, the dates of HTTP, and `"10m"`.
//!
//! Time is a number of milliseconds since 1970-01-01T00:00:00Z without leap seconds, as everywhere
//! in the broker. What time it is now is always the caller's to say.

mod calendar;
mod duration;
mod http_date;
mod rfc3339;

pub use calendar::date_from_days;
pub use duration::{DurationError, parse_duration};
pub use http_date::parse_http_date;
pub use rfc3339::{Rfc3339, TimeError, UNIX_MS_MAX, parse_rfc3339};
