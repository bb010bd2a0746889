//! To whom an endpoint belongs, and who may do something with it.

use crate::access::{Access, Principal};

/// What a principal must be allowed to subscribe to who may see and change all endpoints.
pub(super) const ADMINISTRATION: &str = "$SYS/webhooks/#";

/// To whom an endpoint belongs: whose rights decide what it receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Who runs the broker: an endpoint of the configuration without `user`. It receives everything.
    Operator,
    /// Somebody who gave no name.
    Anonymous,
    User(Box<str>),
}

impl Owner {
    pub(super) fn of(user: Option<&str>, declared: bool) -> Owner {
        match user {
            Some(user) => Owner::User(user.into()),
            None if declared => Owner::Operator,
            None => Owner::Anonymous,
        }
    }

    /// Their rights of now; none if they are not let in any more. `id` is what stands for `%c`.
    pub(super) fn principal(&self, access: &Access, id: &str) -> Option<Principal> {
        match self {
            Owner::Operator => Some(Principal::operator()),
            Owner::Anonymous => access.absent(id, None).ok(),
            Owner::User(user) => access.absent(id, Some(user)).ok(),
        }
    }

    /// Whether it is this one's.
    pub(super) fn is(&self, principal: &Principal) -> bool {
        matches!((self, principal.user()), (Owner::User(owner), Some(user)) if **owner == *user)
    }
}

/// Whether a principal may see and change all endpoints.
pub(super) fn administers(principal: &Principal) -> bool {
    principal.may_subscribe(ADMINISTRATION)
}
