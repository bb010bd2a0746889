//! What a host in a URL means.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The host of a URL, as written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HostLiteral {
    /// An address in its usual form: `192.0.2.1`, `[2001:db8::1]`.
    Address(IpAddr),
    /// An IPv4 address in another form, which `inet_aton` and browsers read too: `127.1`,
    /// `0x7f000001`, `017700000001`, `2130706433`, and with a dot at the end. Nobody writes these
    /// in earnest: better refused, with the address that is meant.
    Disguised(Ipv4Addr),
    /// A name to resolve.
    Name,
    /// Neither: its last label is a number, so that it cannot be a name, but it is no address; or
    /// brackets without an IPv6 address; or an empty host, or characters that belong into none.
    Invalid,
}

impl HostLiteral {
    /// What a host means, after the rules of the URL Standard ("host parsing", "ends in a number",
    /// "IPv4 parser"), where numbers are decimal, octal after `0` or hexadecimal after `0x`, and
    /// the last of fewer than four fills the bytes that are left.
    ///
    /// A name must be ASCII, an international one in its `xn--` form: mapping other characters to
    /// these (`１２７.0.0.1` is a loopback address then) is a URL library's work, and this comes
    /// after it. Percent-encoding is not decoded, and invalid.
    pub fn new(host: &str) -> HostLiteral {
        if let Some(inner) = host.strip_prefix('[') {
            let v6 = inner
                .strip_suffix(']')
                .and_then(|it| it.parse::<Ipv6Addr>().ok());
            return v6.map_or(HostLiteral::Invalid, |v6| {
                HostLiteral::Address(IpAddr::V6(v6))
            });
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if !host.bytes().all(allowed) {
            return HostLiteral::Invalid;
        }
        if let Ok(v4) = host.parse() {
            return HostLiteral::Address(IpAddr::V4(v4));
        }
        let without_dot = host.strip_suffix('.').unwrap_or(host);
        let last = without_dot.rsplit('.').next().unwrap_or_default();
        let ends_in_a_number =
            last.bytes().all(|byte| byte.is_ascii_digit()) || number(last).is_some();
        if without_dot.split('.').any(str::is_empty) {
            HostLiteral::Invalid
        } else if ends_in_a_number {
            inet_aton(without_dot).map_or(HostLiteral::Invalid, HostLiteral::Disguised)
        } else {
            HostLiteral::Name
        }
    }
}

/// The address that one to four numbers mean.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let mut parts = [0; 4];
    let mut count = 0;
    for label in text.split('.') {
        *parts.get_mut(count)? = number(label)?;
        count += 1;
    }
    let (last, bytes) = parts[..count].split_last()?;
    let mut address = *last;
    // The last number fills all bytes that those before it leave.
    if address >> (8 * (4 - bytes.len())) != 0 {
        return None;
    }
    for (index, byte) in bytes.iter().enumerate() {
        if *byte > 255 {
            return None;
        }
        address |= byte << (8 * (3 - index));
    }
    u32::try_from(address).ok().map(Ipv4Addr::from_bits)
}

/// A decimal, octal or hexadecimal number; one that is too large for an address stays too large.
fn number(label: &str) -> Option<u64> {
    let (digits, radix) = if let Some(digits) = label.strip_prefix("0x") {
        (digits, 16)
    } else if let Some(digits) = label.strip_prefix("0X") {
        (digits, 16)
    } else if label.len() > 1 && label.starts_with('0') {
        (&label[1..], 8)
    } else {
        (label, 10)
    };
    if digits.is_empty() && radix == 10 {
        return None;
    }
    // "0x" alone is zero, in browsers and here.
    digits.chars().try_fold(0_u64, |value, digit| {
        let value = value * u64::from(radix) + u64::from(digit.to_digit(radix)?);
        Some(value.min(1 << 40))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses() {
        for text in ["192.0.2.1", "0.0.0.0", "255.255.255.255"] {
            let expected = HostLiteral::Address(text.parse().unwrap());
            assert_eq!(HostLiteral::new(text), expected);
        }
        for text in ["::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:7f00:1"] {
            let expected = HostLiteral::Address(text.parse().unwrap());
            assert_eq!(HostLiteral::new(&format!("[{text}]")), expected);
        }
    }

    #[test]
    fn disguises() {
        for (text, meant) in [
            ("127.1", "127.0.0.1"),
            ("127.0.1", "127.0.0.1"),
            ("127.258", "127.0.1.2"),
            ("127.0.258", "127.0.1.2"),
            ("2130706433", "127.0.0.1"),
            ("0x7f000001", "127.0.0.1"),
            ("0X7F.1", "127.0.0.1"),
            ("0x7f.0x0.0x0.0x1", "127.0.0.1"),
            ("017700000001", "127.0.0.1"),
            ("0177.0.0.01", "127.0.0.1"),
            ("0177.0.0.0x1", "127.0.0.1"),
            ("0000000177.0.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("010.8.8.8", "8.8.8.8"),
            ("0", "0.0.0.0"),
            ("0x", "0.0.0.0"),
            ("00", "0.0.0.0"),
            ("1.0x", "1.0.0.0"),
            ("0xa9fea9fe", "169.254.169.254"),
            ("2852039166", "169.254.169.254"),
            ("169.254.43518", "169.254.169.254"),
            ("4294967295", "255.255.255.255"),
        ] {
            let expected = HostLiteral::Disguised(meant.parse().unwrap());
            assert_eq!(HostLiteral::new(text), expected, "{text}");
        }
    }

    #[test]
    fn names_and_what_is_neither() {
        for text in [
            "localhost",
            "example.com",
            "example.com.",
            "127.0.0.1.nip.io",
            "1e100.net",
            "xn--bcher-kva.example",
            "0xg",
            "0x7f.example",
            "a_b.example",
            "x127",
        ] {
            assert_eq!(HostLiteral::new(text), HostLiteral::Name, "{text}");
        }
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "1..2",
            "256.0.0.1",
            "1.256.0.1",
            "1.2.3.256",
            "1.2.65536",
            "4294967296",
            "0x100000000",
            "99999999999999999999999999999999999",
            "1.2.3.4.5",
            "08.1.1.1",
            "1.1.1.09",
            "example.1",
            "[127.0.0.1]",
            "[::1",
            "[]",
            "[fe80::1%25eth0]",
            "::1",
            "127.0.0.1:80",
            "１２７.0.0.1",
            "127。0。0。1",
            "%3127.0.0.1",
            "user@host",
            "a b",
        ] {
            assert_eq!(HostLiteral::new(text), HostLiteral::Invalid, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_form_of_an_address_is_known(bits: u32) {
            let ip = Ipv4Addr::from_bits(bits);
            let [a, b, c, d] = ip.octets();
            prop_assert_eq!(HostLiteral::new(&ip.to_string()), HostLiteral::Address(ip.into()));
            for text in [
                format!("{bits}"),
                format!("{bits:#x}"),
                format!("0{bits:o}"),
                format!("{a}.{}", bits & 0xFF_FFFF),
                format!("{a}.0x{b:x}.{}", bits & 0xFFFF),
                format!("0x{a:x}.0{b:o}.0{c:o}.0x{d:X}"),
                format!("{ip}."),
            ] {
                prop_assert_eq!(HostLiteral::new(&text), HostLiteral::Disguised(ip), "{}", text);
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>(), near in "\\[?[0-9a-fx.:]{0,40}\\]?") {
            let _ = HostLiteral::new(&text);
            let _ = HostLiteral::new(&near);
        }
    }
}
