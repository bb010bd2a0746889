//! A place in the log, as clients see it.

use std::fmt;
use std::str::FromStr;

use super::EventId;

/// A place in the log: `<epoch>.<offset>`, both decimal.
///
/// The offset orders messages within one epoch. The epoch changes when an offset could mean another
/// message than before, so a cursor of another epoch is never compared by its offset.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cursor {
    /// Which log this is a place in.
    pub epoch: u64,
    /// The place within that log.
    pub offset: u64,
}

impl Cursor {
    /// The text of this cursor, without allocating.
    pub fn to_text(self) -> CursorText {
        let mut text = CursorText {
            bytes: [0; CursorText::CAPACITY],
            start: CursorText::CAPACITY as u8,
        };
        text.push_front(self.offset);
        text.start -= 1;
        text.bytes[usize::from(text.start)] = b'.';
        text.push_front(self.epoch);
        text
    }
}

/// The text of a [`Cursor`], on the stack.
#[derive(Clone, Copy)]
pub struct CursorText {
    bytes: [u8; CursorText::CAPACITY],
    start: u8,
}

impl CursorText {
    /// Two numbers of at most twenty digits and a dot.
    const CAPACITY: usize = 41;

    /// The text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[usize::from(self.start)..]).unwrap_or_default()
    }

    /// The text as the id of an event; it always is a valid one.
    pub fn as_id(&self) -> EventId<'_> {
        EventId::trusted(self.as_str())
    }

    fn push_front(&mut self, mut value: u64) {
        loop {
            self.start -= 1;
            self.bytes[usize::from(self.start)] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                return;
            }
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.to_text().as_str())
    }
}

/// Why a text is not a cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CursorError {
    /// Without a dot between epoch and offset, or with more than one.
    Form,
    /// The epoch is not a number of decimal digits alone.
    Epoch,
    /// The offset is not a number of decimal digits alone.
    Offset,
    /// A number with a zero in front: another text for the same place.
    LeadingZero,
    /// A number beyond 64 bits.
    TooLarge,
}

impl CursorError {
    /// A sentence that says how to mend it.
    pub const fn as_str(self) -> &'static str {
        match self {
            CursorError::Form => {
                "a cursor has the form <epoch>.<offset>, for instance 7.1042: use an id as it was \
                 received"
            }
            CursorError::Epoch => {
                "the epoch, before the dot of a cursor, must be decimal digits: use an id as it was \
                 received"
            }
            CursorError::Offset => {
                "the offset, after the dot of a cursor, must be decimal digits: use an id as it was \
                 received"
            }
            CursorError::LeadingZero => {
                "the numbers of a cursor have no zero in front: use an id as it was received"
            }
            CursorError::TooLarge => {
                "a number in the cursor is too large: use an id as it was received"
            }
        }
    }
}

impl fmt::Display for CursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for CursorError {}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Cursor, CursorError> {
        let (epoch, offset) = text.split_once('.').ok_or(CursorError::Form)?;
        if offset.contains('.') {
            return Err(CursorError::Form);
        }
        Ok(Cursor {
            epoch: number(epoch, CursorError::Epoch)?,
            offset: number(offset, CursorError::Offset)?,
        })
    }
}

fn number(digits: &str, not_digits: CursorError) -> Result<u64, CursorError> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(not_digits);
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return Err(CursorError::LeadingZero);
    }
    digits.parse().map_err(|_| CursorError::TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_cursor_gets_its_reason() {
        for (text, error) in [
            ("", CursorError::Form),
            ("12", CursorError::Form),
            ("1.2.3", CursorError::Form),
            (".5", CursorError::Epoch),
            ("-1.5", CursorError::Epoch),
            ("+1.5", CursorError::Epoch),
            (" 1.5", CursorError::Epoch),
            ("a.5", CursorError::Epoch),
            ("1.", CursorError::Offset),
            ("1.5 ", CursorError::Offset),
            ("1.0x5", CursorError::Offset),
            ("1.٥", CursorError::Offset),
            ("01.5", CursorError::LeadingZero),
            ("1.00", CursorError::LeadingZero),
            ("1.18446744073709551616", CursorError::TooLarge),
            ("99999999999999999999999999.1", CursorError::TooLarge),
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(error), "{text}");
        }
    }

    #[test]
    fn the_largest_is_an_id() {
        let largest = Cursor {
            epoch: u64::MAX,
            offset: u64::MAX,
        };
        let text = largest.to_text();
        assert_eq!(text.as_str(), "18446744073709551615.18446744073709551615");
        assert_eq!(EventId::new(text.as_str()), Ok(text.as_id()));
        assert_eq!(text.as_str().parse(), Ok(largest));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(epoch: u64, offset: u64) {
            let cursor = Cursor { epoch, offset };
            let text = cursor.to_string();
            prop_assert_eq!(&text, &format!("{epoch}.{offset}"));
            prop_assert_eq!(text.parse(), Ok(cursor));
        }

        #[test]
        fn what_is_read_is_written_back(text in any::<String>(), near in "[0-9]{0,21}[.]?[0-9]{0,21}") {
            for text in [text, near] {
                if let Ok(cursor) = text.parse::<Cursor>() {
                    prop_assert_eq!(cursor.to_string(), text);
                }
            }
        }
    }
}
