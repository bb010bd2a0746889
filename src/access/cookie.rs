//! The cookie of a browser that has logged in: its value is a token.
//!
//! A browser sends a cookie by itself, whoever wrote the page that made it ask: so a cookie alone
//! does not say that its owner wants what is asked for (cross-site request forgery), and
//! [`cookie_allowed`] looks at where the request comes from. `SameSite=Lax` helps and does not
//! suffice: another port or subdomain of the same site is not another site.

use std::time::Duration;

/// The name of the cookie.
pub const COOKIE: &str = "tidings";

/// The value of a `Set-Cookie` that has the browser keep the token for `max_age` (RFC 6265 §4.1).
/// `secure` says that the request came over TLS, to us or to a trusted proxy: the browser then
/// never sends the cookie in the clear.
pub fn set_cookie(token: &str, max_age: Duration, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    let seconds = max_age.as_secs();
    format!("{COOKIE}={token}; HttpOnly; SameSite=Lax; Path=/; Max-Age={seconds}{secure}")
}

/// The value of a `Set-Cookie` that has the browser forget the token.
pub fn clear_cookie(secure: bool) -> String {
    set_cookie("", Duration::ZERO, secure)
}

/// The token in the values of a request's `Cookie` fields; HTTP/2 may split them (RFC 9113 §8.2.3).
/// Of several cookies of our name the first counts, which is the one with the longest path
/// (RFC 6265 §5.4). A cookie that is there and holds no good token is not as if it were not there:
/// verify what comes out.
pub fn read_cookie<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Option<&'a str> {
    fields
        .into_iter()
        .flat_map(|field| field.split(|byte| *byte == b';'))
        .find_map(|pair| {
            let value = pair.trim_ascii().strip_prefix(COOKIE.as_bytes())?;
            let value = value.strip_prefix(b"=")?;
            // What is not text is no token either, and is found to be none.
            Some(std::str::from_utf8(value).unwrap_or_default())
        })
}

/// Whether a request may say with a cookie who asks. The opening handshake of a WebSocket is a GET,
/// and so is what an EventSource asks.
///
/// - `origin`, `host`, `sec_fetch_site`: the fields `Origin`, `Host` (`:authority` in HTTP/2) and
///   `Sec-Fetch-Site`, of which a page can set none.
/// - `allowed_origins`: as browsers write them, such as `https://app.example.org`. `*` and `null`
///   in it allow nothing: they name nobody.
///
/// A page of the broker's own origin may ask for everything, and one of an allowed origin may
/// read: GET and HEAD. Where neither `Origin` nor `Sec-Fetch-Site` came, a browser is reading,
/// without TLS or of an old kind, from a page of our own origin, or in a way in which the page sees
/// nothing of the answer; what changes something always comes with an `Origin`.
pub fn cookie_allowed(
    method: &str,
    origin: Option<&str>,
    host: Option<&str>,
    sec_fetch_site: Option<&str>,
    allowed_origins: &[impl AsRef<str>],
) -> bool {
    let reads = matches!(method, "GET" | "HEAD");
    let is_allowed =
        |origin: &str| origin != "null" && allowed_origins.iter().any(|one| one.as_ref() == origin);
    if reads && origin.is_some_and(is_allowed) {
        return true;
    }
    match (sec_fetch_site, origin) {
        // The browser's own word, which knows the scheme too.
        (Some("same-origin"), _) => true,
        // From the address bar or a bookmark.
        (Some("none"), None) => reads,
        (Some("none") | None, Some(origin)) => host.is_some_and(|host| names_host(origin, host)),
        (Some(_), _) => false,
        (None, None) => reads,
    }
}

