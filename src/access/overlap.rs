//! Whether two Topic Filters have a topic in common.

/// Whether some Topic Name is matched by both filters.
pub(super) fn overlaps(a: &str, b: &str) -> bool {
    // A wildcard at the beginning does not match a topic that begins with $ [MQTT-4.7.2-1].
    let wild = |filter: &str| filter.starts_with(['+', '#']);
    if a.starts_with('$') && wild(b) || b.starts_with('$') && wild(a) {
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
