//! Who is asking, and with what rights.

use std::fmt;
use std::sync::Arc;

use super::rights::Rights;
use super::users::User;

/// A client that was let in. Only [`super::Access`] makes one, and everything that needs
/// permission takes one, so that a way around the rules does not compile. Cheap to clone.
#[derive(Clone)]
pub struct Principal(Arc<Inner>);

struct Inner {
    /// The user that logged in, with the credentials as they were then.
    user: Option<Arc<User>>,
    client_id: Box<str>,
    rights: Arc<Rights>,
    generation: u64,
}

impl Principal {
    pub(super) fn new(
        user: Option<Arc<User>>,
        client_id: &str,
        rights: Arc<Rights>,
        generation: u64,
    ) -> Self {
        Principal(Arc::new(Inner {
            user,
            client_id: client_id.into(),
            rights,
            generation,
        }))
    }

    /// Somebody who may do nothing, for what acts on nobody's behalf.
    pub(crate) fn nobody() -> Principal {
        Principal::new(None, "", Arc::new(Rights::default()), 0)
    }

    /// Who runs the broker, for what the configuration declares: may do everything.
    pub(crate) fn operator() -> Principal {
        Principal::new(None, "", Arc::new(Rights::everything()), 0)
    }

    /// The user name; `None` for an anonymous client.
    pub fn user(&self) -> Option<&str> {
        self.0.user.as_deref().map(User::name)
    }

    pub fn client_id(&self) -> &str {
        &self.0.client_id
    }

    /// Whether it may send a message, or leave a Will Message, to the Topic Name.
    pub fn may_publish(&self, topic: &str) -> bool {
        self.0.rights.may_publish(topic)
    }

    /// Whether it may subscribe to the Topic Filter (`$share/…` included): a single allowed
    /// filter covers the whole of it, nothing of it is denied, and something of it can be
    /// received.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        self.0.rights.may_subscribe(filter)
    }

    /// Whether a message with the Topic Name may be delivered to it.
    pub fn may_receive(&self, topic: &str) -> bool {
        self.0.rights.may_receive(topic)
    }

    /// Whether [`may_receive`](Self::may_receive) is true for every Topic Name.
    pub fn may_receive_all(&self) -> bool {
        self.0.rights.may_receive_all()
    }

    /// Whether [`may_receive`](Self::may_receive) is true for every Topic Name that the Topic
    /// Filter matches: then its deliveries need not be asked about one by one.
    pub fn may_receive_all_of(&self, filter: &str) -> bool {
        self.0.rights.may_receive_all_of(filter)
    }

    pub(super) fn credentials(&self) -> Option<&Arc<User>> {
        self.0.user.as_ref()
    }

    #[cfg(test)]
    pub(super) fn rights_address(&self) -> *const Rights {
        Arc::as_ptr(&self.0.rights)
    }

    pub(super) fn generation(&self) -> u64 {
        self.0.generation
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Principal");
        debug
            .field("user", &self.user())
            .field("client_id", &self.client_id())
            .finish()
    }
}
