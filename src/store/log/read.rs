//! Fetching messages by their offsets, neighbours with one system call.

use std::sync::Arc;

use bytes::Bytes;

use super::Log;
use super::catalog::Segment;
use super::format::{RECORD_HEADER_LEN, RecordHeader, is_intact};
use super::pending::Place;
use crate::store::files::read_full_at;
use crate::store::record::decode;
use crate::store::{Offset, Record, StoreError, StoredMessage};

/// Records that are at most this far apart are read together: copying more than that costs more
/// than another system call. The messages of one among a hundred sessions are further apart.
const GAP_MAX: u64 = 2 * 1024;
/// And at most so much at once, so that one small message that is kept pins little.
const READ_MAX: u64 = 256 * 1024;

type Answer = Result<StoredMessage, StoreError>;

impl Log {
    pub(crate) fn read(&self, offsets: &[Offset]) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(offsets.len());
        let mut rest = offsets;
        while let Some(&first) = rest.first() {
            // A group leaves the buffer only after the catalog knows it: whatever is not in the
            // buffer now, and is anywhere, is found in the catalog.
            let in_buffer = self.pending.first_offset();
            if first >= in_buffer {
                match self.pending.message(first) {
                    Some(record) => answers.push(message_of(first, &record)),
                    None => self.read_segments(&rest[..1], &mut answers),
                }
                rest = &rest[1..];
                continue;
            }
            let run = rest
                .iter()
                .take_while(|&&offset| offset < in_buffer)
                .count();
            self.read_segments(&rest[..run], &mut answers);
            rest = &rest[run..];
        }
        answers
    }

    fn read_segments(&self, offsets: &[Offset], answers: &mut Vec<Answer>) {
        let mut done = 0;
        for (segment, places) in self.catalog.find(offsets) {
            match (segment, places) {
                (Some(segment), Ok(places)) => {
                    let offsets = &offsets[done..done + places.len()];
                    read_places(&segment, offsets, &places, answers);
                    done += places.len();
                }
                (None, Ok(places)) => {
                    let gone = &offsets[done..done + places.len()];
                    answers.extend(gone.iter().map(|&offset| Err(StoreError::Gone(offset))));
                    done += places.len();
                }
                (segment, Err(error)) => {
                    // The rest is asked for again by those who still want it.
                    let path = segment.map(|segment| segment.path.clone());
                    let kind = error.kind();
                    let failed = offsets[done..].iter().map(|_| {
                        Err(StoreError::Io {
                            doing: "read",
                            path: path.clone().unwrap_or_default(),
                            error: kind.into(),
                        })
                    });
                    answers.extend(failed);
                    return;
                }
            }
        }
    }
}

fn read_places(
    segment: &Arc<Segment>,
    offsets: &[Offset],
    places: &[Option<Place>],
    answers: &mut Vec<Answer>,
) {
    let mut i = 0;
    while i < places.len() {
        let Some(first) = places[i] else {
            answers.push(Err(StoreError::Gone(offsets[i])));
            i += 1;
            continue;
        };
        let start = u64::from(first.at);
        let mut end = start + u64::from(first.len);
        let mut next = i + 1;
        while let Some(Some(place)) = places.get(next) {
            let at = u64::from(place.at);
            let reach = at + u64::from(place.len);
            if at < end || at - end > GAP_MAX || reach - start > READ_MAX {
                break;
            }
            end = reach;
            next += 1;
        }
        let mut buffer = vec![0; (end - start) as usize];
        match read_full_at(&*segment.file, &mut buffer, start) {
            Ok(read) => {
                buffer.truncate(read);
                let buffer = Bytes::from(buffer);
                for (&offset, place) in offsets[i..next].iter().zip(&places[i..next]) {
                    let place = place.expect("only places that are there were gathered");
                    let from = (u64::from(place.at) - start) as usize;
                    let to = from + place.len as usize;
                    answers.push(if to <= buffer.len() {
                        message_of(offset, &buffer.slice(from..to))
                    } else {
                        Err(StoreError::Damaged(offset))
                    });
                }
            }
            Err(error) => {
                let kind = error.kind();
                answers.extend(offsets[i..next].iter().map(|_| {
                    Err(StoreError::Io {
                        doing: "read",
                        path: segment.path.clone(),
                        error: kind.into(),
                    })
                }));
            }
        }
        i = next;
    }
}

/// `record` is header and body of the message `offset`.
fn message_of(offset: Offset, record: &Bytes) -> Answer {
    let damaged = || StoreError::Damaged(offset);
    let header = RecordHeader::decode(record).ok_or_else(damaged)?;
    if header.offset != offset || header.record_len() != record.len() || !is_intact(record) {
        return Err(damaged());
    }
    let body = record.slice(RECORD_HEADER_LEN..);
    match decode(header.kind, header.version, &body) {
        Some(Record::Message(message)) => Ok(StoredMessage::from_record(offset, &message, &body)),
        _ => Err(damaged()),
    }
}
