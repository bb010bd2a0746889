//! Finds the product's panics. The broker survives a panic in one connection's task by closing that
//! connection, which a scenario about bad input could take for the right answer.

use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::{Mutex, Once};
use std::thread;

/// The thread and the message of each panic in the product's code.
static SEEN: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// From now on panics in the product are noted, for all scenarios of this process.
pub(super) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            note(panic);
            before(panic);
        }));
    });
}

fn note(panic: &PanicHookInfo<'_>) {
    let file = panic.location().map_or("", |location| location.file());
    if file.starts_with("src/") || file.starts_with("protocol/") {
        let thread = thread::current().name().unwrap_or("").to_owned();
        SEEN.lock()
            .expect("nothing panics while it is held")
            .push((thread, panic.to_string()));
    }
}

/// Fails if the product has panicked in this scenario: on its thread, or on a runtime's own
/// threads, which say less.
pub(super) fn assert_none() {
    if thread::panicking() {
        return;
    }
    let here = thread::current();
    let seen = SEEN
        .lock()
        .expect("nothing panics while it is held")
        .clone();
    let ours = |thread: &str| Some(thread) == here.name() || thread.starts_with("tokio");
    let found: Vec<_> = seen
        .into_iter()
        .filter(|(thread, _)| ours(thread))
        .collect();
    assert!(found.is_empty(), "the broker panicked: {found:#?}");
}
