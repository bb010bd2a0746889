//! A disk that loses power and fails: between the real binary and the real file system stands
//! `shim.c`, which records every change and every flush, and makes some of them fail.
//!
//! [`Recorder`] reads the record, and builds a directory as it may look after a power cut.

mod recorder;
mod shim;

pub use recorder::Recorder;
pub use shim::Shim;
