//! Where each message of a segment is, in two or three bytes each.
//!
//! Messages lie behind one another, mostly without anything between them: what is kept of one is its
//! length, and how far it is from the one before where it does not follow at once. Every so often
//! there is a mark from which the counting can begin.

use super::pending::Place;
use crate::store::Offset;
use crate::store::record::put_varint;

/// Messages from one mark to the next.
const EVERY: usize = 64;

/// The places of a segment's messages, in order of offset.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    marks: Vec<Mark>,
    bytes: Vec<u8>,
    len: usize,
    last: Message,
}

/// A message that the counting can begin with.
#[derive(Clone, Copy, Debug)]
struct Mark {
    message: Message,
    /// Where in `bytes` the next one is.
    next: u32,
}

/// A message: its offset, less the segment's base, and its place.
#[derive(Clone, Copy, Debug, Default)]
struct Message {
    offset: u32,
    at: u32,
    len: u32,
}

impl Message {
    fn place(&self) -> Place {
        Place {
            at: self.at,
            len: self.len,
        }
    }
}

impl Index {
    pub(crate) fn push(&mut self, base: Offset, offset: Offset, place: Place) {
        let relative = offset.0.checked_sub(base.0).map(u32::try_from);
        let Some(Ok(offset)) = relative else { return };
        // Damage can make an offset appear twice; the first stands.
        if self.len > 0 && offset <= self.last.offset {
            return;
        }
        let message = Message {
            offset,
            at: place.at,
            len: place.len,
        };
        if self.len.is_multiple_of(EVERY) {
            self.marks.push(Mark {
                message,
                next: self.bytes.len() as u32,
            });
        } else {
            let ahead = offset - self.last.offset - 1;
            let gap = place
                .at
                .wrapping_sub(self.last.at.wrapping_add(self.last.len));
            let follows = ahead == 0 && gap == 0;
            put_varint(
                &mut self.bytes,
                u64::from(place.len) << 1 | u64::from(!follows),
            );
            if !follows {
                put_varint(&mut self.bytes, u64::from(ahead));
                put_varint(&mut self.bytes, u64::from(gap));
            }
        }
        self.last = message;
        self.len += 1;
    }

    /// Nothing is added for now.
    pub(crate) fn end(&mut self) {
        self.marks.shrink_to_fit();
        self.bytes.shrink_to_fit();
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends the places of `offsets` to `out`; quickest for such as are in order.
    pub(crate) fn find(&self, base: Offset, offsets: &[Offset], out: &mut Vec<Option<Place>>) {
        let mut from: Option<Cursor<'_>> = None;
        out.extend(offsets.iter().map(|offset| {
            let wanted = u32::try_from(offset.0.checked_sub(base.0)?).ok()?;
            let near = from.take().filter(|it| {
                it.message.offset <= wanted && wanted - it.message.offset < EVERY as u32
            });
            let mut cursor = near.or_else(|| self.before(wanted))?;
            while cursor.message.offset < wanted && cursor.advance() {}
            let found = cursor.message;
            from = Some(cursor);
            (found.offset == wanted).then(|| found.place())
        }));
    }

    /// The last mark that is not behind this offset.
    fn before(&self, offset: u32) -> Option<Cursor<'_>> {
        let behind = self
            .marks
            .partition_point(|mark| mark.message.offset <= offset);
        self.cursor(behind.checked_sub(1)?)
    }

    fn cursor(&self, mark: usize) -> Option<Cursor<'_>> {
        let Mark { message, next } = *self.marks.get(mark)?;
        Some(Cursor {
            index: self,
            mark,
            next: next as usize,
            left: EVERY.min(self.len - mark * EVERY) - 1,
            message,
        })
    }

    pub(crate) fn iter(&self, base: Offset) -> impl Iterator<Item = (Offset, Place)> {
        let mut next = self.cursor(0);
        std::iter::from_fn(move || {
            let cursor = next.as_mut()?;
            let message = cursor.message;
            if !cursor.advance() {
                next = None;
            }
            Some((base.plus(u64::from(message.offset)), message.place()))
        })
    }
}

/// Goes from message to message.
struct Cursor<'a> {
    index: &'a Index,
    mark: usize,
    /// Where in its bytes the next one is.
    next: usize,
    /// Messages behind this one, before the next mark.
    left: usize,
    message: Message,
}

impl Cursor<'_> {
    /// Goes to the next message, if there is one.
    fn advance(&mut self) -> bool {
        if self.left == 0 {
            return match self.index.cursor(self.mark + 1) {
                Some(Cursor {
                    mark,
                    next,
                    left,
                    message,
                    ..
                }) => {
                    (self.mark, self.next, self.left, self.message) = (mark, next, left, message);
                    true
                }
                None => false,
            };
        }
        self.left -= 1;
        let before = self.message;
        let first = self.varint();
        let (mut ahead, mut gap) = (0, 0);
        if first & 1 != 0 {
            ahead = self.varint() as u32;
            gap = self.varint() as u32;
        }
        self.message = Message {
            offset: before.offset + ahead + 1,
            at: before.at.wrapping_add(before.len).wrapping_add(gap),
            len: (first >> 1) as u32,
        };
        true
    }

    fn varint(&mut self) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let Some(byte) = self.index.bytes.get(self.next) else {
                break;
            };
            self.next += 1;
            value |= u64::from(byte & 0x7F) << shift;
            if *byte < 0x80 {
                break;
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_map(
            base in 0_u64..1_000,
            messages in prop::collection::vec(
                (prop_oneof![4 => Just(1_u64), 1 => 0_u64..200], prop_oneof![3 => Just(0_u32), 1 => 0_u32..100_000], 1_u32..40_000),
                0..600,
            ),
            wanted in prop::collection::vec(0_u64..3_000, 0..100),
        ) {
            let mut index = Index::default();
            let mut map = BTreeMap::new();
            let (mut offset, mut end) = (base, 20);
            for (ahead, gap, len) in messages {
                offset += ahead;
                let place = Place { at: end + gap, len };
                end = place.at + len;
                index.push(Offset(base), Offset(offset), place);
                map.entry(Offset(offset)).or_insert(place);
            }
            // Of one that came twice the first stands, and the next one is counted from there.
            index.end();
            prop_assert_eq!(index.len(), map.len());
            prop_assert!(index.iter(Offset(base)).eq(map.iter().map(|(&at, &place)| (at, place))));
            let mut all: Vec<Offset> = wanted.into_iter().map(Offset).collect();
            all.extend(map.keys());
            let mut found = Vec::new();
            index.find(Offset(base), &all, &mut found);
            prop_assert!(found.iter().copied().eq(all.iter().map(|at| map.get(at).copied())));
        }
    }

    #[test]
    fn messages_that_follow_each_other_take_little() {
        let mut index = Index::default();
        for number in 0..100_000_u32 {
            let place = Place {
                at: number * 150,
                len: 150,
            };
            index.push(Offset(0), Offset(number.into()), place);
        }
        index.end();
        let marks = index.marks.capacity() * std::mem::size_of::<Mark>();
        assert!(index.bytes.capacity() + marks < 230_000);
    }
}
