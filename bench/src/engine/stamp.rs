//! What each payload begins with: who sent it when as which message of which run, in bytes or, for
//! what can only carry text, in letters.

use memchr::memchr;

/// Bytes of a stamp.
pub const BINARY_LEN: usize = 24;
pub const TEXT_LEN: usize = 49;

/// What a stamp of letters begins with; nothing else around a payload has it.
const SIGN: u8 = b'~';

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub sequence: u64,
    /// When the message was sent, or was due.
    pub at_ns: u64,
    pub publisher: u32,
    /// Of the run.
    pub mark: u32,
}

impl Stamp {
    pub fn write_binary(&self, payload: &mut [u8]) {
        payload[..8].copy_from_slice(&self.sequence.to_be_bytes());
        payload[8..16].copy_from_slice(&self.at_ns.to_be_bytes());
        payload[16..20].copy_from_slice(&self.publisher.to_be_bytes());
        payload[20..24].copy_from_slice(&self.mark.to_be_bytes());
    }

    pub fn write_text(&self, payload: &mut [u8]) {
        let mut bytes = [0; BINARY_LEN];
        self.write_binary(&mut bytes);
        payload[0] = SIGN;
        for (letters, byte) in payload[1..TEXT_LEN].chunks_exact_mut(2).zip(bytes) {
            letters.copy_from_slice(&[b'a' + (byte >> 4), b'a' + (byte & 0x0F)]);
        }
    }

    /// That of a payload of the run `mark`.
    #[inline]
    pub fn read_binary(payload: &[u8], mark: u32) -> Option<Stamp> {
        let head = payload.first_chunk::<BINARY_LEN>()?;
        let (sequence, rest) = head.split_first_chunk::<8>()?;
        let (at, rest) = rest.split_first_chunk::<8>()?;
        let (publisher, theirs) = rest.split_first_chunk::<4>()?;
        if *theirs != mark.to_be_bytes() {
            return None;
        }
        Some(Stamp {
            sequence: u64::from_be_bytes(*sequence),
            at_ns: u64::from_be_bytes(*at),
            publisher: u32::from_be_bytes(*publisher),
            mark,
        })
    }

    /// The first one of the run `mark` in `text`, and where it ends.
    #[inline]
    pub fn find_text(text: &[u8], mark: u32) -> Option<(Stamp, usize)> {
        let mut from = 0;
        loop {
            let at = from + memchr(SIGN, &text[from..])?;
            let letters = text.get(at + 1..at + TEXT_LEN)?;
            let group = |index: usize| number(letters[index * 8..].first_chunk()?);
            let stamp = || {
                Some(Stamp {
                    sequence: u64::from(group(0)?) << 32 | u64::from(group(1)?),
                    at_ns: u64::from(group(2)?) << 32 | u64::from(group(3)?),
                    publisher: group(4)?,
                    mark: group(5)?,
                })
            };
            if let Some(stamp) = stamp().filter(|stamp| stamp.mark == mark) {
                return Some((stamp, at + TEXT_LEN));
            }
            from = at + 1;
        }
    }
}

/// Eight letters from a to p, all at once.
#[inline]
fn number(letters: &[u8; 8]) -> Option<u32> {
    let digits = u64::from_be_bytes(*letters).wrapping_sub(0x6161_6161_6161_6161);
    if digits & 0xF0F0_F0F0_F0F0_F0F0 != 0 {
        return None;
    }
    let pairs = (digits | digits >> 4) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs | pairs >> 8) & 0x0000_FFFF_0000_FFFF;
    Some((fours | fours >> 16) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        sequence: 0x0123_4567_89AB_CDEF,
        at_ns: u64::MAX - 5,
        publisher: 7,
        mark: 0xF00D_FACE,
    };

    #[test]
    fn both_forms_can_be_read_back() {
        let mut payload = [b'x'; 64];
        STAMP.write_binary(&mut payload);
        assert_eq!(Stamp::read_binary(&payload, STAMP.mark), Some(STAMP));
        let mut payload = [b'x'; 64];
        STAMP.write_text(&mut payload);
        assert_eq!(
            Stamp::find_text(&payload, STAMP.mark),
            Some((STAMP, TEXT_LEN))
        );
        assert!(payload.is_ascii());
        assert_eq!(Stamp::find_text(&payload, 1), None, "another run's");
    }

    #[test]
    fn a_stamp_is_found_behind_what_only_looks_like_one() {
        let mut payload = [b'x'; TEXT_LEN];
        STAMP.write_text(&mut payload);
        let mut text =
            b"id: 7.12\ndata: ~~not one: ABCDEFGHIJKLMNOPQRSTUVWXYZ and much more".to_vec();
        let at = text.len();
        text.extend_from_slice(&payload);
        assert_eq!(
            Stamp::find_text(&text, STAMP.mark),
            Some((STAMP, at + TEXT_LEN))
        );
        assert_eq!(Stamp::find_text(&text[..text.len() - 1], STAMP.mark), None);
    }
}
