//! Which addresses the broker may be made to connect to: the guard against server-side request
//! forgery.
//!
//! Whoever registers a webhook chooses where the broker connects to. [`classify`] says what an
//! address is for, [`allowed`] whether it may be reached, [`HostLiteral`] what a host in a URL means
//! to the many libraries that read more than four decimal numbers as an address. The resolved
//! address is what has to be judged, at each connection; resolving and connecting are the edge's.

mod class;
mod embedded;
mod literal;
mod network;

pub use class::{Class, classify};
pub use literal::HostLiteral;
pub use network::{Network, NetworkError, allowed};
