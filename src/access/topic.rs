//! Temporary stand-in for `tidings_protocol::topic`.

pub fn filter_is_valid(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
    let last = levels.len() - 1;
    !filter.is_empty()
        && filter.len() <= 65535
        && !filter.contains('\0')
        && levels
            .iter()
            .enumerate()
            .all(|(i, l)| *l == "+" || (*l == "#" && i == last) || !l.contains(['+', '#']))
}

pub fn matches(filter: &str, topic: &str) -> bool {
    covers(filter, topic)
}

pub fn covers(wider: &str, narrower: &str) -> bool {
    if narrower.starts_with('$') && wider.starts_with(['+', '#']) {
        return false;
    }
    let (mut w, mut n) = (wider.split('/'), narrower.split('/'));
    loop {
        match (w.next(), n.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(l)) if l != "#" => {}
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}
