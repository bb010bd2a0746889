//! From the settings of `[store]` to a store that is open.

use std::sync::Arc;
use std::time::Duration;

use super::durable::{Durability, DurableStore, Options};
use super::{MemoryStore, Recovered, Store, StoreError};
use crate::config;

/// How long "interval" may leave what was acknowledged unflushed.
const INTERVAL: Duration = Duration::from_millis(100);

impl From<&config::StoreConfig> for Options {
    fn from(config: &config::StoreConfig) -> Options {
        Options {
            path: config.path.clone(),
            durability: match config.durability {
                config::Durability::Interval => Durability::Interval(INTERVAL),
                config::Durability::Fsync | config::Durability::Memory => Durability::Fsync,
            },
            segment_bytes: config.segment_bytes,
            checkpoint_bytes: config.checkpoint_bytes,
            commit_bytes_max: config.commit_bytes_max as u64,
            disk_free_min: config.disk_free_min,
        }
    }
}

/// Opens the store that `config` asks for, with everything that was kept in it. Takes as long as
/// reading the log since the last checkpoint takes.
///
/// # Errors
/// Those of [`DurableStore::open`].
pub fn open(config: &config::StoreConfig) -> Result<(Arc<dyn Store>, Recovered), StoreError> {
    if config.durability == config::Durability::Memory {
        let (store, recovered) = MemoryStore::new();
        return Ok((Arc::new(store), recovered));
    }
    let (store, recovered) = DurableStore::open(&Options::from(config))?;
    Ok((Arc::new(store), recovered))
}
