//! A queue of many small things in chunks: growing it copies nothing, and what was popped gives its
//! memory back.
//!
//! A `VecDeque` doubles, and copies all it has when it does: a queue of a million entries has then
//! touched three times the memory that they take. This one begins like a `Vec`, and from
//! [`CHUNK`] elements on takes chunks of that many.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut, Range};

/// Elements of a chunk.
pub(crate) const CHUNK: usize = 256;

/// The queue. What is popped leaves `T::default()` in its place until its chunk goes.
#[derive(Debug)]
pub(crate) struct Chunks<T> {
    /// All full but the last one; never an empty one.
    chunks: VecDeque<Vec<T>>,
    /// Elements of the first chunk that were popped.
    start: usize,
    len: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Chunks<T> {
        Chunks {
            chunks: VecDeque::new(),
            start: 0,
            len: 0,
        }
    }
}

impl<T: Default> Chunks<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.get(0)
    }

    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        let at = self.start + index;
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)
    }

    pub(crate) fn push_back(&mut self, element: T) {
        self.len += 1;
        match self.chunks.back_mut() {
            Some(last) if last.len() < CHUNK => last.push(element),
            Some(_) => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(element);
                self.chunks.push_back(chunk);
            }
            None => self.chunks.push_back(vec![element]),
        }
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let element = std::mem::take(self.chunks.front_mut()?.get_mut(self.start)?);
        self.start += 1;
        self.len -= 1;
        if self.len == 0 {
            self.forget();
        } else if self.start == CHUNK {
            self.start = 0;
            self.chunks.pop_front();
        }
        Some(element)
    }

    pub(crate) fn pop_back(&mut self) -> Option<T> {
        let last = self.chunks.back_mut()?;
        let element = last.pop()?;
        self.len -= 1;
        if self.len == 0 {
            self.forget();
        } else if last.is_empty() {
            self.chunks.pop_back();
        }
        Some(element)
    }

    /// Removes the first `count` elements.
    pub(crate) fn drop_front(&mut self, count: usize) {
        for _ in 0..count {
            self.pop_front();
        }
    }

    /// Nothing is left: one small chunk stays for what comes next.
    fn forget(&mut self) {
        self.start = 0;
        self.chunks.truncate(1);
        if let Some(first) = self.chunks.front_mut() {
            first.clear();
        }
        if self.chunks.capacity() > 64 {
            self.chunks.shrink_to(1);
        }
    }

    /// Puts an element at this index; the later ones move. Meant for places near the end.
    pub(crate) fn insert(&mut self, index: usize, element: T) {
        debug_assert!(index <= self.len);
        self.push_back(element);
        let mut at = self.len - 1;
        while at > index {
            let moved = std::mem::take(&mut self[at - 1]);
            let element = std::mem::replace(&mut self[at], moved);
            self[at - 1] = element;
            at -= 1;
        }
    }

    /// The index of the first element that `before` says false to; true for all in front of it.
    pub(crate) fn partition_point(&self, mut before: impl FnMut(&T) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            match before(&self[middle]) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.range(0..self.len)
    }

    /// The elements of a range of indices; those that there are.
    pub(crate) fn range(&self, range: Range<usize>) -> impl Iterator<Item = &T> {
        let end = self.start + range.end.min(self.len);
        let mut at = self.start + range.start;
        let mut chunk: &[T] = &[];
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            if chunk.is_empty() || at.is_multiple_of(CHUNK) {
                chunk = self.chunks.get(at / CHUNK)?;
            }
            let element = chunk.get(at % CHUNK);
            at += 1;
            element
        })
    }

    /// Has `each` change the elements of a range of indices, in order.
    pub(crate) fn change(&mut self, range: Range<usize>, mut each: impl FnMut(&mut T)) {
        let end = self.start + range.end.min(self.len);
        let mut at = self.start + range.start;
        while at < end {
            let chunk = &mut self.chunks[at / CHUNK];
            let until = CHUNK.min(at % CHUNK + (end - at));
            chunk[at % CHUNK..until].iter_mut().for_each(&mut each);
            at += until - at % CHUNK;
        }
    }
}

impl<T> IntoIterator for Chunks<T> {
    type Item = T;
    type IntoIter =
        std::iter::Skip<std::iter::Flatten<std::collections::vec_deque::IntoIter<Vec<T>>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.chunks.into_iter().flatten().skip(self.start)
    }
}

impl<T> Index<usize> for Chunks<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        let at = self.start + index;
        &self.chunks[at / CHUNK][at % CHUNK]
    }
}

impl<T> IndexMut<usize> for Chunks<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        let at = self.start + index;
        &mut self.chunks[at / CHUNK][at % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        PopFront(usize),
        PopBack(usize),
        /// At a share of the length.
        Insert(f64),
        Change(f64, f64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1_usize..700).prop_map(Step::Push),
            2 => (1_usize..700).prop_map(Step::PopFront),
            1 => (1_usize..400).prop_map(Step::PopBack),
            1 => (0.0..=1.0).prop_map(Step::Insert),
            1 => ((0.0..=1.0), (0.0..=1.0)).prop_map(|(a, b)| Step::Change(a, b)),
        ]
    }

    fn share(of: usize, share: f64) -> usize {
        (of as f64 * share) as usize
    }

    proptest! {
        #[test]
        fn agrees_with_a_vec_deque(steps in prop::collection::vec(step(), 1..40)) {
            let mut chunks = Chunks::default();
            let mut plain = VecDeque::new();
            let mut next = 0_u32;
            for step in steps {
                match step {
                    Step::Push(count) => for _ in 0..count {
                        next += 1;
                        chunks.push_back(next);
                        plain.push_back(next);
                    },
                    Step::PopFront(count) => for _ in 0..count {
                        prop_assert_eq!(chunks.pop_front(), plain.pop_front());
                    },
                    Step::PopBack(count) => for _ in 0..count {
                        prop_assert_eq!(chunks.pop_back(), plain.pop_back());
                    },
                    Step::Insert(at) => {
                        let at = share(plain.len(), at);
                        chunks.insert(at, 7);
                        plain.insert(at, 7);
                    }
                    Step::Change(a, b) => {
                        let (a, b) = (share(plain.len(), a.min(b)), share(plain.len(), a.max(b)));
                        chunks.change(a..b, |it| *it += 1);
                        plain.range_mut(a..b).for_each(|it| *it += 1);
                        prop_assert!(chunks.range(a..b).eq(plain.range(a..b)));
                    }
                }
                prop_assert_eq!(chunks.len(), plain.len());
                prop_assert_eq!(chunks.front(), plain.front());
                prop_assert!(chunks.iter().eq(&plain));
                prop_assert!((0..plain.len()).all(|at| chunks[at] == plain[at]));
                prop_assert_eq!(chunks.get(plain.len()), None);
                prop_assert!(chunks.chunks.len() <= plain.len() / CHUNK + 2);
            }
            let sorted: Vec<u32> = (0..3_000).collect();
            let mut chunks = Chunks::default();
            sorted.iter().for_each(|&it| chunks.push_back(it));
            chunks.drop_front(300);
            for wanted in [0, 299, 300, 301, 2_999, 5_000] {
                let expected = sorted[300..].partition_point(|&it| it < wanted);
                prop_assert_eq!(chunks.partition_point(|&it| it < wanted), expected);
            }
            prop_assert!(chunks.into_iter().eq(300..3_000));
        }
    }
}
