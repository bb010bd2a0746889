//! Server-Sent Events (WHATWG HTML §9.2): how an event stream is written, and where one resumes.
//!
//! [`Event`] and the functions beside it append to a `Vec<u8>`; every one of them ends with the
//! empty line that ends a block, so they may follow each other in any order. [`Cursor`] is the
//! place in the log that an `id` field shows, [`Since`] the place at which a client asks to begin.
//! Responses, heartbeats and the choice of what to send are the edge's. There is no parser here: a
//! browser has one, and the tests have their own.

mod cursor;
mod event;
mod since;

pub use cursor::{Cursor, CursorError, CursorText};
pub use event::{
    CONTENT_TYPE, EVENT_NAME_MAX, Event, EventId, EventName, FieldError, ID_MAX, write_comment,
    write_event_with, write_id_only, write_retry,
};
pub use since::{Since, SinceError};
