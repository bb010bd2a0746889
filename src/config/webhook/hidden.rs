//! Text that must not be shown.

use std::fmt;

/// A text that is told to whom it is meant for and to nobody else: `Debug` does not show it, and
/// there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Box<str>);

impl Hidden {
    /// Hides a text.
    pub fn new(text: impl Into<Box<str>>) -> Hidden {
        Hidden(text.into())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(…)")
    }
}
