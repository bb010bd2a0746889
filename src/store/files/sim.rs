//! A simulated disk: it knows what was flushed, can lose power at any moment, and fails on
//! request.
//!
//! After a power cut each unflushed write is there or not, by sectors and in any order; changes
//! of length likewise. Of the changes to a directory since its last flush a prefix is there, as
//! on a journaling file system. The simulated [`Table`] treats each change by itself.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{File, Files};
use crate::store::StoreError;
use crate::store::table::{Change, EachEntry, Table};

/// The smallest piece that a disk writes as one.
const SECTOR: usize = 512;

/// A small generator of random numbers: a run is repeated by its seed.
#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Allocate,
    Write,
    Sync,
    SyncDir,
    Read,
}

#[derive(Clone, Copy)]
struct Fault {
    operation: Operation,
    /// How many such operations still succeed.
    after: u64,
    error: i32,
}

#[derive(Clone)]
enum FileChange {
    Write { at: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone, Default)]
struct Inode {
    current: Vec<u8>,
    flushed: Vec<u8>,
    unflushed: Vec<FileChange>,
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
}

#[derive(Clone, Default)]
struct TableContent {
    flushed: BTreeMap<Vec<u8>, Vec<u8>>,
    current: BTreeMap<Vec<u8>, Vec<u8>>,
    unflushed: Vec<Change>,
}

#[derive(Clone, Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    flushed_names: BTreeMap<PathBuf, usize>,
    unflushed_names: HashMap<PathBuf, Vec<NameChange>>,
    tables: BTreeMap<PathBuf, TableContent>,
    faults: Vec<Fault>,
    /// At most so much is written by one call; 0 for all of it.
    write_max: usize,
    free_bytes: Option<u64>,
    syncs: u64,
    power_cuts: u128,
}

/// A handle to a simulated disk.
#[derive(Clone, Default)]
pub(crate) struct SimFiles(Arc<Mutex<Disk>>);

impl SimFiles {
    pub(crate) fn new() -> SimFiles {
        SimFiles::default()
    }

    /// Makes the operation after the next `after` of its kind fail, once.
    pub(crate) fn fail(&self, operation: Operation, after: u64, error: i32) {
        self.0.lock().faults.push(Fault {
            operation,
            after,
            error,
        });
    }

    /// From now on a write takes at most this many bytes.
    pub(crate) fn write_at_most(&self, bytes: usize) {
        self.0.lock().write_max = bytes;
    }

    pub(crate) fn set_free_bytes(&self, bytes: u64) {
        self.0.lock().free_bytes = Some(bytes);
    }

    /// How often a file was flushed.
    pub(crate) fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// The bytes of all files that have a name.
    pub(crate) fn bytes(&self) -> u64 {
        let disk = self.0.lock();
        disk.names
            .values()
            .map(|&inode| disk.inodes[inode].current.len() as u64)
            .sum()
    }

    pub(crate) fn edit_table(&self, edit: impl FnOnce(&mut BTreeMap<Vec<u8>, Vec<u8>>)) {
        let mut disk = self.0.lock();
        let table = disk.tables.values_mut().next().expect("there is a table");
        edit(&mut table.current);
        table.flushed = table.current.clone();
    }

    pub(crate) fn drop_table(&self) {
        self.0.lock().tables.clear();
    }

    pub(crate) fn table(&self, dir: &Path) -> Box<dyn Table> {
        self.0.lock().tables.entry(dir.to_owned()).or_default();
        Box::new(SimTable {
            disk: self.clone(),
            dir: dir.to_owned(),
        })
    }

    /// The disk as it may look after the process was killed: everything written is there.
    pub(crate) fn kill(&self) -> SimFiles {
        let mut disk = self.0.lock().clone();
        disk.faults.clear();
        disk.forget_nameless();
        SimFiles(Arc::new(Mutex::new(disk)))
    }

