//! The page at `/`: what it consists of, and with which headers it is served. How it gets to the
//! client is the router's affair.

use bytes::Bytes;

const INDEX: &str = include_str!("page/index.html");
const SCRIPT: &str = include_str!("page/app.js");
const STYLE: &str = include_str!("page/style.css");
const ICON: &str = include_str!("page/favicon.svg");

/// Headers of every file, beside Content-Type and ETag.
///
/// The policy lets the page load its own files and talk to its own origin, and nothing else: what
/// a message contains can then neither run nor phone home, even if the script had a mistake. The
/// files change only with the version, but a cached page must never meet another version's
/// script: browsers ask each time, and are answered 304.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-cache"),
];

/// One file of the page.
#[derive(Debug)]
pub struct File {
    /// The path it is served at.
    pub path: &'static str,
    pub content_type: &'static str,
    pub body: Bytes,
    /// A strong entity tag, quotes included.
    pub etag: String,
}

impl File {
    fn new(path: &'static str, content_type: &'static str, body: impl Into<Bytes>) -> File {
        let body = body.into();
        File {
            path,
            content_type,
            etag: format!("\"{:x}-{:08x}\"", body.len(), crc32c::crc32c(&body)),
            body,
        }
    }

    /// All its headers, names in lower case. A 304 has the same, but for the Content-Type.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("content-type", self.content_type),
            ("etag", self.etag.as_str()),
        ]
        .into_iter()
        .chain(HEADERS)
    }

    /// Whether the client has it already, by its `If-None-Match` (RFC 9110 §13.1.2): the
    /// comparison is the weak one, so that a proxy that compresses does not defeat it.
    pub fn is_known(&self, if_none_match: &str) -> bool {
        if_none_match.trim() == "*"
            || if_none_match
                .split(',')
                .map(str::trim)
                .any(|tag| tag.strip_prefix("W/").unwrap_or(tag) == self.etag)
    }
}

/// All files of the page.
#[derive(Debug)]
pub struct Page {
    pub(super) files: [File; 4],
}

impl Page {
    /// The page of a server that takes MQTT clients on this port, if it does.
    pub fn new(mqtt_port: Option<u16>) -> Page {
        let port = mqtt_port.map(|port| port.to_string()).unwrap_or_default();
        let index = INDEX
            .replace("{{version}}", env!("CARGO_PKG_VERSION"))
            .replace("{{mqtt_port}}", &port);
        Page {
            files: [
                File::new("/", "text/html; charset=utf-8", index),
                File::new("/app.js", "text/javascript; charset=utf-8", SCRIPT),
                File::new("/style.css", "text/css; charset=utf-8", STYLE),
                File::new("/favicon.svg", "image/svg+xml", ICON),
            ],
        }
    }

    /// The file at this path.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<'a>(page: &'a Page, path: &str) -> &'a str {
        std::str::from_utf8(&page.file(path).unwrap().body).unwrap()
    }

    fn header<'a>(file: &'a File, name: &str) -> Vec<&'a str> {
        file.headers()
            .filter(|(it, _)| *it == name)
            .map(|(_, value)| value)
            .collect()
    }

    #[test]
    fn says_what_it_is_and_where_mqtt_is() {
        let page = Page::new(Some(1883));
        let index = text(&page, "/");
        assert!(index.contains(env!("CARGO_PKG_VERSION")));
        assert!(index.contains("data-mqtt-port=\"1883\""));
        assert!(text(&Page::new(None), "/").contains("data-mqtt-port=\"\""));
        assert!(!index.contains("{{"), "a placeholder is left");
    }

    #[test]
    fn everything_it_refers_to_is_there() {
        let page = Page::new(None);
        for name in ["app.js", "style.css", "favicon.svg"] {
            assert!(text(&page, "/").contains(&format!("=\"{name}\"")), "{name}");
            assert!(page.file(&format!("/{name}")).is_some(), "{name}");
        }
        for path in ["", "/index.html", "/app.js/", "/../app.js", "/APP.JS"] {
            assert!(page.file(path).is_none(), "{path}");
        }
    }

    /// What the policy would refuse to run is not in the page.
    #[test]
    fn nothing_is_inline() {
        let page = Page::new(Some(1));
        let index = text(&page, "/").to_lowercase();
        for forbidden in [
            "<style",
            " style=",
            "<script>",
            " onclick",
            " onload",
            "javascript:",
            "http:",
        ] {
            assert!(!index.contains(forbidden), "{forbidden}");
        }
        let script = text(&page, "/app.js");
        let code = script
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                ".style",
            ] {
                assert!(!line.contains(forbidden), "{line}");
            }
        }
    }

    #[test]
    fn every_file_has_its_headers_once() {
        let page = Page::new(Some(1883));
        for file in &page.files {
            let policy = header(file, "content-security-policy");
            assert_eq!(policy.len(), 1);
            assert!(policy[0].starts_with("default-src 'none'; script-src 'self';"));
            assert!(!policy[0].contains("unsafe"));
            assert_eq!(header(file, "x-content-type-options"), ["nosniff"]);
            assert_eq!(header(file, "referrer-policy"), ["no-referrer"]);
            assert_eq!(header(file, "cache-control"), ["no-cache"]);
            assert_eq!(header(file, "etag"), [file.etag.as_str()]);
            let types = header(file, "content-type");
            assert_eq!(types, [file.content_type]);
            for (name, value) in file.headers() {
                assert_eq!(name, name.to_ascii_lowercase());
                assert!(
                    value.bytes().all(|it| (b' '..=b'~').contains(&it)),
                    "{name}: {value}"
                );
            }
        }
    }

    #[test]
    fn an_entity_tag_stands_for_the_bytes() {
        let page = Page::new(Some(1883));
        let file = page.file("/").unwrap();
        assert_eq!(file.etag, Page::new(Some(1883)).file("/").unwrap().etag);
        assert_ne!(file.etag, Page::new(Some(1884)).file("/").unwrap().etag);
        let tag = &file.etag;
        for known in [
            tag.clone(),
            "*".into(),
            format!("W/{tag}"),
            format!("\"a\", {tag} ,\"b\""),
        ] {
            assert!(file.is_known(&known), "{known}");
        }
        for other in ["", "\"\"", "\"a\"", "W/", tag.trim_matches('"')] {
            assert!(!file.is_known(other), "{other}");
        }
    }
}
