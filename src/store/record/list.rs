//! A list inside a record: a slice when the broker gives it, encoded bytes when the log does.
//! Reading a record therefore allocates nothing.

use std::fmt;

use super::codec::Reader;

/// Something a [`List`] can hold.
pub trait Item<'a>: Copy + 'a {
    #[doc(hidden)]
    fn put(&self, out: &mut Vec<u8>);
    #[doc(hidden)]
    fn take(reader: &mut Reader<'a>) -> Option<Self>;
}

/// Values in order, given or still encoded.
pub enum List<'a, T> {
    /// As a slice.
    Given(&'a [T]),
    /// As they are in the log: `bytes` holds `count` of them.
    Encoded { count: usize, bytes: &'a [u8] },
}

impl<'a, T> Clone for List<'a, T> {
    fn clone(&self) -> List<'a, T> {
        *self
    }
}

impl<T> Copy for List<'_, T> {}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        List::Given(&[])
    }
}

impl<'a, T> From<&'a [T]> for List<'a, T> {
    fn from(items: &'a [T]) -> List<'a, T> {
        List::Given(items)
    }
}

impl<T> List<'_, T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            List::Given(items) => items.len(),
            List::Encoded { count, .. } => *count,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a, T: Item<'a>> List<'a, T> {
    /// All of them, in order.
    pub fn iter(&self) -> Items<'a, T> {
        match *self {
            List::Given(items) => Items::Given(items.iter()),
            List::Encoded { count, bytes } => Items::Encoded {
                left: count,
                reader: Reader::new(bytes),
            },
        }
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        super::put_varint(out, self.len() as u64);
        match self {
            List::Given(items) => items.iter().for_each(|item| item.put(out)),
            List::Encoded { bytes, .. } => out.extend_from_slice(bytes),
        }
    }

    /// Takes everything that is left, unchecked: the list ends early where it makes no sense.
    pub(crate) fn take_rest(reader: &mut Reader<'a>) -> Option<List<'a, T>> {
        let count = usize::try_from(reader.varint()?).ok()?;
        let bytes = reader.take(reader.rest().len())?;
        Some(List::Encoded { count, bytes })
    }

    pub(crate) fn take(reader: &mut Reader<'a>) -> Option<List<'a, T>> {
        let count = usize::try_from(reader.varint()?).ok()?;
        let rest = reader.rest();
        for _ in 0..count {
            T::take(reader)?;
        }
        let bytes = &rest[..rest.len() - reader.rest().len()];
        Some(List::Encoded { count, bytes })
    }
}

/// A list that is encoded as it grows, into memory that is used again.
#[derive(Default)]
pub struct Encoder {
    count: usize,
    bytes: Vec<u8>,
}

impl Encoder {
    /// Adds an item.
    pub fn push<'a, T: Item<'a>>(&mut self, item: &T) {
        self.count += 1;
        item.put(&mut self.bytes);
    }

    /// What was added, which has to be all of one type.
    pub fn list<T>(&self) -> List<'_, T> {
        List::Encoded {
            count: self.count,
            bytes: &self.bytes,
        }
    }

    /// Begins anew; answers how many bytes of memory it has.
    pub fn clear(&mut self) -> usize {
        self.count = 0;
        self.bytes.clear();
        self.bytes.capacity()
    }
}

/// The iterator of [`List::iter`].
pub enum Items<'a, T> {
    #[doc(hidden)]
    Given(std::slice::Iter<'a, T>),
    #[doc(hidden)]
    Encoded { left: usize, reader: Reader<'a> },
}

impl<'a, T: Item<'a>> Iterator for Items<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self {
            Items::Given(items) => items.next().copied(),
            Items::Encoded { left, reader } => {
                *left = left.checked_sub(1)?;
                T::take(reader)
            }
        }
    }
}

impl<'a, T: Item<'a> + PartialEq> PartialEq for List<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<'a, T: Item<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
