//! What can go wrong with a store, by what a caller can do about it.

use std::path::PathBuf;
use std::{fmt, io};

use super::Offset;

/// Why an operation of a store did not happen.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store was poisoned earlier, or closed.
    #[error("{0}")]
    Failed(std::sync::Arc<Failure>),
    /// Free disk space is below `store.disk_free_min`.
    #[error(
        "only {free_bytes} bytes are free on the disk: no new messages are taken; make room, or \
         lower store.disk_free_min"
    )]
    DiskLow { free_bytes: u64 },
    /// A record, or a part of it, is larger than the store can hold.
    #[error("{what} has {bytes} bytes, and may have {bytes_max} at most")]
    TooLarge {
        what: &'static str,
        bytes: usize,
        bytes_max: usize,
    },
    /// Nothing needs this message any more, or it never was.
    #[error("message {0} is not in the log")]
    Gone(Offset),
    /// The message's record is damaged on the disk.
    #[error("message {0} is damaged on the disk")]
    Damaged(Offset),
    /// Another process has the directory.
    #[error(
        "{} is in use by another process; stop it, or give this one another store.path", .0.display()
    )]
    Locked(PathBuf),
    /// The directory was written by a newer version of the program.
    #[error(
        "{} was written in format {found}, and this program knows formats up to {known}; \
         start the newer version again, or give this one another store.path", path.display()
    )]
    Newer {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    /// What lies there is not a store.
    #[error("{} is not a store: {what}", path.display())]
    NotAStore { path: PathBuf, what: &'static str },
    /// Root was to work on a store that is somebody else's.
    #[error(
        "{} belongs to the user with the number {owner}, and a broker of that user could not open \
         what root leaves in it; give the command as that user (sudo -u '#{owner}')",
        path.display()
    )]
    Foreign { path: PathBuf, owner: u32 },
    /// Something new was to be written to a directory that has something in it.
    #[error("{} is not empty; {purpose} needs a directory that is empty or does not exist",
        path.display()
    )]
    NotEmpty {
        path: PathBuf,
        purpose: &'static str,
    },
    /// A line of an export could not be imported.
    #[error(
        "line {line} of the import: {what}; {} has only what came before, remove it before you \
         import again", path.display()
    )]
    Import {
        path: PathBuf,
        line: u64,
        what: String,
    },
    /// This store cannot do that.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A file operation failed, outside of the commit path.
    #[error("cannot {doing} {}: {error}{}", path.display(), advice(error))]
    Io {
        doing: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    /// The engine that holds the checkpoint failed.
    #[error("the checkpoint store failed: {0}")]
    Checkpoint(String),
}

impl StoreError {
    /// For `map_err`: names what was being done to which file.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.into();
        move |error| StoreError::Io { doing, path, error }
    }
}

/// What to do about an error that somebody can mend without knowing the program.
fn advice(error: &io::Error) -> &'static str {
    use io::ErrorKind::*;
    match error.kind() {
        PermissionDenied => {
            "; it must belong to the user that runs the broker, and commands on it are given as \
             that user or as root"
        }
        ReadOnlyFilesystem => {
            "; this process may only read there: mount it for writing, or name another \
             directory (a service of systemd writes to its state directory only)"
        }
        StorageFull | QuotaExceeded => "; make room on that disk, or name a directory on another",
        AlreadyExists | NotADirectory => {
            "; a directory is needed, and there is a file: name another directory, or move the \
             file away"
        }
        _ => "",
    }
}

/// Why a store takes no more records. It stays like that until the program is started again.
#[derive(Debug)]
pub enum Failure {
    /// It was closed in an orderly way.
    Closed,
    /// A write or flush failed. What was not acknowledged by then may or may not be on disk.
    Disk {
        doing: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    /// A thread of the store ended unexpectedly.
    Broken(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Closed => f.write_str("the store is closed"),
            Failure::Disk { doing, path, error } => write!(
                f,
                "the store has failed: cannot {doing} {}: {error}; nothing more is acknowledged \
                 until the disk is well again and the broker has been restarted",
                path.display()
            ),
            Failure::Broken(what) => write!(
                f,
                "the store has failed: {what}; nothing more is acknowledged until the broker \
                 has been restarted"
            ),
        }
    }
}

impl std::error::Error for Failure {}
