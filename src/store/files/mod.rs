//! The file operations that the log and the snapshot need, as a trait: the real ones here, and in
//! tests a simulated disk (`sim`) that loses power, fills up and fails.
//!
//! A file's content is durable after [`File::sync_data`], its name after [`Files::sync_dir`].

mod real;
#[cfg(test)]
pub(crate) mod sim;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub(crate) use real::RealFiles;

/// A directory tree.
pub(crate) trait Files: Send + Sync + 'static {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Names of the files in `dir`; none if it does not exist.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes an empty file, or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with all that is in it.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that may still be written to the file system that holds `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Tells one run of the operating system from another: while it is the same, nothing that was
    /// written is lost, flushed or not. 0 if it is not known.
    fn boot(&self) -> u128;
}

/// An open file.
pub(crate) trait File: Send + Sync {
    /// Reads what is there, at most `buf`; 0 at the end.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes some of `buf`.
    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize>;
    fn len(&self) -> io::Result<u64>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves the disk space of the first `len` bytes, and makes the file that long.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Makes everything that was written durable, and the length.
    fn sync_data(&self) -> io::Result<()>;
}

/// Writes all of `buf`, however little each call takes.
pub(crate) fn write_all_at(file: &dyn File, mut buf: &[u8], mut position: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.write_at(buf, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                buf = &buf[n..];
                position += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills `buf` as far as the file goes; returns how far that is.
pub(crate) fn read_full_at(file: &dyn File, buf: &mut [u8], position: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], position + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Reads a whole small file; `None` if it does not exist.
pub(crate) fn read_file(files: &dyn Files, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match files.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut content = vec![0; len];
    let read = read_full_at(&*file, &mut content, 0)?;
    content.truncate(read);
    Ok(Some(content))
}

/// Puts `content` at `path` so that after a crash either all of it is there or what was there
/// before. The caller is the only one to write there.
pub(crate) fn replace_file(files: &dyn Files, path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let file = files.create(&temporary)?;
    write_all_at(&*file, content, 0)?;
    file.sync_data()?;
    files.rename(&temporary, path)?;
    files.sync_dir(path.parent().unwrap_or_else(|| Path::new(".")))
}
