//! Heads of HTTP/1.1 messages (RFC 9112 §2), found in what was read.

use anyhow::{Context, Result, ensure};
use memchr::memmem;

/// What has to be known of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// The request line or the status line.
    pub first_line: &'a [u8],
    fields: &'a [u8],
    /// Its length with the empty line.
    pub len: usize,
}

impl<'a> Head<'a> {
    /// The head that `bytes` begin with; `None` while its end is missing.
    pub fn read(bytes: &'a [u8]) -> Option<Head<'a>> {
        let end = memmem::find(bytes, b"\r\n\r\n")?;
        let first = memmem::find(bytes, b"\r\n")?;
        Some(Head {
            first_line: &bytes[..first],
            fields: &bytes[first..end],
            len: end + 4,
        })
    }

    /// The value of a field, whose name is written in small letters.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.split(|byte| *byte == b'\n').find_map(|line| {
            let (theirs, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            theirs
                .eq_ignore_ascii_case(name.as_bytes())
                .then(|| value.trim_ascii())
        })
    }

    pub fn status(&self) -> Result<u16> {
        let status = self.first_line.get(9..12);
        let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        ensure!(self.first_line.starts_with(b"HTTP/1."), "not HTTP/1.1");
        status.context("a status line without a status")
    }

    /// Bytes of the body; chunked ones are refused.
    pub fn body_len(&self) -> Result<usize> {
        ensure!(
            self.field("transfer-encoding").is_none(),
            "a body without Content-Length"
        );
        let Some(len) = self.field("content-length") else {
            return Ok(0);
        };
        let len = std::str::from_utf8(len).ok().and_then(|it| it.parse().ok());
        len.context("a Content-Length that is no number")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_found_and_read() {
        let bytes = b"HTTP/1.1 204 No Content\r\nContent-LENGTH:  12 \r\nDate: now\r\n\r\nrest";
        let head = Head::read(bytes).unwrap();
        assert_eq!(head.status().unwrap(), 204);
        assert_eq!(head.body_len().unwrap(), 12);
        assert_eq!(head.field("date"), Some(b"now".as_slice()));
        assert_eq!(head.field("dat"), None);
        assert_eq!(&bytes[head.len..], b"rest");
        assert_eq!(Head::read(&bytes[..head.len - 1]), None);
    }

    #[test]
    fn a_status_line_alone_has_no_body() {
        let head = Head::read(b"HTTP/1.1 202 Accepted\r\n\r\n").unwrap();
        assert_eq!((head.status().unwrap(), head.body_len().unwrap()), (202, 0));
    }
}
