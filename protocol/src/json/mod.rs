//! JSON as the broker writes it: strings, and the **envelope** in which a message travels.
//!
//! What is written here is one line: no byte below 0x20 ever appears, so that an envelope fits
//! into one `data` line of an event stream. Reading JSON is not done here.

mod envelope;
mod string;

pub use envelope::Envelope;
pub(crate) use envelope::write_user_properties;
pub use string::{write_base64, write_string};
pub(crate) use string::{write_integer, write_member};
