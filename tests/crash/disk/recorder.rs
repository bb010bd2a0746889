//! What was written and what was flushed, and what may be left of it after a power cut.
//!
//! After a cut each write that was not flushed is there or not, by sectors and in any order;
//! changes of length likewise. Of the changes to a directory since its last flush a prefix is
//! there, as on a journaling file system. That is the model of the simulated disk of the store's
//! own tests, applied to what the real binary really did.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::shim::trace_file;
use crate::random::Rng;

/// The smallest piece that a disk writes as one.
const SECTOR: usize = 512;

/// Bytes of the fixed part of a record: see `struct head` in `shim.c`.
const HEAD: usize = 40;

enum Change {
    Write { at: usize, bytes: Vec<u8> },
    SetLen(usize),
}

/// A file or a directory.
#[derive(Default)]
struct Node {
    current: Vec<u8>,
    flushed: Vec<u8>,
    unflushed: Vec<Change>,
    /// How many changes were flushed before the first of `unflushed`.
    flushed_count: usize,
    is_directory: bool,
}

type Names = BTreeMap<(usize, String), usize>;

enum NameChange {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

#[derive(Default)]
struct Directory {
    unflushed: Vec<NameChange>,
    flushed_count: usize,
}

/// A record of the trace.
struct Record<'a> {
    kind: u8,
    path: &'a str,
    inode: u64,
    a: u64,
    data: &'a [u8],
}

/// The disk as the broker's operations have made it.
pub struct Recorder {
    /// What is recorded is below it.
    root: PathBuf,
    trace: PathBuf,
    read_to: u64,
    nodes: Vec<Node>,
    names: Names,
    flushed_names: Names,
    directories: HashMap<usize, Directory>,
    inodes: HashMap<u64, usize>,
    /// Whether a flush makes anything durable.
    honest: bool,
    /// For each flush that has begun, what it flushes and up to which change.
    flushes: HashMap<u64, (usize, usize)>,
}

const ROOT: usize = 0;

impl Recorder {
    /// An empty disk; the trace is in `root`. A disk that is not honest forgets what was flushed.
    pub fn new(root: &Path, honest: bool) -> Recorder {
        let node = Node {
            is_directory: true,
            ..Node::default()
        };
        Recorder {
            root: root.to_owned(),
            trace: trace_file(root),
            read_to: 0,
            nodes: vec![node],
            names: Names::new(),
            flushed_names: Names::new(),
            directories: HashMap::new(),
            inodes: HashMap::new(),
            honest,
            flushes: HashMap::new(),
        }
    }

    /// Takes in what a process recorded that is dead now, and compares the result with `data`, the
    /// directory that it left.
    ///
    /// # Errors
    /// When they differ although no operation was under way: then the shim has missed one, and no
    /// verdict of this test would be worth anything.
    pub fn look(&mut self, data: &Path) -> Result<(), String> {
        let under_way = self.read_trace();
        self.flushes.clear();
        let missed = self.adopt(data);
        match missed.is_empty() || under_way {
            true => Ok(()),
            false => Err(format!("the shim did not record: {}", missed.join(", "))),
        }
    }

    /// Reads what is new in the trace; true if its last operation was not completed.
    fn read_trace(&mut self) -> bool {
        let mut bytes = Vec::new();
        let mut file = File::open(&self.trace).expect("the shim makes it");
        file.seek(SeekFrom::Start(self.read_to))
            .and_then(|_| file.read_to_end(&mut bytes))
            .expect("it can be read");
        let mut rest = bytes.as_slice();
        let mut under_way: Option<Record<'_>> = None;
        while let Some((record, behind)) = take_record(rest) {
            rest = behind;
            match record.kind {
                b'?' | b'W' | b'L' | b'R' | b'U' | b'D' | b'M' => under_way = Some(record),
                b'F' => {
                    let done = under_way.take();
                    if record.a == 1
                        && let Some(done) = done
                    {
                        self.apply(&done);
                    }
                }
                _ => self.apply(&record),
            }
        }
        // What is left is a record that the process was killed in the middle of. The next process
        // goes on in its place.
        let torn = !rest.is_empty();
        self.read_to += (bytes.len() - rest.len()) as u64;
        if torn {
            File::options()
                .write(true)
                .open(&self.trace)
                .and_then(|trace| trace.set_len(self.read_to))
                .expect("our own file");
        }
        torn || under_way.is_some()
    }