/// Whether the origin is at the host. The scheme in front of a proxy is not known here, so that it
/// decides only what port may be left out.
fn names_host(origin: &str, host: &str) -> bool {
    let (authority, port) = match origin.split_once("://") {
        Some(("https", authority)) => (authority, ":443"),
        Some(("http", authority)) => (authority, ":80"),
        _ => return false,
    };
    let bare = |authority: &str| {
        let shortened = authority.strip_suffix(port).unwrap_or(authority);
        shortened.to_ascii_lowercase()
    };
    !authority.is_empty() && bare(authority) == bare(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set() {
        assert_eq!(
            set_cookie("a.b.c", Duration::from_millis(3_600_999), false),
            "tidings=a.b.c; HttpOnly; SameSite=Lax; Path=/; Max-Age=3600"
        );
        assert_eq!(
            clear_cookie(true),
            "tidings=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0; Secure"
        );
    }

    #[test]
    fn what_is_read() {
        let read = |fields: &[&'static [u8]]| read_cookie(fields.iter().copied());
        for (fields, expected) in [
            (&[b"tidings=a.b.c".as_slice()][..], Some("a.b.c")),
            (&[b"x=1; tidings=a.b.c; y=2"], Some("a.b.c")),
            (&[b"x=1;tidings=a.b.c"], Some("a.b.c")),
            (&[b"x=1", b"tidings=a"], Some("a")),
            (&[b"tidings=first; tidings=second"], Some("first")),
            // Another cookie may hold anything.
            (&[b"x=\xff\"; tidings=a"], Some("a")),
            (&[b"tidings=a=b"], Some("a=b")),
            (&[b"tidings="], Some("")),
            (&[b"tidings=\xff"], Some("")),
            (&[b"tidings"], None),
            (&[b"Tidings=a"], None),
            (&[b"tidings2=a; xtidings=b; x=tidings=c"], None),
            (&[b"", b";;"], None),
            (&[], None),
        ] {
            assert_eq!(read(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn where_a_cookie_counts() {
        const OURS: &str = "http://broker:8080";
        const APP: &str = "https://app.example.org";
        const EVIL: &str = "https://evil.example.org";
        // Method, Origin, Sec-Fetch-Site; with the Host broker:8080.
        for (method, origin, site, expected) in [
            // Reading from our own pages: fetch and EventSource send no Origin, a WebSocket does.
            ("GET", None, Some("same-origin"), true),
            ("GET", Some(OURS), Some("same-origin"), true),
            ("HEAD", None, Some("same-origin"), true),
            ("GET", Some(OURS), None, true),
            ("GET", None, Some("none"), true),
            ("GET", None, None, true),
            // From elsewhere, with CORS or as a WebSocket.
            ("GET", Some(APP), Some("cross-site"), true),
            ("GET", Some(APP), Some("same-site"), true),
            ("GET", Some(APP), None, true),
            ("GET", Some(EVIL), Some("cross-site"), false),
            ("GET", Some(EVIL), Some("same-site"), false),
            ("GET", Some(EVIL), None, false),
            ("GET", Some("null"), None, false),
            ("GET", Some("null"), Some("cross-site"), false),
            ("GET", Some(""), None, false),
            // From elsewhere, without: an image, a link.
            ("GET", None, Some("cross-site"), false),
            ("GET", None, Some("same-site"), false),
            ("GET", None, Some("something-new"), false),
            // The same host with another scheme is another origin.
            ("GET", Some("https://broker:8080"), Some("same-site"), false),
            // Changing something.
            ("POST", Some(OURS), Some("same-origin"), true),
            ("POST", None, Some("same-origin"), true),
            ("DELETE", Some(OURS), None, true),
            ("POST", Some(APP), Some("cross-site"), false),
            ("POST", Some(APP), None, false),
            ("POST", Some(EVIL), None, false),
            ("POST", Some("null"), None, false),
            ("POST", None, None, false),
            ("POST", None, Some("none"), false),
            ("POST", None, Some("cross-site"), false),
            ("OPTIONS", Some(APP), None, false),
            ("get", Some(APP), None, false),
        ] {
            let case = format!("{method} {origin:?} {site:?}");
            let allowed = [APP, "*", "null"];
            let answer = cookie_allowed(method, origin, Some("broker:8080"), site, &allowed);
            assert_eq!(answer, expected, "{case}");
            let nobody: [&str; 0] = [];
            let answer = cookie_allowed(method, origin, Some("broker:8080"), site, &nobody);
            assert_eq!(
                answer,
                expected && origin != Some(APP),
                "{case}, none allowed"
            );
        }
    }

    #[test]
    fn origins_and_hosts() {
        for (origin, host, expected) in [
            ("http://a.example", "a.example", true),
            ("http://a.example", "a.example:80", true),
            ("https://a.example", "a.example:443", true),
            ("https://a.example", "A.Example", true),
            ("https://[::1]:8443", "[::1]:8443", true),
            ("http://a.example", "a.example:443", false),
            ("http://a.example:8080", "a.example", false),
            ("http://a.example", "b.a.example", false),
            ("http://a.example.evil", "a.example", false),
            ("ftp://a.example", "a.example", false),
            ("file://", "", false),
            ("http://", "", false),
            ("a.example", "a.example", false),
        ] {
            let none: [&str; 0] = [];
            let answer = cookie_allowed("POST", Some(origin), Some(host), None, &none);
            assert_eq!(answer, expected, "{origin} at {host}");
            assert!(!cookie_allowed("POST", Some(origin), None, None, &none));
        }
    }
}
