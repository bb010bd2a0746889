//! From a name to addresses.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

use tokio::sync::Semaphore;

/// Lookups of the operating system at a time. Each takes a thread of those that also read messages
/// from the disk: name servers that do not answer must leave some.
const LOOKUPS_MAX: usize = 128;

/// What a lookup answers, later.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Looks names up. A trait, so that a test can change the answer between two lookups.
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of a name, in the order in which they should be tried. What they may be used
    /// for is judged by the caller.
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a>;
}

/// The resolver of the operating system.
pub struct SystemResolver(Semaphore);

impl Default for SystemResolver {
    fn default() -> SystemResolver {
        SystemResolver(Semaphore::new(LOOKUPS_MAX))
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let _place = self.0.acquire().await.map_err(io::Error::other)?;
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}
