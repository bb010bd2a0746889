//! Tests of the core as an edge sees it, but without sockets: sessions are opened, what is
//! collected is decoded, and acknowledgements are handed in.

mod away;
mod crashes;
mod encodings;
mod group_histories;
mod histories;
pub(crate) mod kit;
mod limits;
mod replay;
mod restart;
mod settled;
mod shared;
