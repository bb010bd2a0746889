//! The fixed headers of an endpoint.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::fields::{Fields, kind};

/// Headers of one endpoint.
const HEADERS_MAX: usize = 32;
/// Bytes in the value of one, and in all names and values.
const VALUE_BYTES_MAX: usize = 4096;
const HEADERS_BYTES_MAX: usize = 16 * 1024;

/// What is shown instead of a value that is a credential.
pub const HIDDEN: &str = "(hidden)";

/// Headers that the connection (RFC 9110 §7.6.1) or the message decides.
const FORBIDDEN: [&str; 16] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const FORBIDDEN_PREFIXES: [&str; 2] = ["webhook-", "ce-"];

/// Whether the value of a header is likely a credential, which is not shown once it is set.
pub fn is_sensitive(name: &str) -> bool {
    const PARTS: [&str; 6] = ["auth", "cookie", "key", "password", "secret", "token"];
    let name = name.to_ascii_lowercase();
    PARTS.iter().any(|part| name.contains(part))
}

/// The field `headers`: an object of names and values.
pub(super) fn read(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    let Some(value) = fields.get("headers") else {
        return headers;
    };
    let Some(object) = value.as_object() else {
        let detail = format!(
            "it is {}, and should be an object of names and values",
            kind(value)
        );
        fields.error("headers", detail);
        return headers;
    };
    if object.len() > HEADERS_MAX {
        let detail = format!("there are {}, and may be {HEADERS_MAX}", object.len());
        fields.error("headers", detail);
        return headers;
    }
    for (name, value) in object {
        match check(name, value) {
            Ok(_)
                if headers
                    .keys()
                    .any(|it: &String| it.eq_ignore_ascii_case(name)) =>
            {
                fields.error(format!("headers.{name}"), "it is there twice");
            }
            Ok(value) => {
                headers.insert(name.clone(), value.to_owned());
            }
            Err(detail) => fields.error(format!("headers.{name}"), detail),
        }
    }
    let lengths = headers.iter().map(|(name, value)| name.len() + value.len());
    let bytes: usize = lengths.sum();
    if bytes > HEADERS_BYTES_MAX {
        let detail = format!("they have {bytes} bytes, and may have {HEADERS_BYTES_MAX}");
        fields.error("headers", detail);
    }
    headers
}

fn check<'v>(name: &str, value: &'v Value) -> Result<&'v str, String> {
    let lower = name.to_ascii_lowercase();
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err("that is not the name of a header: letters, digits and dashes".to_owned());
    }
    if FORBIDDEN.contains(&lower.as_str())
        || FORBIDDEN_PREFIXES.iter().any(|it| lower.starts_with(it))
    {
        return Err("this header is the broker's own to set".to_owned());
    }
    let Some(text) = value.as_str() else {
        return Err(format!(
            "its value is {}, and should be a string",
            kind(value)
        ));
    };
    if text.len() > VALUE_BYTES_MAX {
        return Err(format!(
            "its value has {} bytes, and may have {VALUE_BYTES_MAX}",
            text.len()
        ));
    }
    let fits = text.is_ascii() && text.trim() == text && HeaderValue::from_str(text).is_ok();
    match fits {
        true => Ok(text),
        false => Err("a value is printable ASCII, without spaces at its ends".to_owned()),
    }
}
