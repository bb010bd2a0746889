//! Where the key that tokens are signed with is kept: in a document of the store, so that a token
//! is good after a restart too. Backups and exports have it, as they have everything else.

use crate::access::SigningKey;
use crate::store::{self, Record, Recovered, Store, StoreError};

const DOCUMENT: &str = "access/signing-key";

/// The key that is kept; `None` if there is none, as before the first start.
pub fn kept(recovered: &Recovered) -> Option<SigningKey> {
    let document = recovered
        .documents
        .iter()
        .find(|document| &*document.key == DOCUMENT)?;
    let key = SigningKey::from_bytes(&document.value);
    if key.is_none() {
        tracing::error!(
            "the key that tokens are signed with is damaged; they are not good any more"
        );
    }
    key
}

/// The key that is kept, or a new one, which is kept from now on. A store that cannot keep it says
/// so in the log: then its tokens end with the broker, and everything else goes on.
pub async fn kept_or_new(store: &dyn Store, recovered: &Recovered) -> SigningKey {
    if let Some(key) = kept(recovered) {
        return key;
    }
    let key = SigningKey::generate();
    if let Err(error) = keep(store, &key).await {
        tracing::warn!(%error, "the key that tokens are signed with is not kept");
    }
    key
}

/// Returns once it is durable: no token leaves before its key is safe.
async fn keep(store: &dyn Store, key: &SigningKey) -> Result<(), StoreError> {
    let record = Record::DocumentPut {
        key: DOCUMENT,
        value: key.as_bytes(),
        expires_ms: None,
    };
    let appended = store.append(&[record])?;
    store::until_durable(store, appended.ticket).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::store::RecoveredDocument;

    #[tokio::test]
    async fn the_key_outlives_the_store_that_it_was_made_in() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::from_toml(&format!("store.path = {:?}", dir.path())).unwrap();
        let mut keys = Vec::new();
        for _ in 0..2 {
            let (store, recovered) = store::open(&config.store).unwrap();
            assert_eq!(kept(&recovered), keys.first().cloned());
            keys.push(kept_or_new(&*store, &recovered).await);
            store.close().unwrap();
        }
        assert!(keys[0] == keys[1]);
    }

    #[tokio::test]
    async fn a_damaged_key_is_replaced() {
        let (store, mut recovered) = store::MemoryStore::new();
        recovered.documents.push(RecoveredDocument {
            key: DOCUMENT.into(),
            value: Box::new([7; 31]),
            expires_ms: None,
        });
        assert!(kept(&recovered).is_none());
        let key = kept_or_new(&store, &recovered).await;
        assert_ne!(key.as_bytes()[..31], [7; 31]);
    }

    #[tokio::test]
    async fn a_store_that_keeps_nothing_does_not_keep_the_broker_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::from_toml(&format!("store.path = {:?}", dir.path())).unwrap();
        let (store, recovered) = store::open(&config.store).unwrap();
        store.close().unwrap();
        assert!(keep(&*store, &SigningKey::generate()).await.is_err());
        let [one, two] = [
            kept_or_new(&*store, &recovered).await,
            kept_or_new(&*store, &recovered).await,
        ];
        assert!(one != two);
    }
}