    fn apply(&mut self, record: &Record<'_>) {
        match record.kind {
            b'C' => {
                let node = self.make(record.path, false);
                self.inodes.insert(record.inode, node);
            }
            b'O' => {
                let node = match self.find(record.path) {
                    Some(node) => node,
                    // It was made by an operation that was not recorded to its end.
                    None => self.make(record.path, false),
                };
                self.inodes.insert(record.inode, node);
            }
            b'S' => {
                let node = self.inodes[&record.inode];
                if self.nodes[node].current.len() as u64 != record.a {
                    self.nodes[node].change(Change::SetLen(record.a as usize));
                }
            }
            b'L' | b'T' => {
                let node = self.inodes[&record.inode];
                self.nodes[node].change(Change::SetLen(record.a as usize));
            }
            b'W' => {
                let node = self.inodes[&record.inode];
                self.nodes[node].change(Change::Write {
                    at: record.a as usize,
                    bytes: record.data.to_vec(),
                });
            }
            b'B' => {
                let (node, up_to) = match self.find(record.path) {
                    Some(node) if self.nodes[node].is_directory => {
                        let directory = self.directories.entry(node).or_default();
                        (node, directory.flushed_count + directory.unflushed.len())
                    }
                    _ => {
                        let node = self.inodes[&record.inode];
                        let flushed = &self.nodes[node];
                        (node, flushed.flushed_count + flushed.unflushed.len())
                    }
                };
                self.flushes.insert(record.a, (node, up_to));
            }
            b'E' => {
                let (node, up_to) = self.flushes.remove(&record.a).expect("it has begun");
                if self.honest || self.nodes[node].is_directory {
                    self.flush(node, up_to);
                }
            }
            b'R' => {
                let to = std::str::from_utf8(record.data).expect("a path of UTF-8");
                let (from_directory, from) = self.place(record.path);
                let (to_directory, to) = self.place(to);
                assert_eq!(from_directory, to_directory, "renamed within a directory");
                self.change_name(from_directory, NameChange::Rename(from, to));
            }
            b'U' | b'D' => {
                let (directory, name) = self.place(record.path);
                self.change_name(directory, NameChange::Unlink(name));
            }
            b'M' => {
                self.make(record.path, true);
            }
            b'?' => {}
            other => panic!("a record of kind {}", char::from(other)),
        }
    }

    fn find(&self, path: &str) -> Option<usize> {
        let relative = Path::new(path).strip_prefix(&self.root).ok()?;
        let mut node = ROOT;
        for part in relative {
            let name = part.to_str()?.to_owned();
            node = *self.names.get(&(node, name))?;
        }
        Some(node)
    }

    /// The directory of a path, and its name in there.
    fn place(&self, path: &str) -> (usize, String) {
        let path = Path::new(path);
        let parent = path.parent().and_then(Path::to_str).expect("it has one");
        let name = path.file_name().and_then(|name| name.to_str());
        let directory = self
            .find(parent)
            .unwrap_or_else(|| panic!("{parent} is a directory that was not recorded"));
        (directory, name.expect("it has a name").to_owned())
    }

    fn make(&mut self, path: &str, is_directory: bool) -> usize {
        let (directory, name) = self.place(path);
        self.nodes.push(Node {
            is_directory,
            ..Node::default()
        });
        let node = self.nodes.len() - 1;
        self.change_name(directory, NameChange::Link(name, node));
        node
    }

    fn change_name(&mut self, directory: usize, change: NameChange) {
        change.apply(directory, &mut self.names);
        let directory = self.directories.entry(directory).or_default();
        directory.unflushed.push(change);
    }

    fn flush(&mut self, node: usize, up_to: usize) {
        if self.nodes[node].is_directory {
            let directory = self.directories.entry(node).or_default();
            let count = up_to.saturating_sub(directory.flushed_count);
            for change in directory.unflushed.drain(..count) {
                change.apply(node, &mut self.flushed_names);
            }
            directory.flushed_count += count;
        } else {
            let node = &mut self.nodes[node];
            let count = up_to.saturating_sub(node.flushed_count);
            for change in node.unflushed.drain(..count) {
                change.apply(&mut node.flushed);
            }
            node.flushed_count += count;
        }
    }

    /// Takes over where the real directory differs; answers where.
    fn adopt(&mut self, data: &Path) -> Vec<String> {
        let mut missed = Vec::new();
        let mut there = Vec::new();
        walk(data, &mut there);
        for (path, is_directory) in &there {
            let text = path.to_str().expect("a path of UTF-8");
            let node = match self.find(text) {
                Some(node) => node,
                None => {
                    missed.push(format!("{text} (made)"));
                    self.make(text, *is_directory)
                }
            };
            if *is_directory {
                continue;
            }
            let content = fs::read(path).expect("our own file");
            let node = &mut self.nodes[node];
            if node.current.len() != content.len() {
                // Reserving space passes the shim by, so that is no surprise.
                node.change(Change::SetLen(content.len()));
            }
            if node.current != content {
                missed.push(format!("{text} (written)"));
                node.change(Change::Write {
                    at: 0,
                    bytes: content,
                });
            }
        }
        let prefix = data.to_str().expect("a path of UTF-8");
        for known in self.paths_below(prefix) {
            if !there.iter().any(|(path, _)| path.to_str() == Some(&known)) {
                missed.push(format!("{known} (gone)"));
                let (directory, name) = self.place(&known);
                self.change_name(directory, NameChange::Unlink(name));
            }
        }
        missed
    }