    /// The disk as it may look after a power cut now.
    pub(crate) fn cut_power(&self, rng: &mut Rng) -> SimFiles {
        let mut disk = self.0.lock().clone();
        disk.forget_nameless();
        let mut after = Disk {
            power_cuts: disk.power_cuts + 1,
            ..Disk::default()
        };
        // Sometimes nearly all of what was not flushed survives, sometimes nearly nothing.
        let odds = [0, 5, 50, 95, 100][rng.below(5) as usize];
        for inode in &disk.inodes {
            let content = inode.survive(odds, rng);
            after.inodes.push(Inode {
                current: content.clone(),
                flushed: content,
                unflushed: Vec::new(),
            });
        }
        after.names = disk.flushed_names.clone();
        for changes in disk.unflushed_names.values() {
            let kept = rng.below(changes.len() as u64 + 1) as usize;
            for change in &changes[..kept] {
                change.apply(&mut after.names);
            }
        }
        after.flushed_names = after.names.clone();
        for (dir, table) in &disk.tables {
            let mut content = table.flushed.clone();
            for (key, value) in &table.unflushed {
                if rng.chance(odds) {
                    match value {
                        Some(value) => content.insert(key.clone(), value.clone()),
                        None => content.remove(key),
                    };
                }
            }
            let table = TableContent {
                flushed: content.clone(),
                current: content,
                unflushed: Vec::new(),
            };
            after.tables.insert(dir.clone(), table);
        }
        SimFiles(Arc::new(Mutex::new(after)))
    }

    fn check(&self, operation: Operation) -> io::Result<()> {
        let mut disk = self.0.lock();
        let mut failed = None;
        disk.faults.retain_mut(|fault| {
            if fault.operation != operation || failed.is_some() {
                return true;
            }
            if fault.after > 0 {
                fault.after -= 1;
                return true;
            }
            failed = Some(fault.error);
            false
        });
        failed.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }

    fn change_name(disk: &mut Disk, dir: &Path, change: NameChange) {
        change.apply(&mut disk.names);
        disk.unflushed_names
            .entry(dir.to_owned())
            .or_default()
            .push(change);
    }
}

impl Disk {
    /// Drops the content of files that cannot come back.
    fn forget_nameless(&mut self) {
        let mut named: Vec<usize> = self.names.values().copied().collect();
        named.extend(self.flushed_names.values());
        for change in self.unflushed_names.values().flatten() {
            if let NameChange::Link(_, inode) = change {
                named.push(*inode);
            }
        }
        named.sort_unstable();
        for (number, inode) in self.inodes.iter_mut().enumerate() {
            if named.binary_search(&number).is_err() {
                *inode = Inode::default();
            }
        }
    }
}

