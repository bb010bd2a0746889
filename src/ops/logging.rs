//! The log: `tracing` events, formatted to standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{LogConfig, LogFormat};

/// Whether a text is a level or a list of directives.
pub fn level_is_valid(text: &str) -> bool {
    !text.trim().is_empty() && text.split(',').all(directive_is_valid)
}

/// `level`, `target=level` or `target`, as far as we promise them. `EnvFilter` takes a word
/// that is no level for a target, and would turn a typing mistake into silence.
fn directive_is_valid(directive: &str) -> bool {
    let level_is_valid =
        |level: &str| ["error", "warn", "info", "debug", "trace", "off"].contains(&level);
    let target_is_valid = |target: &str| {
        !target.is_empty()
            && target
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    };
    match directive.split_once('=') {
        Some((target, level)) => target_is_valid(target) && level_is_valid(level),
        None => level_is_valid(directive),
    }
}

/// Sends the process's log to standard error. Once per process, by the binary.
pub fn init(config: &LogConfig) -> Result<(), TryInitError> {
    let filter = EnvFilter::new(&config.level);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => {
            use std::io::IsTerminal;
            subscriber
                .with_ansi(std::io::stderr().is_terminal())
                .finish()
                .try_init()
        }
        LogFormat::Json => subscriber.json().flatten_event(true).finish().try_init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives() {
        for good in [
            "info",
            "off",
            "info,tidings::access=debug",
            "tidings=trace,warn",
        ] {
            assert!(level_is_valid(good), "{good}");
        }
        for bad in [
            "",
            "inof",
            "INFO!",
            "info,",
            "=debug",
            "tidings=loud",
            "info debug",
        ] {
            assert!(!level_is_valid(bad), "{bad}");
        }
    }
}