    fn paths_below(&self, prefix: &str) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(node) = self.find(prefix) {
            let mut left = vec![(prefix.to_owned(), node)];
            while let Some((path, node)) = left.pop() {
                for ((_, name), child) in self
                    .names
                    .range((node, String::new())..(node + 1, String::new()))
                {
                    let path = format!("{path}/{name}");
                    found.push(path.clone());
                    left.push((path, *child));
                }
            }
        }
        found
    }

    /// The power fails now. What may be left of `data` is put into `left`, and is all that there is
    /// from now on.
    pub fn cut_power(&mut self, rng: &mut Rng, data: &Path, left: &Path) {
        let mut names = self.flushed_names.clone();
        let mut directories: Vec<_> = self.directories.iter().collect();
        // In an order that the seed repeats.
        directories.sort_by_key(|(node, _)| **node);
        for (node, directory) in directories {
            let kept = rng.below(directory.unflushed.len() as u64 + 1) as usize;
            for change in &directory.unflushed[..kept] {
                change.apply(*node, &mut names);
            }
        }
        let before = std::mem::replace(self, Recorder::new(&self.root, self.honest));
        self.read_to = before.read_to;
        let name = data.file_name().and_then(|name| name.to_str());
        let top = names.get(&(ROOT, name.expect("a name").to_owned()));
        let left_name = left.file_name().and_then(|name| name.to_str());
        let left_name = left_name.expect("a name").to_owned();
        let mut todo = Vec::new();
        if let Some(top) = top {
            todo.push((*top, ROOT, left_name, left.to_owned()));
        }
        while let Some((old, directory, name, path)) = todo.pop() {
            let node = &before.nodes[old];
            let content = node.survive(rng);
            if node.is_directory {
                fs::create_dir(&path).expect("a new directory");
            } else {
                write_sparsely(&path, &content);
            }
            self.nodes.push(Node {
                current: content.clone(),
                flushed: content,
                is_directory: node.is_directory,
                ..Node::default()
            });
            let new = self.nodes.len() - 1;
            self.names.insert((directory, name.clone()), new);
            self.flushed_names.insert((directory, name), new);
            for ((_, child), number) in names.range((old, String::new())..(old + 1, String::new()))
            {
                todo.push((*number, new, child.clone(), path.join(child)));
            }
        }
    }
}

impl Node {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.unflushed.push(change);
    }

    fn survive(&self, rng: &mut Rng) -> Vec<u8> {
        let mut content = self.flushed.clone();
        // Sometimes nearly all of what was not flushed survives, sometimes nearly nothing.
        let odds = *rng.pick(&[0, 5, 50, 95, 100]);
        for change in &self.unflushed {
            match change {
                Change::SetLen(_) if rng.chance(odds) => change.apply(&mut content),
                Change::SetLen(_) => {}
                Change::Write { at, bytes } => {
                    let mut start = *at;
                    let end = at + bytes.len();
                    while start < end {
                        let stop = ((start / SECTOR + 1) * SECTOR).min(end);
                        if rng.chance(odds) {
                            put(&mut content, start, &bytes[start - at..stop - at]);
                        }
                        start = stop;
                    }
                }
            }
        }
        content
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { at, bytes } => put(content, *at, bytes),
            Change::SetLen(len) => content.resize(*len, 0),
        }
    }
}

impl NameChange {
    fn apply(&self, directory: usize, names: &mut Names) {
        match self {
            NameChange::Link(name, node) => {
                names.insert((directory, name.clone()), *node);
            }
            NameChange::Unlink(name) => {
                names.remove(&(directory, name.clone()));
            }
            // Both names change as one.
            NameChange::Rename(from, to) => {
                if let Some(node) = names.remove(&(directory, from.clone())) {
                    names.insert((directory, to.clone()), node);
                }
            }
        }
    }
}

fn take_record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let head = bytes.get(..HEAD)?;
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let path_len = u32::from_le_bytes(head[4..8].try_into().expect("four bytes")) as usize;
    let data_at = HEAD + path_len;
    let end = data_at + number(32) as usize;
    let record = Record {
        kind: head[0],
        path: std::str::from_utf8(bytes.get(HEAD..data_at)?).expect("a path of UTF-8"),
        inode: number(8),
        a: number(16),
        data: bytes.get(data_at..end)?,
    };
    Some((record, &bytes[end..]))
}

/// All that is in a directory, the directory itself first.
fn walk(path: &Path, found: &mut Vec<(PathBuf, bool)>) {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return;
    };
    if !metadata.is_dir() && !metadata.is_file() {
        // A socket is not kept.
        return;
    }
    found.push((path.to_owned(), metadata.is_dir()));
    if metadata.is_dir() {
        for entry in fs::read_dir(path).expect("our own directory") {
            walk(&entry.expect("our own directory").path(), found);
        }
    }
}

/// Most of a checkpoint's file is empty.
fn write_sparsely(path: &Path, content: &[u8]) {
    let file = File::create(path).expect("a new file");
    file.set_len(content.len() as u64).expect("its length");
    for (number, page) in content.chunks(4096).enumerate() {
        if page.iter().any(|byte| *byte != 0) {
            let at = number as u64 * 4096;
            file.write_all_at(page, at).expect("our own file");
        }
    }
}
