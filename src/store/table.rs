//! What holds the state of a checkpoint: keys and values on disk, written in batches.

use super::StoreError;

/// A key and its value; `None` removes the key.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// Is called with a key and its value; answers `None` if they make no sense.
pub(crate) type EachEntry<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Option<()>;

/// Keys and values that survive a power cut once [`Table::sync`] has returned. Changes since the
/// last sync may survive or not, each for itself.
pub(crate) trait Table: Send {
    /// Calls `each` with everything there is; it answers `None` for what makes no sense.
    fn load(&mut self, each: EachEntry<'_>) -> Result<(), StoreError>;

    fn write(&mut self, changes: &[Change]) -> Result<(), StoreError>;

    fn sync(&mut self) -> Result<(), StoreError>;
}
