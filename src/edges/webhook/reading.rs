//! Reading messages back, on a thread that may wait for the disk.

use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};

use super::flow::Unit;
use crate::broker::Broker;
use crate::store::{StoreError, StoredMessage};

/// Units, and what was read of each of their entries, one after the other.
pub(super) type ReadBack = (Vec<Unit>, Vec<Result<StoredMessage, StoreError>>);

/// Begins to read the messages of units.
pub(super) fn begin(broker: &Arc<Broker>, units: Vec<Unit>) -> JoinHandle<ReadBack> {
    let broker = Arc::clone(broker);
    spawn_blocking(move || {
        let entries = units.iter().flat_map(|unit| &unit.entries);
        let offsets: Vec<_> = entries.map(|entry| entry.offset).collect();
        let read = broker.store().read(&offsets);
        (units, read)
    })
}

/// Whether a message that cannot be read never can be again.
pub(super) fn is_lost(error: &StoreError) -> bool {
    matches!(error, StoreError::Gone(_) | StoreError::Damaged(_))
}
