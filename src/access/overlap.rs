//! Whether two Topic Filters have a topic in common.

/// Whether some Topic Name is matched by both filters.
pub(super) fn overlaps(a: &str, b: &str) -> bool {
    // A wildcard at the beginning does not match a topic that begins with $ [MQTT-4.7.2-1].
    let wild = |filter: &str| filter.starts_with(['+', '#']);
    if a.starts_with('$') && wild(b) || b.starts_with('$') && wild(a) {
        return false;
    }
    // All that "/#" and a single level could share is the parent, and it is empty: no topic.
    if matches!((a, b), ("+", "/#") | ("/#", "+")) {
        return false;
    }
    let (mut a, mut b) = (a.split('/'), b.split('/'));
    loop {
        match (a.next(), b.next()) {
            // "#" also stands for no level at all: "a/#" matches "a" [MQTT-4.7.1-2].
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All pairs up to three levels are tried where rights are tested; these are the pairs
    /// that are easily got wrong.
    #[test]
    fn corner_cases() {
        for (a, b, expected) in [
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/+/#", "a", false),
            ("a/+", "+/b", true),
            ("a/+", "b/+", false),
            ("+", "/#", false),
            ("+/+", "/#", true),
            ("#", "/#", true),
            ("#", "$SYS/#", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/+", "$SYS/x", true),
            ("#", "+", true),
        ] {
            assert_eq!(overlaps(a, b), expected, "{a} {b}");
            assert_eq!(overlaps(b, a), expected, "{b} {a}");
        }
    }
}
