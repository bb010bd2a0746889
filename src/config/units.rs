//! Durations and sizes as people write them: `"10s"`, `"30d"`, `"16MiB"`.

use std::time::Duration;

const DURATIONS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

const SIZES: [(&str, u64); 4] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A whole number and a unit (`ms`, `s`, `m`, `h`, `d`), such as `"10s"`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text);
    let (_, millis) = DURATIONS.iter().find(|(name, _)| *name == unit)?;
    parse_integer(number)?
        .checked_mul(*millis)
        .map(Duration::from_millis)
}

/// A whole number of bytes, or one with a unit (`KiB`, `MiB`, `GiB`, `TiB`), such as `"16MiB"`.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text);
    let factor = match unit {
        "" | "B" => 1,
        _ => SIZES.iter().find(|(name, _)| *name == unit)?.1,
    };
    parse_integer(number)?.checked_mul(factor)
}

/// A whole number, with `_` between digits where TOML allows it too.
pub(crate) fn parse_integer(text: &str) -> Option<u64> {
    let digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let bytes = text.as_bytes();
    let well_formed = !bytes.is_empty()
        && bytes.iter().enumerate().all(|(i, byte)| {
            byte.is_ascii_digit()
                || (*byte == b'_' && i > 0 && digit(bytes.get(i - 1)) && digit(bytes.get(i + 1)))
        });
    if !well_formed {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// The number and the unit, with at most one space between them.
fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.strip_prefix(' ').unwrap_or(unit))
}

/// The inverse of [`parse_duration`], in the largest unit that is exact.
pub fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let exact = DURATIONS
        .iter()
        .rev()
        .find(|(_, factor)| millis.is_multiple_of(*factor));
    let (unit, factor) = exact.expect("every whole number of milliseconds is a multiple of one");
    format!("{}{unit}", millis / factor)
}

/// The inverse of [`parse_size`], in the largest unit that is exact.
pub(crate) fn show_size(bytes: u64) -> String {
    match SIZES
        .iter()
        .rev()
        .find(|(_, factor)| bytes.is_multiple_of(*factor))
    {
        Some((unit, factor)) if bytes > 0 => format!("{}{unit}", bytes / factor),
        _ => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text, millis: Option<u64>| {
            assert_eq!(
                parse_duration(text),
                millis.map(Duration::from_millis),
                "{text}"
            );
        };
        check("100ms", Some(100));
        check("10s", Some(10_000));
        check("5m", Some(300_000));
        check("18h", Some(64_800_000));
        check("30d", Some(2_592_000_000));
        check("0s", Some(0));
        check("1_000 s", Some(1_000_000));
        for bad in [
            "",
            "s",
            "10",
            "10 sec",
            "-1s",
            "1.5s",
            "10S",
            "10  s",
            "99999999999999999999s",
            "600000000000000000d",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn sizes() {
        let check = |text, bytes: Option<u64>| assert_eq!(parse_size(text), bytes, "{text}");
        check("0", Some(0));
        check("4096", Some(4096));
        check("12B", Some(12));
        check("64KiB", Some(65_536));
        check("16 MiB", Some(16_777_216));
        check("1GiB", Some(1 << 30));
        for bad in [
            "",
            "KiB",
            "16MB",
            "16mib",
            "-1",
            "1.5MiB",
            "_1",
            "1_",
            "1__0",
            "99999999999TiB",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for text in ["1ms", "1500ms", "90s", "5m", "18h", "30d", "0s"] {
            let duration = parse_duration(text).expect(text);
            assert_eq!(show_duration(duration), text);
        }
        for text in ["0", "17", "64KiB", "16MiB", "1GiB", "3TiB"] {
            assert_eq!(show_size(parse_size(text).expect(text)), text);
        }
    }
}