impl Inode {
    fn apply(content: &mut Vec<u8>, change: &FileChange) {
        match change {
            FileChange::Write { at, bytes } => {
                if content.len() < at + bytes.len() {
                    content.resize(at + bytes.len(), 0);
                }
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            FileChange::SetLen(len) => content.resize(*len, 0),
        }
    }

    fn survive(&self, odds: u64, rng: &mut Rng) -> Vec<u8> {
        let mut content = self.flushed.clone();
        for change in &self.unflushed {
            match change {
                FileChange::SetLen(_) if rng.chance(odds) => Inode::apply(&mut content, change),
                FileChange::SetLen(_) => {}
                FileChange::Write { at, bytes } => {
                    let mut start = *at;
                    let end = at + bytes.len();
                    while start < end {
                        let stop = ((start / SECTOR + 1) * SECTOR).min(end);
                        if rng.chance(odds) {
                            let piece = FileChange::Write {
                                at: start,
                                bytes: bytes[start - at..stop - at].to_vec(),
                            };
                            Inode::apply(&mut content, &piece);
                        }
                        start = stop;
                    }
                }
            }
        }
        content
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Link(path, inode) => {
                // A rename is two changes that happen as one: the old name goes with it.
                names.retain(|_, other| other != inode);
                names.insert(path.clone(), *inode);
            }
            NameChange::Unlink(path) => {
                names.remove(path);
            }
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().expect("every file has a directory")
}

impl Files for SimFiles {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.0.lock();
        let names = disk.names.keys().filter(|path| parent(path) == dir);
        Ok(names
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
            .collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.check(Operation::Create)?;
        let mut disk = self.0.lock();
        disk.inodes.push(Inode::default());
        let inode = disk.inodes.len() - 1;
        SimFiles::change_name(
            &mut disk,
            parent(path),
            NameChange::Link(path.to_owned(), inode),
        );
        drop(disk);
        Ok(Arc::new(SimFile(self.clone(), inode)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let inode = self.0.lock().names.get(path).copied();
        match inode {
            Some(inode) => Ok(Arc::new(SimFile(self.clone(), inode))),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        if let Some(table) = disk.tables.remove(from) {
            disk.tables.insert(to.to_owned(), table);
            return Ok(());
        }
        let inode = *disk.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        SimFiles::change_name(
            &mut disk,
            parent(to),
            NameChange::Link(to.to_owned(), inode),
        );
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        if !disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        SimFiles::change_name(&mut disk, parent(path), NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        let paths: Vec<PathBuf> = disk.names.keys().cloned().collect();
        for path in paths.into_iter().filter(|path| path.starts_with(dir)) {
            let dir = parent(&path).to_owned();
            SimFiles::change_name(&mut disk, &dir, NameChange::Unlink(path));
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.check(Operation::SyncDir)?;
        let mut disk = self.0.lock();
        let changes = disk.unflushed_names.remove(dir).unwrap_or_default();
        for change in changes {
            change.apply(&mut disk.flushed_names);
        }
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.lock().free_bytes.unwrap_or(1 << 50))
    }

    fn boot(&self) -> u128 {
        1 + self.0.lock().power_cuts
    }
}

struct SimFile(SimFiles, usize);

impl SimFile {
    fn change(&self, change: FileChange) {
        let mut disk = self.0.0.lock();
        let inode = &mut disk.inodes[self.1];
        Inode::apply(&mut inode.current, &change);
        inode.unflushed.push(change);
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.check(Operation::Read)?;
        let disk = self.0.0.lock();
        let content = &disk.inodes[self.1].current;
        let start = (position as usize).min(content.len());
        let n = buf.len().min(content.len() - start);
        buf[..n].copy_from_slice(&content[start..start + n]);
        Ok(n)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize> {
        let write_max = self.0.0.lock().write_max;
        let taken = if write_max == 0 {
            buf.len()
        } else {
            buf.len().min(write_max)
        };
        let failed = self.0.check(Operation::Write);
        // A write that fails may have written a part.
        let taken = if failed.is_err() { taken / 2 } else { taken };
        self.change(FileChange::Write {
            at: position as usize,
            bytes: buf[..taken].to_vec(),
        });
        failed.map(|()| taken)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.0.lock().inodes[self.1].current.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(FileChange::SetLen(len as usize));
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.check(Operation::Allocate)?;
        self.change(FileChange::SetLen(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.check(Operation::Sync)?;
        let mut disk = self.0.0.lock();
        disk.syncs += 1;
        let inode = &mut disk.inodes[self.1];
        let changes = std::mem::take(&mut inode.unflushed);
        for change in &changes {
            Inode::apply(&mut inode.flushed, change);
        }
        Ok(())
    }
}

struct SimTable {
    disk: SimFiles,
    dir: PathBuf,
}

impl Table for SimTable {
    fn load(&mut self, each: EachEntry<'_>) -> Result<(), StoreError> {
        let content = self.disk.0.lock().tables[&self.dir].current.clone();
        for (key, value) in &content {
            each(key, value).ok_or_else(|| StoreError::Checkpoint("no sense".to_owned()))?;
        }
        Ok(())
    }

    fn write(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut disk = self.disk.0.lock();
        let table = disk.tables.get_mut(&self.dir).expect("it was opened");
        for (key, value) in changes {
            match value {
                Some(value) => table.current.insert(key.clone(), value.clone()),
                None => table.current.remove(key),
            };
            table.unflushed.push((key.clone(), value.clone()));
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let mut disk = self.disk.0.lock();
        let table = disk.tables.get_mut(&self.dir).expect("it was opened");
        table.flushed = table.current.clone();
        table.unflushed.clear();
        Ok(())
    }
}
