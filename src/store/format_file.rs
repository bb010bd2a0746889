//! The file `format` that says what the directory is, and the lock that keeps others out.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use tidings_protocol::time::date_from_days;

use super::StoreError;
use super::files::{Files, read_file, replace_file};

/// The format of a store that this program writes, and the newest that it reads. An older program
/// would take what it does not know for damage:
///
/// - 1: the first
/// - 2: documents, in the log and in the checkpoint
/// - 3: version 2 of the chunks of queues, in the checkpoint
pub(crate) const FORMAT: u32 = 3;

const FILE: &str = "format";

/// Is there while a copy or an import is being written: without all of it, it is no store.
const UNFINISHED: &str = "unfinished";

/// All files that are written here, the mark of what is unfinished last.
pub(crate) const NAMES: [&str; 4] = [FILE, "format.tmp", "unfinished.tmp", UNFINISHED];

/// An exclusive lock on a store's directory, held while the value lives.
pub(crate) struct Directory {
    _lock: fs::File,
}

impl Directory {
    /// Makes the directory if need be, for its owner alone, and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Directory, StoreError> {
        if !path.is_dir() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(StoreError::io("create", path))?;
            // What is acknowledged inside is only as durable as the name of the directory.
            let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            fs::File::open(parent)
                .and_then(|dir| dir.sync_all())
                .map_err(StoreError::io("flush", parent))?;
        }
        let file = path.join("lock");
        let lock = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)
            .map_err(StoreError::io("write to", &file))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Directory { _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked(path.to_owned())),
            Err(error) => Err(StoreError::io("lock", &file)(io::Error::from(error))),
        }
    }
}

/// Marks the directory `path` as one whose content is not complete yet.
pub(crate) fn mark_unfinished(files: &dyn Files, path: &Path) -> Result<(), StoreError> {
    let file = path.join(UNFINISHED);
    replace_file(files, &file, b"").map_err(StoreError::io("write to", &file))
}

/// Takes the mark away again.
pub(crate) fn unmark_unfinished(files: &dyn Files, path: &Path) -> Result<(), StoreError> {
    let file = path.join(UNFINISHED);
    files
        .remove(&file)
        .and_then(|()| files.sync_dir(path))
        .map_err(StoreError::io("remove", &file))
}

/// Whether a directory without a store may become one: nobody else's files are in it. A file system
/// of its own comes with `lost+found`.
fn is_free(files: &dyn Files, path: &Path) -> io::Result<bool> {
    // What was moved aside keeps its name as a beginning.
    const OURS: [&str; 7] = [
        "lock",
        "control",
        "log",
        "state",
        "snapshot",
        "format",
        "lost+found",
    ];
    let names = files.list(path)?;
    let is_ours = |name: &String| {
        let stem = name.split('.').next().unwrap_or(name);
        OURS.contains(&stem)
    };
    Ok(names.iter().all(is_ours))
}

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Says {
    /// [`FORMAT`], or one before it.
    pub(crate) format: u32,
    /// The log epoch. A backup has none: each copy of it that is started gets its own.
    pub(crate) epoch: Option<u64>,
    /// Acknowledged before it was flushed, and not closed since: [`Files::boot`] of that time.
    pub(crate) unflushed_in_boot: Option<u128>,
}

/// What the store in `path` says about itself; `None` for a new one.
pub(crate) fn read(files: &dyn Files, path: &Path) -> Result<Option<Says>, StoreError> {
    let unfinished = path.join(UNFINISHED);
    let found = read_file(files, &unfinished).map_err(StoreError::io("read", &unfinished))?;
    if found.is_some() {
        return Err(StoreError::NotAStore {
            path: path.to_owned(),
            what: "a backup or an import into it was not finished; remove it, and make it again",
        });
    }
    let file = path.join(FILE);
    let content = read_file(files, &file).map_err(StoreError::io("read", &file))?;
    let Some(content) = content else {
        return match is_free(files, path).map_err(StoreError::io("list", path))? {
            true => Ok(None),
            false => Err(StoreError::NotAStore {
                path: path.to_owned(),
                what: "there are other files in it; name an empty or a new directory in store.path",
            }),
        };
    };
    let content = String::from_utf8_lossy(&content);
    let field = |name: &str| {
        content
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .map(str::trim)
    };
    let format = field("tidings-store").and_then(|it| it.parse::<u64>().ok());
    let Some(format) = format.map(|it| u32::try_from(it).unwrap_or(u32::MAX)) else {
        return Err(StoreError::NotAStore {
            path: path.to_owned(),
            what: "its file `format` cannot be read; restore that file, or the whole directory \
                   from a backup",
        });
    };
    if format > FORMAT {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found: format,
            known: FORMAT,
        });
    }
    Ok(Some(Says {
        format,
        epoch: field("epoch").and_then(|it| it.parse().ok()),
        // What cannot be read is some other boot.
        unflushed_in_boot: field("unflushed-in-boot").map(|it| it.parse().unwrap_or(0)),
    }))
}

/// Says what the store in `path` is.
pub(crate) fn write(files: &dyn Files, path: &Path, says: Says) -> Result<(), StoreError> {
    let file = path.join(FILE);
    let mut content = format!("tidings-store {}\n", says.format);
    if let Some(epoch) = says.epoch {
        content += &format!("epoch {epoch}\n");
    }
    if let Some(boot) = says.unflushed_in_boot {
        content += &format!("unflushed-in-boot {boot}\n");
    }
    replace_file(files, &file, content.as_bytes()).map_err(StoreError::io("write to", &file))
}

/// `20261123-171500`: a point in time, in seconds since 1970, as part of a file name.
pub(crate) fn date(secs: u64) -> String {
    let (days, rest) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = date_from_days(days);
    let (hour, minute, second) = (rest / 3_600, rest % 3_600 / 60, rest % 60);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "19700101-000000");
        assert_eq!(date(951_782_399), "20000228-235959");
        assert_eq!(date(951_782_400), "20000229-000000");
        assert_eq!(date(1_795_454_100), "20261123-171500");
    }
}
