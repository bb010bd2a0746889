//! What is secret is sealed before it is kept: whoever gets hold of the store, a backup of it or an
//! export does not have the secrets.
//!
//! The key is a file beside the store, made when it is first needed, and part of no backup. Sealed
//! with XChaCha20-Poly1305, whose nonces are long enough to be random; the endpoint's identifier is
//! authenticated with it, so that what was sealed for one is of no use to another.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};
use parking_lot::Mutex;

/// The name of the file with the key, in the directory of the store.
pub(super) const KEY_FILE: &str = "webhooks.key";
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// Why nothing can be sealed.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("the key of webhooks, {}, cannot be used: {error}", path.display())]
    Key { path: PathBuf, error: io::Error },
    #[error("what is secret cannot be sealed")]
    Cipher,
}

/// Seals and unseals with one key.
pub struct Vault {
    /// None of a store in memory: then the key ends with the process, as all else does.
    path: Option<PathBuf>,
    cipher: Mutex<Option<XChaCha20Poly1305>>,
}

impl Vault {
    /// The vault of the store in this directory; none is that of a store in memory. Reads the key
    /// if there is one. Waits for the disk.
    pub fn open(directory: Option<&Path>) -> Vault {
        let path = directory.map(|it| it.join(KEY_FILE));
        let cipher = path.as_deref().map(read_key);
        let cipher = match cipher {
            Some(Ok(key)) => key.map(|key| cipher_of(&key)),
            Some(Err(error)) => {
                let path = path.as_ref().map(|it| it.display().to_string());
                tracing::error!(path, %error, "the key of webhooks cannot be read");
                None
            }
            None => None,
        };
        Vault {
            path,
            cipher: Mutex::new(cipher),
        }
    }

    /// Seals a text for the endpoint `id`. Makes a key if there is none.
    pub(super) fn seal(&self, id: &str, text: &[u8]) -> Result<String, VaultError> {
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce);
        let mut cipher = self.cipher.lock();
        let known = match &*cipher {
            Some(cipher) => cipher,
            None => cipher.insert(self.make()?),
        };
        let payload = Payload {
            msg: text,
            aad: id.as_bytes(),
        };
        let sealed = known
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| VaultError::Cipher)?;
        Ok(STANDARD.encode([&nonce[..], &sealed].concat()))
    }

    /// The text that was sealed for the endpoint `id`; none if it was with another key, or changed.
    pub(super) fn unseal(&self, id: &str, sealed: &str) -> Option<Vec<u8>> {
        let bytes = STANDARD.decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let payload = Payload {
            msg: sealed,
            aad: id.as_bytes(),
        };
        let cipher = self.cipher.lock();
        cipher
            .as_ref()?
            .decrypt(&XNonce::from(*nonce), payload)
            .ok()
    }

    fn make(&self) -> Result<XChaCha20Poly1305, VaultError> {
        let mut key = [0; KEY_BYTES];
        let Some(path) = &self.path else {
            random(&mut key);
            return Ok(cipher_of(&key));
        };
        let made = match read_key(path) {
            Ok(Some(known)) => Ok(known),
            // What cannot be read is left for whoever can: a new one would make sure of the loss.
            Err(error) => Err(error),
            Ok(None) => {
                random(&mut key);
                write_key(path, &key).map(|()| key)
            }
        };
        match made {
            Ok(key) => Ok(cipher_of(&key)),
            Err(error) => Err(VaultError::Key {
                path: path.clone(),
                error,
            }),
        }
    }
}

fn cipher_of(key: &[u8; KEY_BYTES]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&Key::from(*key))
}

fn random(buffer: &mut [u8]) {
    getrandom::fill(buffer).expect("a broker without randomness must not make secrets");
}

fn read_key(path: &Path) -> io::Result<Option<[u8; KEY_BYTES]>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    match <[u8; KEY_BYTES]>::try_from(bytes) {
        Ok(key) => Ok(Some(key)),
        Err(bytes) => Err(io::Error::other(format!(
            "it has {} bytes where {KEY_BYTES} are expected: bring back the right file, or remove \
             it and rotate the secrets of all webhooks",
            bytes.len()
        ))),
    }
}

/// Whole or not at all, and safe before anything is sealed with it.
fn write_key(path: &Path, key: &[u8; KEY_BYTES]) -> io::Result<()> {
    let new = path.with_extension("key.new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(key)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_sealed_is_unsealed_after_a_restart_and_by_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(KEY_FILE);
        let vault = Vault::open(Some(directory.path()));
        assert!(!file.exists(), "made at first use");
        let sealed = vault.seal("a", b"secret").unwrap();
        assert_ne!(sealed, vault.seal("a", b"secret").unwrap(), "a nonce each");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let again = Vault::open(Some(directory.path()));
        assert_eq!(again.unseal("a", &sealed).unwrap(), b"secret");
        assert_eq!(again.unseal("b", &sealed), None, "another endpoint's");
        assert_eq!(Vault::open(None).unseal("a", &sealed), None);
        let mut bytes = STANDARD.decode(&sealed).unwrap();
        for index in [0, NONCE_BYTES, bytes.len() - 1] {
            bytes[index] ^= 1;
            assert_eq!(again.unseal("a", &STANDARD.encode(&bytes)), None);
            bytes[index] ^= 1;
        }
        for bad in ["", "%", "AAAA"] {
            assert_eq!(again.unseal("a", bad), None);
        }

        fs::remove_file(&file).unwrap();
        let lost = Vault::open(Some(directory.path()));
        assert_eq!(lost.unseal("a", &sealed), None);
        assert!(lost.seal("a", b"new").is_ok());
        assert_eq!(lost.unseal("a", &sealed), None);
    }

    #[test]
    fn a_key_that_is_damaged_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(KEY_FILE);
        fs::write(&file, [7; 31]).unwrap();
        let vault = Vault::open(Some(directory.path()));
        let error = vault.seal("a", b"secret").unwrap_err().to_string();
        assert!(error.contains("31 bytes"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), [7; 31]);
    }
}
